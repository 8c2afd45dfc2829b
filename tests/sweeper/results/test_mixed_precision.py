"""What ``precision: auto`` became stands in the row of each trial, and a sweep that mixes precisions says so once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from sweeper.folder.sweep_folder import Sample, SweepFolder
from sweeper.results.tables import compact_tables, load
from sweeper.results.texts.mixed import mixed_precision
from tests.sweeper.results.test_warned import shown, sweep_of
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.training import device

pytestmark = pytest.mark.fault("device-kind")


def sweep_in(path: Path, trials: Sequence[Sequence[str | None]], asked: str = "auto") -> SweepFolder:
    """A sweep with a trial for each sequence of precisions that it was computed in; None: an unknown environment."""
    folder = sweep_of(path, [[]] * len(trials))
    for i, precisions in enumerate(trials):
        trial = folder.trial_folder(f"bip-{round(0.5 - i / 10, 1)}-0")
        config = json.loads((trial / "config.json").read_text())
        config["config"]["precision"] = asked
        (trial / "config.json").write_text(json.dumps(config))
        state = json.loads((trial / "state.json").read_text())
        state["environments"] = [{"threads": 1, "precision": found} if found else {} for found in precisions]
        (trial / "state.json").write_text(json.dumps(state))
    return folder


def lines(folder: SweepFolder) -> list[str]:
    return [line for line in shown(folder).splitlines() if line.startswith("mixed precision")]


@pytest.mark.parametrize(
    ("trials", "each"),
    [
        ([["bf16"], ["float32"], ["bf16"]], "2 trials in bf16, 1 trial in float32"),
        ([["bf16", "float32"]], "1 trial in bf16 and then float32"),
        ([["bf16", "float32", "bf16"], ["float32"]], "1 trial in bf16 and then float32, 1 trial in float32"),
        ([[None, "bf16"], ["float32"], []], "1 trial in bf16, 1 trial in float32"),
    ],
)
def test_a_sweep_that_mixes_precisions_says_so_in_one_line(
    tmp_path: Path, trials: list[list[str | None]], each: str
) -> None:
    (line,) = lines(sweep_in(tmp_path / "s", trials))
    assert f"({each})" in line
    assert "set trial.precision" in line


@pytest.mark.parametrize("trials", [[["bf16"], ["bf16"]], [["float32"], [None], []], [[]]])
def test_without_a_mixture_nothing_is_said(tmp_path: Path, trials: list[list[str | None]]) -> None:
    assert lines(sweep_in(tmp_path / "s", trials)) == []


def test_precisions_that_were_asked_for_are_no_mixture(tmp_path: Path) -> None:
    folder = sweep_in(tmp_path / "s", [["bf16"], ["float32"]], asked="bf16")
    assert lines(folder) == []
    assert mixed_precision(pd.DataFrame({"trial": ["a"]})) == []


def test_a_row_has_every_precision_in_its_order(tmp_path: Path) -> None:
    folder = sweep_in(tmp_path / "s", [["bf16", "float32", "bf16"], ["float32"], []])
    for _ in range(2):
        trials = load(folder.path).trials.set_index("trial")
        assert trials["precision"].tolist()[1:] == ["float32", "bf16, float32"]
        assert pd.isna(trials["precision"].iloc[0])
        compact_tables(folder)  # then they are read from the cache


@pytest.mark.usefixtures("few_digits")
def test_a_real_sweep_on_two_kinds_of_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    for seed, precision in enumerate(("float32", "bf16")):
        monkeypatch.setitem(device.AUTO_PRECISION, "cpu", precision)
        for config in (config_of("dense", seed=seed), config_of("one_shot", seed=seed)):
            folder.schedule(config.id, config.model_dump(mode="json"), (Sample("cell", 0, {}, {}, {}),))
            assert run_in(tmp_path, config).status == "complete"
            assert folder_of(config, tmp_path).is_dir()
    sweep = load(folder.path)
    trials = sweep.trials.set_index("trial")
    stages = sweep.epochs[sweep.epochs["stage"] == "pretrain"].groupby("trial")["stage_id"].first()
    for trial, stage in stages.items():
        assert stage.endswith("-bf16") == (trials.loc[trial, "precision"] == "bf16")
        assert trials.loc[trial, "environments"] == 1
    assert sorted(trials["precision"]) == ["bf16", "bf16", "float32", "float32"]
    assert set(trials["config.precision"]) == {"auto"}
    (line,) = lines(folder)
    assert "(2 trials in bf16, 2 trials in float32)" in line
