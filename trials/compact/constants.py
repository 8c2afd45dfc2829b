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

from trials.compact.flow import LAYERS, NORMS
from trials.compact.tracing import Tracer

_ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh)
_ELEMENTWISE_CALLS = (F.relu, torch.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.hardswish, F.tanh, torch.tanh)
_ELEMENTWISE_METHODS = {"relu": torch.relu, "tanh": torch.tanh}
_SAME = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
_SAME_CALLS = (F.max_pool2d, torch.max_pool2d, F.adaptive_max_pool2d, F.adaptive_avg_pool2d)


@dataclass
class Constants:
    """What of the channels that layers read does not depend on the image.

    Attributes:
        read: by layer, the number in each channel that it reads, float64 [channels], NaN where it depends on the image.
            Layers that read the image, a sum, or channels twice are left out.
        norms: by layer without bias, the batch norm that alone reads its output.
    """

    read: dict[str, Tensor] = field(default_factory=dict)
    norms: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def constants(model: nn.Module) -> Constants:
    """Follow constant channels through a model that torch.fx can trace."""
    graph = Tracer().trace(model)
    modules: dict[str, Any] = dict(model.named_modules())
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    found = Constants()
    values: dict[fx.Node, Tensor | None] = {}
    for node in graph.nodes:
        read = values[node.all_input_nodes[0]] if len(node.all_input_nodes) == 1 else None
        name = str(node.target)
        module = modules[name] if node.op == "call_module" else None
        if isinstance(module, LAYERS):
            once = called.count(name) == 1
            values[node] = _emitted(module, read) if once else None
            if once and read is not None:
                found.read[name] = read
            norm = _only_norm(node, modules)
            if once and norm and called.count(norm) == 1 and module.bias is None:
                found.norms[name] = norm
        else:
            values[node] = None if read is None else _passed(node, module, read)
    return found


def _emitted(layer: Any, read: Tensor | None) -> Tensor:
    """The number in each output channel of a layer (float64 [rows]), from those in the channels that it reads."""
    weight = layer.weight.detach().flatten(2).sum(2).double() if layer.weight.dim() > 2 else layer.weight.double()
    there = (layer.weight != 0).flatten(2).any(2) if layer.weight.dim() > 2 else layer.weight != 0  # [rows, columns]
    bias: Tensor = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
    if read is None or getattr(layer, "groups", 1) > 1 or there.shape[1] % len(read):
        return bias.masked_fill(there.any(1), torch.nan)
    columns = read.repeat_interleave(there.shape[1] // len(read))
    varies = columns.isnan() | (columns != 0 if pads_with_zeros(layer) else False)
    sums: Tensor = bias + weight @ columns.nan_to_num()
    return sums.masked_fill((there & varies).any(1), torch.nan)


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


def _passed(node: fx.Node, module: Any, read: Tensor) -> Tensor | None:
    """The numbers behind an operation that reads one tensor; None if the operation is not known."""
    if node.op == "call_module":
        return _behind_module(module, read)
    if node.op not in ("call_function", "call_method"):
        return None
    name = getattr(node.target, "__name__", str(node.target))
    first: Any = node.args[1] if len(node.args) > 1 else next(iter(node.kwargs.values()), None)
    if node.target in _ELEMENTWISE_CALLS and node.args:
        further = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        return _elementwise(lambda x: node.target(x, *node.args[1:], **further), read)  # type: ignore[operator]
    if node.op == "call_method" and name in _ELEMENTWISE_METHODS:
        return _elementwise(_ELEMENTWISE_METHODS[name], read)
    same = node.target in _SAME_CALLS or name == "contiguous" or (name == "flatten" and first == 1)
    if same or (name == "mean" and isinstance(first, (list, tuple)) and set(first) in ({2, 3}, {-1, -2})):
        return read
    return _zeros_only(read) if node.target in (F.avg_pool2d, F.dropout) else None


def _behind_module(module: Any, read: Tensor) -> Tensor | None:
    if isinstance(module, NORMS):
        return _normalised(module, read) if module.num_features == len(read) else None
    if isinstance(module, _ELEMENTWISE):
        return _elementwise(module, read)
    if isinstance(module, nn.AvgPool2d):
        padded = module.padding not in (0, (0, 0)) or module.divisor_override
        return _zeros_only(read) if padded else read
    same = isinstance(module, _SAME) or (isinstance(module, nn.Flatten) and module.start_dim == 1)
    return read if same else None


def _elementwise(function: Callable[[Tensor], Tensor], read: Tensor) -> Tensor:
    """The numbers behind a function of single numbers, which may write into its argument."""
    return function(read.clone()).masked_fill(read.isnan(), torch.nan)


def _zeros_only(read: Tensor) -> Tensor:
    """The numbers behind an operation that keeps no other constant than 0."""
    return read.masked_fill(read != 0, torch.nan)


def _normalised(norm: Any, read: Tensor) -> Tensor | None:
    if norm.running_mean is None:
        return None
    result: Tensor = (read - norm.running_mean.double()) / torch.sqrt(norm.running_var.double() + norm.eps)
    return result if norm.weight is None else result * norm.weight.double() + norm.bias.double()
