"""Read the reference vectors of BiP and HYDRA; nets, shapes, densities and hyperparameters come from the files."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from tests.trials.described_nets import sequential
from tests.trials.recorded_set import Arrays, manifest

RTOL, ATOL = 1e-9, 1e-11

MANIFEST: dict[str, Any] = manifest("bip")


def load(name: str) -> Arrays:
    """A file's arrays in float64 (inputs that float32 holds exactly are stored as such)."""
    return Arrays("bip", name, torch.float64).required()


def close(ours: Tensor, reference: Tensor, what: str) -> None:
    torch.testing.assert_close(ours.detach(), reference, rtol=RTOL, atol=ATOL, msg=lambda text: f"{what}: {text}")


def build_model(batchnorm: bool, given: Collection[str] = ()) -> nn.Sequential:
    """The manifest's net in float64, its layers by their names; ``given`` are the recorded parameters."""
    return sequential(MANIFEST["net"]["layers"], given, batchnorm=batchnorm).double()
