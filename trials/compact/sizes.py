"""Sizes that a forward pass asks for, and what a cut must keep true of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from trials.compact.labels import Labels, distinct_and_positions
from trials.compact.tracing import traced
from trials.errors import UserError


def _as_it_is(size: int) -> int:
    return size


class Size(int):
    """A size of a dimension, or what a forward pass computes from one.

    Attributes:
        labels: those along the dimension; None if they do not differ, so that no cut changes the size.
        of: computes this number from the size of the dimension.
    """

    labels: Tensor | None
    of: Callable[[int], Any]

    def __new__(cls, value: int, labels: Tensor | None = None, of: Callable[[int], Any] = _as_it_is) -> Size:
        made = super().__new__(cls, value)
        made.labels, made.of = labels, of
        return made


@dataclass(frozen=True)
class Computed:
    """A size that the forward pass computes from another one, and that must shrink in proportion to it.

    Attributes:
        counted: the labels along the dimension that has the computed size.
        source: the labels along the dimension that it is computed from.
        of: computes the one size from the other; None if it is another size that a written one divides.
    """

    counted: Tensor
    source: Tensor
    of: Callable[[int], Any] | None = None

    def wrong(self, labels: Labels) -> Tensor:
        """Labels of classes without which the size that is computed would not be the size that is left."""
        counted, source = labels.find(self.counted), labels.find(self.source)
        classes, inverse = distinct_and_positions(torch.cat([counted, source]))
        made = torch.bincount(inverse[: len(counted)], minlength=len(classes))
        from_ = torch.bincount(inverse[len(counted) :], minlength=len(classes))
        wrong = made * len(source) != from_ * len(counted)
        if self.of is None or wrong.any():
            return classes[wrong]
        gone = zip([*from_, *from_.cumsum(0)], [*made, *made.cumsum(0)], strict=True)
        exact = all(self.of(len(source) - int(less)) == len(counted) - int(fewer) for less, fewer in gone)
        return classes[:0] if exact else classes


@dataclass(frozen=True)
class Written:
    """A size that is an attribute of a module, such as a number of heads, and that must be set after a cut.

    Attributes:
        place: where the forward pass takes it: number of the traced pass, name of the operation, and which of its
            arguments; None if no operation does.
    """

    attribute: str
    counted: Tensor
    place: tuple[int, str, int] | None = None


def follow(model: nn.Module, graphs: Sequence[fx.Graph], sizes: Sequence[Written]) -> bool:
    """Whether the forward pass takes these sizes from their attributes, and uses the attributes for nothing else.

    The model is traced with other numbers in the attributes. Besides the sizes, only divisors of other sizes may
    change, such as in channels by heads.
    """
    places = {(*size.place, True) for size in sizes if size.place}
    before = [_numbers(number, graph) for number, graph in enumerate(graphs)]
    holders: dict[str, tuple[Any, str, int]] = {}
    for size in sizes:
        path, _, part = size.attribute.rpartition(".")
        holders[size.attribute] = (model.get_submodule(path), part, getattr(model.get_submodule(path), part))
    try:
        for module, part, value in holders.values():
            setattr(module, part, value + 1)
        after = [_numbers(number, graph) for number, graph in enumerate(traced(model))]
    except UserError:
        return False
    finally:
        for module, part, value in holders.values():
            setattr(module, part, value)
    if [one.keys() for one in before] != [other.keys() for other in after]:
        return False
    changed = {place for one, other in zip(before, after, strict=True) for place in one if one[place] != other[place]}
    return places <= changed and all(place in places or not place[-1] for place in changed)


def _numbers(number: int, graph: fx.Graph) -> dict[tuple[int, str, int, bool], Any]:
    """The plain arguments of operations by place, and whether each is something else than the divisor of a size."""
    found: dict[tuple[int, str, int, bool], Any] = {}
    for node in graph.nodes:
        flat: list[Any] = []
        fx.node.map_aggregate((node.args[1:], *node.kwargs.values()), flat.append)
        divides = getattr(node.target, "__name__", "") == "floordiv"
        found |= {
            (number, node.name, i, not divides): None if isinstance(value, fx.Node) else value
            for i, value in enumerate(flat)
        }
        found[(number, node.name, -1, True)] = str(node.target)
    return found


def sizes_in(value: Any) -> list[Size]:
    """The sizes in nested tuples, lists, mappings and slices that a cut would change."""
    if isinstance(value, Size):
        return [] if value.labels is None else [value]
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    if isinstance(value, dict):
        value = list(value.values())
    return [size for part in value for size in sizes_in(part)] if isinstance(value, (list, tuple)) else []


def computed_from(made: int, function: Callable[..., Any], args: Sequence[Any]) -> Size:
    """Return ``made``, which a function computes from ``args``: from one size that a cut would change, or from none."""
    place = next((i for i, arg in enumerate(args) if isinstance(arg, Size) and arg.labels is not None), None)
    if place is None:
        return Size(made)
    source: Size = args[place]

    def of(size: int) -> Any:
        return function(*args[:place], source.of(size), *args[place + 1 :])

    return Size(made, source.labels, of)
