"""One run of a space: check all of it, become the sweep's one driver, and run the plan to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sweeper.before_run import (
    Here,
    SharedTrials,
    check_preconditions,
    check_ray,
    look_here,
    may_join,
    require_same_data,
)
from sweeper.console import print_line
from sweeper.continuing import Continued, record_change, refuse_contradictions, resumed_space
from sweeper.estimate.report import estimate_lines
from sweeper.estimate.stored import is_local
from sweeper.folder.driving import driving
from sweeper.folder.forgiving import followed_failures, member
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.options import COMPLETE
from sweeper.run_options import RunOptions
from sweeper.screen.activity import doing
from sweeper.search.warm_start import commit_warm_start, warm_start
from sweeper.space.check_ends import described_ends, few_points, too_few_epochs
from sweeper.space.checks import check_space
from sweeper.space.load import load_space
from sweeper.space.options.confirm import Confirm
from sweeper.space.space import Space
from trials.errors import UserError, listed
from trials.plugins.importing import holding
from trials.running.environment import git_commit
from trials.storage import files
from trials.storage.data_used import DataUsed
from trials.storage.leases.lease import Lease
from trials.storage.outages import StoragePatience, has_begun, refused_at_start
from trials.storage.sweep_path import sweep_path

if TYPE_CHECKING:
    from sweeper.search.plan import Plan


def sweep(options: RunOptions, console: Console) -> int:
    """Check a space, then run it to its end (``--dry-run``: only describe the run). Returns the exit code."""
    with doing(console, "reading the space"):
        space, folder = asked_for(options)
    return run_asked(space, folder, options, console)


def run_asked(
    space: Space, folder: SweepFolder, options: RunOptions, console: Console, *, from_python: bool = False
) -> int:
    """Check the space that was asked for, then run it in its folder. Returns the exit code.

    ``from_python``: the process goes on afterwards. Ray stays, and a signal that has stopped the run ends in
    KeyboardInterrupt, once everything is committed.

    Raises:
        UserError: it cannot be run; nothing has been started.
        StorageError: the storage has erred for longer than the space waits; what is committed is kept.
    """
    patience = StoragePatience(lambda text, errs: console.print(text, markup=False), limit_s=space.storage_patience_s)
    patience.starting = True
    with patience.active():
        return _run_asked(space, folder, options, console, from_python)


def _run_asked(space: Space, folder: SweepFolder, options: RunOptions, console: Console, from_python: bool) -> int:
    with doing(console, "checking the space") as now, refused_at_start(folder.path):
        found, continued = _checked(space, folder, options, console, now)
        shared, confirming = SharedTrials(space), SharedTrials(space, confirmations=True)
        for trials in (shared, confirming):
            trials.require_same(folder, found.headers)
        left_out: list[str] = []
        warm = warm_start(space, folder, found.data(), left_out.append)
    for line in left_out:
        print_line(console, line)
    if options.dry_run:
        describe_run(space, shared, confirming, folder, console)
        _estimate(options, space, folder, found, console)
        for line in continued.lines:
            console.print(line, markup=False)
        for line in (*found.missing, *found.lacking):
            console.print(f"not here: {line}", markup=False)
        if warm:
            given = [(len(cell.observations), len(cell.points)) for cell in warm.values()]
            observations, points = map(sum, zip(*given, strict=True))
            console.print(f"from_sweep: {observations} observations, {points} points to try first", markup=False)
        return COMPLETE
    _require_place(folder, found, options)
    with driving(folder, console) as lease, holding(space.code):
        if options.estimate or (is_local(folder.path) and not files.names(folder.trials)):
            _estimate(options, space, folder, found, console)
        if options.retry_failed:
            _forgive(folder, console)
        ran: dict[str, Any] = {"verify": options.verify, "from_python": from_python, "runtime_env": options.runtime_env}
        ran["command"] = options.command(from_python=from_python)
        return drive(space, folder, lease, options.address, console, data=found.data(), **ran)


def _checked(
    space: Space, folder: SweepFolder, options: RunOptions, console: Console, now: Callable[[str], None]
) -> tuple[Here, Continued]:
    """Check a space against the sweep in its folder, this machine and its data; ``now`` is told what is done."""
    check_ray(options)
    check_space(space)
    continued = refuse_contradictions(
        folder, space, retry_failed=options.retry_failed, resumed=options.resume is not None
    )
    now("reading the headers of the data")
    found = look_here(space, options.address, peek=options.dry_run)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    now("checking every cell's trials against model and data")
    check_preconditions(space, found.headers)
    require_same_data(folder, found.data())
    return found, continued


def _forgive(folder: SweepFolder, console: Console) -> None:
    """Let failed trials run again, and say which of them do not."""
    console.print(f"{folder.forgive()} failed trials may be tried again", markup=False)
    kept = sorted(followed_failures(chain.from_iterable(folder.each_record(member))))
    if kept:
        console.print(
            f"{len(kept)} failed members stay failed, since the next generation of their populations has begun without "
            f"them: {listed(kept)}",
            markup=False,
        )


def _require_place(folder: SweepFolder, found: Here, options: RunOptions) -> None:
    """Check that the run has what it needs, on this machine or a cluster, and may write into its storage."""
    missing = (*found.missing, *(() if may_join(options.address) else found.lacking))
    if missing:
        raise UserError("; ".join(missing))
    try:
        for path in (folder.path, folder.stages):
            files.require_writable(path)
    except OSError as error:
        raise UserError(
            f"--storage is {options.storage!r}, but must be a place that can be written ({error}): give another"
        ) from None


def _estimate(options: RunOptions, space: Space, folder: SweepFolder, found: Here, console: Console) -> None:
    """Print how much the space trains, as if nothing of it was there yet."""
    settable = options.resume is None
    what = "measuring epochs: 20 steps of each stage" if options.estimate else "counting epochs"
    with doing(console, what):
        for line in estimate_lines(
            space, found.headers, folder.path.parent, measure=options.estimate, settable=settable
        ):
            console.print(line, markup=False)


def asked_for(options: RunOptions) -> tuple[Space, SweepFolder]:
    """The space to run and the sweep's folder: of ``--space``, or of the sweep that ``--resume`` names.

    Raises:
        UserError: there is no such space or sweep, or its content is invalid.
    """
    limits: dict[str, Any] = {
        "samples": options.samples,
        "max_concurrent": 1 if options.serial else options.max_concurrent,
        "max_hours": options.max_hours,
    }
    if options.resume is not None:
        folder = SweepFolder(sweep_path(options.storage, options.resume, "--resume"))
        return resumed_space(folder, options.plugins, **limits), folder
    assert options.space is not None  # RunOptions has checked it
    space = load_space(
        options.space,
        name=options.name,
        profile=options.profile,
        overrides=options.set,
        plugins=options.plugins,
        **limits,
    )
    name, said_by = (space.name, "the space's name") if options.name is None else (options.name, "--name")
    return space, SweepFolder(sweep_path(options.storage, name, said_by))


def drive(
    space: Space,
    folder: SweepFolder,
    lease: Lease,
    address: str | None,
    console: Console,
    *,
    verify: bool = False,
    data: Sequence[DataUsed] = (),
    from_python: bool = False,
    runtime_env: Mapping[str, Any] | None = None,
    command: str = "",
) -> int:
    """Run a checked space on ``data`` as the holder of the sweep's lease. Returns the exit code.

    ``verify`` reads all checkpoints. ``from_python``: see :func:`run_asked`. ``runtime_env``: what workers get beside.
    ``command``: what ``sweep.yaml`` says of where a change of the sweep came from.

    Raises UserError if they contradict the sweep in the folder, or another driver takes the lease over.
    """
    from sweeper.execution.concluding import conclude
    from sweeper.execution.trackers_of import unheard

    with doing(console, "reading what the sweep has committed"), refused_at_start(folder.path):
        continued = refuse_contradictions(folder, space)  # again: another driver may have changed the sweep before
        require_same_data(folder, data)
        record_change(folder, space, console, git_commit(), data, command)
        for line in continued.lines:
            console.print(line, markup=False)
        plan, damaged = _planned(space, folder, data, verify=verify)
    interrupted = False
    has_begun()
    if plan.over and not unheard(plan):
        for line in damaged:
            console.print(line, markup=False)
    else:
        if not plan.over:
            continued.require_nothing_to_run()  # a repair may have taken back a trial
        asked: dict[str, Any] = {"address": address, "runtime_env": runtime_env, "from_python": from_python}
        interrupted = _run_shown(plan, lease, console, damaged, **asked)
    if lease.lost:
        raise UserError(f"{folder.path.name} was taken over by another driver ({lease.owner()}): this one stopped")
    return conclude(plan, console, interrupted=interrupted and from_python)


def _planned(
    space: Space, folder: SweepFolder, data: Sequence[DataUsed], *, verify: bool
) -> tuple[Plan, Sequence[str]]:
    """Tidy and repair a sweep's folder. Returns its plan, and a line for each file that is damaged or missed."""
    from sweeper.packing.dropped_parents import dropped_parents
    from sweeper.packing.repairing import repaired
    from sweeper.search.plan import Plan

    for around in (folder.path, folder.stages):
        files.remove_leftovers(around)
    damaged = repaired(folder, checkpoints=verify)
    warm = warm_start(space, folder, data)
    commit_warm_start(folder, warm)
    plan = Plan(space, folder, warm)
    return plan, damaged if plan.over else [*damaged, *dropped_parents(folder, space)]


def _run_shown(plan: Plan, lease: Lease, console: Console, damaged: Sequence[str], **asked: Any) -> bool:
    """Run a plan under the live view, as ``run_plan`` is asked to; return whether a signal has stopped it."""
    from sweeper.execution.live_view import LiveView

    with doing(console, "importing Ray"):
        from sweeper.execution.on_ray.tune_run import run_plan  # imports Ray: not needed to show, describe or refuse
        from sweeper.execution.report_refresher import ReportRefresher

    display = LiveView(plan.totals, console, plan.space.objective, plan.space.direction)
    with display:
        for line in damaged:
            display.note(line)
        for e in plan.before():
            display.ended(e.trial_id, e.cell, e.status, e.value, True, e.warnings, e.confirms)
        with ReportRefresher(plan.folder.path, display.note):
            return run_plan(plan, display, lease, **asked)


def describe_run(
    space: Space, shared: SharedTrials, confirming: SharedTrials, folder: SweepFolder, console: Console
) -> None:
    """Print what a run would do: cells, search, number of trials, and the networks to train first."""
    cells = space.cells()
    configs = [list(space.corner_configs(cell)) for cell in cells]
    needed = [[frozenset(ids) for ids in of_cell] for of_cell in shared.by_cell]
    for cell in cells:
        console.print(cell.key or "one cell", markup=False)
    for path, distribution in space.search.items():
        console.print(f"search {path}: {distribution}", markup=False)
    confirmations = len(space.confirm.points()) if space.confirm else 0
    each = len(space.replicate_values())
    samples = f"{space.samples} points x {each} replicates" if space.replicates else f"{space.samples}"
    samples = f"({samples} + {confirmations})" if confirmations else samples
    trials = len(cells) * (space.trials_per_cell + confirmations)
    methods = ", ".join(sorted({config.method for of_cell in configs for config in of_cell}))
    unit = "" if space.replicates else " samples"
    console.print(f"{len(cells)} cells x {samples}{unit} = {trials} trials of {methods}")
    if space.replicates is not None:
        console.print(f"replicates: {space.replicates}", markup=False)
    if space.pbt is not None:
        console.print(f"{space.samples} samples: {space.pbt}", markup=False)
    for line in (*described_ends(space), few_points(space), too_few_epochs(space)):
        if line is not None:
            console.print(line, markup=False)
    if any(ids != of_cell[0] for of_cell in needed for ids in of_cell):
        console.print("dense networks to train first: one per trial, since the search changes how they are trained")
    else:
        ids = set().union(*(of_cell[0] for of_cell in needed))
        sparse = sum(not name.startswith("dense-") for name in ids)
        also = f", and {sparse} sparse networks derived from these" if sparse else ""
        console.print(f"dense networks to train first, shared: {len(ids) - sparse}{also}")
    if space.confirm is not None:
        _describe_confirmations(space.confirm, confirming, console)
    console.print(f"folder {folder.path}")


def _describe_confirmations(confirm: Confirm, confirming: SharedTrials, console: Console) -> None:
    seeds = ", ".join(map(str, confirm.seed))
    console.print(f"confirm: the best sample of each cell runs again with seed {seeds}; only these are its figure")
    if any(ids != of_cell[0] for of_cell in confirming.by_cell for ids in of_cell):
        console.print("dense networks to train for that: one per confirmation")
    else:
        ids = set[str]().union(*(of_cell[0] for of_cell in confirming.by_cell))
        console.print(f"dense networks to train for that, shared: {sum(name.startswith('dense-') for name in ids)}")
