"""Resolve the device, precision and memory format of a config on this host; whether the device still answers."""

from __future__ import annotations

import gc
from contextlib import suppress

import torch

from trials.config.trial_config import TrialConfig
from trials.errors import UserError

OUT_OF_MEMORY_CODE = 2
"""cudaErrorMemoryAllocation, which torch.AcceleratorError carries as ``error_code``."""


def resolve_device(name: str) -> torch.device:
    """Return the device ``name``; ``auto`` is the current CUDA device if there is one, otherwise the CPU.

    Raises:
        UserError: there is no such device.
    """
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError, ImportError) as error:  # the last two: torch was built without it
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise UserError(f"device is {name!r}, but must be auto or a device of this machine ({reason})") from None
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def require_known(name: str) -> None:
    """Check that ``name`` is ``auto`` or names a device that some machine may have.

    Raises:
        UserError: no machine has such a device.
    """
    if name == "auto":
        return
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = "meta"
    if kind == "meta":
        raise UserError(f"device is {name!r}, but must be auto or a device that computes, such as cpu or cuda:0")


def cards() -> int:
    """Number of GPUs that torch can use here."""
    return torch.cuda.device_count()


def limit_gpu_memory(share: float) -> None:
    """Limit this process to a share of the GPU's memory and leave the rest to others. Not yet run on a GPU."""
    if 0 < share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def touch(device: torch.device) -> None:
    """Wait for all work on the device, then run a tiny operation there. Raises the error that the driver reports."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    torch.zeros(1, device=device).add_(1).item()


def is_dead(device: torch.device | None = None) -> bool:
    """Whether every call of this process on the device fails, as after a device-side assert or an illegal address.

    Asked of the device itself, not read from an error's text. Running out of memory does not kill a device. None: the
    card that this process has used, if any. Not yet run on a GPU.
    """
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")  # type: ignore[no-untyped-call]
    try:
        touch(device)
    except Exception as error:  # noqa: BLE001  whatever the driver reports: the device did not do as little as this
        return not lacks_memory(error)
    return False


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the host has no memory left, for a tensor or for what a process needs to
    use the device. For the host's, torch raises a plain RuntimeError."""
    named = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    named = named or getattr(error, "error_code", None) == OUT_OF_MEMORY_CODE
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def is_lost(name: str, share: float) -> bool:
    """Whether the device that a config names does not work here, though this process was given it.

    ``share``: of a card that this process was given; then ``auto`` means a card, and never the CPU. A device that no
    machine has is not lost but wrong: :func:`resolve_device` says so.
    """
    on_card = bool(share) and name.partition(":")[0] in ("auto", "cuda")
    if on_card and (torch.version.cuda or torch.version.hip) and not torch.cuda.is_available():
        return True
    try:
        device = resolve_device(name) if name == "auto" else torch.device(name)
    except RuntimeError:
        return False
    if device.type == "cuda" and (device.index or 0) >= cards():
        return False
    if device.type not in ("cpu", "cuda"):  # of such ones nobody knows which this process was given
        try:
            resolve_device(name)
        except UserError:
            return False
    return is_dead(device)


def release_memory(device: torch.device, *, failed: bool) -> None:
    """Free the memory of a trial that has ended, so that the next one of this process fits.

    Reference cycles keep a network until Python collects them. On a CPU that is waited for, unless the trial failed.
    """
    if failed or device.type == "cuda":
        gc.collect()
    if device.type == "cuda":
        with suppress(RuntimeError):  # a dead device
            torch.cuda.empty_cache()


AUTO_PRECISION = {"cuda": "bf16"}
"""What ``precision: auto`` is, by type of device; float32 where it is not said."""


def resolve_precision(config: TrialConfig, device: torch.device) -> str:
    """Return the config's precision; ``auto`` is bfloat16 autocast on CUDA and float32 elsewhere."""
    if config.precision != "auto":
        return config.precision
    return AUTO_PRECISION.get(device.type, "float32")


def resolve_memory_format(config: TrialConfig, device: torch.device) -> torch.memory_format:
    """Return the config's memory format; ``auto`` is channels last on CUDA, where convolutions prefer it."""
    if config.memory_format == "auto":
        return torch.channels_last if device.type == "cuda" else torch.contiguous_format
    return torch.channels_last if config.memory_format == "channels_last" else torch.contiguous_format
