"""Checks that the sections of a space are consistent with each other and with the configs of its trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sweeper.space.alternatives import Alternatives
from sweeper.space.check_ends import check_ends
from sweeper.space.condition_checks import check_conditions
from sweeper.space.distributions import lowest
from sweeper.space.grid.cells import Cell
from sweeper.space.options.confirm import Confirm
from sweeper.space.options.enqueue import check_point
from sweeper.space.options.objectives import EVERY_EPOCH, require_reported
from sweeper.space.options.pbt import Pbt
from sweeper.space.options.pruners import check_stoppable
from sweeper.space.options.replicates import Replicates
from sweeper.space.options.sampler import Question
from sweeper.space.options.samplers import Tpe
from sweeper.space.pruned_search import check_pruned
from sweeper.space.space import Space
from sweeper.space.values import Scalar
from trials.config.trial_config import TrialConfig
from trials.errors import UserError, shown
from trials.methods import segments


def question_of(space: Space, cell: Cell | None = None, samples: int | None = None) -> Question:
    """Return the parts of the space that its sampler needs.

    Args:
        cell: the cell whose ranges it searches.
        samples: number of samples that a sampler goes by; by default the space's.
    """
    search = space.search if cell is None else space.search_in(cell.values)
    count = space.samples if samples is None else samples
    return Question(search, count, len(space.objectives), len(space.constraints), space.enqueue)


def check_sections(space: Space) -> None:
    """Check that the sections of a space agree, without building any trial.

    Raises:
        UserError: two of them contradict each other.
    """
    if space.pbt is not None:
        refuse_beside_pbt(space)
    if space.replicates is not None:
        _check_replicates(space, space.replicates)
    if space.confirm is not None:
        _check_confirm(space, space.confirm)
    check_ends(space)
    if not space.search and space.samples != 1:
        raise UserError(f"samples is {space.samples}, but must be 1 where search is empty: every sample would be equal")
    _check_paths(space)
    check_conditions(space.search, space.grid, space.cases)
    if any(isinstance(distribution, Alternatives) for distribution in space.search.values()):
        for cell in space.cells():
            space.search_in(cell.values)
    for i, point in enumerate(space.enqueue):
        check_point(space.search, point, f"enqueue[{i}]")
    if len(space.enqueue) > space.samples:
        raise UserError(f"enqueue has {len(space.enqueue)} points, but samples is {space.samples}: set it to more")
    if space.search:
        space.sampler.check(question_of(space))
    if space.pruner:
        _check_judged(space, space.pruner.name)
    if space.from_sweep and not space.search:
        raise UserError(f"from_sweep is {space.from_sweep.sweep!r}, but search is empty: remove from_sweep")


def _check_judged(space: Space, pruner: str) -> None:
    if not space.search:
        raise UserError(f"pruner is {pruner!r}, but search is empty, so a cell has no trials to compare: remove it")
    if len(space.objectives) > 1:
        count = len(space.objectives)
        raise UserError(f"pruner is {pruner!r}, but there are {count} objectives: have one, or no pruner")
    if space.objective not in EVERY_EPOCH:
        columns = ", ".join(sorted(EVERY_EPOCH))
        raise UserError(
            f"pruner is {pruner!r}, but {space.objective} is not known after every epoch: use one of {columns}"
        )


def _check_replicates(space: Space, replicates: Replicates) -> None:
    """Check that seeds are left to ``replicates``, and that there is one best point if they are raced."""
    if space.pbt is not None:
        raise UserError(
            "replicates is there beside pbt, but a member copies the checkpoint of another one, and with several seeds "
            "it would be several networks with several histories: put the seeds in grid, one population each, or "
            "remove replicates"
        )
    written = {"trial": space.trial, "grid": space.grid, "search": space.search}
    written |= {f"cases.{name}.trial": case.trial for name, case in space.cases.items()}
    for path, values in replicates.values.items():
        for section, content in written.items():
            if path in content:
                raise UserError(
                    f"replicates.values.{path} is {shown(list(values))}, but {path} is in {section} too: remove "
                    f"{section}.{path}, or remove replicates"
                )
    if replicates.race and len(space.objectives) > 1:
        raise UserError(
            f"replicates.race is true, but there are {len(space.objectives)} objectives, which give a front and no "
            "best point to compare with: set race: false, or have one objective"
        )


def _check_confirm(space: Space, confirm: Confirm) -> None:
    """Check that a cell has one best sample to confirm, and that the seed is left to ``confirm``."""
    said = f"confirm.seed is {shown(list(confirm.seed))}"
    if space.pbt is not None:
        raise UserError(
            f"{said}, but the best of a population is a history of copied checkpoints, which is no point that another "
            "seed could repeat: remove confirm, or search with a sampler instead of pbt"
        )
    if not space.search:
        raise UserError(f"{said}, but search is empty, so no seed was searched: put the seeds in grid instead")
    if len(space.objectives) > 1:
        raise UserError(
            f"{said}, but there are {len(space.objectives)} objectives, which give a front and no best sample: have "
            "one objective and bound the others by constraints, or remove confirm"
        )
    for section, paths in (("grid", space.grid), ("search", space.search)):
        if "seed" in paths:
            raise UserError(
                f"{said}, but seed is in {section} too: search with the one seed of trial, and leave those of the "
                f"figure to confirm: remove {section}.seed, or remove confirm"
            )


def _refuse_searched_seed(space: Space, config: TrialConfig) -> None:
    if space.confirm is None:
        return
    for seed in [values.get("seed", config.seed) for values in space.replicate_values()]:
        if seed not in space.confirm.seed:
            continue
        by = "replicates" if space.replicates and "seed" in space.replicates.values else "trial.seed"
        raise UserError(
            f"confirm.seed has {seed}, but the search runs its trials with that seed ({by}), so it would "
            "be reported too: give seeds that are not searched"
        )


def _check_paths(space: Space) -> None:
    for path in space.search:
        if path in space.grid:
            raise UserError(f"{path} is both in grid and in search, but must be in one of them: remove the other")
    paths = {*space.grid, *space.search}
    for path in sorted(paths):
        parts = path.split(".")
        for outer in (".".join(parts[:i]) for i in range(1, len(parts))):
            if outer in paths:
                raise UserError(f"{path} lies inside {outer}, but grid and search must not set both: remove one")


def check_space(space: Space) -> None:
    """Build and check the configs of every cell at the corners of its search (see :meth:`Space.corners`).

    Raises:
        UserError: one of them is not a valid trial, two values of the grid name files of equal content, replicates
            are too few, or a callback cannot be made.
    """
    for callback in space.callbacks:
        callback.check()
    if space.replicates is not None:
        space.replicates.check()
    if space.pbt is not None:
        check_population(space, space.pbt)
    files: dict[tuple[str, str], Scalar] = {}
    for cell in space.cells():
        for params in space.corners(cell):
            with naming_trial(cell, params):
                config = space.corner_config(cell, params)
                check_trial(space, config)
                _refuse_searched_seed(space, config)
            _refuse_equal_files(cell, config, files)
        check_pruned(space, cell)


def _refuse_equal_files(cell: Cell, config: TrialConfig, seen: dict[tuple[str, str], Scalar]) -> None:
    """Refuse two grid values of equal content: their cells would have the same trials, and one of them no row.

    ``seen``: by path and hash, the value that cells before this one have; this one's is added.
    """
    for path, digest in config.file_hashes.items():
        if path in cell.values:
            first, value = seen.setdefault((path, digest), cell.values[path]), cell.values[path]
            if first != value:
                raise UserError(
                    f"grid.{path} has {shown(first)} and {shown(value)}, which have the same content, so their trials "
                    "would be the same: leave one out"
                )


@contextmanager
def naming_trial(cell: Cell, params: Mapping[str, Any]) -> Iterator[None]:
    """Add to the UserErrors raised within the context which trial they are about: its cell and searched values."""
    try:
        yield
    except UserError as error:
        at = ", ".join([*filter(None, [cell.key]), *(f"{path}={value}" for path, value in params.items())])
        raise UserError(f"{error} (the trial at {at})" if at else str(error)) from None


def check_trial(space: Space, config: TrialConfig) -> None:
    """Check that this trial reports the objectives and constrained columns, and that the pruner can stop it.

    Raises:
        UserError: it does not, or the pruner cannot.
    """
    for i, objective in enumerate(space.objectives):
        where = "objective" if len(space.objectives) == 1 else f"objectives[{i}].column"
        require_reported(config, objective.column, where)
    content = config.model_dump(mode="json") if space.constraints else {}
    for i, constraint in enumerate(space.constraints):
        require_reported(config, constraint.column, f"constraints[{i}].column")
        constraint.limit(content, f"constraints[{i}].{constraint.kind}")
    if space.pruner:
        check_stoppable(space.pruner, config, space.samples)


SEGMENT_FIELDS = ("until_epoch", "lineage")
"""Trial fields that PBT sets from a segment's place in the population."""


def refuse_beside_pbt(space: Space) -> None:
    """Refuse settings that have no effect or are not supported together with ``pbt``.

    Raises:
        UserError: the space has such a setting.
    """
    if not space.search:
        raise UserError("search is empty, but pbt needs hyperparameters to change: add some, or remove pbt")
    if len(space.objectives) > 1:
        raise UserError(
            f"pbt ranks its members by one objective, but there are {len(space.objectives)}: keep one, and bound "
            "the others by constraints"
        )
    if space.sampler != Tpe():
        raise UserError(f"sampler is {space.sampler.name!r}, but pbt chooses values itself: remove one of them")
    if space.pruner is not None:
        raise UserError(f"pruner is {space.pruner.name!r}, but pbt replaces the worst itself: remove one of them")
    if space.from_sweep is not None:
        raise UserError(
            f"from_sweep is {space.from_sweep.sweep!r}, but pbt draws its first members: remove one of them"
        )
    if space.enqueue:
        raise UserError(f"enqueue has {len(space.enqueue)} points, but pbt draws its first members: remove one of them")
    for path, distribution in space.search.items():
        if distribution.conditional:
            raise UserError(f"search.{path} has a condition, but pbt gives every member a value: remove when")
    for path in SEGMENT_FIELDS:
        if any(path in said for said in (space.trial, space.grid, *(case.trial for case in space.cases.values()))):
            raise UserError(f"{path} is set in trial, cases or grid, but pbt sets it for every generation: remove it")


def check_population(space: Space, pbt: Pbt) -> None:
    """Check for every cell that the searched fields may change between segments and that the stage has enough epochs.

    Raises:
        UserError: a cell cannot be trained by the population.
    """
    for cell in space.cells():
        config = space.config(cell, lowest(space.search))
        segments.refuse_fixed(config.method, space.search, "search")
        epochs = segments.epochs(config)
        needed = (pbt.generations - 1) * pbt.interval + 1
        if epochs < needed:
            at = f" (the trials at {cell.key})" if cell.key else ""
            raise UserError(
                f"pbt has {pbt.generations} generations of {pbt.interval} epochs, but stage "
                f"{segments.first_stage(config).name} has only {epochs}: give fewer, shorter ones, or more epochs{at}"
            )
