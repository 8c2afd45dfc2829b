"""Keep the network of the epoch with the best validation accuracy, and count the epochs without a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trials.training.net import Net


class BestEpoch:
    """The best epoch so far: its number (1-based), validation accuracy and state dict. Of equal ones, the first."""

    def __init__(self) -> None:
        self.accuracy, self.epoch = -math.inf, 0
        self.network: dict[str, Tensor] = {}

    def see(self, net: Net, epoch: int, accuracy: float) -> None:
        """Copy the network if its accuracy is better than that of all epochs before."""
        if accuracy > self.accuracy:
            self.accuracy, self.epoch = accuracy, epoch
            self.network = {name: value.detach().clone() for name, value in net.model.state_dict().items()}

    def waited(self, epoch: int, patience: int | None) -> bool:
        """Whether the last ``patience`` epochs up to ``epoch`` were not better; never without a patience."""
        return patience is not None and epoch - self.epoch >= patience

    def restore(self, net: Net) -> None:
        """Give the network the best epoch's values. There must have been an epoch."""
        net.model.load_state_dict(self.network)

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.network, "accuracy": self.accuracy, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.network = {name: value.to(device) for name, value in state["state"].items()}
        self.accuracy, self.epoch = state["accuracy"], state["epoch"]
