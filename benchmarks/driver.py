"""Memory and time of the driver by number of trials: a line fitted through 20 points of each run, one process a run.

Without Ray, all trials of a sweep are planned, assigned and ended, and none is computed: a grid with a cell each, and a
search of 100 random samples in each cell. With Ray Tune, real trivial trials run: as sweeps run, where Tune forgets
trials that have ended, and with all of them kept; the difference is what Tune holds of a trial.

Goal: at most 15 KiB a trial beside Tune's own, and as much time for the last trials as for the first ones.
``python -m benchmarks driver`` ends 10,000 trials without Ray and runs 2 x 5,000 with it, which takes 10 minutes: the
first tables and the first packing, about a minute after the start, take memory once.
``python -m benchmarks.driver 10000 2000`` takes other numbers, 0 for none.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # avoids a token file in the user's home folder

import numpy as np
from rich.console import Console

from benchmarks.overhead import trivial
from sweeper.execution.live_view import LiveView
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.space.load import load_space
from sweeper.space.space import Space
from trials.running.trial import TrialHost, run
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import TrialFolder

GOAL_KIB, POINTS, SAMPLES = 15.0, 20, 100

SEARCH = """
about: trivial trials of a search
trial: {{method: one_shot, dataset: digits, model: tiny, pretrain: {{epochs: 1}}, finetune: {{epochs: 1}}}}
grid: {{seed: {seeds}}}
search: {{density: {{uniform: [0.1, 0.9]}}, finetune.lr: {{loguniform: [1.0e-3, 1.0]}}}}
sampler: random
samples: {samples}
"""


class Course:
    """Resident memory and CPU time of this process by number of ended trials."""

    def __init__(self, trials: int) -> None:
        self.trials, self.ended = trials, 0
        self.points: list[tuple[int, float, float]] = []
        self._before, self._began = _resident(), time.process_time()

    def end_one(self) -> None:
        """Count an ended trial, and measure at every twentieth of them."""
        self.ended += 1
        if self.ended % max(self.trials // POINTS, 1) == 0:
            spent = time.process_time() - self._began
            gc.collect()
            self._began = time.process_time() - spent  # the collection is not the driver's
            self.points.append((self.ended, _resident(), spent))

    def line(self, what: str) -> dict[str, Any]:
        """The fitted line, printed; measured from the second quarter on, when caches are full."""
        ended, mib, _ = np.array(self.points[POINTS // 4 :]).T
        kib = float(np.polyfit(ended, mib * 1024, 1)[0])
        quarter, half = len(self.points) // 4, len(self.points) // 2
        first, last = (
            (b[2] - a[2]) / (b[0] - a[0]) * 1e3
            for a, b in ((self.points[quarter], self.points[half]), (self.points[-half], self.points[-1]))
        )
        at = ", ".join(f"{mib:.0f} MiB at {ended:,}" for ended, mib, _ in self.points[quarter - 1 :: quarter])
        print(f"{what}: {self._before:.0f} MiB before, {at}: {kib:.1f} KiB a trial (fitted line)", flush=True)
        print(f"  {first:.2f} ms of CPU a trial in the second quarter, {last:.2f} ms in the last half", flush=True)
        return {"kib": kib, "before": self._before}


def _resident() -> float:
    """The resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _searched(trials: int, folder: Path) -> Space:
    file = folder / "searched.yaml"
    cells = max(trials // SAMPLES, 1)
    file.write_text(SEARCH.format(seeds=list(range(cells)), samples=trials // cells))
    return load_space(str(file))


def _end(space: Space, folder: Path) -> Callable[[TrialFolder], None]:
    """Run one trial; return what commits an end like its own to other trials, with other figures each time."""
    config = next(iter(space.corner_configs(space.cells()[0])))
    run(config, folder / "one", TrialHost(folder / "stages"))
    said, draw = TrialFolder(folder / "one").state(), random.Random(0)
    assert said is not None

    def end(trial: TrialFolder) -> None:
        result = {k: draw.random() if isinstance(v, float) else v for k, v in said.result.items()}
        commits = tuple(replace(one, checkpoint=f"000001-a1-{draw.randbytes(6).hex()}.pt") for one in said.commits)
        trial.write_state(replace(said, result=result, commits=commits, seconds=draw.random()))

    return end


def without_ray(kind: str, trials: int) -> dict[str, Any]:
    """Plan, assign and end all trials of a sweep; none is computed."""
    with tempfile.TemporaryDirectory() as temporary:
        space = (trivial if kind == "grid" else _searched)(trials, Path(temporary))
        folder, end = SweepFolder(Path(temporary) / "sweep"), _end(space, Path(temporary))
        plan, course = Plan(space, folder), Course(trials)
        with LiveView(plan.totals, Console(file=io.StringIO()), space.objective, space.direction) as display:
            while (assignment := plan.next()) is not None:
                display.started(assignment.trial_id, assignment.cell)
                end(TrialFolder(folder.trial_folder(assignment.trial_id)))
                for ending in plan.ended(assignment.trial_id):
                    display.ended(assignment.trial_id, ending.cell, ending.status, ending.value, already=False)
                course.end_one()
        assert plan.complete
        return course.line(f"without Ray, {kind} of {trials:,}")


def with_tune(kind: str, trials: int) -> dict[str, Any]:
    """Run trivial trials; ``kept``: Tune keeps all of them, as it does by itself."""
    from sweeper.execution.on_ray import ended_trials
    from sweeper.execution.on_ray.cluster import connect
    from sweeper.execution.on_ray.tune_run import run_plan

    if kind == "kept":
        ended_trials.ENDED_KEPT = trials
    connect("local")
    with tempfile.TemporaryDirectory() as temporary:
        space = trivial(trials, Path(temporary))
        plan = Plan(space, SweepFolder(Path(temporary) / "storage" / space.name))
        lease, course = Lease(plan.folder.path / "lock"), Course(trials)
        assert lease.acquire()

        class Display(LiveView):
            def ended(self, *given: Any, **named: Any) -> None:
                super().ended(*given, **named)
                course.end_one()

        with lease, Display(plan.totals, Console(file=io.StringIO()), space.objective, space.direction) as display:
            run_plan(plan, display, lease)
        assert plan.complete
        return course.line(f"with Ray Tune, {'all trials kept' if kind == 'kept' else 'as sweeps run'}, {trials:,}")


def apart(part: str, kind: str, trials: int) -> tuple[float, float]:
    """Measure in a process of its own; return KiB a trial, and MiB before the first one."""
    command = [sys.executable, "-m", "benchmarks.driver", "--part", part, kind, str(trials)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *said, result = done.stdout.strip().splitlines()
    print("\n".join(said), flush=True)
    found = json.loads(result)
    return float(found["kib"]), float(found["before"])


def main(simulated: int = 10_000, real: int = 5_000) -> None:
    if simulated:
        most, _ = max(apart("without_ray", kind, simulated) for kind in ("grid", "search"))
        print(f"the driver's own part: at most {most:.1f} KiB a trial; goal <= {GOAL_KIB:g}", flush=True)
    if real:
        (dropped, before), (kept, _) = (apart("with_tune", kind, real) for kind in ("dropped", "kept"))
        print(f"what Tune holds of a trial: {kept - dropped:.1f} KiB more if all are kept", flush=True)
        whole = before / 2**10 + dropped * 100_000 / 2**20
        print(f"by that line, 100,000 trials take {whole:.2f} GiB with what was there before; goal < 3", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.driver", description=__doc__)
    parser.add_argument("trials", nargs="*", type=int, default=[10_000, 5_000], help="default: 10000 5000")
    parser.add_argument("--part", nargs=3, metavar=("PART", "KIND", "TRIALS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part, kind, trials = options.part
        print(json.dumps({"without_ray": without_ray, "with_tune": with_tune}[part](kind, int(trials))))
    else:
        main(*options.trials)
