"""Faults that need no Ray: full disks, late writers, clocks that jump, memory that runs out, code that changed."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sweeper import continuing
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from tests.sweeper.fake_cluster import fake_cluster
from tests.sweeper.sweeps import begun, finish, finished, make_space
from tests.trials.folders import assert_same_outcome
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.config.trial_config import TrialConfig
from trials.errors import OUT_OF_MEMORY, Superseded, UserError
from trials.frozen import SCHEMA
from trials.running import progress
from trials.storage import files, outages
from trials.storage.trial_folder import TrialFolder


class Disk:
    """A disk on which every write fails with ENOSPC while ``full`` is set."""

    def __init__(self) -> None:
        self.full, self.refused = False, 0

    def write(self, fd: int) -> None:
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.write)
    monkeypatch.setattr(outages, "FIRST_PAUSE_S", 0.01)
    return disk


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialConfig, Path]:
    config, storage = config_of("one_shot", dataset="digits", checkpoint_every_s=0), tmp_path_factory.mktemp("calm")
    assert run_in(storage, config).status == "complete"
    return config, folder_of(config, storage)


@pytest.mark.fault("storage-full")
@pytest.mark.parametrize("fills_at", [1, 4, 7, 12])
def test_a_trial_waits_for_room_and_loses_nothing(
    disk: Disk, undisturbed: tuple[TrialConfig, Path], tmp_path: Path, fills_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, calm = undisturbed
    said: list[str] = []
    written = 0

    def fsync(fd: int) -> None:
        nonlocal written
        written += 1
        disk.full = fills_at <= written < fills_at + 4  # four tries in a row find no room
        disk.write(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert run_in(tmp_path, config, warn=said.append).status == "complete"
    assert disk.refused == 4
    full, again = said
    assert full.startswith("no room to write (ENOSPC: No space left on device, in ")
    assert full.endswith("): waiting until there is, for 600 s at most")
    assert again.startswith("the storage works again, after 0.")
    assert_same_outcome(folder_of(config, tmp_path), calm)
    assert not list(tmp_path.glob("**/.*.tmp"))


@pytest.mark.fault("storage-full")
def test_a_trial_that_is_asked_to_stop_on_a_full_disk_stops(
    disk: Disk, undisturbed: tuple[TrialConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, calm = undisturbed
    folder = folder_of(config, tmp_path)
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)  # the whole trial may be over in half a second

    def should_stop() -> bool:
        state = TrialFolder(folder).state()
        disk.full = state is not None and bool(state.commits)
        return disk.refused > 2

    state = run_in(tmp_path, config, should_stop=should_stop)
    assert state.status in ("running", "preempted")
    assert state.failures == 0
    assert disk.refused > 2
    disk.full = False
    assert run_in(tmp_path, config).status == "complete"
    assert_same_outcome(folder, calm)


class Shown:
    """Stands in for the live view."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def resize(self, *_: object) -> None: ...

    def started(self, *_: object) -> None: ...

    def answered(self, *_: object) -> None: ...

    def ended(self, *_: object, **__: object) -> None: ...


@pytest.mark.fault("storage-full")
def test_scheduling_pauses_while_the_disk_is_full(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.execution import driver_storage
    from sweeper.execution.on_ray import tune_searcher
    from trials.storage.leases.lease import Lease

    fake_cluster(monkeypatch, here=8)
    monkeypatch.setattr(driver_storage, "FULL_S", 0.0)
    search = {"search": {"finetune.lr": {"loguniform": [1e-3, 1.0]}}, "sampler": "random", "samples": 2}
    calm = begun(make_space(**search), tmp_path / "calm")
    expected = [assignment.config.model_dump(mode="json") for assignment in iter(calm.next, None)]
    plan, shown = begun(make_space(**search), tmp_path / "full"), Shown()
    asking = tune_searcher.PlanSearcher(plan, shown, Lease(tmp_path / "lock"))  # type: ignore[arg-type]
    first = asking.suggest("a")
    assert isinstance(first, dict)
    disk.full = True
    assert [asking.suggest(name) for name in "bcd"] == [None, None, None]
    disk.full = False
    others = [asking.suggest(name) for name in "efg"]
    assert asking.suggest("h") is None
    assert [told["config"] for told in (first, *others) if isinstance(told, dict)] == expected
    assert [note[:26] for note in shown.notes] == ["no room to write (ENOSPC: ", "the storage works again, a"]


def test_at_most_max_concurrent_trials_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.execution.on_ray import tune_searcher
    from trials.storage.leases.lease import Lease

    fake_cluster(monkeypatch, here=8)
    plan = begun(make_space(max_concurrent=1), tmp_path / "sweep")
    asking = tune_searcher.PlanSearcher(plan, Shown(), Lease(tmp_path / "lock"))  # type: ignore[arg-type]
    first = asking.suggest("a")
    assert isinstance(first, dict)
    assert asking.suggest("b") is None
    finish(plan, first["trial"], lambda _: 0.5)
    asking.on_trial_complete("a")
    assert isinstance(asking.suggest("b"), dict)


@pytest.mark.fault("tmp-full")
def test_a_full_temporary_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from trials.storage import scratch

    def mkdtemp(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", mkdtemp)
    with pytest.raises(UserError, match=r"No space left on device.*make room, or set TMPDIR"), scratch.scratch_folder():
        pass


@pytest.mark.fault("late-writer")
def test_a_late_state_does_not_hide_what_the_successor_has_committed(
    undisturbed: tuple[TrialConfig, Path], tmp_path: Path
) -> None:
    """A worker frozen between its check and its write wakes after its successor has finished."""
    config, calm = undisturbed
    folder = TrialFolder(folder_of(config, tmp_path))
    late, _ = folder.begin()
    assert run_in(tmp_path, config).attempt == 2
    assert_same_outcome(folder.path, calm)  # type: ignore[arg-type]
    folder.write_state(late.state)
    began = time.monotonic()
    state = run_in(tmp_path, config)
    assert (state.status, state.attempt) == ("complete", 3)
    assert time.monotonic() - began < 30
    assert_same_outcome(folder.path, calm)  # type: ignore[arg-type]


@pytest.mark.fault("clocks-jump")
def test_clocks_that_jump_change_nothing(
    undisturbed: tuple[TrialConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + 86_400 * (-1) ** next(calls))
    config, calm = undisturbed
    assert run_in(tmp_path, config).status == "complete"
    assert_same_outcome(folder_of(config, tmp_path), calm)


def driven(space: Any, folder: SweepFolder) -> str:
    """The lines that a driver prints when it takes up a sweep."""
    import io

    from rich.console import Console

    said = io.StringIO()
    continuing.refuse_contradictions(folder, space)
    continuing.record_change(folder, space, Console(file=said, width=1000), "c0ffee")
    return said.getvalue()


@pytest.mark.fault("other-code")
def test_code_of_another_version_is_noted_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, folder = make_space(), SweepFolder(tmp_path / "sweep")
    plan = Plan(space, folder)
    assert driven(space, folder) == driven(space, folder) == ""
    monkeypatch.setattr(continuing.importlib.metadata, "version", lambda name: "99.0" if name == "torch" else "1.0")
    said = driven(space, folder)
    assert said.startswith("resumes with other versions: torch ")
    assert "-> 99.0" in said
    assert len(folder.documents()) == 2
    monkeypatch.setattr(continuing, "SCHEMA", SCHEMA + 1)
    with pytest.raises(UserError, match=rf"written with schema {SCHEMA} .* but this code has schema {SCHEMA + 1}"):
        driven(space, folder)
    assert len(folder.documents()) == 2
    assert not plan.stopping


@pytest.mark.fault("storage-moved")
def test_a_sweep_that_was_moved_goes_on(tmp_path: Path) -> None:
    space = make_space()
    plan = begun(space, tmp_path / "here" / "sweep")
    assignment = plan.next()
    assert assignment is not None
    finish(plan, assignment.trial_id, lambda _: 0.5)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = begun(space, tmp_path / "there" / "sweep")
    assert finished(moved) == 1
    rest = moved.next()
    assert rest is not None
    assert rest.trial_id != assignment.trial_id


@pytest.mark.fault("finished-checkpoint-damaged")
def test_every_checkpoint_is_verified_if_asked_for(undisturbed: tuple[TrialConfig, Path], tmp_path: Path) -> None:
    config, calm = undisturbed
    sweep = SweepFolder(tmp_path / "sweep")
    sweep.schedule(config.id, config.model_dump(mode="json"), ())
    run_in(tmp_path, config)
    assert sweep.repair(checkpoints=True) == []
    checkpoint = sorted((sweep.trials / config.id / "checkpoint").iterdir())[-1]  # type: ignore[union-attr]
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert sweep.repair() == []  # its rows are whole
    (line,) = sweep.repair(checkpoints=True)
    assert checkpoint.name in line
    assert run_in(tmp_path, config).status == "complete"
    assert_same_outcome(folder_of(config, tmp_path), calm)


def test_a_full_disk_is_distinguished_from_other_errors() -> None:
    assert files.is_full(OSError(errno.ENOSPC, ""))
    assert files.is_full(OSError(errno.EDQUOT, ""))
    assert not files.is_full(OSError(errno.EACCES, ""))


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A PlanSearcher without Ray Tune; its ``display`` is a :class:`Shown`."""
    from sweeper.execution.on_ray import tune_searcher
    from trials.storage.leases.lease import Lease

    fake_cluster(monkeypatch, here=8)
    plan = begun(make_space(silence_limit_s=30), tmp_path / "sweep")
    return tune_searcher.PlanSearcher(plan, Shown(), Lease(tmp_path / "lock"))  # type: ignore[arg-type]


def test_a_machine_that_does_not_see_the_storage_gets_its_trial_taken_back(asking: Any) -> None:
    first, _ = asking.suggest("a"), asking.suggest("b")
    assert first["resources"] == {"CPU": 1}
    assert asking.suggest("c") is None
    asking.on_trial_result("a", {"trial": first["trial"], "blind": "worker7"})
    asking.on_trial_complete("a", error=True)
    (note,) = asking.display.notes
    assert note.startswith("worker7 does not see the storage ")
    again = asking.suggest("d")
    assert again["trial"] == first["trial"]
    assert TrialFolder(asking.folder.trial_folder(first["trial"])).state() is None


@pytest.mark.fault("trial-hangs")
def test_silence_beyond_the_limit_is_a_failure_and_late_commits_are_refused(
    asking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = asking.suggest("a")
    folder = TrialFolder(asking.folder.trial_folder(told["trial"]))
    frozen, _ = folder.begin()
    asking.on_trial_result("a", {"trial": told["trial"], "alive": True})
    assert asking.silent() == []
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 31)
    asking._tables._took_s = 2.0  # in which the driver packed, and heard of nobody
    assert asking.silent() == []
    monkeypatch.setattr(time, "monotonic", lambda: now + 33)
    assert asking.silent() == ["a"]
    assert asking.silent() == []
    asking.on_trial_complete("a", error=True)
    state = folder.state()
    assert state is not None
    assert (state.status, state.failures, state.attempt) == ("failed", 1, 2)
    assert "no sign of life for 31 s (silence_limit_s is 30): killed; tried again" in asking.display.notes[-1]
    with pytest.raises(Superseded):
        frozen.commit(checkpoint={}, rows={}, progress={}, seconds=0.0)


def test_a_trial_that_ran_out_of_memory_gets_the_whole_machine(asking: Any) -> None:
    told = asking.suggest("a")
    assert not told["alone"]
    attempt, _ = TrialFolder(asking.folder.trial_folder(told["trial"])).begin()
    attempt.end("failed", error={"type": OUT_OF_MEMORY, "message": "", "traceback": ""})
    asking.on_trial_complete("a")
    again = asking.suggest("b")
    assert (again["trial"], again["alone"], again["resources"]) == (told["trial"], True, {"CPU": 8})
