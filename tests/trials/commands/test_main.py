"""``python -m trials``: its output and exit codes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.trials.folders import assert_same_outcome, checkpoint_of, rows_of, state_of
from tests.trials.processes import PATIENCE_S, wait_for
from tests.trials.sealed_files import document, write_document
from tests.trials.small_trials import BASE, CONFIGS
from trials import __main__ as command
from trials.errors import Superseded
from trials.methods.parsing import parse
from trials.storage.trial_folder import TrialFolder

REPOSITORY = Path(__file__).resolve().parents[3]


def written(folder: Path, **fields: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**BASE, "dataset": "digits", **CONFIGS["bip"], **fields}))
    return path


def folder_of(path: Path, storage: Path) -> Path:
    return storage / "single" / "trials" / parse(yaml.safe_load(path.read_text())).id


def test_layers_without_weights_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path, density=1e-4)  # one weight of 19,056
    assert command.main([str(config), "--storage", str(tmp_path / "s"), "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1].partition(": ")[2])["empty_layers"] == 3
    assert "warning: layers_empty: a layer has no weights left\n" in err


def test_runs_prints_and_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path)
    arguments = [str(config), "--storage", str(tmp_path / "s"), "--threads", "1"]
    assert command.main(arguments) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert len(lines) == 2 + 3 + 1 + 1
    assert lines[0].startswith("stage pretrain  level 0  epoch 1  train_loss ")
    trial_id = parse(yaml.safe_load(config.read_text())).id
    assert lines[-1].startswith(f"{trial_id} is complete: ")
    result = json.loads(lines[-1].partition(": ")[2])
    folder = folder_of(config, tmp_path / "s")
    state = state_of(folder)
    assert result == state.result
    content = document(folder / "config.json")
    assert (content["schema"], content["id"]) == (1, trial_id)
    assert parse(content["config"]).id == trial_id
    assert command.main(arguments) == 0
    again = capsys.readouterr().out.splitlines()
    assert again == lines[-1:]


def test_another_content_of_the_same_name_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a version with other defaults leaves it: ``augment`` is no part of the name where it is the default."""
    config = written(tmp_path)
    arguments = [str(config), "--storage", str(tmp_path / "s"), "--threads", "1"]
    path = folder_of(config, tmp_path / "s") / "config.json"
    path.parent.mkdir(parents=True)
    content = parse(yaml.safe_load(config.read_text())).model_dump(mode="json")
    stored = json.dumps({"schema": 1, "id": path.parent.name, "config": {**content, "augment": False}, "samples": []})
    path.write_text(stored)
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in ("augment is True, but bip-", "was made with False", "the default has changed", "give another --name"):
        assert part in said
    assert path.read_text() == stored
    assert command.main([*arguments, "--name", "other"]) == 0


@pytest.mark.parametrize("whole", [True, False], ids=["sweep", "sweep without its sweep.yaml"])
def test_a_sweep_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: bool) -> None:
    config = written(tmp_path)
    sweep = tmp_path / "s" / "mine"
    path = sweep / "trials" / parse(yaml.safe_load(config.read_text())).id / "config.json"
    path.parent.mkdir(parents=True)
    content = parse(yaml.safe_load(config.read_text())).model_dump(mode="json")
    write_document(path, {"schema": 1, "id": path.parent.name, "config": content, "samples": [{"cell": ""}]})
    if whole:
        (sweep / "sweep.yaml").write_text("space: {}\n")
    before = {file: file.read_bytes() for file in sweep.rglob("*") if file.is_file()}
    assert command.main([str(config), "--storage", str(tmp_path / "s"), "--name", "mine", "--threads", "1"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "which python -m sweeper runs: give another --name" in said
    assert {file: file.read_bytes() for file in sweep.rglob("*") if file.is_file()} == before


def test_overrides_and_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path)
    arguments = ["--storage", str(tmp_path), "--name", "mine", "--set", "density=5e-1", "--set", "finetune=null"]
    assert command.main([str(config), *arguments, "--threads", "1"]) == 0
    (folder,) = (tmp_path / "mine" / "trials").iterdir()
    content = document(folder / "config.json")["config"]
    assert (content["density"], content["finetune"]) == (0.5, None)
    assert {row["stage"] for row in rows_of(folder)["epochs"]} == {"pretrain", "prune"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--name", "stages"], "--name is 'stages', but that folder of the storage holds the shared trials"),
        (["--name", "../up"], "--name is '../up', but must be letters, digits"),
        (["--name", ""], "--name is '', but must be letters, digits"),
        (["--threads", "0"], "argument --threads: '0', but must be a whole number of at least 1"),
        (["--threads", "-1"], "argument --threads: '-1', but must be a whole number of at least 1"),
        (["--threads", "two"], "argument --threads: 'two', but must be a whole number of at least 1"),
    ],
)
def test_wrong_options_exit_with_2_and_leave_nothing(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "s"
    line = [str(written(tmp_path)), "--storage", str(storage), *arguments]
    try:
        code = command.main(line)
    except SystemExit as ended:  # argparse prints its usage
        code = int(str(ended.code))
    assert code == 2
    assert says in capsys.readouterr().err
    assert not storage.exists()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["density=0"], "density is 0, but must be greater than 0"),
        (["densty=1"], "did you mean 'density'?"),
        (["density"], "must be a.b=c"),
        (["dataset=mnist"], "dataset is 'mnist'"),
        (["method=magic"], "method is 'magic'"),
        (["dataset=cifar10", "data_dir=/nowhere/at/all"], "data_dir is '/nowhere/at/all', which is missing"),
        (["device=gpu"], "device is 'gpu', but must be auto or a device of this machine"),
        (["device=cuda:99"], "device is 'cuda:99', but must be auto or a device of this machine"),
    ],
)
def test_wrong_input_exits_with_2(
    overrides: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [part for override in overrides for part in ("--set", override)]
    assert command.main([str(written(tmp_path)), "--storage", str(tmp_path / "s"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1


def test_files_that_cannot_be_read_or_written_exit_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path / "missing.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    (tmp_path / "file").write_bytes(b"")
    assert command.main([str(written(tmp_path)), "--storage", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err
    assert "is no folder" in err
    assert "--storage" in err
    assert err.count("\n") == 1


def test_a_trial_that_fails_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path, prune={"epochs": 1, "lr": 1e6}, mask_lr=1e6)
    assert command.main([str(config), "--storage", str(tmp_path), "--threads", "1"]) == 1
    out, err = capsys.readouterr()
    assert "stage pretrain" in out
    assert "failed: NonFiniteLoss: the loss of stage prune" in err
    assert err.count("\n") == 1


def test_a_trial_that_another_process_took_over_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> None:
        raise Superseded("attempt 1 commits while attempt 2 runs; refused")

    monkeypatch.setattr("trials.commands.run.run", run)
    assert command.main([str(written(tmp_path)), "--storage", str(tmp_path)]) == 1
    assert "attempt 2 runs" in capsys.readouterr().err


def test_killed_in_a_shell_and_run_again(tmp_path: Path) -> None:
    """The command under SIGKILL gives the results of an undisturbed run; test_shared_trials.py has many more kills."""
    config = written(tmp_path, prune={"epochs": 4, "batch_size": 128}, checkpoint_every_s=0.0)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    storage = tmp_path / "killed"
    folder = folder_of(config, storage)

    def launch() -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-m", "trials", str(config), "--storage", str(storage), "--threads", "1"]
        return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def commits() -> int:
        state = TrialFolder(folder).state()
        return state.commits[-1].number if state is not None and state.commits else 0

    process = launch()
    wait_for(lambda: commits() >= 7 or process.poll() is not None, "commits", 3 * PATIENCE_S)  # torch is imported first
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    process = launch()
    out, err = process.communicate(timeout=3 * PATIENCE_S)
    assert (process.returncode, err) == (0, b"")
    assert out.decode().splitlines()[-1].startswith(f"{folder.name} is complete: ")
    assert command.main([str(config), "--storage", str(tmp_path / "undisturbed"), "--threads", "1"]) == 0
    assert_same_outcome(folder, folder_of(config, tmp_path / "undisturbed"))
    state = state_of(folder)
    assert state.attempt == 2
    assert checkpoint_of(folder)["position"] == {"stage": 2}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": "mlp_7_relu", "pattern": "filter"}, "mlp_7_relu has none"),
        ({"normalise": "imagenet"}, "leave normalise out"),
        ({"val_fraction": 1e-4}, "must leave some for validation"),
        ({"device": "cuda:99"}, "device is 'cuda:99'"),
        ({"device": "meta"}, "device is 'meta'"),
        ({"data_dir": "absent"}, "data_dir is"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    fields: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(written(tmp_path, **fields)), "--storage", str(tmp_path / "s")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err
    assert not (tmp_path / "s").exists()


@pytest.mark.fault("storage-refused")
@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "{private}/x"],
        ["evaluate", "{private}/x"],
        ["saliency", "{storage}", "--to", "{private}/x", "--no-figures"],
        ["evaluate_pretrained", "--data-dir", "{private}/x"],
        ["{config}", "--storage", "{storage}", "--name", "private"],
        ["{config}", "--storage", "{private}/x"],
    ],
    ids=lambda arguments: arguments[0].strip("{}"),
)
def test_what_another_user_keeps_private_exits_with_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, private, stat = written(tmp_path), tmp_path / "private", os.stat
    private.mkdir()

    def refused(path: Any, *more: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(f"{private}/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", refused)
    monkeypatch.setattr(os, "lstat", lambda path, **options: refused(path, follow_symlinks=False, **options))
    given = [part.format(private=private, storage=tmp_path, config=config) for part in arguments]
    assert command.main(given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Permission denied" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.EIO, "it errs"), 74, "error: the storage does not work (EIO: it errs)"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
    ids=["errs", "Ctrl-C"],
)
def test_a_command_that_cannot_go_on_says_so_in_a_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(*_: Any) -> None:
        raise error

    monkeypatch.setitem(command.COMMANDS, "inspect", ends)
    monkeypatch.setattr(command, "run_config", ends)
    assert command.main(["inspect", "x"]) == code
    assert capsys.readouterr().err == f"{said}\n"
    assert command.main(["config.yaml"]) == code
    assert capsys.readouterr().err.startswith(said)
