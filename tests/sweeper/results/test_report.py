"""The report against figures worked out by hand, on made-up sweeps and on real trials."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from sweeper.folder.sweep_folder import Sample, SweepFolder
from sweeper.results.report import show
from sweeper.results.summary import summarise
from sweeper.results.tables import compact_tables, load
from sweeper.space.options.constraints import read_constraints
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.running.trial import TrialHost, run
from trials.storage.trial_folder import TrialFolder

SPACE = {
    "name": "bip",
    "grid": {"density": [0.5, 0.1], "seed": [0, 1]},
    "search": {"mask_lr": {"type": "loguniform", "low": 0.001, "high": 1.0}},
    "objective": "val_accuracy",
    "direction": "maximize",
    "samples": 2,
}
GRID, SEARCH = ["density", "seed"], ["mask_lr"]


def shown(path: Path, **options: Any) -> str:
    out = io.StringIO()
    show(path, Console(file=out, **options))
    return out.getvalue()


def dense_rows(seed: int) -> list[dict[str, Any]]:
    row = {"stage": "pretrain", "level": 0, "density": 1.0, "stage_id": f"dense-{seed}"}
    return [
        {**row, "epoch": 1, "val_accuracy": 0.5, "test_accuracy": None},
        {**row, "epoch": 2, "val_accuracy": 0.96 + seed / 100, "test_accuracy": 0.95 + seed / 50},
    ]


def put(
    sweep: SweepFolder, density: float, seed: int, number: int, mask_lr: float, val: float, test: float, status: str
) -> None:
    """Write a trial's folder as a worker would."""
    name = f"bip-{density}-{seed}-{number}"
    config = {"method": "bip", "density": density, "seed": seed, "mask_lr": mask_lr}
    grid = {"density": density, "seed": seed}
    sample = Sample(f"density={density},seed={seed}", number, grid, {"mask_lr": mask_lr}, {})
    sweep.schedule(name, config, (sample,))
    if status == "scheduled":
        return
    attempt, _ = TrialFolder(sweep.trial_folder(name)).begin()
    figures = {"val_accuracy": val, "test_accuracy": test, "density": density + 0.001}
    last = {"stage": "prune", "level": 0, "epoch": 1, **figures, "stage_id": None}
    result = figures if status in ("complete", "pruned") else {}
    kept_status = status if result else "running"
    rows = {"epochs": [*dense_rows(seed), last]}
    attempt.commit(checkpoint={}, rows=rows, progress={}, seconds=1.0, status=kept_status, result=result)
    if status == "failed":
        error = {"type": "NonFiniteLoss", "message": "the loss of\nstage prune is nan", "traceback": ""}
        attempt.end("failed", error=error, failures=2)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    """2 densities x 2 seeds x 2 samples, all complete; test and validation accuracy each prefer the other sample."""
    folder = SweepFolder(tmp_path / "bip")
    folder.append({"space": SPACE})
    for density, seed, number, mask_lr, val, test in [
        *((0.5, 0, 0, 0.1, 0.90, 0.99), (0.5, 0, 1, 0.2, 0.94, 0.91)),
        *((0.5, 1, 0, 0.2, 0.92, 0.89), (0.5, 1, 1, 0.3, 0.91, 0.99)),
        *((0.1, 0, 0, 0.1, 0.80, 0.70), (0.1, 0, 1, 0.2, 0.70, 0.80)),
        *((0.1, 1, 0, 0.3, 0.60, 0.80), (0.1, 1, 1, 0.4, 0.70, 0.60)),
    ]:
        put(folder, density, seed, number, mask_lr, val, test, "complete")
    return folder


def summary_of(sweep: SweepFolder, **changes: Any) -> pd.DataFrame:
    options = {"objective": "val_accuracy", "direction": "maximize", "grid": GRID, "search": SEARCH, **changes}
    return summarise(load(sweep.path), **options)


def test_a_trial_that_the_sweep_did_not_ask_for_is_of_no_cell(sweep: SweepFolder) -> None:
    """As an earlier version's ``python -m trials --name`` left one, with the grid values of a cell."""
    before = summary_of(sweep)
    config = {"method": "bip", "density": 0.5, "seed": 0, "mask_lr": 0.1, "augment": False}
    sweep.schedule("bip-other", config, ())
    attempt, _ = TrialFolder(sweep.trial_folder("bip-other")).begin()
    best = {"val_accuracy": 1.0, "test_accuracy": 1.0, "density": 0.5}
    row = {"stage": "prune", "level": 0, "epoch": 1, **best, "stage_id": None}
    attempt.commit(checkpoint={}, rows={"epochs": [row]}, progress={}, seconds=1.0, status="complete", result=best)
    pd.testing.assert_frame_equal(summary_of(sweep), before)
    assert "bip-other" in load(sweep.path).trials["trial"].tolist()


def test_the_best_trial_of_each_cell_then_the_mean_over_seeds(sweep: SweepFolder) -> None:
    summary = summary_of(sweep)
    assert summary["kind"].tolist() == ["dense", "group", "group"]
    assert summary["config.density"].tolist()[1:] == [0.5, 0.1]
    assert summary["n"].tolist() == [2, 2, 2]
    expected = {
        "density": [1.0, 0.501, 0.101],
        "val_accuracy_mean": [0.965, 0.93, 0.75],
        "val_accuracy_std": [0.01 / 2**0.5, 0.02 / 2**0.5, 0.10 / 2**0.5],
        "test_accuracy_mean": [0.96, 0.90, 0.65],
        "test_accuracy_std": [0.02 / 2**0.5, 0.02 / 2**0.5, 0.10 / 2**0.5],
    }
    for column, values in expected.items():
        assert summary[column].tolist() == pytest.approx(values), column
    assert summary["best"].tolist()[1:] == ["mask_lr=0.2", "mask_lr=0.1 | 0.4"]
    assert summary[["trials", "done", "failed"]].to_numpy().tolist()[1:] == [[4, 4, 0], [4, 4, 0]]
    assert summary["waiting"].tolist()[1:] == ["", ""]


def test_minimising_another_objective(sweep: SweepFolder) -> None:
    summary = summary_of(sweep, direction="minimize")
    assert summary["val_accuracy_mean"].tolist()[1:] == pytest.approx([0.905, 0.65])
    assert summary["best"].tolist()[1:] == ["mask_lr=0.1 | 0.3", "mask_lr=0.2 | 0.3"]
    by_density = summary_of(sweep, objective="density")
    assert by_density["density_mean"].tolist()[1:] == pytest.approx([0.501, 0.101])


def test_a_direction_that_is_none_is_refused(sweep: SweepFolder) -> None:
    with pytest.raises(UserError, match="direction is 'maximise', but must be one of: maximize, minimize"):
        summary_of(sweep, direction="maximise")


def test_the_report_as_plain_text(sweep: SweepFolder) -> None:
    compact_tables(sweep)
    assert [" ".join(line.split()) for line in shown(sweep.path).splitlines()] == [
        "bip: 4 cells, 4 done; 8 trials, 8 done, 0 running, 0 failed, 0 left",
        "density asked % density % val_accuracy % test_accuracy % n done best",
        "dense 100.00 96.50 ± 0.71 96.00 ± 1.41 2",
        "50.00 50.10 93.00 ± 1.41 90.00 ± 1.41 2 4/4 mask_lr=0.2",
        "10.00 10.10 75.00 ± 7.07 65.00 ± 7.07 2 4/4 mask_lr=0.1 | 0.4",
        f"tables: {sweep.tables}",
    ]


def test_no_terminal_means_no_escapes_no_boxes_no_wrapping(sweep: SweepFolder) -> None:
    for seed in range(2, 12):
        put(sweep, 0.5, seed, 0, 0.1 + seed / 100, 0.9, 0.9, "complete")
    text = shown(sweep.path, width=80)
    assert max(map(len, text.splitlines())) > 120
    assert "\x1b" not in text
    assert not set(text) & set("│┃─━┏└")
    assert "│" in shown(sweep.path, width=200, force_terminal=True)


def test_an_unfinished_sweep_shows_its_progress(sweep: SweepFolder) -> None:
    shutil.rmtree(sweep.trials)
    put(sweep, 0.5, 0, 0, 0.1, 0.9, 0.8, "complete")
    put(sweep, 0.5, 0, 1, 0.2, 0.0, 0.0, "failed")
    put(sweep, 0.5, 1, 0, 0.1, 0.0, 0.0, "running")
    put(sweep, 0.5, 1, 1, 0.2, 0.0, 0.0, "failed")
    put(sweep, 0.1, 0, 0, 0.1, 0.99, 0.99, "pruned")
    put(sweep, 0.1, 0, 1, 0.1, 0.0, 0.0, "scheduled")
    summary = summary_of(sweep).query("kind == 'group'")
    assert summary["n"].tolist() == [1, 0]
    assert summary["val_accuracy_mean"].tolist() == pytest.approx([0.9, float("nan")], nan_ok=True)
    assert summary["val_accuracy_std"].isna().all()
    assert summary[["trials", "done", "failed"]].to_numpy().tolist() == [[4, 1, 2], [2, 1, 0]]
    assert summary["waiting"].tolist() == [
        *("seed 1: 1 failed, 1 running (at prune, level 0, epoch 1)", "seed 0: 1 pruned, 1 scheduled")
    ]
    lines = shown(sweep.path).splitlines()
    assert lines[0] == "bip: 4 cells, 1 done; 8 trials, 2 done, 1 running, 2 failed, 3 left; no driver is running"
    assert lines[3].split()[:7] == ["50.00", "50.10", "90.00", "±", "–", "80.00", "±"]
    assert lines[4].split()[:5] == ["10.00", "–", "–", "0", "1/2"]
    assert lines[-3:-1] == [f"failed: bip-0.5-{s}-1: NonFiniteLoss: the loss of stage prune is nan" for s in (0, 1)]
    assert "sweeper.load works at any time" in lines[-1]


def test_complete_trials_outside_the_constraints_are_counted_as_infeasible(sweep: SweepFolder) -> None:
    loose, tight = (read_constraints([{"column": "density", "at_most": most}]) for most in (0.2, 0.01))
    summary = summary_of(sweep, constraints=loose).query("kind == 'group'")
    assert summary["n"].tolist() == [0, 2]
    assert summary["infeasible"].tolist() == [4, 0]
    assert summary["waiting"].tolist() == ["", ""]
    assert summary_of(sweep, constraints=tight)["n"].tolist() == [0, 0]


def test_dense_references_of_different_groups_are_distinguished(sweep: SweepFolder) -> None:
    tables = load(sweep.path)
    tables.trials["model"] = ["small" if cell.startswith("density=0.5") else "large" for cell in tables.trials["cell"]]
    large = tables.epochs["trial"].str.startswith("bip-0.1") & (tables.epochs["stage"] == "pretrain")
    tables.epochs.loc[large, "stage_id"] += "-large"
    tables.epochs.loc[large, "test_accuracy"] += 0.01
    summary = summarise(tables, objective="val_accuracy", direction="maximize", grid=["model", *GRID])
    dense = summary.query("kind == 'dense'").set_index("model")
    assert dense["test_accuracy_mean"].to_dict() == pytest.approx({"small": 0.96, "large": 0.97})
    assert summary.query("kind == 'group'")["model"].tolist() == ["large", "small"]


def test_many_failures_do_not_flood_the_screen(sweep: SweepFolder) -> None:
    for number in range(2, 32):
        put(sweep, 0.5, 0, number, 0.1, 0.0, 0.0, "failed")
    lines = [line for line in shown(sweep.path).splitlines() if line.startswith("failed:")]
    assert len(lines) == 21
    assert lines[-1].startswith("failed: and 10 more")


def test_damage_is_shown_not_raised(sweep: SweepFolder) -> None:
    path = next((sweep.trial_folder("bip-0.5-0-1") / "rows").glob("epochs-*"))
    path.write_bytes(b"")
    text = shown(sweep.path)
    assert f"left out: {path}" in text
    assert "93.00 ± 1.41" in text


def test_levels_of_an_iterative_method(tmp_path: Path) -> None:
    """Two real imp trials: a line per level, over seeds, and the dense network they start from."""
    folder = SweepFolder(tmp_path / "imp")
    folder.append({"space": {**SPACE, "grid": {"seed": [0, 1]}, "search": {}, "samples": 1}})
    results = []
    for seed in (0, 1):
        content = {"method": "imp", "dataset": "digits", "model": "tiny", "levels": 2, "prune_fraction": 0.5}
        config = parse({**content, "seed": seed, "pretrain": {"epochs": 2}})
        folder.schedule(config.id, config.model_dump(mode="json"), (Sample(f"seed={seed}", 0, {"seed": seed}, {}, {}),))
        results.append(run(config, folder.trial_folder(config.id), TrialHost(folder.stages)).result)
    summary = summary_of(folder, grid=["seed"], search=())
    assert summary["kind"].tolist() == ["dense", "group", "group"]
    assert summary["level"].tolist()[1:] == [1, 2]
    assert summary["density"].tolist() == pytest.approx([1, 0.5, 0.25])
    assert summary["n"].tolist() == [2, 2, 2]
    assert summary["test_accuracy_mean"].iloc[2] == pytest.approx(sum(r["test_accuracy"] for r in results) / 2)
    epochs = load(folder.path).epochs
    level_1 = epochs.query("level == 1 and epoch == 2")["val_accuracy"]
    assert summary["val_accuracy_mean"].iloc[1] == pytest.approx(level_1.mean())
    assert summary["val_accuracy_std"].iloc[1] == pytest.approx(level_1.std(ddof=1))
    dense = epochs.query("stage == 'pretrain' and epoch == 2")["test_accuracy"]
    assert summary["test_accuracy_mean"].iloc[0] == pytest.approx(dense.mean())
    lines = [line.split() for line in shown(folder.path).splitlines()]
    assert [line[:2] for line in lines[2:5]] == [["dense", "100.00"], ["1", "50.00"], ["2", "25.00"]]
    assert summary["cost"].tolist() == [2, 2, 4]  # of the dense network, and of the levels up to their ends
    assert [line[-3:] for line in lines[2:5]] == [["2", "2", "last"], ["2", "last", "2/2"], ["2", "4", "last"]]


def test_trials_without_a_space_are_listed_one_by_one(sweep: SweepFolder) -> None:
    (sweep.path / "sweep.yaml").unlink()
    lines = shown(sweep.path).splitlines()
    assert lines[0] == "bip: 8 trials, 8 done, 0 running, 0 failed, 0 left; sweep.yaml is missing"
    assert sum(line.split()[0].startswith("bip-0.") for line in lines) == 8


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a sweep's folder"):
        show(tmp_path / "nothing", Console(file=io.StringIO()))


def test_the_report_of_thousands_of_trials_takes_seconds(sweep: SweepFolder) -> None:
    tables = load(sweep.path)
    trials = pd.concat([tables.trials.assign(trial=tables.trials["trial"] + f"-{n}") for n in range(500)])
    epochs = pd.concat([tables.epochs.assign(trial=tables.epochs["trial"] + f"-{n}") for n in range(500)])
    many = type(tables)(tables.path, trials, epochs, tables.layers, tables.allocations)
    began = time.monotonic()
    summary = summarise(many, objective="val_accuracy", direction="maximize", grid=GRID, search=SEARCH)
    assert time.monotonic() - began < 3
    assert summary["trials"].tolist()[1:] == [2000, 2000]
