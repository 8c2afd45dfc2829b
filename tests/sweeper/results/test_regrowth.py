"""Results of a sweep of regrowth methods: divisions, costs, retention, sparsity against accuracy."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeper import regrowth_plot, single_layer_plot
from sweeper.folder.sweep_folder import Sample, SweepFolder
from sweeper.report.figures import regrowth, single_layers
from sweeper.report.gathered import gathered_of
from sweeper.results.frames import SweepTables
from sweeper.results.regrowth import (
    applied_allocations,
    episode_costs,
    layer_gains,
    table_retention,
    table_sparsity_accuracy,
)
from sweeper.results.report import show
from sweeper.results.tables import load
from trials.methods.parsing import parse
from trials.running.trial import TrialHost, run

COMMON: dict[str, Any] = {
    "dataset": "digits",
    "model": "tiny",
    "pretrain": {"epochs": 1},
    "prune": {"prune_fraction": 0.9, "finetune": {"epochs": 1}},
    "episode": {"epochs": 0, "reward_images": 50},
}
CONTENTS: dict[str, dict[str, Any]] = {
    "learned": {"method": "regrow", "controller": {"episodes": 3}, "initial": "reference", "finetune": None, **COMMON},
    "rule": {"method": "regrow", "allocation": "greedy", "finetune": None, **COMMON},
    "single": {"method": "single_layer", **COMMON},
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepTables:
    folder = SweepFolder(tmp_path_factory.mktemp("sweeps") / "regrow")
    for content in CONTENTS.values():
        config = parse(content)
        folder.schedule(config.id, config.model_dump(mode="json"), (Sample("", 0, {}, {}, {}),))
        state = run(config, folder.trial_folder(config.id), TrialHost(folder.stages))
        assert state.status == "complete", state.error
    return load(folder.path)


def named(which: str) -> str:
    return parse(CONTENTS[which]).id


def test_the_division_that_was_used_is_the_best_episodes(sweep: SweepTables) -> None:
    applied = applied_allocations(sweep)
    assert set(applied["trial"]) == {named("learned"), named("rule")}  # single_layer only tries
    mine = applied[applied["trial"] == named("learned")]
    tried = sweep.allocations[sweep.allocations["trial"] == named("learned")]
    best = tried[tried["reward"] == tried["reward"].max()]
    first = best[best["episode"] == best["episode"].min()]
    assert mine["count"].tolist() == first["count"].tolist()
    assert mine["share"].sum() == pytest.approx(1)
    trial = sweep.epochs[(sweep.epochs["trial"] == named("learned")) & (sweep.epochs["stage"] == "regrow")]
    assert mine["count"].sum() == trial["regrown"].iloc[0]


def test_costs_of_episodes(sweep: SweepTables) -> None:
    costs = episode_costs(sweep).set_index("trial")
    assert costs.loc[named("learned"), "episodes"] == 3
    assert costs.loc[named("single"), "episodes"] == 5  # four layers and the control
    assert (costs.loc[[named("learned"), named("single")], "seconds_mean"] > 0).all()


def test_retention_by_layer_and_stage(sweep: SweepTables) -> None:
    table = table_retention(sweep)
    assert table.index.tolist() == ["conv1", "conv2", "conv3", "linear", "mean over layers"]
    mine = table[named("rule")]
    assert (mine["pretrain"] == 1).all().all()
    assert (mine["regrow"].to_numpy() >= mine["prune"].to_numpy()).all()
    assert mine["prune"].iloc[-1].item() == pytest.approx(mine["prune"].iloc[:-1].mean().item())


def test_sparsity_against_accuracy_counts_shared_trials_once(sweep: SweepTables) -> None:
    table = table_sparsity_accuracy(sweep)
    assert table["sparsity"].is_monotonic_increasing
    assert (table["stage"] == "pretrain").sum() == 1
    assert (table["stage"] == "prune").sum() == 1
    assert (table["stage"] == "regrow").sum() == 3
    assert table["test_accuracy"].between(0, 1).all()


def test_the_report_shows_the_learned_division(sweep: SweepTables) -> None:
    file = io.StringIO()
    show(Path(sweep.path), Console(file=file, width=200))
    lines = [line.split() for line in file.getvalue().splitlines()]
    start = next(i for i, line in enumerate(lines) if line[:2] == ["regrowth", "of"])
    layers = [line[-4] for line in lines[start + 1 : start + 9]]
    assert layers == list(applied_allocations(sweep)["layer"])


def test_a_sweep_that_regrew_nothing_has_empty_tables(sweep: SweepTables) -> None:
    none = type(sweep)(sweep.path, sweep.trials, sweep.epochs, sweep.layers, sweep.allocations.iloc[:0])
    assert applied_allocations(none).empty
    assert episode_costs(none).groupby("trial").size().empty


def test_gains_of_single_layers_are_relative_to_the_control(sweep: SweepTables) -> None:
    gains = layer_gains(sweep)
    assert set(gains["trial"]) == {named("single")}
    tried = sweep.allocations[sweep.allocations["trial"] == named("single")]
    control = tried[tried["episode"] == 0]["accuracy"].iloc[0]
    own = tried[(tried["count"] > 0) & (tried["episode"] > 0)]
    assert gains["layer"].tolist() == own["layer"].tolist()
    assert gains["gain"].tolist() == pytest.approx((own["accuracy"] - control).tolist())
    assert gains["gain"].tolist() == pytest.approx(gains["immediate_gain"].tolist())  # without finetuning


def test_the_pictures_of_regrowth_hold_what_the_tables_say(
    sweep: SweepTables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vl_convert")
    gains, found = layer_gains(sweep), gathered_of(sweep)
    points = single_layers.draw(found).rows.query("kind == 'trial'")
    assert points["gain_percent"].tolist() == pytest.approx((100 * gains["gain"]).tolist())
    assert points["ssim"].tolist() == pytest.approx(gains["ssim"].tolist(), nan_ok=True)
    rows = regrowth.draw(found).rows
    stages, table = rows[rows["kind"] == "stage"], table_retention(sweep)
    assert len(stages) == table.size
    assert stages["density_percent"].tolist() == pytest.approx((100 * table).to_numpy().T.ravel().tolist())
    assert (rows["kind"] == "accuracy").sum() == len(table_sparsity_accuracy(sweep))
    divided = rows[rows["kind"] == "division"]
    assert divided["count"].tolist() == applied_allocations(sweep)["count"].tolist()
    for plot, says in ((single_layer_plot, "correlation"), (regrowth_plot, "s/episode")):
        assert plot.main([str(sweep.path), "--to", str(tmp_path / "x.png")]) == 0
        assert says in capsys.readouterr().out or "pearson" in says
        assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
        assert plot.main([str(tmp_path / "nothing"), "--to", str(tmp_path / "x.png")]) == 2


def test_a_sweep_without_single_layers_is_refused(
    sweep: SweepTables, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = SweepTables(sweep.path, sweep.trials[sweep.trials["method"] != "single_layer"], sweep.epochs, sweep.layers,
                   sweep.allocations)  # fmt: skip
    monkeypatch.setattr(single_layer_plot, "load", lambda path: others)
    assert single_layer_plot.main(["any", "--to", str(tmp_path / "x.csv")]) == 2
    assert "has no trial of the method single_layer that has tried a layer" in capsys.readouterr().err
