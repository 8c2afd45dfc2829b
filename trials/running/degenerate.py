"""Name what has degenerated in a trial: the codes of the column ``warnings`` (texts: trials/storage/rows.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from trials.data import Loader, Source
from trials.methods import Method, Stage
from trials.methods.asked import AskedShare
from trials.storage.rows import WARNINGS, Row
from trials.training.net import Net

DEVIATIONS = 1.645
"""Guessing exceeds its expected accuracy by more standard deviations in one of twenty draws (normal, one-sided)."""


class Judge:
    """Says which warnings hold for a trial's rows and for its result.

    Args:
        method: says what was asked of the network.
        net: the network as it was built, before anything is loaded or removed.
        data, raw: the trial's loader and data set.
    """

    def __init__(self, method: Method, net: Net, data: Loader, raw: Source) -> None:
        self.net, self.method = net, method
        self.asked = {(stage.name, stage.level): method.asked(net.model, stage) for stage in method.stages()}
        self.asked_of_compact: dict[tuple[str, int], tuple[AskedShare, ...]] = {}
        classes = raw.num_classes
        train = torch.bincount(raw.train_labels[data.train_indices], minlength=classes)
        val = torch.bincount(raw.train_labels[data.val_indices], minlength=classes)
        test = torch.bincount(raw.test_labels, minlength=classes)
        self.of_data = [
            *(["one_class"] if int((train > 0).sum()) == 1 else []),
            *(["class_missing_in_val"] if bool(((train > 0) & (val == 0)).any()) else []),
            *(["class_missing_in_train"] if bool(((train == 0) & (val + test > 0)).any()) else []),
        ]
        self.guessed = guessing(classes, int(val.max()), int(val.sum()))

    def of_row(self, row: Mapping[str, Any], stage: Stage, end: bool) -> list[str]:
        """Codes for a row of ``epochs``: of its network and its accuracy. ``end``: the stage ends here.

        The end of a segment of a population is none, so that rows do not depend on how a stage is divided.
        """
        return _in_order([*self._of_network(self._asked_of(stage), end), *self._of_figures(row)])

    def of_result(self, row: Row) -> list[str]:
        """Codes for the result: of the trial's last row (an older version's has none), its accuracy and the data."""
        return _in_order([*(row.get("warnings") or ()), *self._of_figures(row), *self.of_data])

    def _of_figures(self, row: Mapping[str, Any]) -> list[str]:
        empty, guess = bool(row["empty_layers"]), row["val_accuracy"] <= self.guessed
        return [*(["layers_empty"] if empty else []), *(["chance_level"] if guess else [])]

    def _asked_of(self, stage: Stage) -> tuple[AskedShare, ...]:
        """What is asked of the dense network, or of the compact one that the trial started from."""
        key = (stage.name, stage.level)
        if not self.net.kept or not self.method.takes_compact:  # such a method never makes the network smaller itself
            return self.asked.get(key, ())
        if key not in self.asked_of_compact:
            self.asked_of_compact[key] = self.method.asked(self.net.model, stage)
        return self.asked_of_compact[key]

    def _of_network(self, asked: Iterable[AskedShare], end: bool) -> list[str]:
        model, masks = self.net.model, self.net.masks
        shares = (one.from_start(self.net.start_density) for one in asked)
        judged = [one for one in shares if one.keep < one.units and (end or not one.at_end)]
        if not judged:
            return []
        counts = [torch.as_tensor(one.left_in(model, masks), device="cpu") for one in judged]
        kept = [int(count) for count in counts]
        missed = any(one.missed_by(left) for one, left in zip(judged, kept, strict=True))
        nothing = all(left == one.units for one, left in zip(judged, kept, strict=True))
        return [*(["density_missed"] if missed else []), *(["nothing_pruned"] if nothing else [])]


def guessing(classes: int, majority: int, images: int) -> float:
    """Return the highest validation accuracy that is not distinguishable from guessing.

    A guess is right with p = max(1/classes, share of the largest class), and k guesses of n images at most
    n p + 1.645 sqrt(n p (1 - p)) times in 19 of 20 draws.

    >>> round(guessing(10, 50, 500), 3), guessing(1, 20, 20)
    (0.122, 1.0)
    """
    if not images:
        return 0.0
    p = max(1 / classes, majority / images)
    return p + DEVIATIONS * math.sqrt(p * (1 - p) / images)


def _in_order(codes: Iterable[str]) -> list[str]:
    found = set(codes)
    return [code for code in WARNINGS if code in found]
