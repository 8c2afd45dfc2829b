"""Overhead per trial: sweeps of 100, 1,000 and 5,000 trivial trials with all commits, compared with plain Ray Tune.

A trivial trial prunes the same dense tiny network to another density, evaluates it on the digits and commits rows,
checkpoint and state. Goal at 100 trials: at most 0.1 s each after ``ray.init``, including the start of workers. The
driver's CPU time per trial and its memory should not grow with the number of trials. ``python -m benchmarks.overhead``
runs 100, 1,000 and 10,000 trials, or the sizes given as arguments.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # avoids a token file in the user's home folder

from rich.console import Console

from sweeper.execution.live_view import LiveView
from sweeper.execution.on_ray.cluster import connect
from sweeper.execution.on_ray.tune_run import run_plan
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.space.load import load_space
from sweeper.space.space import Space
from trials.storage.leases.lease import Lease

SPACE = """
about: trivial trials
trial: {{method: one_shot, dataset: digits, model: tiny, pretrain: {{epochs: 1}}, finetune: null}}
grid: {{density: [{densities}]}}
"""


def trivial(trials: int, folder: Path) -> Space:
    """Return a space of ``trials`` trivial trials; its file is written to ``folder``."""
    densities = ", ".join(str(round(0.95 - 0.9 * i / trials, 6)) for i in range(trials))
    file = folder / f"trivial_{trials}.yaml"
    file.write_text(SPACE.format(densities=densities))
    return load_space(str(file))


def ours(trials: int, folder: Path) -> None:
    """Run a whole sweep in a new storage, on the Ray instance that is connected."""
    space = trivial(trials, folder)
    sweep = SweepFolder(folder / "storage" / space.name)
    plan = Plan(space, sweep)
    lease = Lease(sweep.path / "lock")
    assert lease.acquire()
    console = Console(file=io.StringIO())
    with lease, LiveView(plan.totals, console, space.objective, space.direction) as display:
        run_plan(plan, display, lease)
    assert plan.complete
    assert sum(record.finished for record in sweep.records()) == trials


def _nothing(config: dict[str, Any]) -> None:
    import torch
    from ray import tune

    tune.report({"value": float(torch.zeros(()))})


def plain_tune(trials: int, reuse_actors: bool) -> None:
    """Run Ray Tune alone, with a function that imports torch and reports once."""
    from ray import tune

    config = tune.TuneConfig(num_samples=trials, reuse_actors=reuse_actors)
    with tempfile.TemporaryDirectory() as scratch:
        run_config = tune.RunConfig(storage_path=scratch, verbose=0)
        tune.Tuner(tune.with_resources(_nothing, {"CPU": 1}), tune_config=config, run_config=run_config).fit()


def timed(function: Callable[[], None]) -> tuple[float, float]:
    """Return the wall seconds of ``function`` and the CPU seconds of this process, the driver."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def line(name: str, trials: int, wall: float, cpu: float) -> str:
    """Return one printable result."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = f"{wall / trials:.3f} s each (driver {cpu / trials * 1e3:.1f} ms CPU, at most {memory:.0f} MiB so far)"
    return f"{name}: {trials} trials, {each}"


def main(sizes: tuple[int, ...] = (100, 1_000, 5_000)) -> None:
    connect("local")
    for name, trials, reuse in (("plain Tune", 12, False), ("plain Tune, actors reused", 100, True)):
        wall, cpu = timed(lambda trials=trials, reuse=reuse: plain_tune(trials, reuse))
        print(line(name, trials, wall, cpu), flush=True)
    for trials in sizes:
        with tempfile.TemporaryDirectory() as folder:
            wall, cpu = timed(lambda trials=trials, folder=folder: ours(trials, Path(folder)))
        print(line("sweep", trials, wall, cpu) + ("; goal <= 0.1 s" if trials == sizes[0] else ""), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("trials", nargs="*", type=int, default=[100, 1_000, 10_000], help="default: 100 1000 10000")
    main(tuple(parser.parse_args().trials))
