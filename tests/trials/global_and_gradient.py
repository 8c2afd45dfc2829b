"""Read the reference vectors of global, layer and gradient pruning; all shapes and numbers come from the files."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conftest import VECTORS

FOLDER = VECTORS / "global_and_gradient"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
CONVS: list[str] = MANIFEST["conv_layers_in_order"]


def load(name: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """A file's arrays; floating ones in ``dtype``, if given."""
    with np.load(FOLDER / name) as file:
        arrays = {key: torch.from_numpy(np.array(file[key])) for key in file.files}
    return {key: a.to(dtype) if dtype is not None and a.is_floating_point() else a for key, a in arrays.items()}


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x)
        return y


def build_net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """The manifest's net with the recorded parameters."""
    net = nn.Sequential()
    for position, line in enumerate(MANIFEST["net"]):
        if match := re.match(r"(\w+): (Conv2d|Linear)\(([^)]*)\)", line):
            net.add_module(match[1], _layer(match[2], match[3].split(",")))
        elif match := re.match(r"adaptive_avg_pool2d ?\((\d+), ?(\d+)\), flatten", line):
            size = (int(match[1]), int(match[2]))
            net.add_module(f"pool{position}", Function(lambda x, size=size: F.adaptive_avg_pool2d(x, size).flatten(1)))
        else:
            net.add_module(f"activation{position}", Function({"ReLU": torch.relu, "tanh": torch.tanh}[line]))
    inputs = load("inputs.npz")
    net.load_state_dict({k.removeprefix("param/"): v for k, v in inputs.items() if k.startswith("param/")})
    assert [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)] == CONVS
    return net.to(dtype)


def _layer(kind: str, arguments: list[str]) -> nn.Module:
    """The layer of a description such as ``3,8,k5,pad2,stride2,no bias``."""
    sizes = [int(a) for a in arguments if a.strip().isdigit()]
    options = {m[1]: int(m[2]) for a in arguments if (m := re.fullmatch(r"\s*([a-z]+)(\d+)", a))}
    bias = "no bias" not in [a.strip() for a in arguments]
    if kind == "Linear":
        return nn.Linear(*sizes, bias=bias)
    names = {"k": "kernel_size", "pad": "padding", "stride": "stride", "groups": "groups", "dilation": "dilation"}
    return nn.Conv2d(*sizes, bias=bias, **{names[key]: value for key, value in options.items()})  # type: ignore[arg-type]


def of_convs(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """``arrays[prefix/conv]`` by weight name, in the manifest's order."""
    return {f"{name}.weight": arrays[f"{prefix}/{name}"] for name in CONVS}


def cases(arrays: dict[str, Tensor], pattern: str) -> list[int]:
    """The numbers i for which some key starts with ``pattern.format(i)``."""
    found = []
    while any(key.startswith(pattern.format(len(found))) for key in arrays):
        found.append(len(found))
    assert found, pattern
    return found


def squeezed(mask: Tensor, shape: torch.Size) -> Tensor:
    """The mask of units, [O, I] for kernels, of a mask of weights; the mask must be constant within each unit."""
    if mask.shape == shape:
        return mask
    units = mask.flatten(len(shape))
    assert torch.equal(units.any(-1), units.all(-1))
    return units.any(-1)
