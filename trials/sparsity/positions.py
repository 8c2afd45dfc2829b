"""At how many positions of an image a network uses each weight, as its forward pass computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_WEIGHT_OF = {"conv2d": 1, "linear": 1, "multi_head_attention_forward": 11}
"""By function of torch, which argument is the weight that makes its output; of attention, its output layer's."""

_FACTORS = {"matmul": 0, "__matmul__": 0, "__rmatmul__": 0, "mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
"""By function of torch that multiplies two matrices, which argument is the first of them."""


def measured_positions(model: nn.Module, weights: Mapping[str, Tensor], shape: Sequence[int]) -> dict[str, int]:
    """Return at how many positions per image each weight is used, from one forward pass of a blank image.

    A convolution uses its weights once per pixel of its output, a linear layer once per token, and both as often as the
    forward pass uses their weight: by whatever module, or by none, as ``nn.MultiheadAttention`` does with its output
    layer's. A layer that computes its weight anew from a parameter counts by its outputs.

    Args:
        weights: of convolutions and linear layers, by name, ``<module>.weight``; each tensor once.
        shape: [C, H, W] of an image.
    """
    uses = _Uses(weights)
    hooks = [hook for name, weight in weights.items() for hook in _hooks(model, name, weight, uses.positions)]
    example = next(iter(weights.values()))
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), uses:
            model(torch.zeros(1, *shape, device=example.device, dtype=example.dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    return uses.positions


class _Uses(TorchFunctionMode):
    """Count the positions at which functions of torch use weights, by the memory that the weights lie in.

    Not a mode of torch's dispatcher, which imports the compiler.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.positions = dict.fromkeys(weights, 0)
        self._names = {_memory(weight): name for name, weight in weights.items()}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        name = getattr(func, "__name__", "")
        if name in _WEIGHT_OF:
            index = _WEIGHT_OF[name]
            weight = args[index] if len(args) > index else given["out_proj_weight" if index > 1 else "weight"]
            output = result[0] if isinstance(result, tuple) else result
            self._count(weight, output.numel() // len(weight))
        elif name in _FACTORS and len(args) > _FACTORS[name] + 1:
            one, other = args[_FACTORS[name] :][:2]
            self._count(one, other.numel() // one.shape[-1])
            self._count(other, one.numel() // one.shape[-1])
        return result

    def _count(self, weight: Tensor, positions: int) -> None:
        name = self._names.get(_memory(weight))
        if name is not None:
            self.positions[name] += positions


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor's values lie; the same for its views that begin with its first value."""
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())


def _hooks(model: nn.Module, name: str, weight: Tensor, positions: dict[str, int]) -> list[Any]:
    """Hooks on a layer that count a call by its outputs if no operator used the weight itself in it."""
    layer = model.get_submodule(name.removesuffix(".weight"))
    before: list[int] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        before.append(positions[name])

    def leave(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if positions[name] == before.pop():
            positions[name] += output.numel() // len(weight)

    register: list[Callable[..., Any]] = [layer.register_forward_pre_hook, layer.register_forward_hook]
    return [hook(note) for hook, note in zip(register, (enter, leave), strict=True)]
