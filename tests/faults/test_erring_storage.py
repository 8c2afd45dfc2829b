"""A storage that errs, at every call: what waits for it loses nothing, spends nothing and says it once."""

from __future__ import annotations

import errno
import json
import random
from pathlib import Path
from typing import Any

import pytest

from sweeper import cli
from sweeper.execution.assigned_trial import run_assigned
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.tables import compact_tables
from sweeper.search.plan import Plan
from tests.faults.erring_storage import KINDS, ErringStorage, erring
from tests.faults.sweeps import assert_same
from tests.sweeper.command_line import put_in_place_of_ray
from tests.sweeper.conftest import here
from tests.sweeper.fake_cluster import Shown, fake_cluster, later
from tests.sweeper.sweeps import make_space
from tests.trials.conftest import few_digits
from tests.trials.folders import assert_same_outcome, the_stage
from tests.trials.small_trials import RECIPE, config_of, folder_of, run_in
from trials import __main__ as trial_command
from trials.config.trial_config import TrialConfig
from trials.errors import StorageError
from trials.storage.leases.lease import Lease
from trials.storage.outages import StoragePatience
from trials.storage.rows import FINISHED
from trials.storage.trial_folder import TrialFolder

__all__ = ["few_digits", "here"]

pytestmark = pytest.mark.usefixtures("few_digits")

SEED = 19
DRAW = random.Random(SEED)
FIRST, AGAIN = "does not work", "works again"


def trial_config() -> TrialConfig:
    short = {**RECIPE, "epochs": 1}
    return config_of("one_shot", pretrain=short, finetune=short, checkpoint_every_s=0)


@pytest.fixture(scope="module")
def calm(few_digits: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A storage with an undisturbed trial, and the calls that it took."""
    path = tmp_path_factory.mktemp("calm")
    with erring(path) as storage:
        assert run_in(path, trial_config()).status == "complete"
    return path, storage.calls


def assert_said_once(said: list[str], storage: ErringStorage) -> None:
    """One line that it errs and one that it works again; none if the call was one that may fail."""
    assert len(said) in (0, 2), said
    if said:
        assert FIRST in said[0] or "no room to write" in said[0]
        assert str(Path(storage.folder).parent) in said[0]  # of the sweep's folder itself, too
        assert AGAIN in said[1]


def suffer(path: Path, calm: Path, code: int, at: int, times: int) -> None:
    """Run the trial on a storage that errs for some calls, and compare it with the undisturbed one."""
    config, said = trial_config(), list[str]()
    with erring(path) as storage:
        storage.fail(code, at=at, times=times)
        state = run_in(path, config, warn=said.append)
    assert (state.status, state.attempt, state.failures) == ("complete", 1, 0)
    assert_said_once(said, storage)
    assert_same_outcome(folder_of(config, path), folder_of(config, calm))
    assert_same_outcome(the_stage(path), the_stage(calm))
    left = [found.name for found in path.rglob("*") if ".damaged" in found.name or found.name.endswith(".tmp")]
    assert not [name for name in left if not name.startswith(".lease.json.")]  # that one goes with this process


@pytest.mark.fault("storage-errs")
@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_trial_waits_and_loses_nothing(calm: tuple[Path, list[str]], tmp_path: Path, code: int) -> None:
    path, calls = calm
    able = [number for number, call in enumerate(calls, start=1) if call in KINDS[code]]
    suffer(tmp_path, path, code, DRAW.choice(able), times=3)


@pytest.mark.slow_faults
@pytest.mark.fault("storage-errs")
@pytest.mark.parametrize("code", KINDS, ids=errno.errorcode.get)
def test_a_trial_waits_at_every_call(calm: tuple[Path, list[str]], tmp_path: Path, code: int) -> None:
    path, calls = calm
    for at in [number for number, call in enumerate(calls, start=1) if call in KINDS[code]]:
        suffer(tmp_path / str(at), path, code, at, times=1 + at % 4)


def give_up(path: Path, calm: Path, code: int, at: int) -> None:
    """Run the trial on a storage that errs for good from some call on, and again on one that works."""
    config, said = trial_config(), ""
    with erring(path) as storage:
        storage.fail(code, at=at)
        try:
            assert run_in(path, config, storage_patience_s=0.02).status == "complete"  # all that failed may fail
        except StorageError as error:
            said = str(error)
    assert not said or said.startswith("the storage has not worked for 0 s (")
    assert "\n" not in said
    for folder in (folder_of(config, path), *(path / "stages").glob("*")):
        left = TrialFolder(folder).state()
        assert left is None or (left.status in ("running", "complete") and left.failures == 0)
    assert run_in(path, config).status == "complete"
    assert_same_outcome(folder_of(config, path), folder_of(config, calm))
    assert not [found for found in path.rglob("*") if ".damaged" in found.name]


@pytest.mark.fault("storage-errs-for-good")
@pytest.mark.parametrize("code", [errno.EROFS], ids=errno.errorcode.get)
def test_a_trial_ends_without_a_failure_and_goes_on(calm: tuple[Path, list[str]], tmp_path: Path, code: int) -> None:
    path, calls = calm
    able = [number for number, call in enumerate(calls, start=1) if call in KINDS[code]]
    give_up(tmp_path, path, code, DRAW.choice(able))


@pytest.mark.slow_faults
@pytest.mark.fault("storage-errs-for-good")
@pytest.mark.parametrize("code", KINDS, ids=errno.errorcode.get)
def test_a_trial_ends_at_every_call_and_goes_on(calm: tuple[Path, list[str]], tmp_path: Path, code: int) -> None:
    path, calls = calm
    for at in [number for number, call in enumerate(calls, start=1) if call in KINDS[code]][::2]:
        give_up(tmp_path / str(at), path, code, at)


def run_sweep(path: Path, notes: list[str], **fields: Any) -> None:
    """Run a sweep with all that a driver and its workers do, in this process, without Ray."""
    from sweeper.execution.on_ray.tune_searcher import PlanSearcher

    short = {**RECIPE, "epochs": 1}
    trial = {"method": "one_shot", "dataset": "few_digits", "model": "tiny", "pretrain": short, "finetune": RECIPE}
    search = {"search": {"finetune.lr": {"loguniform": [1e-3, 1.0]}}, "sampler": "random", "samples": 2}
    pruned = {"grid": {}, "pruner": {"name": "median", "n_startup_trials": 1}}
    space = make_space(trial={**trial, "density": 0.3}, **search, **pruned, **fields)
    folder = SweepFolder(path / "sweep")
    with StoragePatience(lambda text, errs: notes.append(text), limit_s=space.storage_patience_s).active():
        if not folder.documents():
            folder.append({"space": space.document()})
        plan = Plan(space, folder)
    shown = Shown()
    shown.notes = notes
    searcher = PlanSearcher(plan, shown, Lease(path / "lock"))  # type: ignore[arg-type]
    number = 0
    while not searcher.plan.over:
        number += 1
        assert number < 10_000
        assignment = searcher.suggest(str(number))
        if not isinstance(assignment, dict):
            continue
        run_assigned(assignment, lambda result, name=str(number): searcher.on_trial_result(name, result))  # type: ignore[misc]
        searcher.on_trial_complete(str(number))
    with searcher.storage.patience.active():
        compact_tables(folder)


@pytest.fixture(scope="module")
def calm_sweep(few_digits: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    path = tmp_path_factory.mktemp("calm_sweep")
    with pytest.MonkeyPatch.context() as patch:
        fake_cluster(patch, here=1)
        with erring(path / "sweep") as storage:
            run_sweep(path, [])
    return path, storage.calls


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cluster(monkeypatch, here=1)


def suffer_sweep(path: Path, calm: Path, code: int, at: int, times: int) -> None:
    notes: list[str] = []
    with erring(path / "sweep") as storage:
        storage.fail(code, at=at, times=times)
        run_sweep(path, notes)
    said = [note for note in notes if FIRST in note or AGAIN in note or "no room" in note]
    assert_said_once(said, storage)
    assert notes == said
    states = [TrialFolder(folder).state() for folder in (path / "sweep" / "trials").iterdir()]
    assert {(s.status in FINISHED, s.attempt, s.failures) for s in states if s} == {(True, 1, 0)}
    assert_same(path / "sweep", calm / "sweep")


@pytest.mark.fault("storage-errs")
@pytest.mark.parametrize("code", [errno.ESTALE], ids=errno.errorcode.get)
def test_a_sweep_waits_and_loses_nothing(
    calm_sweep: tuple[Path, list[str]], tmp_path: Path, one_core: None, code: int
) -> None:
    path, calls = calm_sweep
    able = [number for number, call in enumerate(calls, start=1) if call in KINDS[code]]
    suffer_sweep(tmp_path, path, code, DRAW.choice(able), times=3)


@pytest.mark.slow_faults
@pytest.mark.fault("storage-errs")
@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_sweep_waits_at_every_call(
    calm_sweep: tuple[Path, list[str]], tmp_path: Path, one_core: None, code: int
) -> None:
    path, calls = calm_sweep
    for at in [number for number, call in enumerate(calls, start=1) if call in KINDS[code]]:
        suffer_sweep(tmp_path / str(at), path, code, at, times=1 + at % 4)


def test_the_shim_sees_the_calls_of_a_trial(calm: tuple[Path, list[str]]) -> None:
    _, calls = calm
    assert {"open", "read", "create", "write", "fsync", "replace", "mkdir", "stat", "listdir", "flock"} <= {*calls}


def test_the_shim_lets_calls_fail_and_work_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with erring(tmp_path) as storage:
        storage.fail(errno.EIO, at=2, times=1)
        with pytest.raises(OSError, match="Input/output"):
            (tmp_path / "file").read_text()  # opened, but not read
        assert (tmp_path / "file").read_text() == "x"
        storage.fail(errno.EROFS)
        assert (tmp_path / "file").stat().st_size == 1
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "new").mkdir()
        storage.mend()
        (tmp_path / "new").mkdir()


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A PlanSearcher without Ray Tune, whose first trial is with a worker."""
    from sweeper.execution.on_ray.tune_searcher import PlanSearcher

    fake_cluster(monkeypatch, here=8)
    space = make_space(silence_limit_s=30, storage_patience_s=0.02)
    folder = SweepFolder(tmp_path / "sweep")
    return PlanSearcher(Plan(space, folder), Shown(), Lease(tmp_path / "lock"))  # type: ignore[arg-type]


@pytest.mark.fault("storage-errs")
def test_the_lines_of_all_workers_collapse(asking: Any) -> None:
    for name in "ab":
        asking.suggest(name)
        asking.on_trial_result(name, {"machine": name, "storage": f"errs {name}", "errs": True})
    asking.on_trial_result("a", {"machine": "a", "storage": "works a", "errs": False})
    assert asking.display.notes == ["a: errs a"]
    asking.on_trial_result("b", {"machine": "b", "storage": "works b", "errs": False})
    assert asking.display.notes == ["a: errs a", "b: works b"]


@pytest.mark.fault("storage-errs")
def test_silence_is_no_failure_while_the_driver_waits(asking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = asking.suggest("a")
    asking.on_trial_result("a", {"trial": first["trial"], "alive": True})
    asking.storage.patience.count(100.0)
    later(monkeypatch, 100.0)
    assert asking.silent() == []
    later(monkeypatch, 31.0)
    assert asking.silent() == ["a"]


@pytest.mark.fault("storage-errs-for-good")
def test_a_machine_that_cannot_use_the_storage_gets_no_more_trials(asking: Any) -> None:
    first, _ = asking.suggest("a"), asking.suggest("b")
    where = {"node": "n1", "machine": "worker7", "card": ""}
    asking.on_trial_result("a", {"trial": first["trial"], **where, "lost": "it has not worked for 600 s"})
    asking.on_trial_complete("a", error=True)
    assert "n1" in asking.plan.sick.barred
    assert any("worker7" in note and "has not worked for 600 s" in note for note in asking.display.notes)
    assert TrialFolder(asking.folder.trial_folder(first["trial"])).state() is None
    assert asking.suggest("c")["trial"] == first["trial"]


@pytest.mark.fault("storage-errs-for-good")
def test_the_run_ends_if_the_driver_cannot_use_it_either(asking: Any) -> None:
    first = asking.suggest("a")
    with erring(Path(asking.folder.path)) as storage:
        storage.fail(errno.EROFS)
        with pytest.raises(StorageError, match="EROFS"):
            asking.on_trial_result("a", {"trial": first["trial"], "lost": "it has not worked for 600 s"})
    assert isinstance(asking.storage.ended_by, StorageError)


@pytest.mark.fault("storage-errs-for-good")
def test_the_command_of_a_trial_ends_with_74_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = {**RECIPE, "epochs": 1}
    trial = {"method": "dense", "dataset": "few_digits", "model": "tiny", "train": short}
    (tmp_path / "config.yaml").write_text(json.dumps(trial))
    command = ["config.yaml", "--storage", "results", "--storage-patience-s", "0.02", "--threads", "1"]
    with erring(tmp_path / "results") as storage:
        monkeypatch.setattr(storage, "meet", _after_first_row(storage, storage.meet, tmp_path))
        assert trial_command.main(command) == 74
    said = capsys.readouterr().err.splitlines()
    waits, ends = said
    assert waits.startswith("note: the storage does not work (EIO: ")
    assert ends.startswith("error: the storage has not worked for 0 s (EIO: ")
    assert trial_command.main(command) == 0


def _after_first_row(storage: ErringStorage, meet: Any, path: Path) -> Any:
    """Let the storage fail for good once a checkpoint is to be written."""

    def met(call: str, where: Any) -> None:
        if call == "create" and ".pt." in str(where):
            storage.fail(errno.EIO)
        meet(call, where)

    return met


@pytest.mark.fault("storage-refused")
def test_a_read_only_storage_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    trial = {"method": "dense", "dataset": "few_digits", "model": "tiny", "train": RECIPE}
    (tmp_path / "config.yaml").write_text(json.dumps(trial))
    with erring(tmp_path / "results") as storage:
        storage.fail(errno.EROFS)
        assert trial_command.main(["config.yaml", "--storage", "results"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: storage is ")
    assert "Read-only file system" in line


@pytest.mark.fault("storage-errs-for-good")
def test_the_command_of_a_sweep_ends_with_74(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_plan(*_: Any, **__: Any) -> None:
        raise StorageError("the storage has not worked for 600 s")

    put_in_place_of_ray(monkeypatch, run_plan)
    assert cli.main(["--space", "small.yaml", "--storage", "results"]) == cli.STORAGE == 74
    assert capsys.readouterr().err.splitlines()[-1] == "error: the storage has not worked for 600 s"
