"""The command line: wrong input is one line, and nothing begins; what is right runs once."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweeper
from sweeper import cli
from sweeper.cli import COMPLETE, FAILURES, STOPPED, WRONG_INPUT, main
from sweeper.ledger import SweepFolder
from sweeper.plan import Plan
from tests.trials.killing import Killed, deaths, killed_at_write
from tests.trials.test_data_parquet import write_both
from trials.config import parse
from trials.lease import Lease
from trials.ledger import TrialFolder
from trials.trial import Surroundings, run

ROOT = Path(__file__).resolve().parent.parent.parent

SMALL = """
about: a small one
trial: {method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 2}, finetune: {epochs: 1}}
grid: {density: [0.5, 0.2]}
search: {finetune.lr: {loguniform: [0.01, 0.1]}}
sampler: random
samples: 2
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, with a space in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials run in this process instead of Ray; the list is of those that did."""
    names: list[str] = []

    def run_plan(space: Any, folder: SweepFolder, plan: Plan, display: Any, lease: Lease, **_: Any) -> None:
        while (assignment := plan.next()) is not None:
            path = folder.trial_folder(assignment.trial_id)
            run(parse(assignment.config), path, Surroundings(folder.stages))
            names.append(assignment.trial_id)
            for ending in plan.ended(assignment.trial_id):
                display.ended(ending.trial_id, ending.cell, ending.status, ending.value, already=False)

    put_in_place_of_ray(monkeypatch, run_plan)
    return names


def put_in_place_of_ray(monkeypatch: pytest.MonkeyPatch, run_plan: Callable[..., None]) -> None:
    runner = types.ModuleType("sweeper.runner")
    runner.run_plan = run_plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sweeper.runner", runner)
    monkeypatch.setattr(sweeper, "runner", runner, raising=False)


def sweep(*arguments: str) -> int:
    return main(["--space", "small.yaml", *arguments])


SPACE = ["--space", "small.yaml"]

WRONG: dict[str, tuple[list[str], list[str]]] = {
    "no space": ([], ["--space", "missing"]),
    "unknown space": (["--space", "bip_unstructurd"], ["bip_unstructurd", "did you mean 'bip_unstructured'"]),
    "missing file": (["--space", "none.yaml"], ["none.yaml"]),
    "unknown option": ([*SPACE, "--densities", "3"], ["--densities"]),
    "abbreviation": ([*SPACE, "--dry"], ["--dry"]),
    "no number": ([*SPACE, "--samples", "a"], ["--samples", "'a'"]),
    "no samples": ([*SPACE, "--samples", "0"], ["samples", "0"]),
    "none at once": ([*SPACE, "--max-concurrent", "0"], ["max_concurrent", "0"]),
    "option without value": ([*SPACE, "--name"], ["--name"]),
    "unknown key": ([*SPACE, "--set", "retry=3"], ["retry", "did you mean 'retries'"]),
    "unknown field": ([*SPACE, "--set", "trial.modl=tiny"], ["modl", "did you mean 'model'"]),
    "unknown nested field": ([*SPACE, "--set", "trial.pretrain.epoch=3"], ["epoch", "did you mean 'epochs'"]),
    "wrong type": ([*SPACE, "--set", "trial.pretrain.epochs=many"], ["pretrain.epochs", "'many'", "integer"]),
    "density 0": ([*SPACE, "--set", "grid.density=[0]"], ["density", "0", "greater than 0"]),
    "density 1.5": ([*SPACE, "--set", "grid.density=[0.5, 1.5]"], ["density", "1.5", "less than or equal to 1"]),
    "density a": ([*SPACE, "--set", "grid.density=[a]"], ["density", "'a'", "number"]),
    "empty grid": ([*SPACE, "--set", "grid.density=[]"], ["grid.density", "[]", "at least one value"]),
    "grid of nothing": ([*SPACE, "--set", "grid.density=3"], ["grid.density", "3", "list"]),
    "unknown method": ([*SPACE, "--set", "trial.method=one_shoot"], ["one_shoot", "did you mean 'one_shot'"]),
    "unknown model": ([*SPACE, "--set", "trial.model=resnet20x"], ["resnet20x", "did you mean 'resnet20'"]),
    "unknown data set": ([*SPACE, "--set", "trial.dataset=digit"], ["digit", "did you mean 'digits'"]),
    "unknown sampler": ([*SPACE, "--set", "sampler=gird"], ["sampler", "'gird'", "did you mean 'grid'"]),
    "unknown objective": ([*SPACE, "--set", "objective=accuracy"], ["objective", "accuracy"]),
    "objective on test": ([*SPACE, "--set", "objective=test_accuracy"], ["test_accuracy", "selection"]),
    "unknown distribution": ([*SPACE, "--set", "search.finetune.lr={normal: [0, 1]}"], ["finetune.lr", "normal"]),
    "unknown profile": ([*SPACE, "--profile", "demo"], ["profile", "demo"]),
    "unknown profile of one": (["--space", "imp_kseries", "--profile", "dmo"], ["dmo", "did you mean 'demo'"]),
    "set without equals": ([*SPACE, "--set", "samples"], ["--set", "'samples'", "a.b=c"]),
    "set without path": ([*SPACE, "--set", "=3"], ["--set", "'=3'", "a.b=c"]),
    "set no YAML": ([*SPACE, "--set", "grid=["], ["--set", "grid=["]),
    "name outside": ([*SPACE, "--name", "../x"], ["--name", "'../x'"]),
    "hidden name": ([*SPACE, "--name", ".x"], ["--name", "'.x'"]),
    "empty name": ([*SPACE, "--name", ""], ["--name", "''"]),
    "name of what is shared": ([*SPACE, "--name", "stages"], ["--name", "'stages'"]),
    "missing data_dir": (
        [*SPACE, "--set", "trial.dataset=cifar10", "--set", "trial.data_dir=/nowhere"],
        ["data_dir", "/nowhere", "missing"],
    ),
    "data set without folder": ([*SPACE, "--set", "trial.dataset=parquet"], ["data_dir", "parquet"]),
    "show nothing": (["--show", "none"], ["none", "sweep"]),
    "show outside": (["--show", "../x"], ["--name", "'../x'"]),
    "show empty": (["--show", ""], ["--name", "''"]),
}


def wrong(capsys: pytest.CaptureFixture[str], arguments: list[str], *parts: str) -> str:
    """The one line that a command line is refused with."""
    capsys.readouterr()
    assert main(arguments) == WRONG_INPUT
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    for part in parts:
        assert part in said.err
    return said.err


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_nothing_is_created(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    put_in_place_of_ray(monkeypatch, lambda *_, **__: pytest.fail("trials ran"))
    arguments, parts = WRONG[case]
    wrong(capsys, arguments, *parts)
    assert [path.name for path in here.iterdir()] == ["small.yaml"]


def test_what_is_refused_or_only_shown_does_not_import_ray(here: Path) -> None:
    arguments = [arguments for arguments, _ in WRONG.values()]
    arguments += [[*SPACE, "--dry-run"], ["--list-spaces"]]
    script = f"""
import sys
from sweeper.cli import main
codes = [main(arguments) for arguments in {arguments!r}]
assert codes == {[2] * len(WRONG) + [0, 0]!r}, codes
assert "ray" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == len(WRONG)
    assert [path.name for path in here.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize("content", ["- a\n- b\n", "trial: {\n", "", "trial: 3\nsamples: 1\n", "\x00", "&a [*a]\n"])
def test_a_file_that_is_no_space(capsys: pytest.CaptureFixture[str], here: Path, content: str) -> None:
    (here / "odd.yaml").write_text(content)
    wrong(capsys, ["--space", "odd.yaml"])


@pytest.mark.parametrize("storage", ["small.yaml", "small.yaml/below", "/proc/sweeps"])
def test_storage_that_cannot_be_written(capsys: pytest.CaptureFixture[str], here: Path, storage: str) -> None:
    wrong(capsys, [*SPACE, "--storage", storage], "storage", storage)
    assert [path.name for path in here.iterdir()] == ["small.yaml"]


def test_a_sweep_yaml_that_cannot_be_read(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    path = here / "results" / "small" / "sweep.yaml"
    path.mkdir(parents=True)
    wrong(capsys, SPACE, str(path))
    path.rmdir()
    for content in (b"\xff\xfe", b"a: [", b"just text", b"- 1", b"---\nspace: 3\n", b"---\nspace: {name: 1}\n"):
        path.write_bytes(content)
        wrong(capsys, SPACE, str(path))


def test_a_damaged_data_set(capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    data = write_both(here / "data")
    file = data / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    arguments = [*SPACE, "--set", "trial.dataset=parquet", "--set", f"trial.data_dir={data}"]
    wrong(capsys, arguments, file.name)
    assert not (here / "results").exists()


def test_the_options_are_none_that_ray_submit_takes() -> None:
    taken = "--stop --start --screen --tmux --cluster-name -n --no-config-cache --port-forward -p --args -v --verbose"
    taken += " --disable-usage-stats --extra-screen-args --log-style --log-color"
    options = {option for action in cli.parser()._actions for option in action.option_strings}
    assert options - {"-h", "--help"} == {
        *("--space", "--profile", "--set", "--storage", "--name", "--samples", "--max-concurrent", "--address"),
        *("--serial", "--dry-run", "--list-spaces", "--show", "--list", "--cancel", "--retry-failed", "--verify"),
        *("--max-hours", "--dashboard"),
    }
    assert not options & set(taken.split())
    assert not cli.parser().allow_abbrev


def test_help_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    assert "--list-spaces" in capsys.readouterr().out


SPACES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "search_spaces").glob("*.yaml"))


def test_list_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-spaces"]) == COMPLETE
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == SPACES
    assert all("profiles: demo" in line for line in lines)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("profile", [[], ["--profile", "demo"]])
def test_every_space_that_ships_can_run(capsys: pytest.CaptureFixture[str], name: str, profile: list[str]) -> None:
    assert main(["--space", name, *profile, "--dry-run"]) == COMPLETE
    assert "trials of" in capsys.readouterr().out


def test_dry_run_says_what_would_run_and_creates_nothing(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert sweep("--dry-run", "--set", "grid.seed=[0, 1]") == COMPLETE
    out = capsys.readouterr().out
    for part in ("density=0.5,seed=0", "4 cells x 2 samples = 8 trials of one_shot", "shared: 2", "finetune.lr"):
        assert part in out
    assert str(here / "results" / "small") in out
    assert sweep("--dry-run", "--set", "search.pretrain.lr={uniform: [0.1, 0.2]}") == COMPLETE
    assert "one per trial" in capsys.readouterr().out
    assert [path.name for path in here.iterdir()] == ["small.yaml"]


def attempts(path: Path) -> dict[str, int]:
    trials = sweeper.load(path).trials
    assert trials["trial"].is_unique
    return dict(zip(trials["trial"], trials["attempts"], strict=True))


def test_a_sweep_runs_once(capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]) -> None:
    assert sweep() == COMPLETE
    assert len(ran) == len(set(ran)) == 4
    out = capsys.readouterr().out
    assert "4 trials, 4 done" in out
    assert str(here / "results" / "small" / "tables") in out
    assert sweep() == COMPLETE
    assert len(ran) == 4
    assert attempts(here / "results" / "small") == dict.fromkeys(ran, 1)
    folder = SweepFolder(here / "results" / "small")
    (document,) = folder.documents()
    assert set(document) == {"schema", "written", "space", "versions", "commit"}
    assert document["versions"].keys() >= {"torch", "ray", "optuna"}
    assert not (folder.path / "lock" / "lease.json").exists()


def test_a_sweep_can_be_extended_and_moved(here: Path, ran: list[str]) -> None:
    assert sweep() == COMPLETE
    (here / "results").rename(here / "elsewhere")
    assert sweep("--storage", "elsewhere", "--samples", "3", "--set", "grid.density=[0.5, 0.35, 0.2]") == COMPLETE
    assert len(ran) == len(set(ran)) == 4 + 5
    assert attempts(here / "elsewhere" / "small") == dict.fromkeys(ran, 1)
    documents = SweepFolder(here / "elsewhere" / "small").documents()
    assert [document["space"]["samples"] for document in documents] == [2, 3]
    assert not (here / "results").exists()


def test_what_contradicts_the_sweep_is_refused_with_the_difference(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    assert sweep() == COMPLETE
    before = {path: path.stat().st_mtime_ns for path in (here / "results" / "small").rglob("*") if path.is_file()}
    for setting, parts in {
        "trial.pretrain.epochs=3": ("trial.pretrain.epochs", "3", "2"),
        "grid.density=[0.5]": ("grid.density", "0.2"),
        "search.finetune.lr={loguniform: [0.01, 0.2]}": ("search.finetune.lr", "0.2", "0.1"),
        "sampler=tpe": ("sampler", "tpe", "random"),
        "samples=1": ("samples", "1", "2"),
        "seed=1": ("seed", "1", "0"),
    }.items():
        line = wrong(capsys, [*SPACE, "--set", setting], "begun as another sweep", *parts)
        assert "another --name" in line
        wrong(capsys, [*SPACE, "--set", setting, "--dry-run"], "begun as another sweep")
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert sweep("--set", "trial.pretrain.epochs=3", "--name", "other") == COMPLETE
    assert len(ran) == 8


def test_a_second_driver_is_refused(capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]) -> None:
    with Lease(here / "results" / "small" / "lock") as lease:
        assert lease.acquire()
        owner = lease.owner()
        wrong(capsys, SPACE, f"is being run by {owner}", str(os.getpid()), "--show")
        assert not ran
        assert lease.owner() == owner
    assert not (here / "results" / "small" / "sweep.yaml").exists()
    assert sweep() == COMPLETE
    assert len(ran) == 4


def test_a_sweep_that_another_driver_changed_while_this_one_waited_is_refused(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_writable = cli.files.require_writable

    def meanwhile(path: Path) -> None:
        monkeypatch.setattr(cli.files, "require_writable", require_writable)
        assert sweep("--samples", "3") == COMPLETE

    monkeypatch.setattr(cli.files, "require_writable", meanwhile)
    assert sweep() == WRONG_INPUT
    assert "samples is 2" in capsys.readouterr().err
    assert len(ran) == 6


def driver_elsewhere(here: Path, beat: int = 0) -> Path:
    path = here / "results" / "small" / "lock" / "lease.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {"host": "elsewhere", "pid": 1, "started": "1", "token": "t", "beat": beat}
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps(owner))
    partial.replace(path)
    return path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "Lease", functools.partial(Lease, patience_s=0.5))
    monkeypatch.setattr(cli, "HEARTBEAT_S", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_died_with_its_machine_is_succeeded(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    driver_elsewhere(here)
    assert sweep() == COMPLETE
    assert "process 1 on elsewhere; waiting" in capsys.readouterr().out
    assert len(ran) == 4


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_lives_on_another_machine_is_not(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    driver_elsewhere(here)
    beat = threading.Timer(0.2, driver_elsewhere, (here, 1))
    beat.start()
    assert sweep() == WRONG_INPUT
    beat.join()
    assert "is being run by process 1 on elsewhere" in capsys.readouterr().err
    assert not ran


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"host": 1}', "\x00"])
def test_a_lease_that_nobody_can_read_is_nobodys(here: Path, ran: list[str], content: str) -> None:
    driver_elsewhere(here).write_text(content)
    assert sweep() == COMPLETE


def schedule_one(space: Any, folder: SweepFolder, plan: Plan, *_: Any, **__: Any) -> None:
    plan.next()


def test_show(capsys: pytest.CaptureFixture[str], here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # a driver that schedules, and dies
        put_in_place_of_ray(patch, schedule_one)
        assert sweep() == STOPPED
    capsys.readouterr()
    assert main(["--show", "small"]) == COMPLETE
    assert "2 cells, 0 done; 4 trials, 0 done" in capsys.readouterr().out
    assert sweep() == COMPLETE
    at_the_end = capsys.readouterr().out
    assert main(["--show", "small"]) == COMPLETE
    shown = capsys.readouterr().out
    assert shown
    assert at_the_end.endswith(shown)
    assert main(["--show", "small", "--storage", str(here / "results")]) == COMPLETE
    assert capsys.readouterr().out == shown


def test_a_failed_trial_is_told(capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]) -> None:
    arguments = ["--set", "trial.finetune={epochs: 1, lr: 1e30}", "--set", "search=null", "--samples", "1"]
    assert sweep(*arguments) == FAILURES
    assert len(ran) == 4  # each of the two is tried once more
    out = capsys.readouterr().out
    assert "NonFiniteLoss" in out
    trials = sweeper.load(here / "results" / "small").trials
    assert trials["status"].tolist() == ["failed", "failed"]
    assert trials["failures"].tolist() == [2, 2]
    assert trials["error_type"].tolist() == ["NonFiniteLoss", "NonFiniteLoss"]
    assert sweep(*arguments) == FAILURES
    assert len(ran) == 4
    assert sweep(*arguments, "--set", "retries=2") == FAILURES
    assert len(ran) == 6


def rows_and_checkpoint(path: Path, trial_id: str) -> tuple[Path, Path]:
    folder = TrialFolder(path / "trials" / trial_id)
    state = folder.state()
    assert state is not None
    commit = state.commits[-1]
    assert commit.checkpoint is not None
    return folder.path / "rows" / commit.rows["epochs"], folder.path / "checkpoint" / commit.checkpoint


def figures(path: Path) -> Any:
    return sweeper.load(path).epochs.drop(columns="seconds")


def test_a_damaged_row_file_is_set_aside_and_written_again(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    path = here / "results" / "small"
    assert sweep() == COMPLETE
    before = figures(path)
    rows, _ = rows_and_checkpoint(path, ran[0])
    rows.write_bytes(rows.read_bytes()[:-1])
    capsys.readouterr()
    assert sweep() == COMPLETE
    assert f"{rows.name}.damaged" in capsys.readouterr().out
    assert rows.with_name(f"{rows.name}.damaged").exists()
    assert len(ran) == 4
    assert figures(path).equals(before)


def test_damaged_rows_without_a_whole_checkpoint_cost_one_trial(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    path = here / "results" / "small"
    assert sweep() == COMPLETE
    before, names = figures(path), list(ran)
    for file in rows_and_checkpoint(path, ran[1]):
        file.write_bytes(b"")
    capsys.readouterr()
    assert sweep() == COMPLETE
    assert capsys.readouterr().out.count(".damaged") >= 1
    assert ran[4:] == [names[1]]
    assert attempts(path) == {name: 1 + (name == names[1]) for name in names}
    assert figures(path).equals(before)


def test_a_damaged_state_costs_nothing_that_is_committed(here: Path, ran: list[str]) -> None:
    path = here / "results" / "small"
    assert sweep() == COMPLETE
    before = figures(path)
    state = path / "trials" / ran[2] / "state.json"
    state.write_bytes(state.read_bytes()[:40])
    assert sweep() == COMPLETE
    assert state.with_name("state.json.damaged").exists()
    assert ran[4:] == [ran[2]]
    assert figures(path).equals(before)


def test_a_damaged_config_costs_nothing_that_is_committed(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    path = here / "results" / "small"
    assert sweep() == COMPLETE
    before = figures(path)
    config = path / "trials" / ran[3] / "config.json"
    config.write_bytes(b"{}")
    capsys.readouterr()
    assert sweep() == COMPLETE
    assert "config.json.damaged" in capsys.readouterr().out
    assert attempts(path) == dict.fromkeys(ran, 1)
    assert figures(path).equals(before)


def test_a_damaged_shared_network_is_trained_again_only_when_it_is_wanted(here: Path, ran: list[str]) -> None:
    assert sweep() == COMPLETE
    (stage,) = (here / "results" / "stages").iterdir()
    for checkpoint in (stage / "checkpoint").iterdir():
        checkpoint.write_bytes(b"damaged")
    state = TrialFolder(stage).state()
    assert state is not None
    assert sweep() == COMPLETE
    assert TrialFolder(stage).state() == state
    assert sweep("--samples", "3") == COMPLETE
    again = TrialFolder(stage).state()
    assert again is not None
    assert (again.status, again.attempt) == ("complete", 2)
    assert again.result == state.result
    assert list((stage / "checkpoint").glob("*.damaged"))
    assert attempts(here / "results" / "small") == dict.fromkeys(ran, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_trials_run_ends_quietly(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    monkeypatch.setattr(cli.data, "check", lambda *_: os.kill(os.getpid(), number))
    assert sweep() == STOPPED
    assert capsys.readouterr().err.splitlines() == ["stopped; the same command again goes on"]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


def test_a_driver_killed_while_it_writes_sweep_yaml(here: Path, ran: list[str]) -> None:
    path = here / "results" / "small" / "sweep.yaml"
    path.parent.mkdir(parents=True)
    (path.parent / ".sweep.yaml.123.tmp").write_text("---\nspace: {na")
    assert sweep() == COMPLETE
    first = path.read_text()
    (path.parent / ".sweep.yaml.124.tmp").write_text(first + "---\nspace: {na")
    assert sweep("--samples", "3") == COMPLETE
    assert path.read_text().startswith(first)
    assert len(list(yaml.safe_load_all(path.read_text()))) == 2


@pytest.mark.parametrize("seed", range(3))
def test_a_driver_killed_at_any_write(here: Path, ran: list[str], seed: int) -> None:
    """Of sweep.yaml, of a trial's record, of a worker's commit, of the tables."""
    assert sweep("--storage", "undisturbed") == COMPLETE
    kills = 0
    for number, place in deaths(seed, longest=10):
        try:
            with killed_at_write(number, place):
                sweep()
            break
        except Killed:
            kills += 1
    assert kills > 2
    assert sweep() == COMPLETE
    path = here / "results" / "small"
    assert figures(path).equals(figures(here / "undisturbed" / "small"))
    assert sorted(attempts(path)) == sorted(attempts(here / "undisturbed" / "small"))
    tables = load_tables(path)
    shutil.rmtree(path / "tables")
    assert sweep() == COMPLETE
    assert load_tables(path) == tables


def load_tables(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / "tables").glob("*.parquet")}


@pytest.fixture(autouse=True)
def no_stray_handlers() -> Iterator[None]:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    assert {n: signal.getsignal(n) for n in before} == before
