"""Two sweeps compared by cell: which cells and trials are matched, what is tested, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

import sweeper
from sweeper.cli import COMPLETE, WRONG_INPUT, main
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.sweep import Sweep, read_sweep
from tests.sweeper.sweeps import ONE_SHOT, fail, make_space
from trials.errors import UserError
from trials.storage.trial_folder import TrialFolder

Result = Callable[[dict[str, Any]], dict[str, Any] | None]

VAL = {0: 0.90, 1: 0.87, 2: 0.93, 3: 0.88}
GAIN = {0: 0.01, 1: 0.03, 2: 0.02, 3: 0.028}


def plain(gain: float = 0.0, **more: Any) -> Result:
    """Accuracies that depend on density and seed; with ``gain`` 1, better by a difference that depends on the seed."""

    def result(config: dict[str, Any]) -> dict[str, Any]:
        seed = config["seed"] % 4
        val = VAL[seed] - (1 - config.get("density", 1)) / 10 + gain * GAIN[seed]
        figures = {"val_accuracy": val, "test_accuracy": val - 0.05, "density": config.get("density", 1)}
        return {**figures, "data": "aaaa", "cost": 2.0, "report": "last", **more}

    return result


def swept(path: Path, result: Result | None = None, begin: int | None = None, **fields: Any) -> Sweep:
    """A sweep whose trials end with ``result`` of their config: None fails; ``begin``: how many trials run at all."""
    grid = {"density": [0.5, 0.2], "seed": [0, 1, 2]}
    space = make_space(**{"grid": grid, "retries": 0, **fields})
    folder = SweepFolder(path)
    folder.append({"space": space.document()})
    plan, ran = Plan(space, folder), 0
    while (begin is None or ran < begin) and (assignment := plan.next()) is not None:
        config = next(record.content for record in folder.records() if record.id == assignment.trial_id)
        found = (result or plain())(config)
        if found is None:
            fail(plan, assignment.trial_id)
        else:
            attempt, _ = TrialFolder(folder.trial_folder(assignment.trial_id)).begin()
            attempt.end("complete", result=found)
        plan.ended(assignment.trial_id)
        ran += 1
    return sweeper.load(path)


def row_of(table: pd.DataFrame, figure: str = "val_accuracy", **values: Any) -> Any:
    rows = table[table["figure"] == figure]
    for column, value in values.items():
        rows = rows[rows[column.replace("__", ".")] == value]
    (index,) = rows.index
    return rows.loc[index]


def without(seed: int, of: Result, **there: Any) -> Result:
    """The results of ``of``, but with ``there`` (nothing: a failure) for one seed."""
    return lambda config: ({**(of(config) or {}), **there} if there else None) if config["seed"] == seed else of(config)


def test_differences_are_those_of_scipys_paired_test(tmp_path: Path) -> None:
    a, b = swept(tmp_path / "a"), swept(tmp_path / "b", plain(1))
    table = a.compare(b)
    assert table["config.density"].tolist() == [0.5, 0.2] * 2
    assert table["figure"].tolist() == ["val_accuracy"] * 2 + ["test_accuracy"] * 2
    first = [VAL[seed] - 0.05 for seed in range(3)]
    second = [value + GAIN[seed] for seed, value in enumerate(first)]
    wanted = stats.ttest_rel(second, first)
    for figure in ("val_accuracy", "test_accuracy"):
        row = row_of(table, figure, config__density=0.5)
        assert (row["found_in"], row["n"], row["a_n"], row["b_n"]) == ("both", 3, 3, 3)
        assert row["difference"] == pytest.approx(0.02)
        assert row["difference_std"] == pytest.approx(0.01)
        assert row["p"] == pytest.approx(wanted.pvalue)
        assert (row["low"], row["high"]) == pytest.approx(tuple(wanted.confidence_interval()))
        assert row["p_holm"] == pytest.approx(2 * wanted.pvalue)  # two cells with the same p
        assert pd.isna(row["p_wilcoxon"])
        assert (row["a_density"], row["b_density"]) == (0.5, 0.5)
        assert row["note"] == ""
    assert row_of(table, config__density=0.5)["a_mean"] == pytest.approx(0.85)
    assert b.compare(a)["difference"].tolist() == pytest.approx([-0.02] * 4)


def test_only_seeds_of_both_count_and_what_is_lacking_is_said(tmp_path: Path) -> None:
    grid = {"density": [0.5], "seed": [0, 1, 2, 3]}
    a = swept(tmp_path / "a", without(3, plain()), grid=grid)
    b = swept(tmp_path / "b", without(2, plain(1), test_accuracy=None, density=0.5, val_accuracy=0.99, data="aaaa"),
              grid={"density": [0.5], "seed": [1, 2, 3]})  # fmt: skip
    val, test = (row_of(a.compare(b), figure) for figure in ("val_accuracy", "test_accuracy"))
    assert (val["a_n"], val["b_n"], val["n"]) == (3, 3, 2)
    assert val["difference"] == pytest.approx((GAIN[1] + 0.99 - VAL[2] + 0.05) / 2)
    assert (test["a_n"], test["b_n"], test["n"]) == (3, 2, 1)
    assert test["difference"] == pytest.approx(GAIN[1])
    assert pd.isna(test["p"])
    assert "A waits: seed 3: 1 failed" in val["note"]
    assert "one seed in common: no test" in test["note"]
    assert "B lacks test_accuracy in 1 of 3 trials" in test["note"]


def test_figures_that_are_not_numbers_are_left_out(tmp_path: Path) -> None:
    a = swept(tmp_path / "a")
    b = swept(tmp_path / "b", without(1, plain(1), test_accuracy=float("nan")))
    row = row_of(a.compare(b), "test_accuracy", config__density=0.2)
    assert row["n"] == 2
    assert row["difference"] == pytest.approx((GAIN[0] + GAIN[2]) / 2)


def test_cells_of_one_sweep_are_listed_without_a_difference(tmp_path: Path) -> None:
    a = swept(tmp_path / "a")
    b = swept(tmp_path / "b", plain(1), grid={"density": [0.2, 0.1], "seed": [0, 1, 2]})
    table = a.compare(b).query("figure == 'val_accuracy'")
    assert table["config.density"].tolist() == [0.5, 0.2, 0.1]
    assert table["found_in"].tolist() == ["a", "both", "b"]
    assert table["note"].tolist() == ["only in A", "", "only in B"]
    assert table["n"].tolist() == [0, 3, 0]
    assert table["a_mean"].notna().tolist() == [True, True, False]
    assert table["p_holm"].tolist()[1] == pytest.approx(table["p"].tolist()[1])  # only one cell is tested


def test_seeds_may_be_replicates_in_one_sweep_and_in_the_grid_of_the_other(tmp_path: Path) -> None:
    """The point that counts is the one with the best mean on validation data, whatever the test set says."""
    search = {"finetune.lr": {"choice": [0.1, 0.2]}}

    def searched(config: dict[str, Any]) -> dict[str, Any]:
        found = plain(1)(config) or {}
        better = config["finetune"]["lr"] == 0.2
        return {**found, "val_accuracy": found["val_accuracy"] - 0.2 * (not better),
                "test_accuracy": found["test_accuracy"] + 0.2 * (not better)}  # fmt: skip

    a = swept(tmp_path / "a")
    b = swept(tmp_path / "b", searched, grid={"density": [0.5, 0.2]}, search=search, sampler="grid", samples=2,
              replicates={"values": {"seed": [0, 1, 2]}})  # fmt: skip
    table = a.compare(b)
    for density in (0.5, 0.2):
        row = row_of(table, "test_accuracy", config__density=density)
        assert row["n"] == 3
        assert row["difference"] == pytest.approx(0.02)
    fields = table.attrs["fields"]
    assert any(line == "finetune.lr: 0.01 in A, searched in B" for line in fields)
    assert any(line.startswith("space: samples: 1 in A, 2 in B") for line in fields)


def test_confirmations_are_the_figures_where_there_are_some(tmp_path: Path) -> None:
    search = {"search": {"finetune.momentum": {"choice": [0.9]}}, "samples": 1, "confirm": {"seed": [0, 1, 2]}}
    a = swept(tmp_path / "a", grid={"density": [0.5], "seed": [0, 1, 2]})
    b = swept(tmp_path / "b", plain(1), grid={"density": [0.5]}, trial={**ONE_SHOT, "seed": 7}, **search)
    table = a.compare(b)
    assert row_of(table)["b_n"] == 3  # the searched trial itself, with seed 7, is none of them
    assert row_of(table)["difference"] == pytest.approx(0.02)
    assert "B has figures of confirmations" in " ".join(table.attrs["notes"])


def test_a_field_with_one_value_in_each_sweep_matches_nothing_and_is_said(tmp_path: Path) -> None:
    a = swept(tmp_path / "a", grid={"density": [0.5, 0.2], "finetune.lr": [0.1], "seed": [0, 1]})
    b = swept(tmp_path / "b", plain(1), trial={**ONE_SHOT, "finetune": {"epochs": 1, "lr": 0.02}})
    table = a.compare(b)
    assert "finetune.lr" not in table
    assert table["n"].tolist() == [2] * 4
    assert "finetune.lr: 0.1 in A, 0.02 in B" in table.attrs["fields"]


def test_a_field_of_one_grid_matches_the_value_that_is_fixed_in_the_other(tmp_path: Path) -> None:
    grid = {"density": [0.5], "finetune.lr": [0.1, 0.02], "seed": [0, 1]}
    fixed = {**ONE_SHOT, "finetune": {"epochs": 1, "lr": 0.02}}
    a, b = swept(tmp_path / "a", grid=grid), swept(tmp_path / "b", trial=fixed)
    table = a.compare(b).query("figure == 'val_accuracy'")
    found = {(row["config.density"], row["finetune.lr"]): row["found_in"] for _, row in table.iterrows()}
    assert found == {(0.5, 0.02): "both", (0.5, 0.1): "a", (0.2, 0.02): "b"}


@pytest.mark.parametrize(
    ("fields", "result", "said"),
    [
        ({}, {"data": "bbbb"}, "other content of the data (digits aaaa in A, digits bbbb in B)"),
        ({"trial": {**ONE_SHOT, "model": "resnet20s"}}, {}, "other model (tiny in A, resnet20s in B)"),
        ({"trial": {**ONE_SHOT, "split_seed": 5}}, {}, "other validation images (split_seed 0 in A, 5 in B)"),
        ({"trial": {**ONE_SHOT, "val_fraction": 0.3}}, {}, "val_fraction 0.1 in A, 0.3 in B"),
        ({"objective": "val_loss", "direction": "minimize"}, {"val_loss": 1.0}, "val_loss (minimize)"),
        ({"grid": {"density": [0.1], "seed": [0]}}, {}, "no cell of a is one of b"),
        ({"begin": 0}, {}, "b has no trial yet"),
    ],
)
def test_what_is_not_comparable_is_refused(
    tmp_path: Path, fields: dict[str, Any], result: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a = swept(tmp_path / "a", plain(val_loss=1.0))
    b = swept(tmp_path / "b", plain(val_loss=1.0, **result) if "val_loss" not in result else plain(**result), **fields)
    with pytest.raises(UserError) as refusal:
        a.compare(b)
    assert said in str(refusal.value)
    assert main(["--storage", str(tmp_path), "--compare", "a", "b"]) == WRONG_INPUT
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1


def test_cells_that_are_not_comparable_have_no_difference_beside_those_that_are(tmp_path: Path) -> None:
    other: Result = lambda config: (plain(1, data="bbbb" if config["density"] == 0.2 else "aaaa"))(config)  # noqa: E731
    table = swept(tmp_path / "a").compare(swept(tmp_path / "b", other))
    assert row_of(table, config__density=0.5)["n"] == 3
    refused = row_of(table, config__density=0.2)
    assert pd.isna(refused["difference"])
    assert refused["note"].startswith("not compared: other content of the data")
    assert row_of(table, config__density=0.5)["p_holm"] == row_of(table, config__density=0.5)["p"]


def test_other_protocols_are_said(tmp_path: Path) -> None:
    a, b = swept(tmp_path / "a"), swept(tmp_path / "b", plain(report="best_val", cost=40.0), begin=4)
    notes = a.compare(b).attrs["notes"]
    assert "other epochs count: report is last in A, best_val in B" in notes
    assert any(line.startswith("other cost: 2 in A, 40 in B") for line in notes)
    assert any(line.startswith("B has no trial yet in") for line in notes)
    assert a.compare(a).attrs == {"notes": [], "fields": []}


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_command_prints_every_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    seeds = [*range(4), *range(4, 8)]
    grid = {"density": [0.5, 0.2], "seed": seeds}
    swept(tmp_path / "s" / "a", grid=grid)
    swept(tmp_path / "s" / "b", plain(1), grid={**grid, "density": [0.5, 0.1]})
    before = sorted(path for path in tmp_path.rglob("*"))
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["--storage", str(tmp_path / "s"), "--compare", "a", str(tmp_path / "s" / "b")]) == COMPLETE
    said = capsys.readouterr().out
    assert sorted(path for path in tmp_path.rglob("*")) == before  # nothing is written
    lines = said.splitlines()
    assert lines[0] == "A: a: 16 cells, 16 done; 16 trials, 16 done, 0 running, 0 failed, 0 left"
    assert "test_accuracy (chooses nothing): B - A in percentage points, over the seeds of both" in lines
    assert "nan" not in said
    (row,) = [line.split() for line in lines if line.split()[:1] == ["0.5"]][:1]
    gains = [100 * GAIN[seed % 4] for seed in seeds]
    interval = stats.ttest_1samp(gains, 0).confidence_interval()
    assert row[:4] == ["0.5", "84.50", "±", "2.45"]
    assert row[4] == "86.70"
    assert row[7:12] == ["8", "+2.20", f"{interval.low:+.2f}", "to", f"{interval.high:+.2f}"]
    assert "<0.001" in row
    assert "only in A" in said
    assert "only in B" in said


def test_paths_and_names_that_are_no_sweeps_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept(tmp_path / "a")
    for words in (["a", "nothing"], ["./nowhere", "a"], ["a", ".."], ["a", ""]):
        assert main(["--storage", str(tmp_path), "--compare", *words]) == WRONG_INPUT
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["--storage", str(tmp_path), "--compare", "a"]) == WRONG_INPUT
    assert "2 arguments" in capsys.readouterr().err


def test_damaged_files_are_said(tmp_path: Path) -> None:
    a, b = swept(tmp_path / "a"), swept(tmp_path / "b", plain(1))
    lost = b.trials["trial"].iloc[0]
    (tmp_path / "b" / "trials" / lost / "config.json").write_text("{")
    table = a.compare(read_sweep(tmp_path / "b"))
    assert any(line.startswith("left out of B:") and lost in line for line in table.attrs["notes"])
    assert sorted(table[table["figure"] == "val_accuracy"]["n"]) == [2, 3]
