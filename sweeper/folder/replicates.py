"""Which replicate of its point a sample is, and whether its point was dropped (``replicates:``).

A point of a search with replicates is several samples of its cell. They have its number, its hyperparameters and what
the sampler left on it, and say in their attributes in what they differ:
``{"replicate": {"values": {"seed": 1}}}``; with ``"dropped": "race"`` if the race has ended the point, a decision that
stands whatever other points turn out to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweeper.folder.confirmations import confirmation_of
from sweeper.folder.sweep_folder import Sample

REPLICATE = "replicate"
"""Key, among a sample's attributes, of which replicate it is."""


@dataclass(frozen=True)
class Replicate:
    """Which replicate a sample is.

    Attributes:
        values: what it sets in its point's config, by dotted path.
        dropped: why its point gets no further replicate, although each one so far has run to its end; None if it may.
    """

    values: dict[str, Any]
    dropped: str | None = None

    def attrs(self) -> dict[str, Any]:
        """Return the attribute of a sample that is this replicate."""
        return {REPLICATE: {"values": dict(self.values), **({"dropped": self.dropped} if self.dropped else {})}}


def replicate_of(sample: Sample) -> Replicate | None:
    """Which replicate a sample is; None if its point is one trial."""
    return replicate_in(sample.attrs)


def replicate_in(attrs: Mapping[str, Any]) -> Replicate | None:
    """Like :func:`replicate_of`, of a sample's attributes as JSON."""
    found = attrs.get(REPLICATE)
    if not isinstance(found, Mapping):
        return None
    values, dropped = found.get("values"), found.get("dropped")
    return Replicate(dict(values) if isinstance(values, Mapping) else {}, None if dropped is None else str(dropped))


def dropped(sample: Sample, reason: str) -> Sample:
    """The sample of a point that gets no further replicate."""
    found = replicate_of(sample)
    assert found is not None
    return replace(sample, attrs={**sample.attrs, **replace(found, dropped=reason).attrs()})


def values_set(sample: Sample) -> dict[str, Any]:
    """What a sample sets in its cell's config: its hyperparameters, and the values of its replicate or confirmation."""
    found, confirms = replicate_of(sample), confirmation_of(sample)
    return {**sample.params, **(found.values if found else {}), **(confirms.values if confirms else {})}


def same_replicate(one: Sample, other: Sample) -> bool:
    """Whether two samples are the same replicate of the same point, or the same point where it is one trial."""
    here, there = replicate_of(one), replicate_of(other)
    if (confirmation_of(one) is None) != (confirmation_of(other) is None):
        return False
    values = (here.values if here else None), (there.values if there else None)
    return (one.cell, one.number) == (other.cell, other.number) and values[0] == values[1]
