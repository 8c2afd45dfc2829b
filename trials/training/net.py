"""The network under training: its loss, its evaluation. Knows masks only as tensors that multiply."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trials.compact import Kept, cut_tensors, kept_rows, shrink
from trials.data import Batch
from trials.training.strides import beside

__all__ = ["Batch", "Net"]


class Net:
    """A model whose parameters are the effective weights, the masks they obey, and snapshots to come back to.

    Attributes:
        masks: bool, by weight name; what they switch off is exactly zero in the model. Empty for a dense network.
        snapshots: state dicts by name, e.g. an early epoch to rewind to.
        picked: groups that a stage has chosen to remove (see trials/methods/greg/groups.py): bool, by weight name.
        kept: of layers that :meth:`shrink` has made smaller, by weight name, the rows left of the dense network's.
    """

    def __init__(self, model: nn.Module, *, autocast: bool = False, compile_forward: bool = False) -> None:
        self.model = model
        self.masks: dict[str, Tensor] = {}
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        self.picked: dict[str, Tensor] = {}
        self.kept: Kept = {}
        self._autocast = autocast
        self._forward: Any = torch.compile(model) if compile_forward else model
        self._multipliers: dict[str, Tensor] = {}
        self._parameters = dict(model.named_parameters())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def logits(self, x: Tensor) -> Tensor:
        """The model's outputs [B, classes] in its precision, as float32 (float64 where the model is)."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            logits: Tensor = self._forward(x)
        return logits if logits.dtype == torch.float64 else logits.float()

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of a batch, and how many of it are right (on the device, without gradient)."""
        logits = self.logits(x)
        return F.cross_entropy(logits, y), (logits.detach().argmax(1) == y).sum()

    def set_masks(self, masks: Mapping[str, Tensor], latent: Mapping[str, Tensor] | None = None) -> None:
        """Obey these masks from now on: what they switch off becomes zero.

        With ``latent`` weights, the model's weights become mask times these; otherwise mask times themselves.
        """
        self.masks = dict(masks)
        self._multipliers = {name: beside(self._parameters[name], mask) for name, mask in self.masks.items()}
        self.project(latent or self._parameters)

    def update_masks(self, masks: Mapping[str, Tensor], latent: Mapping[str, Tensor]) -> None:
        """The same as :meth:`set_masks`, in the memory of the masks of now if there are any of these names.

        For what changes masks in a step: a captured step reads where it read when it was captured.
        """
        if masks.keys() != self.masks.keys():
            self.set_masks(masks, latent)
            return
        for name, mask in masks.items():
            self.masks[name].copy_(mask)
            self._multipliers[name].copy_(mask)
        self.project(latent)

    def project(self, latent: Mapping[str, Tensor]) -> None:
        """The model's masked weights become mask times ``latent``."""
        with torch.no_grad():
            for name, multiplier in self._multipliers.items():
                torch.mul(latent[name], multiplier, out=self._parameters[name])

    def multipliers(self) -> dict[str, Tensor]:
        """The masks in their weights' dtype and strides: on CPU, multiplying by these costs a twentieth of multiplying
        by bool."""
        return self._multipliers

    def snapshot(self, name: str) -> None:
        """Keep a copy of all parameters and buffers under ``name``."""
        self.snapshots[name] = {key: value.detach().clone() for key, value in self.model.state_dict().items()}

    def restore(self, name: str) -> None:
        """Parameters and buffers as they were at :meth:`snapshot`, under the masks of now."""
        self.model.load_state_dict(self.snapshots[name])
        self.set_masks(self.masks)

    def shrink(self, removed: Mapping[str, Tensor], pattern: Literal["filter", "channel"]) -> None:
        """Make the model physically smaller in place; masks and snapshots follow.

        Optimisers and tensors that a stage holds do not: shrink before they are made.

        Args:
            removed: by weight name, int64 indices, in the model of now, of the output rows (filter) or input columns
                (channel) that go. Filters take their BN and the columns of the layers that read them along; channels
                take along the rows that make them, with their BN.

        Raises:
            ValueError: a removal touches a sum, the image or the classifier's outputs, or leaves nothing of a layer.
        """
        self._keep(kept_rows(self.model, removed, pattern))

    def _keep(self, kept: Kept) -> None:
        if not kept:
            return
        cut = shrink(self.model, kept)
        self._parameters = dict(self.model.named_parameters())
        self.snapshots = {name: cut_tensors(content, cut) for name, content in self.snapshots.items()}
        self.kept |= {name: self.kept[name][rows] if name in self.kept else rows for name, rows in kept.items()}
        self.set_masks(cut_tensors(self.masks, cut))

    def clone(self) -> Net:
        """A network of its own with the same values and masks; without snapshots, in evaluation mode."""
        other = Net(copy.deepcopy(self.model).eval(), autocast=self._autocast)
        other.kept = dict(self.kept)
        other.set_masks(self.masks)
        return other

    def state_dict(self) -> dict[str, Any]:
        state = {"model": self.model.state_dict(), "masks": self.masks, "snapshots": self.snapshots}
        return {**state, "kept": self.kept, "picked": self.picked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; of a smaller network, in a model that is still dense."""
        if not self.kept:
            self._keep(state.get("kept", {}))
        self.model.load_state_dict(state["model"])
        for name, content in state["snapshots"].items():
            self.snapshots[name] = {key: value.to(self.device) for key, value in content.items()}
        self.picked = {name: pruned.to(self.device) for name, pruned in state.get("picked", {}).items()}
        self.set_masks({name: mask.to(self.device) for name, mask in state["masks"].items()})
