"""Learning-rate schedules by epoch; the rate is set once, at the start of each epoch."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass


def _constant(lr: float, epoch: int, epochs: int) -> float:
    return lr


def _cosine(lr: float, epoch: int, epochs: int) -> float:
    return 0.5 * lr * (1 + math.cos(math.pi * epoch / epochs))


def _cosine_released(lr: float, epoch: int, epochs: int) -> float:
    return _cosine(lr, epoch - 1, epochs)


def _cosine_restart(lr: float, epoch: int, epochs: int) -> float:
    period = (epochs + 1) // 2
    return _cosine(lr, epoch % period, period)


def _cosine_restart_released(lr: float, epoch: int, epochs: int) -> float:
    period = max(epochs // 2, 1)
    return _cosine(lr, epoch % period, period)


def _step(lr: float, epoch: int, epochs: int) -> float:
    if epoch < epochs / 2:
        return lr
    return lr * (0.1 if epoch < 3 * epochs / 4 else 0.01)


SCHEDULES: dict[str, Callable[[float, int, int], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    # one epoch late, as in BiP's code (OPTML-Group/BiP, c51fc35): epoch 0 is slightly under lr, epoch 1 exactly lr
    "cosine_released": _cosine_released,
    # two cosine periods, each over half of the epochs (https://arxiv.org/abs/1608.03983)
    "cosine_restart": _cosine_restart,
    # as in the adaptive sparsity loss' code (georgeretsi/SparsityLoss, 9869e8c): periods of epochs // 2, so an odd
    # number of epochs ends on a second restart, at full lr
    "cosine_restart_released": _cosine_restart_released,
    # x0.1 from half of the epochs on, x0.01 from three quarters on
    "step": _step,
}


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the epoch (0-based).

    ``warmup_epochs`` epochs at ``warmup_lr`` precede the named schedule, which runs over ``epochs`` epochs. Exception:
    ``step`` uses ``lr`` during the warm-up epochs too; its breaks are counted from their end.
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


@dataclass(frozen=True)
class PiecewiseConstant:
    """Learning rate from (first epoch, rate) pairs, ascending; epochs before the first pair use its rate."""

    steps: tuple[tuple[int, float], ...]

    def __call__(self, epoch: int) -> float:
        position = bisect.bisect_right([first for first, _ in self.steps], epoch)
        return self.steps[max(position - 1, 0)][1]


def _whole(epoch: object) -> int:
    """An epoch: a whole number, or text of one; ValueError for anything else, such as 1.5 or true."""
    if isinstance(epoch, str) or type(epoch) is int:
        return int(epoch)
    raise ValueError(epoch)


def read_lr_steps(value: object) -> object:
    """Parse ``lr_steps`` into ascending (epoch, rate) pairs.

    Accepts GReg's text (``{0:0.01,30:0.001}``, braces optional), a mapping, or a list of pairs. Any other type is
    returned unchanged, for pydantic to refuse. Raises ValueError for text that cannot be parsed, an empty list, a
    repeated or negative epoch, or a rate that is not finite and above 0.

    >>> read_lr_steps("{30:0.001, 0:0.01}")
    ((0, 0.01), (30, 0.001))
    """
    if isinstance(value, str):
        text = value.strip().removeprefix("{").removesuffix("}")
        pairs = [tuple(item.split(":")) for item in text.split(",")]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)) and all(isinstance(item, (list, tuple)) for item in value):
        pairs = [tuple(item) for item in value]
    else:
        return value
    try:
        steps = sorted((_whole(epoch), float(rate)) for epoch, rate in pairs)
    except (ValueError, TypeError):
        raise ValueError(f"lr_steps is {value!r}, but must be epoch:rate pairs, as 0:0.01,30:0.001") from None
    epochs, rates = [epoch for epoch, _ in steps], [rate for _, rate in steps]
    if len(set(epochs)) < max(len(epochs), 1) or epochs[0] < 0 or not all(0 < rate < math.inf for rate in rates):
        raise ValueError(f"lr_steps is {value!r}, but must have epochs from 0, each once, and rates above 0")
    return tuple(steps)
