"""Learning rate over epochs, set once at the start of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


def _constant(lr: float, epoch: int, epochs: int) -> float:
    return lr


def _cosine(lr: float, epoch: int, epochs: int) -> float:
    return 0.5 * lr * (1 + math.cos(math.pi * epoch / epochs))


def _cosine_released(lr: float, epoch: int, epochs: int) -> float:
    return _cosine(lr, epoch - 1, epochs)


def _step(lr: float, epoch: int, epochs: int) -> float:
    if epoch < epochs / 2:
        return lr
    return lr * (0.1 if epoch < 3 * epochs / 4 else 0.01)


SCHEDULES: dict[str, Callable[[float, int, int], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    # as BiP's released code has it: one epoch late, so that the first is slightly under lr (spec bip, section 6)
    "cosine_released": _cosine_released,
    # x0.1 from half of the epochs, x0.01 from three quarters
    "step": _step,
}


@dataclass(frozen=True)
class Schedule:
    """A learning rate as a function of the epoch, 0-based.

    ``warmup_epochs`` epochs at ``warmup_lr`` come first; then the named schedule runs over ``epochs`` epochs. The step
    schedule has no warm-up of its own: its breaks count from the end of the warm-up and the rate before them is ``lr``.
    """

    name: str
    lr: float
    epochs: int
    warmup_epochs: int = 0
    warmup_lr: float = 0.1

    def __call__(self, epoch: int) -> float:
        if epoch < self.warmup_epochs and self.name != "step":
            return self.warmup_lr
        return SCHEDULES[self.name](self.lr, epoch - self.warmup_epochs, max(self.epochs, 1))
