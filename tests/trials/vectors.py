"""Read the reference vectors; all shapes, densities and hyperparameters come from the files."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.conftest import VECTORS

RTOL, ATOL = 1e-9, 1e-11

BIP = VECTORS / "bip"
MANIFEST: dict[str, Any] = json.loads((BIP / "manifest.json").read_text())


def load(name: str) -> dict[str, Tensor]:
    """A file's arrays in float64 (inputs that float32 holds exactly are stored as such)."""
    with np.load(BIP / name) as file:
        return {key: torch.from_numpy(np.array(file[key], dtype=np.float64)) for key in file.files}


def numbered(arrays: dict[str, Tensor], pattern: str) -> list[Tensor]:
    """``[arrays[pattern.format(0)], arrays[pattern.format(1)], ...]``, up to the first missing key."""
    found = []
    while (key := pattern.format(len(found))) in arrays:
        found.append(arrays[key])
    assert found, f"no array is named {pattern}"
    return found


def close(ours: Tensor, reference: Tensor, what: str) -> None:
    torch.testing.assert_close(ours.detach(), reference, rtol=RTOL, atol=ATOL, msg=lambda text: f"{what}: {text}")


def build_layer(layer: dict[str, Any]) -> nn.Module:
    if "conv2d" in layer["type"]:
        return nn.Conv2d(
            layer["in_channels"],
            layer["out_channels"],
            layer["kernel"],
            stride=layer["stride"],
            padding=layer["padding"],
            dilation=layer["dilation"],
            groups=layer["groups"],
            bias=layer["bias"],
        )
    assert layer["type"].startswith("linear"), layer
    return nn.Linear(layer["in_features"], layer["out_features"], bias=layer["bias"])


def build_model(batchnorm: bool) -> nn.Sequential:
    """The manifest's net in float64: its layers by their names."""
    model = nn.Sequential()
    channels = 0
    for position, layer in enumerate(MANIFEST["net"]["layers"]):
        if isinstance(layer, dict):
            model.add_module(layer["name"], build_layer(layer))
            channels = layer.get("out_channels", channels)
        elif "batchnorm" in layer:
            if batchnorm:
                model.add_module(layer.split()[0], nn.BatchNorm2d(channels))
        elif layer == "relu":
            model.add_module(f"relu{position}", nn.ReLU())
        elif match := re.fullmatch(r"adaptive_avg_pool2d\((\d+), ?(\d+)\)", layer):
            model.add_module("pool", nn.AdaptiveAvgPool2d((int(match[1]), int(match[2]))))
        else:
            assert layer == "flatten", layer
            model.add_module("flatten", nn.Flatten())
    return model.double()
