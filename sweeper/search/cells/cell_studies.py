"""What is committed of a cell as an Optuna study, for Optuna's importances and plots, and for the dashboard.

A study made here is a copy in memory: it suggests nothing for the sweep, and nothing reads it back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.folder.confirmations import confirmation_of
from sweeper.folder.replicates import replicate_of
from sweeper.folder.sweep_folder import Record, Sample, SweepFolder
from sweeper.search.cells.point_outcomes import outcome_of_point
from sweeper.search.cells.study_in_memory import knowingly
from sweeper.search.committed import samples_with_outcomes
from sweeper.search.outcomes import Outcome
from sweeper.space.grid.cells import Cell, make_cell
from sweeper.space.load import from_document, without_absent_code
from sweeper.space.options.samplers import SAMPLERS
from sweeper.space.space import Space
from sweeper.space.values import mapping
from trials.errors import UserError, listed, nearest_name, shown
from trials.plugins.importing import is_admitted
from trials.storage.trial_state import State
from trials.yaml_text import as_yaml

_MOST_KEYS = 30
"""Maximum number of cells that a message names."""


@dataclass(frozen=True)
class StudiedPoint:
    """One point of a cell's search as a trial of its study.

    Attributes:
        cell: the cell's key.
        number: of the sample, by which the cell's points are ordered.
        grid: the cell's grid values.
        records: its trials; of a point with replicates, in their order.
    """

    cell: str
    number: int
    trial: FrozenTrial
    grid: Mapping[str, Any]
    records: Sequence[Record]


def studied_points(
    space: Space, folder: SweepFolder, records: Iterable[Record], *, curves: bool = False
) -> Iterator[StudiedPoint]:
    """Yield every point of the searches with what is committed of it, by cell and number; confirmations are none.

    Args:
        curves: read learning curves (a trial's intermediate values) also where no pruner needs them.
    """
    by_id = {record.id: record for record in records}
    searched = (
        one for one in samples_with_outcomes(space, folder, by_id, curves=curves) if confirmation_of(one[0]) is None
    )
    if space.replicates is None:
        for sample, record, outcome in searched:
            trial = _trial(space, sample, record, outcome)
            yield StudiedPoint(sample.cell, sample.number, trial, sample.grid, (record,))
        return
    for _, several in groupby(searched, key=lambda one: (one[0].cell, one[0].number)):
        yield _point(space, list(several))


def _point(space: Space, replicates: list[tuple[Sample, Record, Outcome]]) -> StudiedPoint:
    """A point with replicates as one trial: its judged value, and the ids and values of its trials."""
    values = space.replicate_values()
    known = [(values.index(which.values), one) for one in replicates if (which := replicate_of(one[0])) is not None]
    known.sort(key=lambda item: item[0])
    ended = [outcome for _, (_, _, outcome) in known if outcome.state.is_finished()]
    dropped = any((which := replicate_of(sample)) is not None and which.dropped for _, (sample, _, _) in known)
    _, (sample, record, first) = known[0]
    waits = all(one.state is None for _, (_, one, _) in known)
    over = outcome_of_point(space, ended, dropped=dropped) if len(ended) == len(known) else None
    outcome = over or Outcome(TrialState.RUNNING, curve=first.curve)
    trial = _trial(space, sample, record, outcome)
    trial.state = TrialState.WAITING if waits else outcome.state
    trial.user_attrs = {"trials": [one.id for _, (_, one, _) in known], "sample": sample.number, **sample.grid}
    for name in space.objectives:
        each = [one.state.result.get(name.column) if one.state else None for _, (_, one, _) in known]
        trial.user_attrs[f"{name.column} of replicates"] = each
    states = [one.state for _, (_, one, _) in known if one.state is not None]
    if states:
        last = max(states, key=lambda state: state.ended or "")
        _set_times(trial, replace(last, started=min((state.started for state in states if state.started), default="")))
    return StudiedPoint(sample.cell, sample.number, trial, sample.grid, [one for _, (_, one, _) in known])


def _trial(space: Space, sample: Sample, record: Record, outcome: Outcome) -> FrozenTrial:
    state, search = record.state, space.search_in(sample.grid)
    figures = {} if state is None else {k: v for k, v in state.result.items() if v not in (None, [])}
    trial = create_trial(
        state=TrialState.WAITING if state is None else outcome.state,
        values=outcome.values,
        params=sample.params,
        distributions={path: search[path].optuna_distribution() for path in sample.params},
        user_attrs={"trial": record.id, "sample": sample.number, **sample.grid, **figures},
        intermediate_values=outcome.curve,
        constraints=outcome.violations,
    )
    if state is not None:
        _set_times(trial, state)
    return trial


def _set_times(trial: FrozenTrial, state: State) -> None:
    """Set when the trial's first attempt began and its last one ended, in local time, as Optuna has it."""
    if state.started:
        trial.datetime_start = _local(state.started)
    if state.ended and trial.state.is_finished():
        trial.datetime_complete = _local(state.ended)


def _local(utc: str) -> datetime:
    return datetime.fromisoformat(utc).astimezone().replace(tzinfo=None)


def stored_space_of(folder: SweepFolder) -> Space:
    """Return the space of a sweep as of its last change, without the plug-ins that this process has not admitted.

    Raises:
        UserError: there is none, or it names a method or column of such a plug-in.
    """
    document = folder.space_document()
    if document is None:
        raise UserError(f"{folder.path} is not a sweep's folder (it has no sweep.yaml), so it has no study")
    content = without_absent_code(document)
    if not SAMPLERS.built_in(_name_of(document.get("sampler"))):
        content.pop("sampler", None)  # what is committed needs no suggestions
    try:
        return from_document(content)
    except UserError as error:
        absent = [str(entry) for entry in document.get("plugins") or () if not is_admitted(str(entry))]
        way = f": the space uses code that is not imported here: give plugins={absent}" if absent else ""
        raise UserError(f"{folder.path / 'sweep.yaml'} cannot be read ({error}){way}") from None


def _name_of(sampler: object) -> object:
    return sampler.get("name") if isinstance(sampler, Mapping) else sampler


def cell_of(space: Space, given: str | Mapping[str, Any] | None) -> Cell:
    """Return a cell by its key, by its grid values, or the only one for None.

    Raises:
        UserError: there is no such cell, or several without a choice.
    """
    cells = space.cells()
    keys = listed((repr(cell.key) for cell in cells), _MOST_KEYS)
    if given is None:
        if len(cells) > 1:
            raise UserError(f"cell is missing, but the sweep has {len(cells)} cells: give one of {keys}")
        return cells[0]
    key = given if isinstance(given, str) else make_cell(mapping(as_yaml(given), "cell")).key
    for cell in cells:
        if cell.key == key:
            return cell
    near = nearest_name(key, [cell.key for cell in cells])
    raise UserError(f"cell is {shown(given)}, but must be one of: {keys}, or a mapping of all its grid values{near}")


def study_of(space: Space, folder: SweepFolder, cell: Cell) -> optuna.Study:
    """Return what is committed of a cell as a study in memory, with one trial per point of its search.

    Trials have their values, states, parameters, distributions, intermediate values, constraints and times.
    """
    with knowingly():
        study = optuna.create_study(
            study_name=study_name(folder, cell.key),
            directions=[objective.direction for objective in space.objectives],
        )
        study.set_metric_names(metric_names(space))
    of_cell = [record for record in folder.records() if _serves(record.samples, cell)]
    points = studied_points(space, folder, of_cell, curves=True)
    study.add_trials(point.trial for point in points if point.cell == cell.key)
    return study


def _serves(samples: Collection[Sample], cell: Cell) -> bool:
    return any(sample.cell == cell.key for sample in samples)


def study_name(folder: SweepFolder, cell: str) -> str:
    """Return the name of a cell's study: its key, or the sweep's name if it is the only one."""
    return cell or folder.path.name


def metric_names(space: Space) -> list[str]:
    """Return the names of a study's values: the columns of the objectives."""
    return [objective.column for objective in space.objectives]
