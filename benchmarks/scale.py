"""Time of resume, ``--show`` and tables for a sweep of 10,000 finished trials, which are copies of one trial.

Goals: resume (all trials read and verified, the plan rebuilt) < 30 s, writing the tables < 30 s, ``--show`` < 5 s. The
tables are also updated after one more commit, which should read that trial only.
"""

from __future__ import annotations

import io
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.overhead import trivial
from sweeper.folder.sweep_folder import Sample, SweepFolder
from sweeper.results.report import show
from sweeper.results.tables import compact_tables
from sweeper.search.plan import Plan
from sweeper.space.space import Space
from trials.running.trial import TrialHost, run
from trials.storage.trial_folder import TrialFolder

GOALS_S = {"resume": 30.0, "tables written": 30.0, "--show": 5.0}


def synthesise(space: Space, storage: Path) -> SweepFolder:
    """Run one trial and copy it under the names and configs of all others."""
    folder = SweepFolder(storage / space.name)
    cells = space.cells()
    first = space.config(cells[0])
    run(first, folder.trials / first.id, TrialHost(folder.stages))
    files = {p.relative_to(folder.trials / first.id): p.read_bytes() for p in (folder.trials / first.id).rglob("*.*")}
    for cell in cells:
        config = space.config(cell)
        trial = folder.trials / config.id
        for kind in ("rows", "checkpoint"):
            (trial / kind).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (trial / name).write_bytes(content)
        sample = Sample(cell.key, 0, dict(cell.values), {}, {}).__dict__
        content = {"schema": 1, "id": config.id, "config": config.model_dump(mode="json"), "samples": [sample]}
        (trial / "config.json").write_text(json.dumps(content, indent=1))
    folder.append({"space": space.document()})
    return folder


def timed(what: str, function: Callable[[], Any]) -> Any:
    """Run ``function``, print its time beside its goal, and return its result."""
    began, cpu = time.perf_counter(), time.process_time()
    result = function()
    goal = f"; goal < {GOALS_S[what]:g} s" if what in GOALS_S else ""
    took = f"{time.perf_counter() - began:.1f} s (CPU {time.process_time() - cpu:.1f} s)"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {took}{goal}; at most {memory:.0f} MiB so far", flush=True)
    return result


def resume(space: Space, folder: SweepFolder) -> None:
    """Verify all trials and rebuild the plan, as a resumed driver does."""
    assert folder.repair() == []
    plan = Plan(space, folder)
    assert plan.complete, "every trial is finished"


def main(trials: int = 10_000) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        space = trivial(trials, Path(temporary))
        folder = timed(f"{trials} trials synthesised", lambda: synthesise(space, Path(temporary) / "storage"))
        timed("resume", lambda: resume(space, folder))
        timed("--show", lambda: show(folder.path, Console(file=io.StringIO())))
        timed("tables written", lambda: compact_tables(folder))
        timed("--show", lambda: show(folder.path, Console(file=io.StringIO())))
        name = sorted(os.listdir(folder.trials))[trials // 2]  # noqa: PTH208
        state = TrialFolder(folder.trials / name).state()
        assert state is not None
        TrialFolder(folder.trials / name).write_state(state)
        timed("tables after one more commit", lambda: compact_tables(folder))
        timed("resume", lambda: resume(space, folder))


if __name__ == "__main__":
    main()
