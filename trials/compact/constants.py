"""Find channels that carry the same number whatever the image is.

A filter whose weights are zero emits its bias, a batch norm makes another number of it, and ReLU makes a zero of that
if it is negative. The model is traced symbolically (torch.fx) and only these numbers are computed, in evaluation mode
and in float64. Whatever is not known here makes a channel unknown (NaN), never a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from trials.compact.entries import LAYERS, NORMS, owns_weight
from trials.compact.flow import flow_of
from trials.compact.tracing import traced_for_evaluation

_ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh)
_ELEMENTWISE_CALLS = (F.relu, torch.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.hardswish, F.tanh, torch.tanh)
_INTO = ("iadd", "isub", "imul", "itruediv", "setitem")
_ELEMENTWISE_METHODS = {"relu": torch.relu, "tanh": torch.tanh}
_POOLS = (nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
_SAME_CALLS = (F.max_pool2d, torch.max_pool2d, F.adaptive_max_pool2d, F.adaptive_avg_pool2d)


@dataclass
class Constants:
    """What of the channels that layers read does not depend on the image.

    Attributes:
        read: by layer, the number in each column that it reads, float64 [columns], NaN where it depends on the image.
            Layers that read the image, a sum, or channels twice are left out.
        norms: by layer without bias, the batch norm that alone reads its output.
    """

    read: dict[str, Tensor] = field(default_factory=dict)
    norms: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Carried:
    """What an activation of a known shape carries: along one dimension, a number or NaN, the same at all positions."""

    numbers: Tensor
    dim: int
    shape: tuple[int, ...]

    def becomes(self, numbers: Tensor, shape: tuple[int, ...], dim: int | None = None) -> _Carried | None:
        """The same dimension with other numbers, behind an operation whose output has ``shape``; None if it has not."""
        dim = self.dim if dim is None else dim
        fits = dim < len(shape) and shape[dim] == len(numbers)
        return _Carried(numbers, dim, shape) if fits else None


@torch.no_grad()
def constants(model: nn.Module) -> Constants:
    """Follow constant channels through a model that torch.fx can trace, in evaluation mode."""
    graph = traced_for_evaluation(model)
    shapes = flow_of(model).shapes
    modules: dict[str, Any] = dict(model.named_modules())
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    found = Constants()
    values: dict[fx.Node, _Carried | None] = {}
    for node in graph.nodes:
        read = values[node.all_input_nodes[0]] if len(node.all_input_nodes) == 1 else None
        name = str(node.target)
        module = modules[name] if node.op == "call_module" else None
        shape = shapes.get(node.name, ())
        if isinstance(module, LAYERS):
            once = called.count(name) == 1 and owns_weight(module)
            columns = _columns_of(module, read)
            values[node] = _emitted(module, columns, shape) if once else None
            if once and columns is not None:
                found.read[name] = columns
            norm = _only_norm(node, modules)
            if once and norm and called.count(norm) == 1 and module.bias is None:
                found.norms[name] = norm
        else:
            values[node] = None if read is None else _passed(node, module, read, shape)
            _forget_written(node, modules, values)
    return found


def _columns_of(layer: Any, read: _Carried | None) -> Tensor | None:
    """The number in each column that a layer reads; None if channels do not lie along its columns."""
    columns = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    if read is None or len(read.numbers) != columns:
        return None
    along = read.dim == 1 and len(read.shape) == 4 if isinstance(layer, nn.Conv2d) else read.dim == len(read.shape) - 1
    return read.numbers if along else None


def _emitted(layer: Any, read: Tensor | None, shape: tuple[int, ...]) -> _Carried:
    """The number in each output channel of a layer (float64 [rows]), from those in the columns that it reads."""
    weight = layer.weight.detach().flatten(2).sum(2).double() if layer.weight.dim() > 2 else layer.weight.double()
    there = (layer.weight != 0).flatten(2).any(2) if layer.weight.dim() > 2 else layer.weight != 0  # [rows, columns]
    bias: Tensor = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
    dim = 1 if isinstance(layer, nn.Conv2d) else len(shape) - 1
    if read is None or getattr(layer, "groups", 1) > 1 or there.shape[1] != len(read):
        return _Carried(bias.masked_fill(there.any(1), torch.nan), dim, shape)
    varies = read.isnan() | (read != 0 if pads_with_zeros(layer) else False)
    sums: Tensor = bias + weight @ read.nan_to_num()
    return _Carried(sums.masked_fill((there & varies).any(1), torch.nan), dim, shape)


def _forget_written(node: fx.Node, modules: dict[str, Any], values: dict[fx.Node, _Carried | None]) -> None:
    """Forget what an operation that writes into its argument has changed, and what may lie in the same memory."""
    if not _writes(node, modules):
        return
    for source in node.all_input_nodes:
        changed, seen = [source], {node}
        while changed:
            one = changed.pop()
            seen.add(one)
            values[one] = None
            near = [user for user in one.users if not _anew(user, modules)]
            near += [] if _anew(one, modules) else one.all_input_nodes
            changed += [other for other in near if other in values and other not in seen]
    if node.args and isinstance(node.args[0], fx.Node):
        values[node.args[0]] = values[node]  # the argument is the output from then on


def _writes(node: fx.Node, modules: dict[str, Any]) -> bool:
    name = getattr(node.target, "__name__", str(node.target))
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    told = node.kwargs.get("inplace") or "out" in node.kwargs or any(one is True for one in node.args)  # relu(x, True)
    return bool(told) or (name.endswith("_") and not name.endswith("__")) or name in _INTO


def _anew(node: fx.Node, modules: dict[str, Any]) -> bool:
    """Whether an operation's output lies in memory of its own for sure."""
    if _writes(node, modules):
        return False
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], (*LAYERS, *NORMS, *_ELEMENTWISE, *_POOLS, nn.AvgPool2d))
    return node.target in _ELEMENTWISE_CALLS or node.target in _SAME_CALLS


def pads_with_zeros(layer: Any) -> bool:
    """Whether a layer reads zeros around its input, beside which a constant channel is no longer constant."""
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    if layer.padding == "same":
        return any(size > 1 for size in layer.kernel_size)
    return any(layer.padding)


def _only_norm(node: fx.Node, modules: dict[str, Any]) -> str:
    """The batch norm that alone reads a node's output and has statistics; empty if there is none."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module":
        return ""
    norm = modules[str(users[0].target)]
    return str(users[0].target) if isinstance(norm, NORMS) and norm.running_mean is not None else ""


def _passed(node: fx.Node, module: Any, read: _Carried, shape: tuple[int, ...]) -> _Carried | None:
    """What is behind an operation that reads one tensor, with outputs of ``shape``; None if it is not known."""
    if node.op == "call_module":
        return _behind_module(module, read, shape)
    if node.op not in ("call_function", "call_method"):
        return None
    name = getattr(node.target, "__name__", str(node.target))
    if node.target in _ELEMENTWISE_CALLS and node.args:
        further = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        return _elementwise(lambda x: node.target(x, *node.args[1:], **further), read)  # type: ignore[operator]
    if node.op == "call_method" and name in _ELEMENTWISE_METHODS:
        return _elementwise(_ELEMENTWISE_METHODS[name], read)
    if name == "contiguous":
        return read
    if name == "flatten":
        return _flat(read, shape)
    if name == "mean":
        first: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return _averaged(read, first, shape)
    if node.target in _SAME_CALLS:
        return _pooled(read, read.numbers, shape)
    return _pooled(read, _zeros_only(read.numbers), shape) if node.target in (F.avg_pool2d, F.dropout) else None


def _behind_module(module: Any, read: _Carried, shape: tuple[int, ...]) -> _Carried | None:
    if isinstance(module, NORMS):
        numbers = (
            _normalised(module, read.numbers) if read.dim == 1 and module.num_features == len(read.numbers) else None
        )
        return None if numbers is None else read.becomes(numbers, shape)
    if isinstance(module, _ELEMENTWISE):
        return _elementwise(module, read)
    if isinstance(module, nn.AvgPool2d):
        padded = module.padding not in (0, (0, 0)) or module.divisor_override
        return _pooled(read, _zeros_only(read.numbers) if padded else read.numbers, shape)
    if isinstance(module, nn.Flatten):
        return _flat(read, shape)
    if isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout2d)):
        return read
    return _pooled(read, read.numbers, shape) if isinstance(module, _POOLS) else None


def _elementwise(function: Callable[[Tensor], Tensor], read: _Carried) -> _Carried:
    """What is behind a function of single numbers, which may write into its argument."""
    numbers = function(read.numbers.clone()).masked_fill(read.numbers.isnan(), torch.nan)
    return _Carried(numbers, read.dim, read.shape)


def _pooled(read: _Carried, numbers: Tensor, shape: tuple[int, ...]) -> _Carried | None:
    """What is behind an operation on pixels, which are the last two dimensions."""
    return read.becomes(numbers, shape) if read.dim == len(read.shape) - 3 and len(shape) == len(read.shape) else None


def _flat(read: _Carried, shape: tuple[int, ...]) -> _Carried | None:
    """What is behind the flattening of all dimensions but the first, whatever the order of channels and positions."""
    if len(shape) != 2 or read.dim == 0 or shape[0] != read.shape[0]:
        return None
    numbers = read.numbers.view([-1 if dim == read.dim else 1 for dim in range(1, len(read.shape))])
    return read.becomes(numbers.expand(read.shape[1:]).reshape(-1), shape, 1)


def _averaged(read: _Carried, dims: Any, shape: tuple[int, ...]) -> _Carried | None:
    if not isinstance(dims, (int, list, tuple)):
        return None
    gone = {d % len(read.shape) for d in ([dims] if isinstance(dims, int) else dims)}
    if read.dim in gone:
        return None
    kept = len(shape) == len(read.shape)
    return read.becomes(read.numbers, shape, read.dim - (0 if kept else sum(d < read.dim for d in gone)))


def _zeros_only(numbers: Tensor) -> Tensor:
    """The numbers behind an operation that keeps no other constant than 0."""
    return numbers.masked_fill(numbers != 0, torch.nan)


def _normalised(norm: Any, read: Tensor) -> Tensor | None:
    if norm.running_mean is None:
        return None
    result: Tensor = (read - norm.running_mean.double()) / torch.sqrt(norm.running_var.double() + norm.eps)
    return result if norm.weight is None else result * norm.weight.double() + norm.bias.double()
