"""How trials fail, and what they commit then."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.trials.folders import rows_of, state_of, the_stage
from tests.trials.small_trials import RECIPE, config_of, folder_of, run_in
from trials.running import evaluating
from trials.storage.rows import Row
from trials.storage.trial_folder import TrialFolder
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.mark.parametrize("name", ["one_shot", "bip"])
def test_a_loss_that_is_not_finite_is_a_failure_with_a_name(name: str, tmp_path: Path) -> None:
    recipe = {**RECIPE, "lr": 1e6}
    fields = {"finetune": recipe} if name == "one_shot" else {"prune": recipe, "mask_lr": 1e6}
    config = config_of(name, **fields)
    state = run_in(tmp_path, config.model_copy(update={"checkpoint_every_s": 0.0}))
    assert (state.status, state.failures) == ("failed", 1)
    assert state.error is not None
    assert state.error["type"] == "NonFiniteLoss"
    stage = "finetune" if name == "one_shot" else "prune"
    assert state.error["message"].startswith(f"the loss of stage {stage}, level 0, epoch ")
    rows = rows_of(folder_of(config, tmp_path))["epochs"]
    assert rows[-1]["stage"] in ("pretrain", stage)
    values = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert all(math.isfinite(value) for value in values)


def test_a_source_that_fails_fails_the_trial_by_name(tmp_path: Path) -> None:
    config = config_of("bip", pretrain={**RECIPE, "lr": 1e6})
    for attempt in (1, 2, 3):
        state = run_in(tmp_path, config)
        assert (state.status, state.failures) == ("failed", attempt)
        assert state.error is not None
        stage = the_stage(tmp_path)
        for part in (stage.name, "NonFiniteLoss", "stage pretrain"):
            assert part in state.error["message"]
    stage_state = state_of(stage)
    assert stage_state.attempt == 3
    state = run_in(tmp_path, config)  # the shared trial is not tried again
    assert state.error is not None
    assert "failed 3 times" in state.error["message"]
    assert TrialFolder(stage).state() == stage_state


@pytest.mark.parametrize("split", ["val", "test"])
def test_no_split_has_a_row_of_nan(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = evaluating.evaluate

    def evaluate(net: Net, data: Any, which: str) -> tuple[float, float]:
        return (math.inf, 0.1) if which == split else original(net, data, which)

    monkeypatch.setattr(evaluating, "evaluate", evaluate)
    state = run_in(tmp_path, config_of("dense"))
    assert state.status == "failed"
    stage = the_stage(tmp_path)
    stage_state = state_of(stage)
    assert stage_state.error is not None
    assert stage_state.error["type"] == "NonFiniteLoss"


def test_an_error_that_names_a_file_whose_name_is_no_unicode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> tuple[float, float]:
        raise FileNotFoundError(b"m\xff.pt".decode("utf-8", "surrogateescape"))

    monkeypatch.setattr(evaluating, "evaluate", absent)
    state = run_in(tmp_path, config_of("dense"))
    assert state.error is not None
    assert "m\\\\udcff.pt" in state.error["message"]
    assert all(text.encode() for text in state.error.values())


def test_interrupted_by_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("one_shot")

    def interrupt(row: Row) -> None:
        if row["stage"] == "finetune":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, config, report=interrupt)
    state = state_of(folder_of(config, tmp_path))
    assert (state.status, state.failures) == ("preempted", 0)
    assert run_in(tmp_path, config).status == "complete"
