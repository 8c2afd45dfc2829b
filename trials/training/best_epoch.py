"""Keep the network of the best epoch by validation accuracy (``report: best_val``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trials.training.net import Net


class BestEpoch:
    """The best epoch of a stage so far, and its network.

    Eligible are the epochs that end with as many kept weights as the stage's last epoch, without one of another number
    in between. So an epoch during pruning, with a denser network, never wins. Of equal accuracies the first wins.

    Attributes:
        epoch: the best epoch, from 1; 0 before the first one.
        accuracy: its validation accuracy, in [0, 1].
        columns: its losses, accuracies and the stage's columns, as in its row.
        layers: what its rows of layers say beside their sizes, by weight name.
    """

    def __init__(self) -> None:
        self.epoch, self.accuracy, self.kept = 0, -math.inf, -1
        self.columns: dict[str, Any] = {}
        self.layers: dict[str, dict[str, float]] = {}
        self._model: dict[str, Tensor] = {}
        self._masks: dict[str, Tensor] = {}

    def is_better(self, accuracy: float, kept: int) -> bool:
        """Whether an epoch of this validation accuracy, with this number of kept weights, becomes the best."""
        return kept != self.kept or accuracy > self.accuracy

    def keep(
        self,
        net: Net,
        epoch: int,
        columns: Mapping[str, Any],
        kept: int = 0,
        layers: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """Make this epoch the best: copy its network, on its device. ``columns`` have its ``val_accuracy``."""
        self.epoch, self.accuracy, self.kept = epoch, columns["val_accuracy"], kept
        self.columns = dict(columns)
        self.layers = {name: dict(values) for name, values in (layers or {}).items()}
        self._model = {name: value.detach().clone() for name, value in net.model.state_dict().items()}
        self._masks = {name: mask.clone() for name, mask in net.masks.items()}

    def restore(self, net: Net) -> None:
        """Give ``net`` the weights, buffers and masks of the best epoch."""
        net.model.load_state_dict(self._model)
        net.set_masks(self._masks)

    def state_dict(self) -> dict[str, Any]:
        """As tensors, numbers and strings."""
        numbers = {"epoch": self.epoch, "accuracy": self.accuracy, "kept": self.kept}
        own = {"columns": self.columns, "layers": self.layers}
        return {**numbers, **own, "model": self._model, "masks": self._masks}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore :meth:`state_dict`, with tensors on ``device``."""
        self.epoch, self.accuracy, self.kept = state["epoch"], state["accuracy"], state["kept"]
        self.columns, self.layers = dict(state["columns"]), dict(state["layers"])
        self._model = {name: value.to(device) for name, value in state["model"].items()}
        self._masks = {name: mask.to(device) for name, mask in state["masks"].items()}
