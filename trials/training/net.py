"""The network that a trial trains: model, masks and snapshots. Masks are only tensors to multiply with here."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from trials.compact import Kept, cut_tensors, kept_rows, shrink
from trials.data import Batch
from trials.training import launches
from trials.training.at_once import cast_at_once, counters_at_once
from trials.training.strides import beside, stretches
from trials.training.work import WorkDone

__all__ = ["Batch", "Net"]


class Net:
    """A model, its masks and its snapshots; the model's parameters are the effective (masked) weights.

    Attributes:
        snapshots: state dicts by name, e.g. of an early epoch to rewind to.
        picked: groups that a stage has chosen to remove (see trials/methods/greg/groups.py): bool, by weight name.
        start_density: share of the prunable weights that the network had when the trial began; 1 without a mask.
        kept: for layers that :meth:`shrink` made smaller, by weight name, the remaining rows of the dense network.
        work: counts gradient evaluations, of this network and of its clones.
    """

    def __init__(self, model: nn.Module, *, autocast: bool = False, compile_forward: bool = False) -> None:
        self.model = model
        self._masks: dict[str, Tensor] | None = {}
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        self.picked: dict[str, Tensor] = {}
        self.kept: Kept = {}
        self.start_density = 1.0
        self.work = WorkDone()
        self._autocast = autocast
        self._compiled = compile_forward
        self._forward: Any = torch.compile(model) if compile_forward else model
        self._casts_at_once = False
        self._multipliers: dict[str, Tensor] = {}
        self._parameters = dict(model.named_parameters())

    @property
    def masks(self) -> dict[str, Tensor]:
        """bool, by weight name; weights that are masked off are exactly zero. Empty for a dense network.

        After :meth:`update_masks` they are made anew at each call, because steps read and write multipliers only.
        """
        if self._masks is None:
            return {name: multiplier.bool().contiguous() for name, multiplier in self._multipliers.items()}
        return self._masks

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def logits(self, x: Tensor) -> Tensor:
        """Return the outputs [B, classes], computed in the model's precision, as float32 (or float64)."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            if self._casts_at_once:
                weights = cast_at_once(self.model, torch.bfloat16)
                logits: Tensor = functional_call(self.model, weights, (x,), tie_weights=False)
            else:
                logits = self._forward(x)
        return logits if logits.dtype == torch.float64 else logits.float()

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch's mean cross-entropy and its number of correct images (on the device, without gradient)."""
        logits = self.logits(x)
        return F.cross_entropy(logits, y), (logits.detach().argmax(1) == y).sum()

    def backward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Replace all gradients by those of :meth:`loss`; return what it returns, without gradient."""
        self.model.zero_grad(set_to_none=True)
        loss, correct = self.loss(x, y)
        torch.autograd.backward(loss)
        self.work.add(len(y))
        return loss.detach(), correct

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Within it, passes are recorded for replays: they are not counted as work, and use fewer operators.

        The results have the same bits. A compiled forward pass stays as it is."""
        with ExitStack() as stack:
            stack.enter_context(self.work.held(True))
            if not self._compiled:
                stack.enter_context(counters_at_once(self.model))
                self._casts_at_once = self._autocast
            try:
                yield
            finally:
                self._casts_at_once = False

    def mask_gradients(self) -> None:
        """Multiply the gradients of masked weights by their masks, so that an optimiser keeps those weights at zero."""
        gradients = []
        for name in self._multipliers:
            gradient = self._parameters[name].grad
            assert gradient is not None
            gradients.append(gradient)
        if gradients:
            torch._foreach_mul_(gradients, list(self._multipliers.values()))

    def set_masks(self, masks: Mapping[str, Tensor], latent: Mapping[str, Tensor] | None = None) -> None:
        """Replace the masks and apply them: the model's weights become mask times ``latent``, or times themselves."""
        self._masks = dict(masks)
        self._multipliers = {name: beside(self._parameters[name], mask) for name, mask in masks.items()}
        self.project(latent or self._parameters)

    def update_masks(self, masks: Mapping[str, Tensor], latent: Mapping[str, Tensor]) -> None:
        """Like :meth:`set_masks`, but write into the existing tensors if they have the same names.

        For steps that change masks: a captured CUDA graph always reads the tensors that existed at its capture.
        """
        if masks.keys() != self._multipliers.keys():
            self.set_masks(masks, latent)
            return
        self._masks = None
        if launches.few_launches(self.device):
            if masks:
                torch._foreach_copy_(list(self._multipliers.values()), [masks[name] for name in self._multipliers])
            self.project(latent)
            return
        for name, multiplier in self._multipliers.items():
            each = stretches(self._parameters[name].detach(), multiplier, masks[name], latent[name].detach())
            for weight, own, mask, values in each:
                torch.mul(values, own.copy_(mask), out=weight)

    @torch.no_grad()
    def project(self, latent: Mapping[str, Tensor]) -> None:
        """Set the model's masked weights to mask times ``latent``."""
        if self._multipliers and launches.few_launches(self.device):
            names, multipliers = list(self._multipliers), list(self._multipliers.values())
            effective = torch._foreach_mul([latent[name] for name in names], multipliers)
            torch._foreach_copy_([self._parameters[name] for name in names], effective)
            return
        for name, multiplier in self._multipliers.items():
            torch.mul(latent[name], multiplier, out=self._parameters[name])

    def multipliers(self) -> dict[str, Tensor]:
        """Return the masks in their weights' dtype and strides.

        On CPU, multiplying by these takes a twentieth of the time of multiplying by bool.
        """
        return self._multipliers

    def snapshot(self, name: str) -> None:
        """Store a copy of all parameters and buffers under ``name``."""
        self.snapshots[name] = {key: value.detach().clone() for key, value in self.model.state_dict().items()}

    def restore(self, name: str) -> None:
        """Restore parameters and buffers from :meth:`snapshot`, then apply the current masks."""
        self.model.load_state_dict(self.snapshots[name])
        self.set_masks(self.masks)

    def shrink(self, removed: Mapping[str, Tensor], pattern: Literal["filter", "channel"]) -> None:
        """Make the model physically smaller in place, including masks and snapshots.

        Optimisers and other tensors of a stage are not updated: shrink before they are created.

        Args:
            removed: by weight name, int64 indices into the current model of the output rows (filter) or input columns
                (channel) to remove. A filter is removed together with its BN entries and the columns that read it; a
                channel together with the rows that produce it and their BN entries.

        Raises:
            ValueError: a removal touches a sum, the image or the classifier's outputs, or leaves nothing of a layer.
        """
        self.keep(kept_rows(self.model, removed, pattern))

    def keep(self, kept: Kept) -> None:
        """Make the model physically smaller in place: the layers in ``kept`` keep only these rows."""
        if not kept:
            return
        cut = shrink(self.model, kept)
        self._parameters = dict(self.model.named_parameters())
        self.snapshots = {name: cut_tensors(content, cut) for name, content in self.snapshots.items()}
        self.kept |= {name: self.kept[name][rows] if name in self.kept else rows for name, rows in kept.items()}
        self.set_masks(cut_tensors(self.masks, cut))

    def clone(self) -> Net:
        """Return an independent copy with the same values and masks, without snapshots, in evaluation mode."""
        other = Net(copy.deepcopy(self.model).eval(), autocast=self._autocast)
        other.kept, other.work = dict(self.kept), self.work
        other.set_masks(self.masks)
        return other

    def state_dict(self) -> dict[str, Any]:
        state = {"model": self.model.state_dict(), "masks": self.masks, "snapshots": self.snapshots}
        return {**state, "kept": self.kept, "picked": self.picked, "start_density": self.start_density}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of :meth:`state_dict`; the state of a compact network first shrinks a dense model."""
        if not self.kept:
            self.keep(state.get("kept", {}))
        self.start_density = state.get("start_density", 1.0)
        self.model.load_state_dict(state["model"])
        for name, content in state["snapshots"].items():
            self.snapshots[name] = {key: value.to(self.device) for key, value in content.items()}
        self.picked = {name: pruned.to(self.device) for name, pruned in state.get("picked", {}).items()}
        self.set_masks({name: mask.to(self.device) for name, mask in state["masks"].items()})
