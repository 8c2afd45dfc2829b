"""What a record says of its trial's rows for a pruner: where they stand, and whether the trial will miss its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.folder.sweep_folder import Record
from sweeper.search.pruning.bounds import will_miss
from sweeper.search.pruning.positions import Position
from sweeper.space.pruner_steps import Spans, epoch_spans
from sweeper.space.space import Space
from trials.errors import UserError


def position_of(space: Space, record: Record, row: Mapping[str, Any] | None) -> Position | None:
    """The position of a running trial's row, or of what it sent of it; None without one."""
    if row is None:
        return None
    return Position.of(row, will_miss=misses(space, record, row))


def misses(space: Space, record: Record, row: Mapping[str, Any]) -> bool:
    """Whether it is certain at this row that the trial will miss its bounds."""
    try:
        return bool(space.constraints) and will_miss(space.constraints, record.config, record.content, row)
    except UserError:  # its config cannot be read
        return False


def spans_of(record: Record) -> Spans:
    """The epochs of the stages in which a trial may be stopped; none if its config cannot be read."""
    try:
        return epoch_spans(record.config)
    except UserError:
        return {}
