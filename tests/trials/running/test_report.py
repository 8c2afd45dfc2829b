"""Which epoch counts (``report``): the network, the row of the result and the checkpoint are those of that epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trials.folders import assert_same_outcome, checkpoint_of, rows_of, same
from tests.trials.small_trials import CONFIGS, config_of, folder_of, run_in, source_of
from trials.analysis import load_trial
from trials.config.trial_config import TrialConfig
from trials.data import load_data
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.running import progress
from trials.storage.rows import RESULT, Row
from trials.training.best_epoch import BestEpoch
from trials.training.build import build_loader
from trials.training.evaluation import evaluate
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")

LONG = {"epochs": 5, "batch_size": 180, "lr_steps": "0:0.05,3:1.5"}  # the last epochs undo what the first ones learned
ADAM = {"epochs": 5, "lr": 0.2}
LONGER: dict[str, dict[str, Any]] = {
    "one_shot": {"finetune": LONG},
    "bip-both": {"prune": LONG},
    "bip": {"prune": {**LONG, "epochs": 2}, "finetune": LONG},
    "hydra": {"finetune": None, "prune": LONG},
    "greg1": {"finetune": LONG},
    "l1": {"finetune": LONG},
    "imp-none": {"finetune": LONG},
    "global_prune": {"finetune": LONG},
    "gradient_prune": {"train": {**LONG, "backward": {"p_prune": 0.5}}},
    "adaptive_sparsity": {"train": LONG},
    "adaptive_sparsity-fixed": {"train": LONG},
    "adaptive_sparsity-cut": {"finetune": LONG},
    "prune_iterative": {"finetune": ADAM},
    "regrow": {"finetune": ADAM, "prune": {"prune_fraction": 0.9, "finetune": ADAM}, "rounds": 1},
    "regrow_iterative": {"episode": {"epochs": 2, "lr": 0.03}, "finetune": ADAM},
}
"""Small trials whose last stages are long enough for another epoch than the last to be the best."""


def long(name: str, report: str | None) -> TrialConfig:
    return config_of(
        name, **{"pretrain": {"epochs": 1}} if "pretrain" in CONFIGS[name] else {}, **LONGER[name], report=report
    )


def last_stage(folder: Path) -> list[Row]:
    """The rows of the trained epochs of the trial's last stage."""
    rows = rows_of(folder)["epochs"]
    last = rows[-1]
    return [r for r in rows if (r["stage"], r["level"]) == (last["stage"], last["level"]) and r["epoch"]]


def eligible(rows: list[Row]) -> list[Row]:
    """The last rows that all have the final number of kept weights."""
    found: list[Row] = []
    for row in reversed(rows):
        if row["kept"] != rows[-1]["kept"]:
            break
        found.insert(0, row)
    return found


def measured(folder: Path, split: str) -> float:
    """Accuracy of the stored network."""
    config, net = load_trial(folder)
    return evaluate(net, build_loader(config, load_data(*config.data_key), net.device), split)[1]


def ran(config: TrialConfig, storage: Path) -> Path:
    state = run_in(storage, config)
    folder = folder_of(config, storage)
    (folder / "config.json").write_text(f'{{"config": {config.model_dump_json()}}}')
    assert state.status == "complete", state.error
    last = rows_of(folder)["epochs"][-1]
    assert {name: state.result[name] for name in RESULT} == {name: last[name] for name in RESULT}
    assert (measured(folder, "val"), measured(folder, "test")) == (last["val_accuracy"], last["test_accuracy"])
    assert state.result["report"] == config.reported
    assert {row["report"] for row in rows_of(folder)["epochs"] if row["stage_id"] is None} <= {config.reported}
    assert all(row["report"] for row in rows_of(folder)["epochs"])
    return folder


@pytest.mark.parametrize("name", LONGER)
def test_the_best_eligible_epoch_is_the_result(name: str, tmp_path: Path) -> None:
    last, best = (ran(long(name, report), tmp_path) for report in ("last", "best_val"))
    assert all("best_epoch" not in row or row["best_epoch"] is None for row in rows_of(last)["epochs"])
    chosen, rows = rows_of(best)["epochs"][-1], last_stage(best)
    assert chosen["best_epoch"] in [row["epoch"] for row in eligible(rows)]
    assert chosen["val_accuracy"] == max(row["val_accuracy"] for row in eligible(rows))
    if METHODS[config_of(name).method].Config.own_report == "last" and name != "imp-none":  # then both train alike
        twin = last_stage(last)
        assert [row["val_accuracy"] for row in twin[:-1]] == [row["val_accuracy"] for row in rows[:-1]]
        found = max(eligible(twin), key=lambda row: row["val_accuracy"])
        figures = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "kept", "flops")
        assert [chosen[name] for name in figures] == [found[name] for name in figures]
        assert chosen["best_epoch"] == found["epoch"]
        assert name.startswith("adaptive_sparsity") or found["epoch"] < twin[-1]["epoch"]  # so that the test can fail
        if found["epoch"] == twin[-1]["epoch"]:
            assert same(checkpoint_of(best)["net"]["model"], checkpoint_of(last)["net"]["model"])


@pytest.mark.parametrize("name", ["prune_iterative", "regrow", "one_shot"])
def test_without_a_rule_the_method_has_its_own(name: str, tmp_path: Path) -> None:
    config = long(name, None)
    own = ran(config, tmp_path / "own")
    same_rule = ran(long(name, config.reported), tmp_path / "said")
    assert same(checkpoint_of(own)["net"], checkpoint_of(same_rule)["net"])
    assert config.id != long(name, "best_val").id
    if source_of(config, tmp_path / "own") is not None:  # shared trials have one name for one content
        assert METHODS[config.method](config).source() == METHODS[config.method](long(name, config.reported)).source()


def test_every_level_ends_with_its_best_epoch(tmp_path: Path) -> None:
    for name in ("imp-none", "prune_iterative"):
        rows = rows_of(ran(long(name, "best_val"), tmp_path))["epochs"]
        for level in (1, 2):
            of_level = [row for row in rows if row["level"] == level and row["epoch"]]
            assert of_level[-1]["val_accuracy"] == max(row["val_accuracy"] for row in of_level)
            assert of_level[-1]["test_accuracy"] is not None


def test_with_last_nothing_is_selected_on_the_way(tmp_path: Path) -> None:
    config = long("regrow", "last")
    rows = rows_of(ran(config, tmp_path))["epochs"]
    assert {row["report"] for row in rows} == {"last"}
    assert "best_epoch" not in {name for row in rows for name in row}


@pytest.mark.parametrize("name", ["bip-both", "adaptive_sparsity"])
def test_a_stopped_trial_still_finds_its_best_epoch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = long(name, "best_val")
    whole = ran(config, tmp_path / "whole")
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    for _ in range(100):
        if run_in(tmp_path / "parts", config, should_stop=lambda: True).status == "complete":
            break
    assert_same_outcome(folder_of(config, tmp_path / "parts"), whole)


@pytest.mark.parametrize(("name", "step", "rule"), [("one_shot", 4, "last"), ("imp-none", 5, "best_val")])
def test_a_trial_that_a_search_stops_says_which_epoch_it_shows(name: str, step: int, rule: str, tmp_path: Path) -> None:
    """One that is stopped where a level has just ended has that level's best epoch."""
    config = long(name, "best_val")
    state = run_in(tmp_path, config, is_over=lambda done, row: done == step)
    rows = rows_of(folder_of(config, tmp_path))["epochs"]
    assert (state.status, state.result["pruned_at"], state.result["report"]) == ("pruned", step, rule)
    accuracies = [row["val_accuracy"] for row in rows if row["stage_id"] is None and row["epoch"]]
    assert len(accuracies) == step
    assert state.result["val_accuracy"] == rows[-1]["val_accuracy"]
    assert rows[-1]["val_accuracy"] < max(accuracies) or rule == "best_val"
    restored = checkpoint_of(folder_of(config, tmp_path))["net"]["model"]
    net = Net(MODELS["tiny"](num_classes=10, in_channels=1))
    net.model.load_state_dict(restored)
    loader = build_loader(config, load_data(*config.data_key), net.device)
    assert evaluate(net, loader, "val")[1] == state.result["val_accuracy"]


def test_a_denser_epoch_never_wins() -> None:
    """Density falls, then stays; the first epochs are the most accurate ones."""
    net, best = Net(MODELS["tiny"](num_classes=10, in_channels=1)), BestEpoch()
    for epoch, (accuracy, kept) in enumerate([(0.9, 100), (0.8, 50), (0.6, 20), (0.7, 20), (0.7, 20)], start=1):
        if best.is_better(accuracy, kept):
            best.keep(net, epoch, {"val_accuracy": accuracy}, kept)
    assert (best.epoch, best.accuracy) == (4, 0.7)


def test_a_segment_of_a_population_cannot_end_with_its_best_epoch() -> None:
    with pytest.raises(UserError, match=r"report is 'best_val' beside until_epoch, .* give report 'last'"):
        parse({**CONFIGS["dense"], "dataset": "digits", "model": "tiny", "until_epoch": 1, "report": "best_val"})
