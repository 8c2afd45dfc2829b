"""Fewer operators in a captured step: what modules do one by one is done for all of them at once, with equal bits.

For steps of which a CUDA graph is recorded: on the device each operator costs a kernel of some microseconds, however
small its tensor is. Not yet run on a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@contextmanager
def counters_at_once(model: nn.Module) -> Iterator[None]:
    """Within it, batch norms in training mode do not count their batches; at its end, all their counters grow.

    Each grows by the number of the norm's calls. Norms that read their counters (``momentum`` None) count themselves.
    """
    norms: list[Any] = [module for module in model.modules() if type(module) in _NORMS and _only_counts(module)]
    counters: dict[Any, Tensor] = {norm: norm.num_batches_tracked for norm in norms}
    calls: Counter[nn.Module] = Counter()

    def called(norm: nn.Module, _inputs: Any) -> None:
        calls[norm] += 1

    hooks = [norm.register_forward_pre_hook(called) for norm in norms]
    try:
        for norm in norms:
            norm._buffers["num_batches_tracked"] = None
        yield
    finally:
        for norm, counter in counters.items():
            norm._buffers["num_batches_tracked"] = counter
        for hook in hooks:
            hook.remove()
    for times in sorted(set(calls.values())):
        torch._foreach_add_([counters[norm] for norm in norms if calls[norm] == times], times)


def _only_counts(norm: Any) -> bool:
    """Whether a batch norm grows its counter in forward passes without reading it."""
    return bool(norm.training and norm.num_batches_tracked is not None and norm.momentum is not None)


def cast_at_once(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights and biases of convolutions and linear layers in ``dtype``, by name, as autocast would cast them.

    Gradients pass to the parameters in these' own dtype. A parameter that several layers share is cast once. What other
    modules hold, subclasses of the layers among them, is left to autocast, since they may use it otherwise.
    """
    names: dict[Tensor, list[str]] = {}
    elsewhere: set[Tensor] = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        for own, parameter in module.named_parameters(recurse=False):
            if type(module) in _LAYERS and parameter.dtype == torch.float32:
                names.setdefault(parameter, []).append(f"{prefix}.{own}" if prefix else own)
            else:
                elsewhere.add(parameter)
    weights = [parameter for parameter in names if parameter not in elsewhere]
    if not weights:
        return {}
    casts = _Cast.apply(dtype, *weights)
    return {name: cast for parameter, cast in zip(weights, casts, strict=True) for name in names[parameter]}


class _Cast(torch.autograd.Function):
    """Casts tensors, and their gradients back."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtype = weights[0].dtype
        return _cast(weights, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [gradient for gradient in gradients if gradient is not None]
        cast = iter(_cast(given, ctx.dtype) if given else ())
        return None, *(None if gradient is None else next(cast) for gradient in gradients)


def _cast(tensors: tuple[Tensor, ...] | list[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Copies in ``dtype``, with the tensors' strides."""
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(copies, list(tensors))
    return tuple(copies)
