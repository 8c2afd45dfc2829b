"""What a search takes over from an earlier sweep (``from_sweep:``): observations, or points to try first.

An earlier trial is an observation if its config is the one that a cell would give its hyperparameters, in every field
except the seed and those that say where it runs; samplers that learn get it as a trial of their study. If there is
none, the best trials with the same method and grid values (except seed and data set) are points to try first: their
results are not comparable with the cell's own.

What was taken over is committed in the sweep's ``warm.json`` and does not change with the earlier sweep.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from sweeper.folder.confirmations import confirmation_of, only_confirms
from sweeper.folder.replicates import replicate_of
from sweeper.folder.sweep_folder import Record, SweepFolder
from sweeper.search.outcomes import Outcome, outcome_of
from sweeper.space.grid.cells import Cell
from sweeper.space.grid.conditions import active
from sweeper.space.load import from_document, without_absent_code
from sweeper.space.space import Space
from sweeper.space.values import finite_number
from trials.config.stored_content import differing_fields
from trials.dotted_paths import leaves
from trials.errors import DamagedFile, UserError, shown
from trials.storage import files
from trials.storage.data_used import DataUsed, data_used, refuse_other_data
from trials.storage.packed.reading import packed_damage
from trials.storage.place import Place, place
from trials.storage.sealed import read_sealed, seal
from trials.storage.sweep_path import sweep_path

_WARM = "warm.json"

ANY = frozenset({"seed", "dataset"})
"""Grid paths in which an earlier trial may differ from a cell and still give it a point to try."""


@dataclass(frozen=True)
class Observation:
    """A trial of the earlier sweep, as a study sees it."""

    params: dict[str, Any]
    values: tuple[float, ...]
    violations: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WarmStart:
    """What one cell takes over.

    Attributes:
        observations: trials that its study knows from the start.
        points: points to try first, the best of comparable trials.
        seeds: seeds of the trials that these were taken from; empty if an older version wrote it.
    """

    observations: tuple[Observation, ...] = ()
    points: tuple[dict[str, Any], ...] = ()
    seeds: tuple[int, ...] = ()


NO_WARM_START = WarmStart()


def warm_start(
    space: Space,
    folder: SweepFolder,
    data: Sequence[DataUsed] = (),
    note: Callable[[str], object] = lambda line: None,
) -> dict[str, WarmStart]:
    """By cell key, what each cell takes over: as committed; for new cells, from the earlier sweep. Writes nothing.

    Args:
        data: those of the new sweep, with which earlier trials must agree.
        note: is given a line for each damaged file of the earlier sweep, whose trials are left out.

    Raises:
        UserError: ``from_sweep`` is no earlier sweep, has other searched names or ranges, has no usable trial, its
            trials used other data of the same name, or they were searched with a seed of ``confirm``.
    """
    if space.from_sweep is None:
        return {}
    known = _of_this_search(space, _committed(folder), folder.path / _WARM)
    new = [cell for cell in space.cells() if cell.key not in known]
    _refuse_searched_seeds(space, known)
    if not new:
        return known
    earlier = SweepFolder(_path(space.from_sweep.sweep, folder))
    if _is_same(earlier.path, folder.path):
        raise UserError(f"from_sweep is {space.from_sweep.sweep!r}, but that is this sweep: name an earlier one")
    earlier_space = _space_of(earlier, space.from_sweep.sweep)
    _refuse_other_search(space, earlier_space)
    damaged = packed_damage(earlier.path)
    searched = [record for record in earlier.records(damaged.append) if not only_confirms(record.samples)]
    for line in damaged:
        note(f"from_sweep {space.from_sweep.sweep!r} is taken over without this: {line}")
    records = [record for record in searched if _is_complete(record)]
    if space.replicates is not None:
        records = _of_whole_points(records, searched, len(earlier_space.replicate_values()))
    used = (data_used(record.content, record.state) for record in records)
    refuse_other_data(f"from_sweep {space.from_sweep.sweep!r}", filter(None, used), data, "leave from_sweep out")
    found = {cell.key: _warm(space, cell, records) for cell in new}
    if not known and not any(warm != NO_WARM_START for warm in found.values()):
        raise UserError(
            f"from_sweep is {space.from_sweep.sweep!r}, but none of its {len(records)} complete trials has the method "
            "and grid values of a cell here: leave it out"
        )
    _refuse_searched_seeds(space, found)
    return {**known, **found}


def _is_complete(record: Record) -> bool:
    return record.state is not None and record.state.status == "complete"


def _of_whole_points(complete: Sequence[Record], searched: Sequence[Record], of: int) -> list[Record]:
    """The complete trials of an earlier sweep, without those of points of which not all ``of`` replicates are."""
    partial = {
        (sample.cell, sample.number)
        for record in searched
        for sample in record.samples
        if (which := replicate_of(sample)) is not None and which.dropped
    }
    own = (sample for record in complete for sample in record.samples if confirmation_of(sample) is None)
    counts = Counter((sample.cell, sample.number) for sample in own)
    partial |= {point for point, count in counts.items() if count < of}
    return [record for record in complete if any((s.cell, s.number) not in partial for s in record.samples)]


def commit_warm_start(folder: SweepFolder, warm: Mapping[str, WarmStart]) -> None:
    """Write ``warm.json`` if it changes. Call before any trial is suggested."""
    if warm and warm != _committed(folder):
        content = {"schema": 1, "cells": {key: asdict(cell) for key, cell in warm.items()}}
        files.make_folder(folder.path)
        files.write(folder.path / _WARM, seal(content))


def _committed(folder: SweepFolder) -> dict[str, WarmStart]:
    path = folder.path / _WARM
    try:
        content, _ = read_sealed(path, ("schema", "cells"))
        return {key: _read(cell) for key, cell in content["cells"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DamagedFile) as error:
        raise _unusable(path, str(error)) from None


def _unusable(path: Place, why: str) -> UserError:
    return UserError(f"{path} cannot be used ({why}): restore it, or move it away to read from_sweep anew")


def _of_this_search(space: Space, warm: dict[str, WarmStart], path: Place) -> dict[str, WarmStart]:
    """Refuse what was written for another search. A point to try may lie outside a cell's ranges: its rest counts."""
    for cell in space.cells():
        search, found = space.search_in(cell.values), warm.get(cell.key, NO_WARM_START)
        for params in (one.params for one in found.observations):
            inside = all(name in search and search[name].contains(value) for name, value in params.items())
            if not inside or params.keys() != active(search, {**dict.fromkeys(search), **params}, cell.values).keys():
                raise _unusable(path, f"an observation has {shown(params)}, which is no point of this search")
        if other := next((name for point in found.points for name in point if name not in space.search), None):
            raise _unusable(path, f"a point has {shown(other)}, which is not searched")
        if any(len(one.values) != len(space.objectives) for one in found.observations):
            raise _unusable(path, f"observations have other than {len(space.objectives)} values, one per objective")
    return warm


def _read(cell: Mapping[str, Any]) -> WarmStart:
    """Raises ValueError, KeyError, TypeError or AttributeError if it is not what :func:`commit_warm_start` wrote."""
    observations = tuple(
        Observation(dict(o["params"]), tuple(o["values"]), dict(o["violations"])) for o in cell["observations"]
    )
    for number in (n for one in observations for n in (*one.values, *one.violations.values())):
        if finite_number(number) is None:
            raise TypeError(f"an observation has {shown(number)} where a finite number belongs")
    seeds = tuple(cell.get("seeds", ()))
    if not all(type(seed) is int for seed in seeds):
        raise TypeError(f"seeds is {shown(seeds)}")
    return WarmStart(observations, tuple(dict(point) for point in cell["points"]), seeds)


def _path(sweep: str, folder: SweepFolder) -> Place:
    """The earlier sweep's folder; a name without a slash is a sweep of the same storage.

    Raises:
        UserError: such a name would lead out of the storage.
    """
    return place(sweep) if "/" in sweep else sweep_path(str(folder.path.parent), sweep, "from_sweep")


def _is_same(one: Place, other: Place) -> bool:
    links = isinstance(one, Path) and isinstance(other, Path) and one.resolve() == other.resolve()
    return links or one == other


def _space_of(earlier: SweepFolder, said: str) -> Space:
    document = earlier.space_document()
    if document is None:
        raise UserError(f"from_sweep is {said!r}, but {earlier.path} is not the folder of a sweep: give storage/name")
    try:
        return from_document(without_absent_code(document))
    except UserError as error:
        raise UserError(f"from_sweep is {said!r}, but its space is of another version ({error})") from None


def _refuse_other_search(space: Space, earlier: Space) -> None:
    lines = []
    for path, distribution in space.search.items():
        there = earlier.search.get(path)
        if there != distribution:
            lines.append(f"{path} is searched as {distribution}, in the earlier sweep {there or 'not at all'}")
    if lines:
        raise UserError(f"from_sweep needs the same names and ranges, but {'; '.join(lines)}: make them agree")


def _refuse_searched_seeds(space: Space, warm: Mapping[str, WarmStart]) -> None:
    """Refuse to confirm with a seed with which the earlier sweep has searched."""
    seeds = {seed for cell in warm.values() for seed in cell.seeds}
    for seed in space.confirm.seed if space.confirm is not None else ():
        if seed in seeds:
            assert space.from_sweep is not None
            raise UserError(
                f"confirm.seed has {seed}, but the trials of from_sweep {space.from_sweep.sweep!r} were searched with "
                "that seed too: give seeds that are not searched"
            )


def _warm(space: Space, cell: Cell, records: Sequence[Record]) -> WarmStart:
    method = next(space.corner_configs(cell)).method
    same: list[Observation] = []
    others: list[Observation] = []
    seeds: tuple[set[int], set[int]] = (set(), set())  # of these and of those
    for record, observation in _observations(space, cell, method, records):
        comparable = space.sampler.learns and _of_this_revision(record) and _would_be(space, cell, record, observation)
        (same if comparable else others).append(observation)
        seeds[not comparable].add(record.content.get("seed", 0))
    points = () if same else _best(space, _judged(space, others))
    return WarmStart(tuple(_judged(space, same)), points, tuple(sorted(seeds[not same])))


def _judged(space: Space, observations: Sequence[Observation]) -> list[Observation]:
    """One observation for each point, where points are judged by their replicates: of as many as there are."""
    if space.replicates is None:
        return list(observations)
    alike: dict[str, list[Observation]] = {}
    for observation in observations:
        alike.setdefault(json.dumps(observation.params, sort_keys=True), []).append(observation)
    judge = space.replicates.judge
    found = []
    for several in alike.values():
        each = zip(*(one.values for one in several), strict=True)
        values = tuple(judge.value(v, objective.sign) for v, objective in zip(each, space.objectives, strict=True))
        worst = {key: max(one.violations[key] for one in several) for key in several[0].violations}
        found.append(Observation(several[0].params, values, worst))
    return found


def _observations(
    space: Space, cell: Cell, method: str, records: Sequence[Record]
) -> Iterator[tuple[Record, Observation]]:
    """Yield complete trials with the cell's method and grid values, and with parameters that this search can have."""
    search = space.search_in(cell.values)
    for record in records:
        values = dict(leaves(record.content)) | _paths_as_given(record)
        agrees = all(path in ANY or values.get(path, value) == value for path, value in cell.values.items())
        if record.content["method"] != method or not agrees or record.state is None:
            continue
        params = active(search, values, cell.values)
        wanted = active(search, {**dict.fromkeys(search), **params}, cell.values)
        outcome = outcome_of(space.objectives, space.constraints, record.content, record.state)
        inside = all(search[path].contains(value) for path, value in params.items())
        if params.keys() == wanted.keys() and inside and outcome.state == TrialState.COMPLETE and outcome.values:
            yield record, Observation(params, outcome.values, outcome.violations)


def _paths_as_given(record: Record) -> dict[str, Any]:
    """What grid or search gave for fields that name files; a config holds these paths as absolute ones."""
    given = {**record.samples[0].grid, **record.samples[0].params} if record.samples else {}
    return {field: given[field] for field in record.content.get("file_hashes") or () if field in given}


def _of_this_revision(record: Record) -> bool:
    """Whether this version would compute a trial as it was computed."""
    try:
        return record.config.revisions == record.stored.revisions
    except UserError:
        return False


def _would_be(space: Space, cell: Cell, record: Record, observation: Observation) -> bool:
    """Whether the cell would give a trial with these parameters the record's config, but for the seed.

    Hashes of files stand for their paths: equal paths may name other files by now.
    """
    try:
        config = space.config(cell, observation.params)
    except UserError:
        return False
    hashes = record.content.get("file_hashes") or {}
    if hashes and config.file_hashes != hashes:
        return False
    free = {"seed", *hashes, *(space.replicates.values if space.replicates else ())}
    return all(path in free for path, _, _ in differing_fields(record.content, config))


def _best(space: Space, observations: Sequence[Observation]) -> tuple[dict[str, Any], ...]:
    """The best distinct points by the first objective, feasible ones first."""
    assert space.from_sweep is not None
    sign = space.objectives[0].sign

    def rank(observation: Observation) -> tuple[float, float]:
        outcome = Outcome(TrialState.COMPLETE, observation.values, observation.violations)
        return (outcome.shown is None, -sign * observation.values[0])

    points: list[dict[str, Any]] = []
    for observation in sorted(observations, key=rank):
        if observation.params not in points:
            points.append(observation.params)
    return tuple(points[: space.from_sweep.points])
