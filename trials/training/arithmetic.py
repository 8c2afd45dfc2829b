"""How torch computes float32 and which algorithms it takes: process-wide switches, set for the time of a trial.

A worker runs trials of other settings one after the other, so every trial sets all of them and gives them back. torch
has two interfaces to TF32 and refuses to see them mixed. The one used here works in all versions from 2.6 on; the other
one came with 2.9, and ``torch.compile`` reads the first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from trials.config.trial_config import TrialConfig
from trials.errors import UserError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_REPEATABLE = (":4096:8", ":16:8")
"""The values of that environment variable with which cuBLAS gives the same bits every time."""

_NO_ALGORITHM = re.compile(r"([\w:.]+) does not have a deterministic implementation")


@contextmanager
def arithmetic(device: torch.device, *, tf32: bool = False, deterministic: bool = False) -> Iterator[None]:
    """Set torch's switches for what is computed inside, and give back the former ones at the end. May be nested.

    Args:
        device: where it is computed; for another device than CUDA, the switches of CUDA stay as they are.
        tf32: on CUDA, convolutions and matrix products may round float32 inputs to TF32, which has 10 bits of mantissa
            instead of 23. torch's own default allows it in convolutions only.
        deterministic: use deterministic algorithms only. Otherwise cuDNN tries its algorithms on each new shape and
            takes the fastest.

    Raises:
        UserError: an operation has no deterministic algorithm on this device, or the environment variable
            ``CUBLAS_WORKSPACE_CONFIG`` has a value with which cuBLAS has none.
    """
    try:
        with _on_cuda(tf32, deterministic) if device.type == "cuda" else nullcontext(), _algorithms(deterministic):
            yield
    except RuntimeError as error:
        if found := _NO_ALGORITHM.search(str(error)):
            raise UserError(
                f"deterministic is true, but {found[1]} has no deterministic algorithm on {device.type}: leave "
                "deterministic out, or give device: cpu"
            ) from error
        raise


@contextmanager
def arithmetic_of(config: TrialConfig, device: torch.device) -> Iterator[None]:
    """:func:`arithmetic` as a trial's config asks for it."""
    with arithmetic(device, tf32=config.tf32, deterministic=config.deterministic):
        yield


@contextmanager
def _on_cuda(tf32: bool, deterministic: bool) -> Iterator[None]:
    _set_workspace(deterministic)
    cudnn, products = torch.backends.cudnn, torch.get_float32_matmul_precision()
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = tf32, deterministic, not deterministic
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before
        torch.set_float32_matmul_precision(products)


@contextmanager
def _algorithms(deterministic: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch._C._get_deterministic_fill_uninitialized_memory()
    differs = before != (deterministic, False)  # the first change in a process imports torch's compiler
    try:
        if differs:
            torch.use_deterministic_algorithms(deterministic)
        torch._C._set_deterministic_fill_uninitialized_memory(False)  # it costs a kernel for each new tensor
        yield
    finally:
        torch._C._set_deterministic_fill_uninitialized_memory(fills)
        if differs:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _set_workspace(deterministic: bool) -> None:
    """Give cuBLAS a workspace with which it can be deterministic.

    Every trial on CUDA sets the variable, and none unsets it: torch reads it once, at the first matrix product of
    the process.
    """
    given = os.environ.setdefault(_WORKSPACE, _REPEATABLE[0])
    if deterministic and given not in _REPEATABLE:
        raise UserError(
            f"deterministic is true, but the environment variable {_WORKSPACE} is {given!r}: unset it, or set it to "
            f"{' or '.join(_REPEATABLE)}"
        )
