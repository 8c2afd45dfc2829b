"""Read the recorded step files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from tests.trials.vectors import MANIFEST, build_model, close, load
from trials.sparsity import prunable
from trials.training.net import Net

SCORES = ".popup_scores"


def files(**wanted: tuple[Any, ...]) -> list[str]:
    """Names of the files whose manifest entry has one of the values given for every key."""
    found = MANIFEST["files"].items()
    return [name for name, about in found if all(about.get(key) in values for key, values in wanted.items())]


class Recorded:
    """One step file: the net at its start, its batches, and the expected tensors after every step."""

    def __init__(self, name: str) -> None:
        self.about = MANIFEST["files"][name]
        self.arrays = load(name)
        self.model = build_model(self.about["batchnorm"])
        own = self.model.state_dict()
        given = {key.removeprefix("init/"): value for key, value in self.arrays.items() if key.startswith("init/")}
        self.model.load_state_dict({**own, **{key: value for key, value in given.items() if key in own}})
        assert {key for key in own if not key.endswith("num_batches_tracked")} <= given.keys()
        self.weights = {name: weight.detach().clone() for name, weight in prunable(self.model).items()}
        scores = {name: given.get(name.removesuffix(".weight") + SCORES) for name in self.weights}
        self.scores = {name: score for name, score in scores.items() if score is not None}
        self.net = Net(self.model)
        self.norms = {name: m for name, m in self.model.named_modules() if isinstance(m, nn.BatchNorm2d)}
        assert bool(self.norms) == self.about["batchnorm"]

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def steps(self) -> Iterator[int]:
        count = max(int(match[1]) for key in self.arrays if (match := re.match(r"step(\d+)/", key)))
        assert count > 1
        return iter(range(1, count + 1))

    def batch(self, which: str, step: int) -> tuple[Tensor, Tensor]:
        return self[f"batch/{which}_x_{step}"], self[f"batch/{which}_y_{step}"].long()

    def under(self, prefix: str) -> dict[str, Tensor]:
        found = {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}
        assert found, f"nothing is recorded under {prefix}"
        return found

    def masks(self, prefix: str) -> dict[str, Tensor]:
        return {f"{name}.weight": mask.bool() for name, mask in self.under(prefix).items()}


def compare(recorded: Recorded, prefix: str, ours: dict[str, Tensor | None]) -> None:
    """Compare every array under ``prefix`` with ``ours``, which must hold all of them."""
    for name, reference in recorded.under(prefix).items():
        tensor = ours[name]
        assert tensor is not None, name
        close(tensor, reference, prefix + name)
