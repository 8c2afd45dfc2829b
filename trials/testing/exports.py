"""Whether a trial's network can be read, exported and made smaller, and is then the same network."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from trials import compact
from trials.networks.export import export
from trials.networks.stored import network
from trials.seeding import generator
from trials.testing.requiring import demand

OUTPUT_TOLERANCE = 1e-4
"""By which outputs of a smaller network may differ, relative to the largest output."""


def require_exports(trial: Path, what: str) -> None:
    """Check the network of a finished trial.

    Args:
        what: whose network, for messages.
    """
    architecture, net = network(trial)
    images = torch.randn(8, *architecture.shape, generator=generator("images of exports"))
    images = images.to(next(net.model.parameters()).dtype)
    outputs = outputs_of(net.model, images)
    demand(bool(outputs.isfinite().all()), f"{what} must have finite outputs in evaluation mode")
    with tempfile.TemporaryDirectory() as folder:
        for form in ("dense", "prune", "compact"):
            export(trial, Path(folder) / form, form)
        smaller = outputs_of(compact.load(Path(folder) / "compact"), images)
        whole = architecture.build()
        whole.load_state_dict(torch.load(Path(folder) / "dense", weights_only=True))
        same = outputs_of(whole, images)
    demand(near(same, outputs), f"{what} must compute the same after --form dense, read into the whole model")
    demand(near(smaller, outputs), f"{what} must compute the same when it is made smaller (--form compact)")


def outputs_of(model: nn.Module, images: Tensor) -> Tensor:
    """Outputs [B, classes] in evaluation mode."""
    with torch.no_grad():
        found: Tensor = model.eval()(images)
    return found


def near(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs differ by rounding only."""
    scale = max(float(other.abs().max()), 1e-6)
    return one.shape == other.shape and float((one - other).abs().max()) <= OUTPUT_TOLERANCE * scale
