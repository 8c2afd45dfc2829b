"""``trials.run`` is the run of ``python -m trials``: same folders, resume and refusals; and what a ``Trial`` holds."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import trials
from tests.trials.folders import assert_same_outcome
from trials import __main__ as command
from trials.errors import TrialFailed, UserError
from trials.storage.rows import Row

CONFIG: dict[str, Any] = {
    "method": "one_shot",
    "density": 0.2,
    "dataset": "few_digits",
    "model": "tiny",
    "pretrain": {"epochs": 2},
    "finetune": {"epochs": 2},
}

pytestmark = pytest.mark.usefixtures("few_digits", "here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def test_a_run_is_the_commands_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = []
    trial = trials.run(CONFIG, threads=1, report=rows.append)
    assert capsys.readouterr().out == ""
    assert (trial.status, trial.error) == ("complete", None)
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in trial.rows["epochs"]] == [1, 2, 0, 1, 2]
    assert trial.result["density"] == pytest.approx(0.2, abs=1e-4)
    assert {row["layer"] for row in trial.rows["layers"]} == {"conv1", "conv2", "conv3", "linear"}
    assert command.main(["config.yaml", "--threads", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{trial.id} is complete: ")  # nothing was trained again
    assert command.main(["config.yaml", "--threads", "1", "--storage", "other"]) == 0
    assert_same_outcome(trial.folder, here / "other" / "single" / "trials" / trial.id)
    for given in ("config.yaml", Path("config.yaml"), trial.config):
        rows.clear()
        assert trials.run(given, report=rows.append).id == trial.id
        assert rows == []
    changed = trials.run(CONFIG, "results/mine", set={"finetune": None})
    assert changed.folder == here / "results" / "mine" / "trials" / changed.id
    assert changed.id != trial.id
    assert "test_accuracy" in trial._repr_html_()


def test_the_network_and_its_masks() -> None:
    trial = trials.run(CONFIG, threads=1)
    network, masks = trial.network(), trial.masks()
    assert not network.training
    weights = dict(network.named_parameters())
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == trial.result["kept"]
    for name, mask in masks.items():
        assert (weights[name][~mask] == 0).all()
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    again = trials.load(trial.folder)
    assert (again.result, again.rows, again.config) == (trial.result, trial.rows, trial.config)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_commits_and_the_same_call_continues(
    here: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr("trials.running.progress.STOP_POLL_S", 0.0)
    before = signal.getsignal(number)

    def stop(row: Row) -> None:
        if row["stage"] == "finetune" and row["epoch"] == 1:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt, match="it is committed, and the same call continues it"):
        trials.run(CONFIG, threads=1, report=stop)
    assert signal.getsignal(number) is before
    (folder,) = (here / "results" / "single" / "trials").iterdir()
    stopped = trials.load(folder)
    assert stopped.status == "preempted"
    assert stopped.result == {}
    rows: list[Row] = []
    trial = trials.run(CONFIG, threads=1, report=rows.append)
    assert [(row["stage"], row["epoch"]) for row in rows][-1] == ("finetune", 2)
    assert len(rows) < 5
    assert_same_outcome(trial.folder, trials.run(CONFIG, "undisturbed/single", threads=1).folder)


def test_a_second_signal_does_not_wait() -> None:
    def stop(row: Row) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")

    with pytest.raises(KeyboardInterrupt):
        trials.run(CONFIG, threads=1, report=stop)
    assert trials.run(CONFIG, threads=1).status == "complete"


def test_a_run_in_another_thread() -> None:
    found: list[trials.Trial] = []
    thread = threading.Thread(target=lambda: found.append(trials.run(CONFIG, threads=1)))
    thread.start()
    thread.join()
    assert found[0].status == "complete"


def test_a_failure_is_committed_and_raised(here: Path) -> None:
    with pytest.raises(TrialFailed, match=r"one_shot-\w+ failed: NonFiniteLoss: the loss of stage finetune") as failed:
        trials.run(CONFIG, set={"finetune.lr": 1e30})
    assert failed.value.error["type"] == "NonFiniteLoss"
    (folder,) = (here / "results" / "single" / "trials").iterdir()
    assert trials.load(folder).status == "failed"
    assert "NonFiniteLoss" in trials.load(folder)._repr_html_()


@pytest.mark.parametrize(
    ("config", "options", "says"),
    [
        ({**CONFIG, "density": 0}, {}, "density is 0, but must be greater than 0"),
        ({**CONFIG, "densty": 1}, {}, "did you mean 'density'"),
        (CONFIG, {"set": {"model": "tinny"}}, "did you mean 'tiny'"),
        (CONFIG, {"set": {"model": float("nan")}}, "set has model = nan"),
        (CONFIG, {"threads": 0}, "threads is 0, but must be a whole number of at least 1"),
        (CONFIG, {"folder": "results/a b"}, "folder is 'a b', but must be letters"),
        (CONFIG, {"folder": "results/stages"}, "holds the shared trials"),
        ("none.yaml", {}, "none.yaml"),
        ([1], {}, "a trial is"),
    ],
)
def test_wrong_input_raises_one_line_and_writes_nothing(
    here: Path, config: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError) as refused:
        trials.run(config, **options)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "--" not in str(refused.value)
    assert [path.name for path in here.iterdir()] == ["config.yaml"]


def test_a_sweeps_folder_is_left_alone(here: Path) -> None:
    (here / "results" / "mine").mkdir(parents=True)
    (here / "results" / "mine" / "sweep.yaml").write_text("space: {}\n")
    with pytest.raises(UserError, match=r"is the folder of a sweep, which .* runs: give another folder"):
        trials.run(CONFIG, "results/mine")
    with pytest.raises(UserError, match=r"must be the folder of a trial.*but has no config.json"):
        trials.load("results/mine")
