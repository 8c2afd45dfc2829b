"""What each operation of a forward pass does to the labels of channels; see :mod:`trials.compact.flow`."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, fx, nn

from trials.compact.labels import Labels, any_channel
from trials.compact.shapes import MOVES, Shaping
from trials.compact.sizes import Size, computed_from, sizes_in

ZERO_STAYS = {
    *("relu", "relu_", "relu6", "leaky_relu", "leakyrelu", "leaky_relu_", "gelu", "silu", "hardswish", "tanh", "tanh_"),
    *("elu", "elu_", "selu", "celu", "mish", "softsign", "hardshrink", "softshrink", "tanhshrink", "square", "erf"),
    *("dropout", "dropout2d", "alpha_dropout", "feature_dropout", "stochastic_depth", "drop_path", "identity"),
    *("contiguous", "clone", "neg", "abs", "sqrt", "float", "double", "to", "type_as", "detach", "hardtanh", "sin"),
    *("half", "bfloat16", "clamp", "clamp_", "clip", "clip_"),
}
"""Functions and methods that act on entries independently and map 0 to 0; modules by their names in lower case."""
ZERO_SHIFTS = {"sigmoid", "hardsigmoid", "exp", "softplus", "logsigmoid", "cos", "softmin"}
"""Functions and methods that act on entries independently and do not map 0 to 0."""
BOUNDED = {"hardtanh": (-1.0, 1.0), **dict.fromkeys(("clamp", "clip"), (-math.inf, math.inf))}
"""Functions and methods that cut numbers to a range, and the range if they are given none."""
POOLS = {"max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d", "interpolate", "maxpool2d"}
POOLS |= {"avgpool2d", "adaptivemaxpool2d", "adaptiveavgpool2d", "upsample", "zeropad2d", "reflectionpad2d"}
SUMS = {"add": True, "add_": True, "iadd": True, "sub": True, "sub_": True, "isub": True}
SIZED = {"view", "reshape", "expand", "split"}
"""Functions and methods that take sizes and say themselves what a cut must keep true of them."""
PRODUCTS = {"mul", "mul_", "imul", "div", "div_", "truediv", "itruediv", "multiply", "divide"}


class Calls(ABC):
    """Runs operations on labels."""

    labels: Labels
    shaping: Shaping

    @abstractmethod
    def batch_norm(self, node: fx.Node, args: Any, kwargs: Any) -> Tensor | None:
        """Follow a norm whose forward pass was traced; None if its tensors are not its own."""

    def call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """Run a function or a method. Without labels among its arguments it runs as it is."""
        target: Any = node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        if not (_has_tensor(args) or _has_tensor(kwargs)):
            return self._plain(node, name, args, kwargs)
        if name in ("_assert", "assert_"):
            return None
        if (name == "getitem" and not isinstance(args[0], Tensor)) or hasattr(
            target, "_fields"
        ):  # a named tuple's class
            return target(*args, **kwargs)
        if name == "batch_norm" and (normalised := self.batch_norm(node, args, kwargs)) is not None:
            return normalised
        function = getattr(self, f"_on_{name.strip('_')}", None)
        if name not in SIZED:
            self._fix_numbers((args, kwargs), _enters(node, name))
        x = args[0] if args else next(iter(kwargs.values()))
        if function is not None and (isinstance(x, Tensor) or name in ("cat", "concat", "concatenate", "stack")):
            try:
                return function(*args, **kwargs, reason=_enters(node, name))
            except TypeError:  # arguments that only the operation itself knows
                return self.unknown(node, name, args, kwargs)
        return self._by_kind(node, name, args, kwargs)

    def _by_kind(self, node: fx.Node, name: str, args: Any, kwargs: Any) -> Any:
        x, reason = args[0] if args else None, _enters(node, name)
        if (name in SUMS or name in PRODUCTS) and len(args) > 1:
            return self._elementwise(name, args[0], args[1], reason)
        if not isinstance(x, Tensor) or any(map(_has_tensor, args[1:])):
            return self.unknown(node, name, args, kwargs)
        if name in ZERO_STAYS:
            if name.strip("_") in BOUNDED and _clips_zero(*BOUNDED[name.strip("_")], *args[1:], **kwargs):
                self.labels.shift(x)
            return x
        if name in ZERO_SHIFTS:
            self.labels.shift(x)
            return x
        if name in MOVES:
            return self.shaping.one_axis(MOVES[name](x, *args[1:], **kwargs), reason)
        if name in POOLS:
            small = torch.zeros(1, 1, *x.shape[-2:])
            made = node.target(small, *args[1:], **kwargs)  # type: ignore[operator]
            return (
                self.shaping.pooled(x, made.shape[-2:], reason)
                if isinstance(made, Tensor)
                else self.unknown(node, name, args, kwargs)
            )
        return self.unknown(node, name, args, kwargs)

    def call_module(self, node: fx.Node, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Run a module without channels of its own."""
        kind, reason = type(module).__name__.lower(), _enters(node, str(node.target))
        x = args[0] if args else None
        if not isinstance(x, Tensor) or len(args) != 1 or kwargs:
            return self.unknown(node, str(node.target), args, kwargs)
        if isinstance(module, nn.Flatten):
            return self.shaping.one_axis(x.flatten(module.start_dim, module.end_dim), reason)
        if isinstance(module, nn.LayerNorm):
            return self._on_layer_norm(x, module.normalized_shape, reason=reason)
        if isinstance(module, nn.Softmax):
            return self._on_softmax(x, module.dim, reason=reason)
        if isinstance(module, nn.Hardtanh) and _clips_zero(-1, 1, module.min_val, module.max_val):
            self.labels.shift(x)
        if kind in ZERO_STAYS or kind in ("dropout", "dropout1d", "dropout3d"):
            return x
        if kind in ZERO_SHIFTS:
            self.labels.shift(x)
            return x
        if kind in POOLS and not getattr(module, "return_indices", False):
            return self.shaping.pooled(x, module(torch.zeros(1, 1, *x.shape[-2:])).shape[-2:], reason)
        return self.unknown(node, str(node.target), args, kwargs)

    def _plain(self, node: fx.Node, name: str, args: Any, kwargs: Any) -> Any:
        """Arithmetic on sizes, and whatever else needs no labels."""
        target: Any = node.target
        made = getattr(args[0], target)(*args[1:], **kwargs) if node.op == "call_method" else target(*args, **kwargs)
        if isinstance(made, (Size, tuple, list)):
            return made  # a shape, or a part of one
        if type(made) is int and node.op == "call_function" and not kwargs and len(sizes_in(args)) < 2:
            return computed_from(made, target, args)
        self._fix_numbers((args, kwargs), _enters(node, name))
        return torch.zeros(made.shape, dtype=torch.int64) if isinstance(made, Tensor) else made

    def _fix_numbers(self, value: Any, reason: str) -> None:
        """Fix channels whose number is used otherwise than as a size."""
        for size in sizes_in(value):
            assert size.labels is not None
            self.labels.fix(size.labels, f"{reason}, which takes their number")

    def unknown(self, node: fx.Node, name: str, args: Any, kwargs: Any) -> Any:
        """Fix what enters an operation that may mix channels; its outputs are no layer's channels."""
        for labels in _tensors((args, kwargs)):
            self.labels.fix(labels, _enters(node, name))
        if node.op == "call_module":
            target: Any = _zeroed(self.modules[str(node.target)])  # type: ignore[attr-defined]
        else:
            target = node.target
        for dtype in (torch.float32, torch.int64):
            given, named = _mapped((args, kwargs), lambda x, dtype=dtype: _stand_in(x, dtype))
            try:
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    made = (
                        getattr(given[0], target)(*given[1:], **named)
                        if node.op == "call_method"
                        else target(*given, **named)
                    )
                return _mapped(made, _no_channels)
            except Exception as error:  # noqa: BLE001  whatever the operation raises
                failed = error
        raise failed

    def _elementwise(self, name: str, one: Any, other: Any, reason: str) -> Any:
        made = self.shaping.both(one, other, reason, scales=name in PRODUCTS)
        numbers = not (isinstance(one, Tensor) and isinstance(other, Tensor))
        if name in SUMS and (numbers or not (any_channel(one) and any_channel(other))):
            self.labels.shift(made)
        if name in ("div", "truediv", "div_", "itruediv", "divide") and not isinstance(one, Tensor):
            self.labels.shift(made)
        return made

    # Functions and methods by name.

    def _on_getattr(self, x: Tensor, name: str, *, reason: str) -> Any:
        if name == "shape":
            return self.shaping.size(x)
        if name in ("T", "mT"):
            return x.transpose(-2, -1) if name == "mT" else x.T
        return getattr(torch.zeros(()), name) if name in ("dtype", "device", "is_cuda") else getattr(x, name)

    def _on_size(self, x: Tensor, dim: int | None = None, *, reason: str) -> Any:
        shape = self.shaping.size(x)
        return shape if dim is None else shape[dim]

    def _on_dim(self, x: Tensor, *, reason: str) -> int:
        return x.dim()

    def _on_view(self, x: Tensor, *shape: Any, reason: str) -> Tensor:
        return self.shaping.reshape(x, *shape, reason=reason)

    def _on_reshape(self, x: Tensor, *shape: Any, reason: str) -> Tensor:
        return self.shaping.reshape(x, *shape, reason=reason)

    def _on_expand(self, x: Tensor, *shape: Any, reason: str) -> Tensor:
        return self.shaping.expand(x, *shape, reason=reason)

    def _on_cat(self, parts: Any, dim: int = 0, *, reason: str) -> Tensor:
        return self.shaping.joined(parts, torch.cat, dim, reason)

    _on_concat = _on_concatenate = _on_cat

    def _on_stack(self, parts: Any, dim: int = 0, *, reason: str) -> Tensor:
        return self.shaping.joined(parts, torch.stack, dim, reason)

    def _on_chunk(self, x: Tensor, chunks: int, dim: int = 0, *, reason: str) -> Any:
        return self.shaping.divide(x, x.chunk(chunks, dim), None, dim, reason)

    def _on_split(self, x: Tensor, sizes: Any, dim: int = 0, *, reason: str) -> Any:
        whole = [int(n) for n in sizes] if isinstance(sizes, (list, tuple)) else int(sizes)
        return self.shaping.divide(x, torch.split(x, whole, dim), sizes, dim, reason)

    def _on_unbind(self, x: Tensor, dim: int = 0, *, reason: str) -> Any:
        if dim % x.dim() in self.labels.varying(x):
            self.labels.fix(x, reason)
        return x.unbind(dim)

    def _on_select(self, x: Tensor, dim: int, index: int, *, reason: str) -> Tensor:
        if dim % x.dim() in self.labels.varying(x):
            self.labels.fix(x, reason)
        return x.select(dim, index)

    def _on_getitem(self, x: Tensor, index: Any, *, reason: str) -> Tensor:
        return self.shaping.item(x, index, reason)

    def _on_mean(self, x: Tensor, dim: Any = None, keepdim: bool = False, *, reason: str) -> Tensor:
        return self.shaping.reduced(x, dim, keepdim, reason)

    _on_sum = _on_amax = _on_mean

    def _on_softmax(self, x: Tensor, dim: Any = None, *, reason: str, **_: Any) -> Tensor:
        if dim is None or dim % x.dim() in self.labels.varying(x):
            self.labels.fix(x, reason)
        self.labels.shift(x)
        return x

    _on_log_softmax = _on_softmax

    def _on_layer_norm(self, x: Tensor, normalized_shape: Any, *_: Any, reason: str, **__: Any) -> Tensor:
        """Channels that are normalised together stay; those that are positions of the norm pass."""
        if any(d >= x.dim() - len(normalized_shape) for d in self.labels.varying(x)):
            self.labels.fix(x, reason)
        self.labels.shift(x)
        return x

    def _on_pad(self, x: Tensor, pad: Any, mode: str = "constant", value: Any = None, *, reason: str) -> Tensor:
        if mode != "constant" or value:
            self.labels.shift(x)
        return self.shaping.padded(x, pad, reason)

    def _on_matmul(self, one: Tensor, other: Tensor, *, reason: str) -> Tensor:
        if min(one.dim(), other.dim()) < 3:
            raise TypeError
        return self.shaping.multiplied(one, other, reason)

    _on_bmm = _on_matmul

    def _on_scaled_dot_product_attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *_: Any, reason: str, **more: Any
    ) -> Tensor:
        if more.get("enable_gqa"):
            raise TypeError
        return self.shaping.attended(query, key, value, attn_mask, reason)


def _clips_zero(low: float, high: float, *given: Any, **named: Any) -> bool:
    """Whether an operation with these bounds, or others that it is given, makes another number of 0."""
    bounds = [*given[:2], *(None, None)[len(given) :]]
    least = next((b for b in (bounds[0], named.get("min_val"), named.get("min")) if b is not None), low)
    most = next((b for b in (bounds[1], named.get("max_val"), named.get("max")) if b is not None), high)
    return not float(least) <= 0 <= float(most)


def _enters(node: fx.Node, name: str) -> str:
    return f"they enter {'a sum with other channels' if 'add' in name else repr(name)} ({node.name})"


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _mapped(value, found.append)
    return found


def _has_tensor(value: Any) -> bool:
    return bool(_tensors(value))


def _mapped(value: Any, function: Any) -> Any:
    """Apply a function to the tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_mapped(part, function) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _no_channels(x: Tensor) -> Tensor:
    """Labels of what is no layer's channels; they know whether it is a condition or an index."""
    labels = torch.zeros(x.shape, dtype=torch.int64)
    labels.stands_for = None if x.is_floating_point() else x.dtype  # type: ignore[attr-defined]
    return labels


def _stand_in(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Zeros in the place of an activation, to run an operation on."""
    return torch.zeros(labels.shape, dtype=getattr(labels, "stands_for", None) or dtype)


def _zeroed(module: nn.Module) -> nn.Module:
    """A copy of a module on the CPU with zeros as values, float32 where they are no integers."""

    def zeros(x: Tensor) -> Tensor:
        return torch.zeros(x.shape, dtype=torch.float32 if x.is_floating_point() else x.dtype)

    made: nn.Module = copy.deepcopy(module)._apply(zeros)  # type: ignore[no-untyped-call]
    return made
