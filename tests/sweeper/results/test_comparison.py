"""Points and picture of a comparison of methods."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.comparison import dense_accuracy, density_of_all, points_of, protocol, without_figure
from sweeper.results.frames import SweepTables
from sweeper.results.tables import load
from tests.upgrade.stored import STORAGE
from trials.errors import UserError

SPACE = {
    "name": "methods",
    "grid": {
        "method": ["one_shot", "l1"],
        "density": {"values": [0.5, 0.1], "when": {"method": "one_shot"}},
        "seed": [0],
    },
    "search": {},
    "objective": "val_accuracy",
    "direction": "maximize",
    "samples": 1,
}


GRID = {"method": ["l1", "one_shot"], "density": [0.5, 0.1], "stage_pr": [0.5, 0.9]}


def sweep_of(folder: Path, rows: list[tuple[Any, ...]], **fields: Any) -> SweepTables:
    """Trials of (method, config.density, stage_pr, seed, test accuracy, FLOPs, kept of 100 in the one layer).

    ``fields``: of the space, in place of those of SPACE.
    """
    SweepFolder(folder).append({"space": {**SPACE, "grid": {**GRID, "seed": [0, 1]}, **fields}})
    names = ["method", "config.density", "stage_pr", "seed", "test_accuracy", "flops", "kept"]
    trials = pd.DataFrame(rows, columns=names)
    trials["trial"] = [f"trial-{number}" for number in range(len(rows))]
    trials = trials.assign(status="complete", cell="", val_accuracy=0.5, density=0.77, until_epoch=None)
    layers = [
        {"trial": trial, "stage": stage, "level": 0, "layer": layer, "total": total, "kept": left}
        for trial, kept in zip(trials["trial"], trials["kept"], strict=True)
        for stage, layer, total, left in (
            *(("pretrain", "conv", 100, 100), ("pretrain", "linear", 100, 100)),
            *(("finetune", "conv", 100, kept), ("finetune", "linear", 100, 100)),
        )
    ]
    columns = ["trial", "stage", "level", "epoch", "stage_id", "density", "val_accuracy", "test_accuracy"]
    dense = [(name, "pretrain", 0, 1, "dense-0", 1.0, 0.9, 0.95) for name in trials["trial"]]
    own = [(name, "finetune", 0, 1, None, 0.77, 0.5, 0.5) for name in trials["trial"]]
    epochs = pd.DataFrame([*dense, *own], columns=columns)
    return SweepTables(folder, trials, epochs, pd.DataFrame(layers), pd.DataFrame())


@pytest.fixture
def sweep(tmp_path: Path) -> SweepTables:
    return sweep_of(
        tmp_path / "methods",
        [
            ("one_shot", 0.1, None, 0, 0.80, 100, 10),
            ("one_shot", 0.1, None, 1, 0.90, 200, 20),
            ("one_shot", 0.5, None, 0, 0.95, 1000, 50),
            ("l1", None, 0.5, 0, 0.90, 900, 48),
            ("l1", None, 0.9, 0, 0.70, 90, 10),
        ],
    )


def test_points_are_means_over_seeds_at_the_density_of_all_weights(sweep: SweepTables) -> None:
    points = points_of(sweep)
    assert points["series"].tolist() == ["l1", "l1", "one_shot", "one_shot"]
    assert points["asked"].tolist() == ["stage_pr=0.5", "stage_pr=0.9", "density=0.5", "density=0.1"]
    assert points["density"].tolist() == pytest.approx([0.74, 0.55, 0.75, 0.575])
    assert points["accuracy"].tolist() == pytest.approx([0.9, 0.7, 0.95, 0.85])
    assert points["accuracy_std"].tolist() == pytest.approx([math.nan, math.nan, math.nan, 0.1 / 2**0.5], nan_ok=True)
    assert points["flops"].tolist() == [900, 90, 1000, 150]
    assert points["n"].tolist() == [1, 1, 1, 2]
    assert points["cost"].isna().all()
    assert set(points["report"]) == {""}
    counted = replace(sweep, trials=sweep.trials.assign(cost=[20.0, 21.0, 20.0, 20.0, 20.0], report="last"))
    assert points_of(counted)["cost"].tolist() == [20, 20, 20, 20.5]
    assert set(points_of(counted)["report"]) == {"last"}
    spent = replace(counted, trials=counted.trials.assign(cost_flops=[1e9, 3e9, 1e9, 1e9, 1e9]))
    assert points_of(spent)["cost_flops"].tolist() == [1e9, 1e9, 1e9, 2e9]
    assert "per training image (1e+09 to 2e+09 FLOPs); nothing searched" in protocol(spent, points_of(spent))
    assert points["front"].tolist() == [True, True, True, True]
    assert density_of_all(sweep)["trial-0"] == pytest.approx(0.55)
    assert dense_accuracy(sweep) == pytest.approx(0.95)


def test_the_protocol_and_the_best_values_say_what_was_searched_where(sweep: SweepTables, tmp_path: Path) -> None:
    points = points_of(sweep)
    assert set(points["best"]) == {""}
    assert protocol(sweep, points) == (
        "report: –; cost: – gradient evaluations per training image; nothing searched; figures: mean ± standard "
        "deviation over seeds, n = 1 to 2"
    )
    rates = {"finetune.lr": [0.1, 0.2, 0.3, 0.4, 0.5], "train.lr": None, "cost": [20.0, 21.0, 20.0, 20.0, 20.0]}
    counted = replace(sweep, trials=sweep.trials.assign(report="last", **rates))
    searched = {
        "finetune.lr": [
            {"loguniform": [0.1, 1.0], "when": {"method": "one_shot", "density": [0.1]}},
            {"loguniform": [0.2, 1.0], "when": {"method": "one_shot", "density": [0.5]}},
        ],
        "train.lr": {"uniform": [0, 1], "when": {"finetune.lr": 0.1}},
    }
    confirmed = {**SPACE, "search": searched, "samples": 4, "confirm": {"seed": [7, 8]}}
    SweepFolder(sweep.path).append({"space": {**confirmed, "grid": {**GRID, "seed": [0, 1]}, "confirm": None}})
    points = points_of(counted).set_index("asked")
    assert points["best"].to_dict() == {
        "stage_pr=0.5": "",
        "stage_pr=0.9": "",
        "density=0.5": "finetune.lr=0.3",
        "density=0.1": "finetune.lr=0.1 | finetune.lr=0.2",
    }
    assert protocol(counted, points) == (
        "report: last; cost: 20 to 20.5 gradient evaluations per training image; searched on val_accuracy, 4 samples "
        "per cell: finetune.lr, train.lr; figures: mean ± standard deviation over seeds, n = 1 to 2"
    )
    SweepFolder(sweep.path).append({"space": {**confirmed, "grid": GRID}})
    assert "over confirmations with the seeds 7, 8, n = 1 to 2" in protocol(counted, points)


@pytest.mark.parametrize("by", [(), ("method",)])
def test_data_sets_share_neither_a_series_nor_a_front(tmp_path: Path, by: tuple[str, ...]) -> None:
    """The second data set's points are better and smaller throughout."""
    paths = {"method": ["one_shot"], "dataset": ["digits", "parquet"], "density": [0.5, 0.1], "seed": [0]}
    rows = [
        ("one_shot", 0.5, None, 0, 0.6, 900, 50),
        ("one_shot", 0.1, None, 0, 0.7, 800, 10),
        ("one_shot", 0.5, None, 0, 0.9, 200, 50),
        ("one_shot", 0.1, None, 0, 0.8, 100, 10),
    ]
    sweep = sweep_of(tmp_path / "two", rows, grid=paths)
    points = points_of(replace(sweep, trials=sweep.trials.assign(dataset=["digits"] * 2 + ["parquet"] * 2)), by)
    assert points["series"].tolist() == ["one_shot, digits"] * 2 + ["one_shot, parquet"] * 2
    assert points["front"].tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("fields", "chosen", "dense"),
    [
        ({"objective": "flops", "direction": "minimize"}, 0.8, 0.7),
        ({"objective": "flops", "direction": "maximize"}, 0.9, 0.95),
        ({"constraints": [{"column": "flops", "at_most": 500}]}, 0.8, 0.7),
        ({"constraints": [{"column": "flops", "at_least": 500}]}, 0.9, 0.95),
    ],
    ids=str,
)
def test_the_dense_network_is_the_one_that_the_points_start_from(
    fields: dict[str, Any], chosen: float, dense: float, tmp_path: Path
) -> None:
    """Two trials of one cell, as a search of ``pretrain.lr`` makes them, each with a dense network of its own."""
    rows = [("one_shot", 0.5, None, 0, 0.8, 100, 50), ("one_shot", 0.5, None, 0, 0.9, 1000, 50)]
    sweep = sweep_of(tmp_path / "methods", rows, **fields)
    own = (sweep.epochs["trial"] == "trial-0") & (sweep.epochs["stage"] == "pretrain")
    sweep.epochs.loc[own, ["stage_id", "test_accuracy"]] = ["dense-1", 0.7]
    assert points_of(sweep)["accuracy"].tolist() == [chosen]
    assert dense_accuracy(sweep) == pytest.approx(dense)


def test_a_sweep_without_a_feasible_trial_says_so(tmp_path: Path) -> None:
    rows = [("one_shot", 0.5, None, 0, 0.8, 100, 50), ("one_shot", 0.5, None, 1, 0.9, 1000, 50)]
    sweep = sweep_of(tmp_path / "methods", rows, constraints=[{"column": "flops", "at_most": 10}])
    with pytest.raises(UserError, match="methods has 2 complete trials, none of them within its constraints"):
        points_of(sweep)


def test_cells_without_a_figure_are_named(sweep: SweepTables) -> None:
    """A method whose trials have failed would otherwise be missing from the comparison without a word."""
    SweepFolder(sweep.path).append({"space": {**SPACE, "grid": {"method": ["one_shot", "l1"], "seed": [0]}}})
    assert without_figure(replace(sweep, trials=sweep.trials.iloc[[2, 3]])) == ""
    failed = replace(sweep, trials=sweep.trials.iloc[[2, 3]].assign(status=["complete", "failed"]))
    assert points_of(failed)["series"].tolist() == ["one_shot"]
    assert without_figure(failed) == "without a figure: 1 of 2 cells: method=l1 (seed 0: 1 failed)"
    begun = replace(sweep, trials=sweep.trials.iloc[[2]])
    assert without_figure(begun) == "without a figure: 1 of 2 cells: 1 that has no trial yet"
    SweepFolder(sweep.path).append({"space": {**SPACE, "grid": {**GRID, "seed": [0, 1]}}})
    line = without_figure(replace(sweep, trials=sweep.trials.assign(status="failed")))
    assert line.startswith("without a figure: 16 of 16 cells: method=l1, stage_pr=0.5 (seed 0: 1 failed); ")
    assert line.endswith("; 11 that have no trial yet")


def test_dominated_points_are_not_on_the_pareto_front(tmp_path: Path) -> None:
    rows = [
        ("l1", None, 0.5, 0, 0.9, 900, 48),
        ("one_shot", 0.5, None, 0, 0.91, 900, 50),
        ("l1", None, 0.9, 0, 0.9, 90, 9),
    ]
    points = points_of(sweep_of(tmp_path / "methods", rows))
    assert dict(zip(points["asked"], points["front"], strict=True)) == {
        "stage_pr=0.5": False,
        "density=0.5": True,
        "stage_pr=0.9": True,
    }


def test_a_point_whose_layers_are_damaged_has_no_density(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("vl_convert")
    from sweeper import comparison_plot

    folder = shutil.copytree(STORAGE / "methods", tmp_path / "methods")
    (damaged,) = folder.glob("trials/bip-*/rows/layers-*")
    damaged.write_bytes(damaged.read_bytes()[:-10])
    with pytest.warns(UserWarning, match=f"left out of the tables: .*{damaged.name}"):
        points = points_of(load(folder))
    assert points["series"].tolist() == ["bip", "greg1"]
    assert points["density"].isna().tolist() == [True, False]
    assert points["accuracy"].notna().all()
    with pytest.warns(UserWarning, match=damaged.name):
        assert comparison_plot.main([str(folder), "--to", str(tmp_path / "methods.svg")]) == 0
    bip = capsys.readouterr().out.splitlines()[1].split()
    assert bip[:3] == ["bip", "density=0.3", "–"]


def test_no_density_is_known_where_one_of_the_seeds_lacks_it(sweep: SweepTables) -> None:
    lacking = replace(sweep, layers=sweep.layers[sweep.layers["trial"] != "trial-1"])
    points = points_of(lacking).set_index("asked")
    assert points["density"].isna().to_dict() == {
        "stage_pr=0.5": False,
        "stage_pr=0.9": False,
        "density=0.5": False,
        "density=0.1": True,
    }
    assert points["n"]["density=0.1"] == 2
    with pytest.raises(UserError, match="methods has no readable rows of layers"):
        points_of(replace(sweep, layers=sweep.layers.head(0)))


def test_series_by_chosen_columns(sweep: SweepTables) -> None:
    points = points_of(sweep, ["method", "stage_pr"], "val_accuracy")
    assert points["series"].tolist() == ["l1, 0.5", "l1, 0.9", "one_shot", "one_shot"]
    assert points["asked"].tolist() == ["", "", "density=0.5", "density=0.1"]
    assert set(points["accuracy"]) == {0.5}


def test_sweeps_that_cannot_be_compared_are_refused(sweep: SweepTables, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"by is 'metod', but must be one of: .*did you mean 'method'"):
        points_of(sweep, ["metod"])
    with pytest.raises(UserError, match="accuracy is 'loss', but must be one of"):
        points_of(sweep, (), "loss")
    sweep.trials["status"] = "failed"
    with pytest.raises(UserError, match="methods has no complete trial yet"):
        points_of(sweep)
    with pytest.raises(UserError, match=r"alone has no sweep\.yaml"):
        points_of(SweepTables(tmp_path / "alone", sweep.trials, sweep.epochs, sweep.layers, sweep.allocations))


# --- the command


def test_the_command_writes_a_picture_and_prints_the_points(
    sweep: SweepTables, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vl_convert")
    from sweeper import comparison_plot

    assert comparison_plot.main([str(tmp_path / "nothing"), "--to", str(tmp_path / "x.png")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    monkeypatch.setattr(comparison_plot, "load", lambda path: sweep)
    assert comparison_plot.main(["methods", "--to", str(tmp_path / "x.what")]) == 2
    assert comparison_plot.main(["methods", "--to", str(tmp_path / "methods.svg")]) == 0
    assert "one_shot" in (tmp_path / "methods.svg").read_text()
    text = capsys.readouterr().out.splitlines()
    assert [line.index("stage_pr") for line in text[1:3]] == 2 * [text[0].index("asked")]  # texts stand to the left
    assert text[1].startswith("l1 ")
    lines = [line.split() for line in text]
    assert text[-2:] == [protocol(sweep, points_of(sweep)), without_figure(sweep)]
    assert lines[0] == ["series", "asked", "density", "%", "accuracy", "%", "MFLOPs", "cost", "report", "n", "front"]
    assert lines[1] == ["l1", "stage_pr=0.5", "74.00", "90.00", "±", "–", "0.0009", "–", "–", "1", "yes"]
    assert lines[4][4:7] == ["±", "7.07", "0.00015"]


def test_the_command_draws_the_series_and_the_accuracy_that_are_asked_for(
    sweep: SweepTables, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sweeper import comparison_plot

    monkeypatch.setattr(comparison_plot, "load", lambda path: sweep)
    words = ["--by", "method", "--by", "stage_pr", "--accuracy", "val_accuracy", "--to", str(tmp_path / "x.csv")]
    assert comparison_plot.main(["methods", *words]) == 0
    rows = pd.read_csv(tmp_path / "x.csv")
    own = rows[rows["kind"] == "sweep"]
    assert own["series"].tolist() == ["l1, 0.5", "l1, 0.9", "one_shot", "one_shot"]
    assert set(own["accuracy_percent"]) == {50.0}
    assert rows[rows["kind"] == "dense"]["accuracy_percent"].tolist() == [90.0]
