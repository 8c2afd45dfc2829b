"""Follow every channel of a model from the layer that makes it to the layers that read it, by labels.

The traced forward pass (torch.fx) is run on tensors of labels (:mod:`trials.compact.shapes`). Every row of a
convolution or linear layer gets a label, and an operation that acts on channels independently passes labels on. Sums
unite the labels of what they add, batch norms and depthwise convolutions join the classes of what passes them, and the
columns of a layer have the labels of what it reads. An operation that is not known to treat channels alone fixes them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from trials.compact.attention import FewerHeads, is_plain_attention
from trials.compact.labels import Labels, distinct_and_positions
from trials.compact.operations import Calls
from trials.compact.shapes import Shaping, Written
from trials.compact.tracing import NoInput, Shape, given_shape, shapes_to_try, traced

LAYERS = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d)
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
FEW = 10
"""Shapes that are tried whatever the error is."""


class Impossible(Exception):
    """The forward pass cannot run on inputs of the shape that was tried."""


@dataclass
class Entries:
    """The labels of a model's tensors.

    Attributes:
        of: by tensor name and dimension, a label for each entry; 0 where it is no channel of a layer.
        readers: names of the weights whose dimension 1 reads channels, each with how many calls read.
        makers: names of the weights whose dimension 0 makes channels.
        passes: modules that channels pass: norms and depthwise convolutions, in forward order.
        calls: by weight name, how often its module is called.
        grouped: names of grouped convolutions that are not depthwise.
        used: names of tensors of layers and norms that the forward pass takes without calling their module.
    """

    of: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    readers: list[str] = field(default_factory=list)
    makers: list[str] = field(default_factory=list)
    passes: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    grouped: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    @property
    def layers(self) -> set[str]:
        """Names of the convolutions and linear layers that are called."""
        return {weight.removesuffix(".weight") for weight in self.calls}


class Flow(Calls):
    """A model's channels, followed through its forward pass.

    Attributes:
        shapes: by node of the traced forward pass in evaluation mode, the shape of the tensor that it makes.
    """

    def __init__(self, model: nn.Module, graphs: list[fx.Graph], shape: Shape) -> None:
        self.labels = Labels()
        self.shaping = Shaping(self.labels)
        self.entries = Entries()
        self.modules: dict[str, Any] = dict(model.named_modules())
        self.shapes: dict[str, tuple[int, ...]] = {}
        for graph in graphs:
            self._run(graph, shape)
        self._fix_tied()
        self._fix_computed()
        self.written = self.shaping.written
        del self.modules, self.shaping  # what is left knows no module, so that it may be kept beside its model

    def _run(self, graph: fx.Graph, shape: Shape) -> None:
        known: dict[fx.Node, Any] = {}
        for node in graph.nodes:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda source: known[source])
            stack = node.meta.get("nn_module_stack") or {}
            path = next(reversed(stack.values()))[0] if stack else ""
            self.shaping.owner = (path, self.modules.get(path))
            if node.op == "placeholder":
                known[node] = node.args[0] if node.args else torch.zeros(2, *shape, dtype=torch.int64)
            elif node.op == "get_attr":
                known[node] = self._attribute(str(node.target))
            elif node.op == "output":
                for labels in tensors_in(args):
                    self.labels.fix(labels, "they are the network's outputs")
            elif node.op == "call_module":
                known[node] = self._module(str(node.target), args, kwargs, node)
            else:
                known[node] = self.call(node, args, kwargs)
            if isinstance(known.get(node), Tensor):
                self.shapes.setdefault(node.name, tuple(known[node].shape))

    def _attribute(self, name: str) -> Any:
        """Labels of a parameter or buffer that the forward pass uses itself: of its only long dimension, or none."""
        module = name.rpartition(".")[0]
        value: Any = self.modules[""]
        for step in name.split("."):
            value = getattr(value, step)
        if not isinstance(value, Tensor):
            return value
        labels = torch.zeros(value.shape, dtype=torch.int64)
        long = [d for d, n in enumerate(value.shape) if n > 1]
        if isinstance(self.modules.get(module), (*LAYERS, *NORMS)):
            self.entries.used.append(name)
            return labels
        if len(long) != 1 or not value.is_floating_point():
            return labels
        mine = self.entries.of.setdefault(name, {})
        mine.setdefault(long[0], self.labels.new(value.shape[long[0]]))
        return mine[long[0]].view([-1 if d == long[0] else 1 for d in range(value.dim())]).expand(value.shape)

    def _module(self, name: str, args: Any, kwargs: Any, node: fx.Node) -> Any:
        module = self.modules[name]
        given = [*args, *kwargs.values()]
        x = given[0] if given else None
        if isinstance(module, FewerHeads) or (isinstance(module, nn.MultiheadAttention) and is_plain_attention(module)):
            if len(given) >= 3 and given[1] is x and given[2] is x and not any(map(torch.is_tensor, given[3:])):
                return self._attention(name, module, x)
        elif isinstance(x, Tensor) and len(given) == 1:
            if isinstance(module, LAYERS) and not owns_weight(module):
                self.labels.fix(x, f"{name} computes its weight from other parameters")
            if isinstance(module, nn.Conv2d):
                return self._convolution(name, module, x)
            if isinstance(module, nn.Linear):
                return self._linear(name, module, x)
            if isinstance(module, NORMS):
                return self._norm(name, module, x)
        return self.call_module(node, module, args, kwargs)

    def _rows(self, name: str, module: Any) -> Tensor:
        """The labels of a layer's rows, for its weight and bias."""
        weight = f"{name}.weight"
        if not owns_weight(module):
            return torch.zeros(len(module.weight), dtype=torch.int64)
        self.entries.calls[weight] = self.entries.calls.get(weight, 0) + 1
        if weight not in self.entries.of:
            rows = self.labels.new(len(module.weight))
            self.entries.of[weight] = {0: rows}
            if module.bias is not None:
                self.entries.of[f"{name}.bias"] = {0: rows}
            self.entries.makers.append(weight)
        return self.entries.of[weight][0]

    def _reads(self, weight: str, columns: Tensor) -> None:
        mine = self.entries.of.get(weight)
        if mine is None:
            return  # it is computed
        if 1 in mine:
            self.labels.unite(mine[1], columns, f"{weight.removesuffix('.weight')} reads others, too")
        else:
            mine[1] = columns.clone()
            self.entries.readers.append(weight)

    def _convolution(self, name: str, module: nn.Conv2d, x: Tensor) -> Tensor:
        rows = self._rows(name, module)
        if x.dim() != 4 or x.shape[1] != module.in_channels:
            raise Impossible(f"{name} reads {module.in_channels} channels")
        if any(d != 1 for d in self.labels.varying(x)):
            self.labels.fix(x, f"they enter {name} as pixels")
        columns = self.shaping.along(x, 1)
        if not is_grouped(module) or not owns_weight(module):
            self._reads(f"{name}.weight", columns)
        else:
            self._grouped(name, module, columns, rows)
        size = [_size_after(module, x.shape[d + 2], d) for d in (0, 1)]
        return rows.view(1, -1, 1, 1).expand(len(x), -1, *size)

    def _grouped(self, name: str, module: nn.Conv2d, columns: Tensor, rows: Tensor) -> None:
        """A group's inputs and outputs go together, or stay."""
        reason = f"{name} is a grouped convolution"
        inside, outside = columns.view(module.groups, -1), rows.view(module.groups, -1)
        depthwise = module.groups == module.in_channels
        if not depthwise and name not in self.entries.grouped:
            self.entries.grouped.append(name)
        elif depthwise and name not in self.entries.passes:
            self.entries.passes.append(name)
        for group in (inside, outside):
            self.labels.unite(outside[:, :1].expand_as(group), group, reason)

    def _linear(self, name: str, module: nn.Linear, x: Tensor) -> Tensor:
        rows = self._rows(name, module)
        if x.shape[-1] != module.in_features:
            raise Impossible(f"{name} reads {module.in_features} features, but gets {x.shape[-1]}")
        if any(d != x.dim() - 1 for d in self.labels.varying(x)):
            self.labels.fix(x, f"they enter {name} as positions")
        self._reads(f"{name}.weight", self.shaping.along(x, -1))
        return rows.expand(*x.shape[:-1], -1)

    def _norm(self, name: str, module: Any, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[1] != module.num_features:
            raise Impossible(f"{name} normalises {module.num_features} channels")
        if any(d != 1 for d in self.labels.varying(x)):
            self.labels.fix(x, f"they enter {name} as pixels")
        channels = self.shaping.along(x, 1)
        for part in NORM_PARTS:
            if getattr(module, part, None) is not None:
                mine = self.entries.of.setdefault(f"{name}.{part}", {})
                mine.setdefault(0, channels.clone())
                self.labels.unite(mine[0], channels, f"{name} normalises others, too")
        self.shaping.written.append(Written(f"{name}.num_features", channels))
        if name not in self.entries.passes:
            self.entries.passes.append(name)
        return x

    def _attention(self, name: str, module: Any, x: Tensor) -> tuple[Tensor, None]:
        """Whole heads may go: the rows of their queries, keys and values, and the columns that read them."""
        self.labels.fix(x, f"they enter {name}, whose width is its embedding's")
        weight, inner = f"{name}.in_proj_weight", len(module.in_proj_weight) // 3
        if weight not in self.entries.of:
            heads = self.labels.new(inner // module.head_dim).repeat_interleave(module.head_dim)
            self.entries.of[weight] = {0: heads.repeat(3)}
            if module.in_proj_bias is not None:
                self.entries.of[f"{name}.in_proj_bias"] = {0: heads.repeat(3)}
            self.entries.makers.append(weight)
        out = f"{name}.out_proj"
        rows = self._rows(out, module.out_proj)
        self._reads(f"{out}.weight", self.entries.of[weight][0][:inner])
        return rows.expand(*x.shape[:-1], -1), None

    def _fix_tied(self) -> None:
        """Fix what layers with a common weight make and read: each could be cut only as the others are.

        So are the entries of tensors that the forward pass takes without calling their module.
        """
        for name in self.entries.used:
            module = name.rpartition(".")[0]
            for tensor in (f"{module}.{part}" for part in NORM_PARTS):
                for labels in self.entries.of.get(tensor, {}).values():
                    self.labels.fix(labels, f"the forward pass takes {name} itself")
        by_weight: dict[int, list[str]] = {}
        for weight in self.entries.makers:
            by_weight.setdefault(id(self.modules[""].get_parameter(weight)), []).append(weight)
        for first, *others in by_weight.values():
            for weight in (first, *others) if others else ():
                one, other = (name.removesuffix(".weight") for name in (first, others[0]))
                for labels in self.entries.of[weight].values():
                    self.labels.fix(labels, f"{one} and {other} share their weight")

    def _fix_computed(self) -> None:
        """Fix channels whose number is computed from another that would not shrink in proportion."""
        for size in self.shaping.computed:
            roots, sources = self.labels.find(size.counted), self.labels.find(size.source)
            classes, inverse = distinct_and_positions(torch.cat([roots, sources]))
            made = torch.bincount(inverse[: len(roots)], minlength=len(classes))
            from_ = torch.bincount(inverse[len(roots) :], minlength=len(classes))
            wrong = classes[made * len(sources) != from_ * len(roots)]
            self.labels.fix(wrong, "their number is computed from that of others")


_known: WeakKeyDictionary[nn.Module, tuple[Any, Flow]] = WeakKeyDictionary()


def flow_of(model: nn.Module) -> Flow:
    """Follow the channels of a model; once, until its modules or its parameters' shapes change.

    No data are needed, and weights may be on the meta device.

    Raises:
        UserError: the model's forward pass cannot be traced.
        NoInput: it runs on no shape of an input that was tried.
    """
    sizes = [(name, tuple(value.shape)) for name, value in model.state_dict(keep_vars=True).items()]
    state = (sizes, [id(module) for module in model.modules()], given_shape(model))
    if model not in _known or _known[model][0] != state:
        _known[model] = (state, _followed(model))
    return _known[model][1]


def _followed(model: nn.Module) -> Flow:
    graphs = traced(model)
    given = given_shape(model)
    reasons = ["no layer reads the input"]
    kinds: set[str] = set()
    for number, shape in enumerate(itertools.chain([] if given is None else [given], shapes_to_try(model))):
        try:
            return Flow(model, graphs, shape)
        except Exception as error:  # noqa: BLE001  whatever a model's own code raises for a wrong shape
            kinds.add("" if isinstance(error, Impossible) else "".join(c for c in str(error) if not c.isdigit()))
            if number >= FEW and len(kinds) == 1 and "" not in kinds:
                break  # whatever the shape, it is not what is wrong
            reasons.append(f"for {'x'.join(map(str, shape))}: {str(error).strip().partition(chr(10))[0]}")
    if given is None:
        tried = f"forward pass runs on no square image of up to 320 pixels (the last try {reasons[-1]})"
    else:
        tried = f"channels cannot be followed for an input like the example ({reasons[1]})"
    raise NoInput(f"{type(model).__name__} cannot be made smaller, because its {tried}: keep it whole")


def owns_weight(module: nn.Module) -> bool:
    """Whether a layer's weight is its own parameter, which can be cut, and not computed from others at each call."""
    return "weight" in module._parameters


def is_grouped(module: nn.Conv2d) -> bool:
    """Whether a convolution has groups, or had some before all but one were cut."""
    return module.groups > 1 or getattr(module, "was_grouped", False)


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [found for part in value for found in tensors_in(part)] if isinstance(value, (list, tuple)) else []


def _size_after(module: nn.Conv2d, size: int, dim: int) -> int:
    if module.padding == "same":
        return math.ceil(size / module.stride[dim])
    padding = 0 if isinstance(module.padding, str) else int(module.padding[dim])
    after = (size + 2 * padding - module.dilation[dim] * (module.kernel_size[dim] - 1) - 1) // module.stride[dim] + 1
    if after < 1:
        raise Impossible("an image of this size has no pixels left")
    return after
