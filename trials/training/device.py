"""Resolve the device, precision and memory format of a config on this host."""

from __future__ import annotations

import torch

from trials.config.trial_config import TrialConfig
from trials.errors import UserError


def resolve_device(name: str) -> torch.device:
    """Return the device ``name``; ``auto`` is the current CUDA device if there is one, otherwise the CPU.

    Raises:
        UserError: there is no such device.
    """
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises an AssertionError
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
