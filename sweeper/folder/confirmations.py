"""Which samples are confirmations: the best sample of a cell, run again with a seed that its search has not used.

A confirmation is a sample of its cell. It has the number and the hyperparameters of the sample that it confirms, and
says in its attributes which trial that is and what it changes: ``{"confirm": {"trial": ID, "values": {"seed": 1}}}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.folder.sweep_folder import Sample

CONFIRM = "confirm"
"""Key, among a sample's attributes, of what it confirms."""


@dataclass(frozen=True)
class Confirmation:
    """What a sample confirms.

    Attributes:
        trial: id of the confirmed sample's trial.
        values: what differs from its config, by dotted path.
    """

    trial: str
    values: dict[str, Any]

    def attrs(self) -> dict[str, Any]:
        """Return the attributes of a sample that confirms this."""
        return {CONFIRM: {"trial": self.trial, "values": dict(self.values)}}


def confirmation_of(sample: Sample) -> Confirmation | None:
    """What a sample confirms; None if it is a sample of the search."""
    found = sample.attrs.get(CONFIRM)
    if found is None:
        return None
    values = found.get("values")
    return Confirmation(str(found.get("trial")), dict(values) if isinstance(values, Mapping) else {})


def same_confirmation(one: Sample, other: Sample) -> bool:
    """Whether two samples of a cell confirm equal hyperparameters with equal values."""
    here, there = confirmation_of(one), confirmation_of(other)
    if here is None or there is None:
        return False
    return (one.cell, one.params, here.values) == (other.cell, other.params, there.values)


def only_confirms(samples: Iterable[Sample]) -> bool:
    """Whether a trial serves no search: all its samples, at least one, are confirmations."""
    found = [confirmation_of(sample) is not None for sample in samples]
    return bool(found) and all(found)
