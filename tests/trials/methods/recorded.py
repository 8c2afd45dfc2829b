"""Read the recorded step files of BiP and HYDRA."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tests.trials.recorded_set import Part, absent
from tests.trials.vectors import MANIFEST, build_model, close, load
from trials.sparsity import prunable
from trials.training.net import Net

SCORES = ".popup_scores"
DEFAULTS: dict[str, Any] = {
    "layer_type": "unstructured",
    "batchnorm": False,
    "score_init": "random",
    "exp_mode": "prune",
    "frozen_tensors_untouched": True,
    "ig_term": "none",
    "mask_lr": None,
    "lr2": None,
    "momentum": 0.0,
    "weight_decay": 0.0,
}
"""What a step file's entry in the manifest may leave out."""


def about(name: str) -> dict[str, Any]:
    """A step file's entry in the manifest, with defaults for what it leaves out."""
    entry = MANIFEST["files"][name]
    given = {key: entry[key] for key in ("trainer", "k", "lr", *DEFAULTS) if key in entry}
    filled = {**DEFAULTS, "trainer": entry["trainer"], **given}
    return filled | {"mask_lr": filled["mask_lr"] or filled.get("lr"), "lr2": filled["lr2"] or 0.0}


def files(**wanted: tuple[Any, ...]) -> list[str]:
    """Names of the step files whose manifest entry has one of the values given for every key."""
    steps = [name for name, entry in MANIFEST.get("files", {}).items() if "trainer" in entry]
    return [name for name in steps if all(about(name)[key] in values for key, values in wanted.items())]


class Recorded:
    """One step file: the net at its start, its batches, and the expected tensors after every step."""

    def __init__(self, name: str) -> None:
        said, self.about = MANIFEST["files"][name], about(name)
        for required in ("lr",) if self.about["exp_mode"] == "finetune" else ("k", "lr"):
            assert self.about.get(required) == said[required]  # skipped by name if the manifest lacks it
        self.arrays = load(name)
        given = self.arrays.under("init/")
        self.model = build_model(self.about["batchnorm"], list(given))
        own = self.model.state_dict()
        if lacking := {key for key in own if not key.endswith("num_batches_tracked")} - set(given):
            absent(f"array init/{sorted(lacking)[0]} in {self.arrays.file}")
        self.model.load_state_dict({**own, **{key: given[key] for key in given if key in own}})
        self.weights = {name: weight.detach().clone() for name, weight in prunable(self.model).items()}
        scores = {name: given.get(name.removesuffix(".weight") + SCORES) for name in self.weights}
        self.scores = {name: score for name, score in scores.items() if score is not None}
        self.net = Net(self.model)
        self.norms = {name: m for name, m in self.model.named_modules() if isinstance(m, nn.BatchNorm2d)}
        assert bool(self.norms) == self.about["batchnorm"]

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def steps(self) -> Iterator[int]:
        numbers = [int(match[1]) for key in self.arrays if (match := re.match(r"step(\d+)/", key))]
        return iter(range(1, max(numbers) + 1)) if numbers else absent(f"step in {self.arrays.file}")

    def batch(self, which: str, step: int) -> tuple[Tensor, Tensor]:
        x = self[f"batch/{which}_x_{step}"]
        assert MANIFEST["net"].get("input", list(x.shape))[1:] == list(x.shape[1:])
        return x, self[f"batch/{which}_y_{step}"].long()

    def under(self, prefix: str) -> Part:
        return self.arrays.under(prefix)

    def masks(self, prefix: str) -> dict[str, Tensor]:
        return {f"{name}.weight": mask.bool() for name, mask in self.under(prefix).items()}

    def expect_masks(self, ours: Mapping[str, Tensor], prefix: str) -> None:
        recorded = self.masks(prefix)
        assert recorded.keys() == ours.keys()
        assert all(torch.equal(ours[key], mask) for key, mask in recorded.items()), prefix


def compare(recorded: Recorded, prefix: str, ours: Mapping[str, Tensor | None]) -> None:
    """Compare every array under ``prefix``, if the file has any, with ``ours``, which must hold all of them."""
    for name, reference in recorded.arrays.part(prefix).items():
        tensor = ours[name]
        assert tensor is not None, name
        close(tensor, reference, prefix + name)
