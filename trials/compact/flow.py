"""Follow every channel of a model from the layer that makes it to the layers that read it, by labels.

The traced forward pass (torch.fx) is run on tensors of labels (:mod:`trials.compact.shapes`). Every row of a
convolution or linear layer gets a label, and an operation that acts on channels independently passes labels on. Sums
unite the labels of what they add, batch norms and depthwise convolutions join the classes of what passes them, and the
columns of a layer have the labels of what it reads. An operation that is not known to treat channels alone fixes them.
"""

from __future__ import annotations

import itertools
import math
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from trials.compact.attention import FewerHeads, is_plain_attention
from trials.compact.entries import LAYERS, NORM_PARTS, NORMS, Entries, is_grouped, owns_weight
from trials.compact.labels import Labels, tensors_in
from trials.compact.operations import Calls
from trials.compact.shapes import Shaping
from trials.compact.sizes import Written, follow
from trials.compact.tracing import NoInput, Shape, given_shape, shapes_to_try, traced

FEW = 10
"""Shapes that are tried whatever the error is."""


class Impossible(Exception):
    """The forward pass cannot run on inputs of the shape that was tried."""


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
        for number, graph in enumerate(graphs):
            self.shaping.graph = number
            self._run(graph, shape)
        self._fix_tied()
        self._fix_computed()
        self._fix_unproven(model, graphs)
        self.written = self.shaping.written
        del (
            self.modules,
            self.shaping,
            self.called,
        )  # what is left knows no module, so that it may be kept beside its model

    def _run(self, graph: fx.Graph, shape: Shape) -> None:
        known: dict[fx.Node, Any] = {}
        self.called = {node.target for node in graph.nodes if node.op == "call_module"}
        for node in graph.nodes:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda source: known[source])
            stack = node.meta.get("nn_module_stack") or {}
            path = next(reversed(stack.values()))[0] if stack else ""
            self.shaping.owner, self.shaping.node = (path, self.modules.get(path)), node.name
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
        kind = self.modules.get(module)
        if isinstance(kind, LAYERS) or (isinstance(kind, (*NORMS, nn.PReLU)) and module in self.called):
            self.entries.used.append(name)
            return labels
        if len(long) != 1 or not value.is_floating_point():
            return labels
        mine = self.entries.of.setdefault(name, {})
        mine.setdefault(long[0], self.labels.new(value.shape[long[0]], own=True))
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
            if isinstance(module, nn.PReLU):
                return self._sloped(name, module, x)
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
                self._goes_with(f"{name}.{part}", channels, f"{name} normalises others, too")
        self.shaping.written.append(Written(f"{name}.num_features", channels))
        if name not in self.entries.passes:
            self.entries.passes.append(name)
        return x

    def _goes_with(self, tensor: str, channels: Tensor, reason: str) -> None:
        """Note that a tensor has one entry for each of these channels."""
        mine = self.entries.of.setdefault(tensor, {})
        mine.setdefault(0, channels.clone())
        self.labels.unite(mine[0], channels, reason, scales=True)

    def _sloped(self, name: str, module: nn.PReLU, x: Tensor) -> Tensor:
        """Negative entries of each channel, or of all, are multiplied by a number."""
        if module.num_parameters > 1:
            if x.dim() < 2 or x.shape[1] != module.num_parameters:
                raise Impossible(f"{name} has slopes of {module.num_parameters} channels")
            if any(d != 1 for d in self.labels.varying(x)):
                self.labels.fix(x, f"they enter {name} as pixels")
            channels = self.shaping.along(x, 1)
            self._goes_with(f"{name}.weight", channels, f"{name} has slopes of others, too")
            self.shaping.written.append(Written(f"{name}.num_parameters", channels))
        return x

    def batch_norm(self, node: fx.Node, args: Any, kwargs: Any) -> Tensor | None:
        """Follow what a norm's own forward pass does with its own tensors, if that is all; else None."""
        path, norm = self.shaping.owner
        parts = ("running_mean", "running_var", "weight", "bias")
        given = dict(zip(parts, node.args[1:], strict=False)) | {k: v for k, v in node.kwargs.items() if k in parts}
        plain = all(v is None or (isinstance(v, fx.Node) and v.target == f"{path}.{k}") for k, v in given.items())
        if not isinstance(norm, NORMS) or path in self.called or not plain or not isinstance(args[0], Tensor):
            return None
        return self._norm(path, norm, args[0])

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
        """Fix the entries of parameters that several modules share: each could be cut only as the others are.

        So are the entries of tensors that the forward pass takes without calling their module.
        """
        for name in self.entries.used:
            module = name.rpartition(".")[0]
            for tensor in (f"{module}.{part}" for part in NORM_PARTS):
                for labels in self.entries.of.get(tensor, {}).values():
                    self.labels.fix(labels, f"the forward pass takes {name} itself")
        by_value: dict[int, list[str]] = {}
        for path, module in self.modules.items():
            for key, value in module._parameters.items():
                if value is not None:
                    by_value.setdefault(id(value), []).append(f"{path}.{key}".removeprefix("."))
        for first, *others in by_value.values():
            for name in (first, *others) if others else ():
                one, part = first.rpartition(".")[::2]
                for labels in self.entries.of.get(name, {}).values():
                    self.labels.fix(labels, f"{one} and {others[0].rpartition('.')[0]} share their {part}")

    def _fix_computed(self) -> None:
        """Fix channels whose number is computed from another that would not shrink in proportion."""
        for size in self.shaping.computed:
            self.labels.fix(size.wrong(self.labels), "their number is computed from that of others")

    def _fix_unproven(self, model: nn.Module, graphs: list[fx.Graph]) -> None:
        """Fix what attributes count unless these, and nothing else, say how many there are."""
        left = [size for size in self.shaping.written if size.place and not self.labels.fixed(size.counted).all()]
        if not left or follow(model, graphs, left):
            return
        for attribute in {size.attribute for size in left}:
            alone = [size for size in left if size.attribute == attribute]
            if not follow(model, graphs, alone):
                for size in alone:
                    self.labels.fix(size.counted, f"their number may come from elsewhere than {attribute}")


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


def _size_after(module: nn.Conv2d, size: int, dim: int) -> int:
    if module.padding == "same":
        return math.ceil(size / module.stride[dim])
    padding = 0 if isinstance(module.padding, str) else int(module.padding[dim])
    after = (size + 2 * padding - module.dilation[dim] * (module.kernel_size[dim] - 1) - 1) // module.stride[dim] + 1
    if after < 1:
        raise Impossible("an image of this size has no pixels left")
    return after
