"""Vectors recorded from the released code of the adaptive sparsity loss, and their network."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.conftest import VECTORS
from trials.methods.adaptive.adaptive_sparsity import AdaptiveSparsityConfig
from trials.methods.parsing import parse
from trials.training.net import Net

FOLDER = VECTORS / "adaptive_sparsity"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
PRECISIONS = {"f64": torch.float64, "f32": torch.float32}
TOLERANCES = {torch.float64: (1e-8, 1e-10), torch.float32: (2e-4, 2e-5)}


class File:
    """One file's arrays."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz") as file:
            self.arrays = {key: torch.from_numpy(np.array(file[key])) for key in file.files}

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def under(self, prefix: str) -> dict[str, Tensor]:
        found = {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}
        assert found, f"nothing is recorded under {prefix}"
        return found

    def numbers(self, pattern: str) -> list[int]:
        found = sorted({int(match[1]) for key in self.arrays if (match := re.match(pattern, key))})
        assert found
        return found


INPUTS = File("inputs")


def close(ours: Tensor | float, reference: Tensor, what: str) -> None:
    ours = torch.as_tensor(ours, dtype=reference.dtype).detach()
    rtol, atol = TOLERANCES[reference.dtype]
    torch.testing.assert_close(
        ours.reshape(reference.shape), reference, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}"
    )


def build_model() -> nn.Sequential:
    """The manifest's net, from its description."""
    model = nn.Sequential()
    for position, text in enumerate(MANIFEST["net"]["layers"]):
        if match := re.match(r"(\w+): Conv2d\((\d+),(\d+),k(\d+),pad(\d+),stride(\d+),(no )?bias\)", text):
            name, *sizes, without = match.groups()
            i, o, k, padding, stride = map(int, sizes)
            model.add_module(name, nn.Conv2d(i, o, k, stride=stride, padding=padding, bias=not without))
        elif match := re.match(r"(\w+): Linear\((\d+),(\d+),(no )?bias\)", text):
            model.add_module(match[1], nn.Linear(int(match[2]), int(match[3]), bias=not match[4]))
        elif match := re.match(r"adaptive_avg_pool2d to (\d+)x(\d+), flatten", text):
            model.add_module("pool", nn.AdaptiveAvgPool2d((int(match[1]), int(match[2]))))
            model.add_module("flatten", nn.Flatten())
        else:
            assert text == "ReLU", text
            model.add_module(f"relu{position}", nn.ReLU())
    model.load_state_dict(INPUTS.under("init/"))
    return model


def config_of(**fields: Any) -> AdaptiveSparsityConfig:
    optimizer = MANIFEST["optimizer"]
    assert (optimizer["type"], optimizer["dampening"], optimizer["nesterov"]) == ("SGD", 0, False)
    assert optimizer["weight_decay_thresholds"] == 0
    train = {
        "epochs": 1,
        "lr": optimizer["lr_weights"],
        "momentum": optimizer["momentum"],
        "weight_decay": optimizer["weight_decay_weights"],
        "schedule": "constant",
    }
    content = {"method": "adaptive_sparsity", "dataset": "digits", "model": "tiny", "train": train}
    content |= {key: MANIFEST[key] for key in ("starget", "lv", "pthres")}
    content["threshold_lr_factor"] = optimizer["lr_thresholds"] / optimizer["lr_weights"]
    config = parse({**content, **fields})
    assert isinstance(config, AdaptiveSparsityConfig)
    return config


def zeros(net: Net) -> list[int]:
    return [int((~mask).sum()) for mask in net.masks.values()]
