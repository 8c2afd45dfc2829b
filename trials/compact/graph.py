"""Graph of channel dependencies: which tensors must shrink together with a layer, and which layers cannot shrink.

The model is traced symbolically with torch.fx; neither data nor weights are needed. Each channel is followed from the
convolution or linear layer that produces it, through operations that act on channels independently (BN, activations,
pooling, flattening), to the layers that read it. Any other consumer (a sum, channel padding, the network's output, an
unknown operation) pins the channel: the layer that produces it must keep all its rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from trials.errors import UserError

LAYERS = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# Operations that act on channels independently and map 0 to 0, so that a filter of zeros contributes nothing.
_CHANNELWISE = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Dropout, nn.Dropout2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
)
_CHANNELWISE_CALLS = {
    *(F.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.hardswish, F.tanh, F.dropout, "relu", "tanh", "contiguous"),
    *(F.max_pool2d, F.avg_pool2d, F.adaptive_max_pool2d, F.adaptive_avg_pool2d),
}


@dataclass
class Channels:
    """The output channels of one layer.

    Attributes:
        layer: the module that produces them; a channel is a row of its weight and an entry of its bias.
        norms: names of the BN modules that they pass through.
        readers: the layers that read them, with one input column per channel and pixel left at the flattening.
        pinned: reason why none of them can be removed; empty if they can.
    """

    layer: str
    norms: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    pinned: str = ""


def dependencies(model: nn.Module) -> dict[str, Channels]:
    """Return the output channels of every Conv2d and Linear of a model, by weight name, in forward order.

    Raises:
        UserError: the model's forward pass cannot be traced, for example because it branches on its input.
    """
    try:
        graph = fx.Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError) as error:
        raise UserError(
            f"{type(model).__name__} cannot be made smaller, because its forward pass cannot be traced ({error}): "
            "write it without branches on its input"
        ) from None
    modules: dict[str, Any] = dict(model.named_modules())
    made: dict[str, Channels] = {}
    origin: dict[fx.Node, Channels | None] = {}
    for node in graph.nodes:
        inputs = [origin[source] for source in node.all_input_nodes]
        module = modules[str(node.target)] if node.op == "call_module" else None
        if isinstance(module, LAYERS):
            origin[node] = _through_layer(str(node.target), module, inputs[0], modules, made)
        elif isinstance(module, NORMS) and _fits(module, inputs[0], modules):
            if inputs[0] is not None:
                inputs[0].norms.append(str(node.target))
            origin[node] = inputs[0]
        elif _is_channelwise(node, module):
            origin[node] = inputs[0]
        else:
            for channels in inputs:
                if channels is not None:
                    channels.pinned = channels.pinned or _reason(node)
            origin[node] = None
    _pin_tied(made, modules)
    return made


def sources(graph: dict[str, Channels]) -> dict[str, Channels]:
    """Return the channels that each layer reads, by weight name; without layers that read the image or a sum."""
    return {f"{reader}.weight": channels for channels in graph.values() for reader in channels.readers}


def _through_layer(
    name: str, layer: Any, read: Channels | None, modules: dict[str, Any], made: dict[str, Channels]
) -> Channels:
    used = f"{name}.weight" in made
    channels = made.setdefault(f"{name}.weight", Channels(name))
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        channels.pinned = f"{name} is a grouped convolution"
    if read is not None:
        read.readers.append(name)
        rows, columns = len(modules[read.layer].weight), layer.weight.shape[1]
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            read.pinned = channels.pinned
        elif columns % rows or (isinstance(layer, nn.Conv2d) and columns != rows):
            read.pinned = f"{name} reads {columns} channels, but {read.layer} makes {rows}"
    if used:
        for pinned in (channels, *(other for other in made.values() if name in other.readers)):
            pinned.pinned = f"{name} is used twice"
    return channels


def _pin_tied(made: dict[str, Channels], modules: dict[str, Any]) -> None:
    """Pin the channels that layers with a common weight make and read: each could be cut only as the others are."""
    by_weight: dict[int, list[str]] = {}
    for channels in made.values():
        by_weight.setdefault(id(modules[channels.layer].weight), []).append(channels.layer)
    for first, *others in by_weight.values():
        for name in (first, *others) if others else ():
            for pinned in (made[f"{name}.weight"], *(other for other in made.values() if name in other.readers)):
                pinned.pinned = f"{first} and {others[0]} share their weight"


def _fits(norm: Any, read: Channels | None, modules: dict[str, Any]) -> bool:
    """Whether a BN has one entry per channel; it does not if it follows a flattening of several pixels."""
    return read is None or bool(norm.num_features == len(modules[read.layer].weight))


def _is_channelwise(node: fx.Node, module: nn.Module | None) -> bool:
    if module is not None:
        return isinstance(module, _CHANNELWISE) or (isinstance(module, nn.Flatten) and module.start_dim == 1)
    if node.target in _CHANNELWISE_CALLS:
        return True
    name = getattr(node.target, "__name__", node.target)
    first: Any = node.args[1] if len(node.args) > 1 else next(iter(node.kwargs.values()), None)
    if name == "flatten":
        return bool(first == 1)
    return name == "mean" and isinstance(first, (list, tuple)) and set(first) in ({2, 3}, {-1, -2})


def _reason(node: fx.Node) -> str:
    if node.op == "output":
        return "they are the network's outputs"
    name = getattr(node.target, "__name__", str(node.target))
    return f"they enter {'a sum with other channels' if 'add' in name else repr(name)} ({node.name})"
