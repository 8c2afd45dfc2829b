"""Wrappers of torch's optimisers for stages: the caller sets gradients, and the learning rate is a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from trials.config.recipes import OpenRecipe
from trials.training.strides import beside, lie_alike


class _Rated:
    """A torch optimiser whose gradients the caller sets and whose learning rate is a tensor on the device."""

    def __init__(
        self, kind: Callable[..., torch.optim.Optimizer], parameters: Iterable[Tensor], lr: float, **options: Any
    ) -> None:
        parameters = list(parameters)
        device = parameters[0].device
        self.lr = torch.tensor(lr, device=device, dtype=torch.float64 if device.type == "cpu" else torch.float32)
        self.optimizer = kind(parameters, lr=self.lr, **options)

    def step(self) -> None:
        """Update every tensor that has a gradient.

        Raises:
            RuntimeError: a gradient's strides differ from its tensor's.
        """
        self._refuse_other_strides()
        self.optimizer.step()

    def _refuse_other_strides(self) -> None:
        for tensor in self._tensors():
            grad = tensor.grad
            if grad is not None and not lie_alike(tensor, grad):
                raise RuntimeError(
                    f"the gradient of a tensor of shape {list(tensor.shape)} has strides {list(grad.stride())}, but "
                    f"must have the tensor's own, {list(tensor.stride())}: allocate what lies beside a weight by "
                    "trials.training.strides.beside"
                )

    def _tensors(self) -> list[Tensor]:
        tensors: list[Tensor] = self.optimizer.param_groups[0]["params"]
        return tensors

    def set_lr(self, lr: float) -> None:
        self.lr.fill_(lr)

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load moments and learning rate from a checkpoint; all other options stay as constructed.

        The learning rate stays the tensor that :meth:`set_lr` fills, and moments get their tensors' strides.
        """
        (own,), (saved,) = self.optimizer.state_dict()["param_groups"], state["param_groups"]
        self.optimizer.load_state_dict({**state, "param_groups": [{**own, "params": saved["params"]}]})
        self.lr.copy_(saved["lr"])
        self.optimizer.param_groups[0]["lr"] = self.lr
        for tensor, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                if isinstance(moment, Tensor) and moment.shape == tensor.shape and not lie_alike(tensor, moment):
                    moments[name] = beside(tensor, moment)


class Sgd(_Rated):
    """SGD with momentum. ``in_order`` updates one tensor after the other, for tensors that share memory."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        in_order: bool = False,
    ) -> None:
        order = {"foreach": False, "fused": False} if in_order else {"fused": True}
        super().__init__(torch.optim.SGD, parameters, lr, momentum=momentum, weight_decay=weight_decay, **order)

    @classmethod
    def of(cls, recipe: OpenRecipe, parameters: Iterable[Tensor]) -> Sgd:
        return cls(parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


class AdamW(_Rated):
    """AdamW. An entry whose gradient, weight and moments are 0 stays exactly 0."""

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, beta1: float, weight_decay: float) -> None:
        parameters = list(parameters)
        options = {"betas": (beta1, 0.999), "weight_decay": weight_decay}
        capturable = parameters[0].device.type == "cuda"  # torch requires it for CUDA graph capture
        super().__init__(torch.optim.AdamW, parameters, lr, fused=True, capturable=capturable, **options)
