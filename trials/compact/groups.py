"""Units of a network that can only go whole, over all layers that share them, and groups of units that are alike.

A unit is what one removed channel takes with it: a row of every layer that makes it (several in a sum, or around a
depthwise convolution), its entries of norms, and the columns of every layer that reads it. A head of attention, a group
of a grouped convolution and a hidden unit of an MLP are units, too. A group holds the units that the same layers make,
as the dependency graph of DepGraph (https://arxiv.org/abs/2301.12900) does. Channels that must stay are in no unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from trials.compact.flow import Flow, flow_of
from trials.compact.labels import distinct, distinct_and_positions


@dataclass(frozen=True)
class Units:
    """The units of a network.

    Attributes:
        members: by tensor name and dimension, the unit of each entry (int64), -1 for entries that stay.
        group: the group of each unit, int64 [units].
        names: of each group, the weights whose rows make its units.
        readers: names of the weights whose columns read units.
        fixed: by weight name, why layers are in no unit, though they make channels.
    """

    members: dict[str, dict[int, Tensor]]
    group: Tensor
    names: tuple[tuple[str, ...], ...]
    readers: tuple[str, ...]
    fixed: dict[str, str]


_found: WeakKeyDictionary[Flow, Units] = WeakKeyDictionary()


def units_of(model: nn.Module) -> Units:
    """Find the units of a model; once, until its modules or its parameters' shapes change. Not to be written to.

    Raises:
        UserError: the model's forward pass cannot be traced.
    """
    flow = flow_of(model)
    if flow not in _found:
        _found[flow] = _units(flow)
    return _found[flow]


def _units(flow: Flow) -> Units:
    entries, labels = flow.entries, flow.labels
    rows = {weight: entries.of[weight][0] for weight in entries.makers}
    free = [labels.find(row[~labels.fixed(row)]) for row in rows.values()]
    roots = distinct(torch.cat([torch.zeros(0, dtype=torch.int64), *free]))
    number = torch.full((labels.count,), -1)
    number[roots] = torch.arange(len(roots))
    members = {
        tensor: {dim: number[labels.find(found)] for dim, found in by_dim.items()}
        for tensor, by_dim in entries.of.items()
    }
    group = _grouped(len(roots), [members[weight][0] for weight in rows])
    names: list[list[str]] = [[] for _ in range(int(group.max()) + 1 if len(group) else 0)]
    for weight in rows:
        made = members[weight][0]
        for number_ in distinct(group[made[made >= 0]]).tolist():
            names[number_].append(weight)
    fixed = {weight: labels.reason(row) for weight, row in rows.items() if labels.fixed(row).all()}
    return Units(members, group, tuple(map(tuple, names)), tuple(entries.readers), fixed)


def _grouped(units: int, rows: list[Tensor]) -> Tensor:
    """Number the groups: units that rows of one layer make are in one."""
    parent = torch.arange(units)
    changed = True
    while changed:
        changed = False
        for row in rows:
            mine = row[row >= 0]
            if len(mine) and len(found := distinct(parent[mine])) > 1:
                parent[torch.isin(parent, found)] = found.min()
                changed = True
    return distinct_and_positions(parent)[1]


def spared(units: Units, off: Tensor) -> Tensor:
    """Take back units (bool [units]) so that no tensor loses all entries of a dimension: the first one stays."""
    off = off.clone()
    for by_dim in units.members.values():
        for member in by_dim.values():
            if len(member) and (member >= 0).all() and off[member].all():
                off[member[0]] = False
    return off


@torch.no_grad()
def unread(model: nn.Module, units: Units) -> Tensor:
    """Find units (bool [units]) that no layer reads, since all columns that would are zero.

    Removing them changes no output, neither in evaluation nor in training mode.
    """
    read = torch.zeros(len(units.group), dtype=torch.bool)
    for weight in units.readers:
        columns = (model.get_parameter(weight) != 0).transpose(0, 1).flatten(1).any(1).cpu()
        member = units.members[weight][1]
        read[member[columns & (member >= 0)]] = True
    return ~read


def unit_rows(units: Units, off: Tensor) -> dict[str, Tensor]:
    """Return the rows, int64 indices by weight name, of all layers that make the units ``off`` (bool [units])."""
    made = {weight for names in units.names for weight in names}
    found: dict[str, Tensor] = {}
    for weight, by_dim in units.members.items():
        if weight in made:
            member = by_dim[0]
            if (gone := (member >= 0) & off[member]).any():
                found[weight] = gone.nonzero().flatten()
    return found


def cut_of(flow: Flow, kept: dict[str, Tensor]) -> Tensor:
    """Return the classes (bool by label) that go if the layers in ``kept`` keep these rows only."""
    gone = torch.zeros(flow.labels.count, dtype=torch.bool)
    for weight, rows in kept.items():
        mine = flow.labels.find(flow.entries.of[weight][0])
        off = torch.ones(len(mine), dtype=torch.bool)
        off[rows.cpu()] = False
        gone[mine[off]] = True
    return gone
