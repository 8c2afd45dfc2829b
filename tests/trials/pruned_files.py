"""Files of pruned networks, for trials that start from one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import torch

from trials.models import MODELS
from trials.sparsity import prunable


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="pruned-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@lru_cache(maxsize=256)
def masked_file(model: str, num_classes: int, in_channels: int) -> str:
    """A state dict of a model with random masks that keep about half of its weights; the same in every process."""
    net = build_model(model, num_classes, in_channels)
    draw = torch.Generator().manual_seed(11)
    masks = {name: torch.rand(weight.shape, generator=draw) < 0.5 for name, weight in prunable(net).items()}
    path = _folder() / f"{len(list(_folder().iterdir()))}-{model}.pt"
    torch.save({"state_dict": net.state_dict(), "masks": masks}, path)
    return str(path)


def build_model(model: str, num_classes: int, in_channels: int) -> torch.nn.Module:
    """A registered model with random weights; the global random state is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return MODELS[model](num_classes=num_classes, in_channels=in_channels)
