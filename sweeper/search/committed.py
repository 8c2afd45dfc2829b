"""What the searches are told of committed trials. The plan tells them, the dashboard shows the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from optuna.trial import TrialState

from sweeper.folder.forgiving import followed_failures
from sweeper.folder.packed_records import in_search_order
from sweeper.folder.sweep_folder import Record, Sample, SweepFolder
from sweeper.search.outcomes import FAILED, RUNNING, Outcome, outcome_of
from sweeper.search.pruning.judged_rows import misses, spans_of
from sweeper.search.pruning.learning_curves import Course, course_in, courses_in
from sweeper.space.space import Space
from trials.errors import TIME_LIMIT
from trials.storage.trial_folder import State


def given_up(space: Space, state: State | None) -> bool:
    """Whether a trial has failed and has no retries left; one that has used up its ``trial_hours`` has none."""
    if state is None or state.status != "failed":
        return False
    return state.failures > space.retries or (state.error or {}).get("type") == TIME_LIMIT


def outcome_without_curve(space: Space, record: Record) -> Outcome:
    """The outcome of a trial for what needs no learning curve, such as the value that is shown."""
    return _outcome(space, record, Course())


def outcome_with_curve(space: Space, record: Record) -> Outcome:
    """The outcome of a trial for the searches of its samples, with the curve if there is a pruner."""
    return _outcome(space, record, course_in(record, space.objective) if space.pruner else Course())


def samples_with_outcomes(
    space: Space, folder: SweepFolder, records: Mapping[str, Record], *, curves: bool = False
) -> Iterator[tuple[Sample, Record, Outcome]]:
    """Yield every sample with its trial's record and outcome, by cell and number: the order in which a search is told.

    Args:
        records: by trial id; each is looked up when its sample's turn comes, since they may be packed.
        curves: whether outcomes have learning curves even if there is no pruner.
    """
    settled = followed_failures(records.values()) if space.pbt else frozenset()
    pruned = bool(space.pruner) or curves
    methods = {name: str(record.content.get("method")) for name, record in records.items()} if pruned else {}
    courses = courses_in(folder, methods, space.objective)
    for trial_id, place in in_search_order(records):
        record = records[trial_id]
        course = courses.get(trial_id) or Course()
        yield record.samples[place], record, _outcome(space, record, course, trial_id in settled)


def _outcome(space: Space, record: Record, course: Course, settled: bool = False) -> Outcome:
    """``settled``: a failure that counts, though retries are left."""
    state = record.state
    if state is not None and state.finished:
        found = outcome_of(space.objectives, space.constraints, record.content, state, course.curve)
    else:
        found = replace(FAILED if settled or given_up(space, state) else RUNNING, curve=course.curve)
    if not found.curve:
        return found
    missing = found.state != TrialState.COMPLETE and course.last is not None and misses(space, record, course.last)
    return replace(found, reached=course.reached, will_miss=missing, spans=partial(spans_of, record))
