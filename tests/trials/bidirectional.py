"""Read the reference vectors of bidirectional pruning and regrowth; their README describes them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conftest import VECTORS

FOLDER = VECTORS / "bidirectional"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())["files"]


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """A file's arrays as stored."""
    with np.load(FOLDER / name) as file:
        return {key: torch.from_numpy(np.array(file[key])) for key in file.files}


def under(file: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The arrays whose key begins with ``prefix``, without it."""
    found = {key.removeprefix(prefix): value for key, value in file.items() if key.startswith(prefix)}
    assert found, f"no key begins with {prefix}"
    return found


def numbered(file: dict[str, Tensor], prefix: str) -> list[Tensor]:
    found = []
    while (key := f"{prefix}{len(found)}") in file:
        found.append(file[key])
    assert found, f"no key is {prefix}0"
    return found


def records(name: str, prefix: str = "") -> list[dict[str, Any]]:
    """The manifest's records of a file, those whose key begins with ``prefix``."""
    about = MANIFEST[name]
    listed = about if isinstance(about, list) else about.get("records", about.get("cases"))
    found = [record for record in listed if record.get("key", "").startswith(prefix) and "key" in record]
    assert found, f"{name} has no record {prefix}"
    return found


class Cnn(nn.Module):
    """The README's ``cnn`` with the sizes of a state dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name in ("conv1", "conv2", "conv3"):
            out, inputs, kernel, _ = state[f"{name}.weight"].shape
            setattr(self, name, nn.Conv2d(inputs, out, kernel, padding=kernel // 2))
            setattr(self, name.replace("conv", "bn"), nn.BatchNorm2d(out))
        for name in ("fc1", "fc2"):
            out, inputs = state[f"{name}.weight"].shape
            setattr(self, name, nn.Linear(inputs, out))
        self.load_state_dict(state)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.avg_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.adaptive_avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]


def cnn(state: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Cnn:
    return Cnn(state).to(dtype).eval()
