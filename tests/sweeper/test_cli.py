"""The command line: wrong input gives one line and creates nothing; commands that only show run nothing."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.cli import COMPLETE, main
from tests.sweeper.command_line import SMALL, SPACE, put_in_place_of_ray, sweep, wrong
from tests.trials.parquet_files import write_both

pytestmark = pytest.mark.usefixtures("here", "no_stray_handlers")


ROOT = Path(__file__).resolve().parent.parent.parent

WRONG: dict[str, tuple[list[str], list[str]]] = {
    "no space": ([], ["--space", "missing"]),
    "unknown space": (["--space", "bip_unstructurd"], ["bip_unstructurd", "did you mean 'bip_unstructured'"]),
    "missing file": (["--space", "none.yaml"], ["none.yaml"]),
    "unknown option": ([*SPACE, "--densities", "3"], ["--densities"]),
    "abbreviation": ([*SPACE, "--dry"], ["--dry"]),
    "no number": ([*SPACE, "--samples", "a"], ["--samples", "'a'"]),
    "no samples": ([*SPACE, "--samples", "0"], ["samples", "0"]),
    "none at once": ([*SPACE, "--max-concurrent", "0"], ["max_concurrent", "0"]),
    "word too many": ([*SPACE, "--set", "about=two", "words"], ["'words'", "needs quotes"]),
    "two commands": (["--report", "a", "--show", "b"], ["--show and --report", "give one of them"]),
    "a list and a sweep": (["--list", "--resume", "a"], ["--list and --resume"]),
    "no storage": ([*SPACE, "--storage", ""], ["--storage", "''", "leave it out"]),
    "address of nothing": ([*SPACE, "--address", "a b"], ["--address", "'a b'", "HOST:PORT"]),
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
    "data set that some samples read": (
        [*SPACE, "--set", "search.dataset={choice: [few_digits, parquet, digits]}"],
        ["data_dir", "parquet"],
    ),
    "data set that some samples of a cell read": (
        [*SPACE, "--set", "search.dataset={choice: [few_digits, parquet, digits], when: {density: 0.2}}"],
        ["data_dir", "parquet"],
    ),
    "show nothing": (["--show", "none"], ["none", "sweep"]),
    "show outside": (["--show", "../x"], ["--show", "'../x'"]),
    "show empty": (["--show", ""], ["--show", "''"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_nothing_is_created(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    put_in_place_of_ray(monkeypatch, lambda *_, **__: pytest.fail("trials ran"))
    arguments, parts = WRONG[case]
    wrong(capsys, arguments, *parts)
    assert [path.name for path in here.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize("name", ["results/small", "../x", ".x", "", "stages"])
@pytest.mark.parametrize("option", ["--name", "--show", "--cancel", "--dashboard"])
def test_a_name_that_no_sweep_has_is_refused_under_the_option_that_gave_it(
    capsys: pytest.CaptureFixture[str], here: Path, option: str, name: str
) -> None:
    space = SPACE if option == "--name" else []
    said = wrong(capsys, [*space, option, name], "give another")
    assert said.startswith(f"error: {option} is {name!r}, but ")
    assert "--name" not in said.replace(option, "")


def test_a_space_named_like_what_is_shared_needs_another_name(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    space = ["--space", str((here / "small.yaml").rename(here / "stages.yaml")), "--dry-run"]
    said = wrong(capsys, space, "give another with --name")
    assert said.startswith("error: the space's name is 'stages', but ")
    assert main([*space, "--name", "mine"]) == COMPLETE


def test_refused_and_showing_commands_do_not_import_ray(here: Path) -> None:
    arguments = [arguments for arguments, _ in WRONG.values()]
    arguments += [[*SPACE, "--dry-run"], ["--list-spaces"]]
    (here / "small.yaml").write_text(SMALL.replace("few_digits", "digits"))  # few_digits exists only in this process
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
def test_a_file_that_holds_no_space(capsys: pytest.CaptureFixture[str], here: Path, content: str) -> None:
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


def test_help_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    assert "--list-spaces" in capsys.readouterr().out


SPACES = sorted(path.stem for path in (ROOT / "sweeper" / "spaces").glob("*.yaml"))


def test_list_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-spaces"]) == COMPLETE
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == SPACES
    assert all("demo" in line.partition("profiles: ")[2] for line in lines)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("profile", [[], ["--profile", "demo"]])
def test_every_space_that_ships_can_run(capsys: pytest.CaptureFixture[str], name: str, profile: list[str]) -> None:
    assert main(["--space", name, *profile, "--dry-run"]) == COMPLETE
    assert "trials of" in capsys.readouterr().out


def test_dry_run_shows_what_would_run_and_creates_nothing(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert sweep("--dry-run", "--set", "grid.seed=[0, 1]") == COMPLETE
    out = capsys.readouterr().out
    for part in ("density=0.5,seed=0", "4 cells x 2 samples = 8 trials of one_shot", "shared: 2", "finetune.lr"):
        assert part in out
    assert str(here / "results" / "small") in out
    assert sweep("--dry-run", "--set", "search.pretrain.lr={uniform: [0.1, 0.2]}") == COMPLETE
    assert "one per trial" in capsys.readouterr().out
    assert [path.name for path in here.iterdir()] == ["small.yaml"]


def test_dry_run_looks_at_every_choice(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert sweep("--dry-run", "--set", "search.method={choice: [one_shot, hydra, bip]}") == COMPLETE
    said = capsys.readouterr().out
    assert "trials of bip, hydra, one_shot" in said
    assert "shared: 1" in said
    lr = "search.pretrain.lr={uniform: [0.1, 0.2], when: {score: random}}"
    assert sweep("--dry-run", "--set", "search.score={choice: [magnitude, random, lamp]}", "--set", lr) == COMPLETE
    assert "one per trial" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "function", "arguments", "collects"),
    [
        ("sweeper.driver", "sweep", SPACE, True),
        ("sweeper.dashboard", "serve", ["--dashboard", "small"], True),
        ("sweeper.control", "cancel", ["--cancel", "small"], True),
        ("sweeper.results.report", "show", ["--show", "small"], False),
        ("sweeper.control", "list_sweeps", ["--list"], False),
    ],
)
def test_only_commands_that_end_soon_go_without_garbage_collection(
    module: str, function: str, arguments: list[str], collects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []

    def note(*_: object, **__: object) -> int:
        found.append(gc.isenabled())
        return COMPLETE

    monkeypatch.setattr(importlib.import_module(module), function, note)
    gc.disable()  # as sweep.py does
    try:
        assert main(arguments) == COMPLETE
    finally:
        gc.enable()
    assert found == [collects]
