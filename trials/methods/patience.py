"""Patience: a stage ends after some epochs without a better validation accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Patience:
    """Counts the epochs without a better validation accuracy.

    Attributes:
        epochs: how many of them end the stage; None: none do.
        accuracy: the best accuracy so far.
        epoch: its epoch, 1-based; 0 before the first.
    """

    def __init__(self, epochs: int | None) -> None:
        self.epochs = epochs
        self.accuracy, self.epoch = -math.inf, 0

    def ends(self, epoch: int, accuracy: float) -> bool:
        """Note the validation accuracy of an epoch; return whether the stage ends with it."""
        if accuracy > self.accuracy:
            self.accuracy, self.epoch = accuracy, epoch
        return self.epochs is not None and epoch - self.epoch >= self.epochs

    def state_dict(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.accuracy, self.epoch = state["accuracy"], state["epoch"]
