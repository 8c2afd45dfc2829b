"""Users' code as tests write it: a package, a single file, and a folder without ``__init__.py``."""

from __future__ import annotations

from pathlib import Path

NET = """
from torch import nn

from .blocks import WIDTH


class MyNet(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, WIDTH, 3, padding=1)
        self.relu = nn.ReLU()
        self.last = nn.Linear(WIDTH, num_classes)

    def forward(self, x):
        return self.last(self.relu(self.conv(x)).mean((2, 3)))


def not_a_net(num_classes, in_channels):
    return 3


def broken(num_classes, in_channels):
    raise RuntimeError("no such width")


NUMBER = 3
"""

PRUNING = """
from dataclasses import replace

import torch

from trials.data.sets.digits import load_digits
from trials.methods.dense import Dense
from trials.methods.magnitude.one_shot import OneShot, OneShotConfig
from trials.sparsity.distributions import uniform
from trials.sparsity.patterns import PATTERNS


def squared(weights, generator):
    return {name: weight.detach().square() for name, weight in weights.items()}


def even(layers, density, count=None):
    return uniform(layers, density, count)


rows = replace(PATTERNS["filter"], name="rows")


class Config(OneShotConfig):
    method: str
    strength: float = 1.0


class Mine(OneShot):
    Config = Config


class Literal(OneShot):
    pass


class NoConfig(Dense):
    Config = dict


def few(data_dir):
    raw = load_digits()
    return replace(
        raw,
        train_images=raw.train_images[:300],
        train_labels=raw.train_labels[:300],
        test_images=raw.test_images[:60],
        test_labels=raw.test_labels[:60],
        fingerprint="f" * 16,
    )


def with_size(data_dir, image_size=None):
    return replace(few(data_dir), fingerprint=str(image_size))


def nothing(data_dir):
    return None
"""


def write_code(folder: Path) -> Path:
    """Write the code into a folder and return it."""
    for name, text in {
        "mynets/__init__.py": "",
        "mynets/blocks.py": "WIDTH = 8\n",
        "mynets/wide.py": NET,
        "mynets/fails.py": "import there_is_no_such_module\n",
        "mynets/leaves.py": "import sys\nsys.exit(3)\n",
        "bare/pruning.py": PRUNING,
        "one_file.py": "VALUE = 1\n\n\ndef build(num_classes, in_channels):\n    return None\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
