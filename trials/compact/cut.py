"""Make a network physically smaller: find which entries of which tensors stay, and slice the tensors.

``Kept`` records what stays: for each layer that lost rows, by weight name, the ascending int64 indices of the dense
network's rows that remain. Everything else (norms, columns of the layers that read it, groups of convolutions, numbers
of heads) follows from :mod:`trials.compact.flow`, so a checkpoint needs no other record of shapes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trials.compact.attention import with_fewer_heads
from trials.compact.entries import is_grouped
from trials.compact.flow import Flow, flow_of
from trials.compact.graph import Channels, dependencies, sources
from trials.compact.groups import cut_of
from trials.errors import listed

Kept = dict[str, Tensor]
"""Indices of remaining rows (int64, ascending), by weight name."""

Slices = dict[str, dict[int, Tensor]]
"""Indices of entries that stay, by tensor name and dimension; also of what an attribute counts, such as heads."""


def kept_rows(model: nn.Module, removed: Mapping[str, Tensor], pattern: Literal["filter", "channel"]) -> Kept:
    """Return the rows that stay after removing ``removed``: by weight name, int64 indices of rows or input columns.

    With pattern ``filter``, ``removed`` indexes rows; with ``channel``, input columns, which are removed together with
    the rows that produce them. Layers that lose no rows are not in the result.

    Raises:
        ValueError: a removal touches a sum or the network's inputs or outputs; it would leave nothing; its indices are
            out of range; or layers that read the same channels do not remove the same ones.
    """
    removed = {name: indices for name, indices in removed.items() if indices.numel()}
    graph, flow = dependencies(model), flow_of(model)
    unknown = sorted(removed.keys() - set(flow.entries.makers))
    if unknown:
        raise ValueError(f"{unknown[0]} is not the weight of a convolution or linear layer of the model")
    rows = removed if pattern == "filter" else _rows_of_columns(model, graph, removed)
    stay = {name: _complement(name, indices, len(model.get_parameter(name))) for name, indices in rows.items()}
    _require_whole(
        flow, stay, {name: channels.pinned for name, channels in graph.items()}, "{} must keep all its filters: {}"
    )
    return _of_all(flow, stay)


def _of_all(flow: Flow, stay: Kept) -> Kept:
    """Add the layers whose rows go with those that ``stay`` leaves out."""
    gone = cut_of(flow, stay)
    kept: Kept = {}
    for name in flow.entries.makers:
        off = gone[flow.labels.find(flow.entries.of[name][0])]
        if off.all():
            raise ValueError(f"{name} would lose all its {len(off)}: at least one must stay")
        if off.any():
            kept[name] = (~off).nonzero().view(-1)
    return kept


def _require_whole(flow: Flow, stay: Kept, pinned: Mapping[str, str], says: str) -> None:
    """Check that what goes are whole classes: no channel that must stay, and the rows of all layers that make it.

    Depthwise convolutions need not be named: their filters go with the channels that they read.
    """
    entries, labels = flow.entries, flow.labels
    gone = cut_of(flow, stay)
    for name, rows in stay.items():
        mine = entries.of[name][0]
        off = gone[labels.find(mine)]
        if int(off.sum()) != len(off) - len(rows) or labels.fixed(mine[off]).any():
            raise ValueError(says.format(name, pinned.get(name) or labels.reason(mine) or "some go with others"))
    for other in entries.makers:
        off = gone[labels.find(entries.of[other][0])]
        if off.any() and other not in stay and other.removesuffix(".weight") not in entries.passes:
            name = next(name for name in stay if gone[labels.find(entries.of[name][0])].any())
            raise ValueError(says.format(name, pinned.get(name) or f"they go with rows of {other} only"))


def obstacles(
    graph: Mapping[str, Channels], names: Collection[str], pattern: Literal["filter", "channel"]
) -> dict[str, str]:
    """Return why rows (filter) or input columns (channel) of the layers ``names`` cannot be removed, any of them.

    By weight name; layers that may lose some are left out. Layers that read the same channels would each have to remove
    the same ones, so channels with several readers count as fixed.
    """
    if pattern == "filter":
        return {name: graph[name].pinned for name in names if graph[name].pinned}
    made_by = sources(dict(graph))
    found: dict[str, str] = {}
    for name in names:
        if name not in made_by:
            found[name] = "they are the image's, or of a sum"
        elif made_by[name].pinned:
            found[name] = f"{made_by[name].layer} makes them: {made_by[name].pinned}"
        elif len(made_by[name].readers) > 1:
            found[name] = f"{listed(made_by[name].readers)} read the same ones"
    return found


def _rows_of_columns(model: nn.Module, graph: dict[str, Channels], removed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows (by weight name) that produce the removed columns."""
    made_by = sources(graph)
    rows: dict[str, Tensor] = {}
    for name in removed:
        if name not in made_by:
            raise ValueError(f"{name} must keep all its input channels: they are the image's, or of a sum")
        channels = made_by[name]
        if channels.pinned:
            raise ValueError(
                f"{name} must keep all its input channels, which {channels.layer} makes: {channels.pinned}"
            )
        wanted = {reader: removed.get(f"{reader}.weight") for reader in channels.readers}
        per_reader = [_rows_of_reader(model, channels.layer, reader, columns) for reader, columns in wanted.items()]
        if any(not torch.equal(one, per_reader[0]) for one in per_reader):
            raise ValueError(f"{', '.join(wanted)} read the same channels, so they must all remove the same")
        rows[f"{channels.layer}.weight"] = per_reader[0]
    return rows


def _rows_of_reader(model: nn.Module, layer: str, reader: str, columns: Tensor | None) -> Tensor:
    """Channels of ``layer`` whose columns in ``reader`` are all removed."""
    rows, width = model.get_parameter(f"{layer}.weight").shape[0], model.get_parameter(f"{reader}.weight").shape[1]
    gone = torch.ones(width, dtype=torch.bool)
    if columns is None:
        gone[:] = False
    else:
        gone[_complement(f"{reader}.weight", columns, width)] = False
    per_row = gone.view(rows, -1)  # [rows, columns per row]
    if (per_row.any(1) != per_row.all(1)).any():
        raise ValueError(f"{reader}.weight must lose all {width // rows} columns of a channel of {layer}, or none")
    return per_row[:, 0].nonzero().view(-1)


def _complement(name: str, indices: Tensor, n: int) -> Tensor:
    """Return 0 .. n-1 without ``indices``, int64 on the CPU."""
    indices = indices.cpu()
    if indices.dtype != torch.int64 or int(indices.min()) < 0 or int(indices.max()) >= n:
        raise ValueError(f"indices to remove of {name} must be int64 in 0..{n - 1}")
    stays = torch.ones(n, dtype=torch.bool)
    stays[indices] = False
    if not stays.any():
        raise ValueError(f"{name} would lose all its {n}: at least one must stay")
    return stays.nonzero().view(-1)


def require_rows(model: nn.Module, kept: Mapping[Any, Any]) -> None:
    """Check that a record from a file says of layers of a model which rows they keep, as :data:`Kept` does.

    Raises:
        ValueError: it does not; the message says which entry, and why.
    """
    flow = flow_of(model)
    pinned = {name: channels.pinned for name, channels in dependencies(model).items()}
    for name, rows in kept.items():
        if name not in flow.entries.makers:
            raise ValueError(f"kept has {str(name)!a}, and must name weights of convolutions and linear layers")
        if not isinstance(rows, Tensor) or rows.layout is not torch.strided or rows.is_meta:
            raise ValueError(f"kept has a {type(rows).__name__} for {name}, and must have a tensor of indices")
        if rows.dtype != torch.int64 or rows.dim() != 1 or not rows.numel():
            kind = f"{rows.dtype} in shape {tuple(rows.shape)}".removeprefix("torch.")
            raise ValueError(f"kept has {kind} for {name}, and must have int64 indices in one dimension, at least one")
        n = model.get_parameter(name).shape[0]
        if (rows[1:] <= rows[:-1]).any() or int(rows[0]) < 0 or int(rows[-1]) >= n:
            raise ValueError(f"kept has rows of {name} that are not ascending in 0..{n - 1}")
    _require_whole(flow, dict(kept), pinned, "kept has {}, which must keep all its rows: {}")
    _of_all(flow, dict(kept))


def slices(model: nn.Module, kept: Kept) -> Slices:
    """Return which entries of the model's parameters and buffers stay if the layers in ``kept`` keep these rows."""
    flow = flow_of(model)
    gone = cut_of(flow, kept)
    if not gone.any():
        return {}
    cut: Slices = {}
    for tensor, by_dim in flow.entries.of.items():
        for dim, labels in by_dim.items():
            off = gone[flow.labels.find(labels)]
            if off.any():
                cut.setdefault(tensor, {})[dim] = (~off).nonzero().view(-1)
    for size in flow.written:
        off = gone[flow.labels.find(size.counted)]
        if off.any():
            cut[size.attribute] = {0: (~off).nonzero().view(-1)}
    return cut


def cut_tensors(tensors: Mapping[str, Tensor], cut: Slices) -> dict[str, Tensor]:
    """Slice named tensors to the entries that stay, preserving channels-last; tensors not in ``cut`` are not copied."""
    return {name: _cut(tensor, cut[name]) if name in cut else tensor for name, tensor in tensors.items()}


def spread(tensor: Tensor, shape: Sequence[int], by_dimension: Mapping[int, Tensor]) -> Tensor:
    """Return a cut tensor in the shape that it was cut from, with zeros (False) where entries went."""
    for dimension, indices in by_dimension.items():
        size = [*tensor.shape[:dimension], shape[dimension], *tensor.shape[dimension + 1 :]]
        tensor = tensor.new_zeros(size).index_copy_(dimension, indices.to(tensor.device), tensor)
    return tensor


def _cut(tensor: Tensor, by_dimension: Mapping[int, Tensor]) -> Tensor:
    channels_last = tensor.dim() == 4 and not tensor.is_contiguous()
    tensor = tensor.detach()
    for dimension, indices in by_dimension.items():
        tensor = tensor.index_select(dimension, indices.to(tensor.device))
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor


def resize(model: nn.Module, cut: Slices) -> None:
    """Slice the model's parameters and buffers in place and update its modules' size attributes."""
    for name in cut:
        path, _, part = name.rpartition(".")
        module: Any = model.get_submodule(path)
        if isinstance(module, nn.MultiheadAttention):
            parent, _, own = path.rpartition(".")
            module = with_fewer_heads(module)
            setattr(model.get_submodule(parent), own, module)
        value = getattr(module, part)
        if not isinstance(value, Tensor):  # a number of heads, for example
            setattr(module, part, len(cut[name][0]))
            continue
        smaller = _cut(value, cut[name])
        if isinstance(value, nn.Parameter):
            smaller = nn.Parameter(smaller, requires_grad=value.requires_grad)
        setattr(module, part, smaller)
        if part == "weight":
            _resized(module, len(value))


def _resized(layer: nn.Module, before: int) -> None:
    """Update a module's attributes to its weight, of which it had ``before`` rows."""
    module: Any = layer
    if isinstance(layer, nn.Conv2d):
        rows, columns = module.weight.shape[:2]
        if is_grouped(layer):  # a group is left whole, or not, also if only one is left
            module.groups = rows // (before // module.groups)
            module.was_grouped = True
        module.out_channels, module.in_channels = rows, columns * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif hasattr(module, "num_features"):
        module.num_features = len(module.weight)


def shrink(model: nn.Module, kept: Kept) -> Slices:
    """Shrink a model in place so that the layers in ``kept`` keep only these rows; return the slices applied."""
    cut = slices(model, kept)
    resize(model, cut)
    return cut
