"""Graph of channel dependencies: which tensors must shrink together with a layer, and which layers cannot shrink alone.

It is what :mod:`trials.compact.flow` finds, told layer by layer: the model is traced symbolically with torch.fx, and
neither data nor weights are needed. Each channel is followed from the convolution or linear layer that produces it,
through operations that act on channels independently (norms, depthwise convolutions, activations, pooling, flattening),
to the layers that read it. Channels that others depend on (in a sum, a grouped convolution, the network's outputs, an
unknown operation, one that does not map 0 to 0) are pinned here: the layer that produces them must keep all its rows,
unless whole units of :mod:`trials.compact.groups` go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from trials.compact.flow import Flow, flow_of


@dataclass
class Channels:
    """The output channels of one layer.

    Attributes:
        layer: the module that produces them; a channel is a row of its weight and an entry of its bias.
        norms: names of the norms that they pass through.
        readers: the layers that read them, with one input column per channel and pixel left at the flattening.
        pinned: reason why none of them can be removed; empty if they can.
        depthwise: names of the depthwise convolutions that they pass through; one filter for each channel.
    """

    layer: str
    norms: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    pinned: str = ""
    depthwise: list[str] = field(default_factory=list)


_found: WeakKeyDictionary[Flow, dict[str, Channels]] = WeakKeyDictionary()


def dependencies(model: nn.Module) -> dict[str, Channels]:
    """Return the output channels of every Conv2d and Linear of a model, by weight name, in forward order.

    They are found once, until the model's modules or its parameters' shapes change. Not to be written to.

    Raises:
        UserError: the model's forward pass cannot be traced, for example because it branches on its input.
    """
    flow = flow_of(model)
    if flow not in _found:
        _found[flow] = _dependencies(model, flow)
    return dict(_found[flow])


def _dependencies(model: nn.Module, flow: Flow) -> dict[str, Channels]:
    named = dict(model.named_parameters(remove_duplicate=False))
    depthwise = {name for name in flow.entries.passes if name in flow.entries.layers}
    rows = {weight: flow.labels.find(flow.entries.of[weight][0]) for weight in flow.entries.makers}
    own = [r for w, r in rows.items() if w.removesuffix(".weight") not in depthwise]
    made = torch.bincount(torch.cat([torch.zeros(0, dtype=torch.int64), *own]))
    read = {weight: flow.labels.find(flow.entries.of[weight][1]) for weight in flow.entries.readers}
    found: dict[str, Channels] = {}
    for weight in flow.entries.makers:
        layer = weight.removesuffix(".weight")
        if layer in flow.entries.layers:
            channels = _channels(flow, layer, rows, read, depthwise)
            channels.pinned = _pinned(flow, channels, rows[weight], made, named)
            found[weight] = channels
    return found


def sources(graph: dict[str, Channels]) -> dict[str, Channels]:
    """Return the channels that each layer reads, by weight name; of a sum, those of its first layer.

    Layers that read the image or channels that no layer makes are left out.
    """
    found: dict[str, Channels] = {}
    for channels in graph.values():
        for reader in channels.readers:
            found.setdefault(f"{reader}.weight", channels)
    return found


def _channels(
    flow: Flow, layer: str, rows: dict[str, Tensor], read: dict[str, Tensor], depthwise: set[str]
) -> Channels:
    mine = rows[f"{layer}.weight"]
    channels = Channels(layer)
    if layer in depthwise:
        return channels
    inside = torch.zeros(flow.labels.count, dtype=torch.bool)
    inside[mine] = True
    for weight, columns in read.items():
        if inside[columns].any():
            channels.readers.append(weight.removesuffix(".weight"))
    for name in flow.entries.passes:
        if name in depthwise:
            if inside[rows[f"{name}.weight"]].any():
                channels.depthwise.append(name)
            continue
        part = next(
            (f"{name}.{part}" for part in ("weight", "running_mean") if f"{name}.{part}" in flow.entries.of), ""
        )
        if part and inside[flow.labels.find(flow.entries.of[part][0])].any():
            channels.norms.append(name)
    return channels


def _pinned(flow: Flow, channels: Channels, rows: Tensor, made: Tensor, named: dict[str, nn.Parameter]) -> str:
    """Why these channels cannot go by themselves; empty if each is a class of its own that is read in order."""
    entries, layer = flow.entries, channels.layer
    if layer in entries.passes:
        return "filters of a grouped convolution go with the channels that they read"
    if layer in entries.grouped:
        return f"{layer} is a grouped convolution"
    for name in (layer, *channels.readers):
        if entries.calls[f"{name}.weight"] > 1:
            return f"{name} is used twice"
    if flow.labels.fixed(rows).any():
        return flow.labels.reason(rows)
    if flow.labels.shifted(rows).any():
        return "they enter an operation that does not map 0 to 0"
    for name in entries.grouped:
        if torch.isin(flow.labels.find(entries.of[f"{name}.weight"][0]), rows).any():
            return f"{name} is a grouped convolution"
    if (made[rows] > 1).any():
        return "they enter a sum with other channels"
    for name in channels.depthwise:
        if f"{name}.bias" in named:
            return f"{name} is a depthwise convolution with a bias"
        if len(entries.of[f"{name}.weight"][0]) != len(rows):
            return f"{name} is a grouped convolution that makes several channels of each"
    alike = [f"{name}.weight" for name in channels.depthwise]
    alike += [f"{name}.{part}" for name in channels.norms for part in ("weight", "running_mean")]
    for tensor, dim in [*((t, 0) for t in alike if t in entries.of), *((f"{r}.weight", 1) for r in channels.readers)]:
        inside = flow.labels.find(entries.of[tensor][dim])
        if len(inside) % len(rows) or not torch.equal(inside, rows.repeat_interleave(len(inside) // len(rows))):
            return f"{tensor.rpartition('.')[0]} has them among others"
    return ""
