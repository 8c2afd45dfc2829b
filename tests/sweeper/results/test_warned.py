"""Trials with warnings are marked in every table and picture; without any, nothing is said."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from sweeper.columns import COLUMNS
from sweeper.comparison_plot import texts
from sweeper.dashboard import StudyCopy
from sweeper.execution.live_view import LiveView
from sweeper.folder.sweep_folder import Sample, SweepFolder
from sweeper.report.figures import lineage
from sweeper.report.figures.accuracy_density import accuracy_density
from sweeper.report.gathered import gathered_of
from sweeper.results.comparison import points_of
from sweeper.results.report import show
from sweeper.results.tables import compact_tables, load
from tests.sweeper.populations import landscape, population
from tests.sweeper.sweeps import begun, make_space, run_out
from tests.trials.sealed_files import document, write_document
from trials.storage.rows import OF_DATA, WARNINGS
from trials.storage.trial_folder import TrialFolder

FIGURES = {"val_accuracy": 0.9, "test_accuracy": 0.8, "flops": 100, "density": 0.5, "empty_layers": 0}
ENVIRONMENT = {"threads": 3, "torch": "2.x", "cuda": None, "precision": "bf16", "memory_format": "channels_last"}


def put(
    sweep: SweepFolder, density: float, seed: int, codes: list[str] | None, levels: int = 1, dense: bool = False
) -> str:
    """Write a complete trial; ``codes`` None: as an older version wrote it."""
    name, config = f"bip-{density}-{seed}", {"method": "bip", "density": density, "seed": seed, "precision": "auto"}
    sweep.schedule(name, config, (Sample(f"density={density},seed={seed}", 0, {}, {}, {}),))
    attempt, _ = TrialFolder(sweep.trial_folder(name)).begin(
        environment=None if codes is None else {**ENVIRONMENT, "commit": "c", "schema": 1}
    )
    said: dict[str, Any] = {} if codes is None else {"warnings": codes}
    of_rows = {key: [code for code in found if code not in OF_DATA] for key, found in said.items()}
    row = {"stage": "prune", "epoch": 1, **FIGURES, "stage_id": None}
    epochs = [
        {**row, "level": n, **({"warnings": ["layers_empty"]} if said and n == 1 else of_rows)} for n in range(levels)
    ]
    if dense:
        epochs = [{**row, "stage": "pretrain", "level": 0, "stage_id": f"dense-{density}", **of_rows}, *epochs]
    layers = [{"stage": "prune", "level": 0, "layer": "fc", "total": 100, "kept": 50}]
    attempt.commit(
        checkpoint={}, rows={"epochs": epochs, "layers": layers}, progress={}, seconds=1.0, status="complete",
        result={**FIGURES, "flops": 100 + int(100 * density), **said},
    )  # fmt: skip
    return name


def sweep_of(
    path: Path, codes: list[list[str] | None], objective: Any = "val_accuracy", levels: int = 1, dense: bool = False
) -> SweepFolder:
    """Trials of density 0.5, 0.4, ..."""
    folder = SweepFolder(path)
    for i, found in enumerate(codes):
        put(folder, round(0.5 - i / 10, 1), 0, found, levels, dense)
    grid = {"density": [round(0.5 - i / 10, 1) for i in range(len(codes))], "seed": [0]}
    space = {"grid": grid, "search": {}, "samples": 1}
    one = {"objective": "val_accuracy", "direction": "maximize"}
    folder.append({"space": {**space, **(one if objective == "val_accuracy" else {"objectives": objective})}})
    return folder


def shown(folder: SweepFolder) -> str:
    out = io.StringIO()
    show(folder.path, Console(file=out, width=200))
    return out.getvalue()


@pytest.mark.parametrize("code", WARNINGS)
def test_the_report_marks_the_group_and_counts_the_trials(code: str, tmp_path: Path) -> None:
    text = shown(sweep_of(tmp_path / "s", [[], [code], [code], None]))
    head, *rows = text.splitlines()[1:6]
    assert "warnings" in head
    assert [code in row for row in rows] == [False, True, True, False]
    assert f"warnings: {code} in 2 trials ({WARNINGS[code]}): see the column warnings of the table trials" in text


def test_the_last_line_says_which_trials_stand_in_no_row(tmp_path: Path) -> None:
    """Of a search's samples only the best one is a figure, whose warnings the rows show."""
    folder = sweep_of(tmp_path / "s", [["layers_empty"], ["chance_level"]])
    for seed, codes in ((1, ["layers_empty"]), (2, ["one_class"])):
        name = put(folder, 0.5, seed, codes)
        config = document(folder.trial_folder(name) / "config.json")
        config["config"]["seed"] = 0
        write_document(folder.trial_folder(name) / "config.json", config)
    *_, line, _ = shown(folder).splitlines()
    rows = shown(folder).partition("warnings: ")[0]
    assert ("layers_empty" in rows, "chance_level" in rows, "one_class" in rows) == (True, True, False)
    assert f"layers_empty in 2 trials, 1 of them in a row above ({WARNINGS['layers_empty']})" in line
    assert f"chance_level in 1 trial ({WARNINGS['chance_level']})" in line
    assert f"one_class in 1 trial, in no row above ({WARNINGS['one_class']})" in line


def test_without_warnings_the_report_is_as_before(tmp_path: Path) -> None:
    now, before = shown(sweep_of(tmp_path / "a" / "s", [[], []])), shown(sweep_of(tmp_path / "b" / "s", [None, None]))
    now, before = now.replace(str(tmp_path / "a"), ""), before.replace(str(tmp_path / "b"), "")
    assert "warning" not in now
    assert now == before


def test_levels_have_their_own_marks(tmp_path: Path) -> None:
    lines = shown(sweep_of(tmp_path / "s", [["chance_level"]], levels=3)).splitlines()
    assert ["chance_level" in line for line in lines[2:5]] == [True, False, True]  # the last one has the result's
    assert ["layers_empty" in line for line in lines[2:5]] == [False, True, False]


@pytest.mark.parametrize("code", WARNINGS)
def test_codes_of_the_data_mark_all_levels_and_the_dense_network(code: str, tmp_path: Path) -> None:
    lines = shown(sweep_of(tmp_path / "s", [[code]], levels=3, dense=True)).splitlines()
    marked = [code in line for line in lines[2:6]]
    assert "dense" in lines[2]
    if code in OF_DATA:
        assert marked == [True] * 4
    elif code != "layers_empty":
        assert marked == [True, True, False, True]


def test_the_pareto_table_is_marked(tmp_path: Path) -> None:
    objectives = [{"column": "val_accuracy", "direction": "maximize"}, {"column": "flops", "direction": "minimize"}]
    text = shown(sweep_of(tmp_path / "s", [[], ["chance_level", "layers_empty"]], objectives))
    table = text[text.index("Pareto front") :]
    head, one, other = table.splitlines()[1:4]
    assert "warnings" in head
    assert "layers_empty, chance_level" in (other if "bip-0.4-0" in other else one)
    assert "warnings" not in shown(sweep_of(tmp_path / "t", [[], []], objectives))


@pytest.mark.parametrize("written", [False, True])
def test_tables_hold_lists(written: bool, tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "s", [[], ["layers_empty"], None])
    if written:
        compact_tables(folder)
    tables = load(folder.path)
    by_trial = dict(zip(tables.trials["trial"], tables.trials["warnings"], strict=True))
    assert by_trial == {"bip-0.5-0": [], "bip-0.4-0": ["layers_empty"], "bip-0.3-0": None}
    assert tables.epochs["warnings"].tolist() == [None, ["layers_empty"], []]
    if written:
        table = pd.read_parquet(folder.tables / "trials.parquet")
        assert [None if found is None else list(found) for found in table["warnings"]] == [None, ["layers_empty"], []]


def test_all_without_warnings_still_have_lists(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "s", [[], []])
    compact_tables(folder)
    put(folder, 0.5, 1, ["one_class"])  # read from its folder, beside the others from the cache
    assert load(folder.path).trials["warnings"].tolist() == [[], [], ["one_class"]]


@pytest.mark.parametrize("known", [[], [{"threads": 3}], [{"threads": 3}, {"threads": 4}]])
@pytest.mark.parametrize("unknown", [[], [{}]])
def test_environments_are_counted_where_all_are_known(
    tmp_path: Path, unknown: list[dict[str, int]], known: list[dict[str, int]]
) -> None:
    folder = sweep_of(tmp_path / "s", [[]])
    path = folder.trial_folder("bip-0.5-0") / "state.json"
    write_document(path, {**document(path), "environments": unknown + known})
    row = load(folder.path).trials.iloc[0]
    if known and not unknown:
        assert row["environments"] == len(known)
    else:
        assert pd.isna(row["environments"])
    assert known == [] or row["threads"] == known[-1]["threads"]


def test_what_else_decides_bits_stands_in_the_row(tmp_path: Path) -> None:
    trials = load(sweep_of(tmp_path / "s", [[], None]).path).trials.set_index("trial")
    row, old = trials.loc["bip-0.5-0"], trials.loc["bip-0.4-0"]
    assert (row["threads"], row["torch"], row["commit"], row["schema"], row["environments"]) == (3, "2.x", "c", 1, 1)
    assert (row["precision"], row["config.precision"]) == ("bf16", "auto")
    assert row["memory_format"] == "channels_last"
    assert row["started"] <= row["ended"]
    assert old[["threads", "torch", "cuda", "precision", "memory_format", "commit", "environments"]].isna().all()
    assert old["config.precision"] == "auto"
    assert {"started", "ended", "cuda"} < COLUMNS["trials"].keys()


def test_the_comparison_is_marked(tmp_path: Path) -> None:
    for codes, hollow in ([[], ["chance_level"]], 1), ([[], []], 0):
        sweep = load(sweep_of(tmp_path / str(hollow), codes).path)
        figure = accuracy_density(sweep)
        own = figure.rows[figure.rows["kind"] == "sweep"]
        assert (own["warnings"] != "").sum() == hollow
        (points,) = (layer for layer in figure.spec["layer"] if layer["mark"]["type"] == "point")
        assert points["encoding"]["fillOpacity"]["condition"] == {"test": "datum.warnings !== ''", "value": 0}
        assert texts(points_of(sweep)).get("warnings", []) == (["", "chance_level"] if hollow else [])


def test_the_lineage_is_marked(tmp_path: Path) -> None:
    plan = begun(population(), tmp_path / "s")
    run_out(plan, landscape)
    (state, *_) = sorted((tmp_path / "s" / "trials").glob("*/state.json"))
    for codes in ([], ["layers_empty"]):
        content = document(state)
        write_document(state, {**content, "result": {**content["result"], "warnings": codes}})
        sweep = load(tmp_path / "s")
        trial = state.parent.name
        cell = sweep.lineage.set_index("trial").loc[[trial], "cell"].iloc[0]
        figure = lineage.draw(gathered_of(sweep), cell)
        hollow = figure.rows[(figure.rows["kind"] == "reached") & (figure.rows["warnings"] != "")]
        assert len(hollow) == (len(sweep.lineage[sweep.lineage["trial"] == trial]) if codes else 0)
        assert ("hollow: trials with warnings" in figure.notes) == bool(codes)


def test_the_live_view_marks_the_line_and_counts_the_rest() -> None:
    out = io.StringIO()
    with LiveView({"a": 100}, Console(file=out, width=200), "val_accuracy", "maximize") as view:
        view.ended("bip-0", "a", "complete", 0.5, already=False, warnings=("chance_level", "layers_empty"))
        view.ended("bip-1", "a", "complete", 0.5, already=False)
        for number in range(2, 60):
            view.ended(f"bip-{number}", "a", "complete", 0.5, already=False, warnings=("one_class",) * (number % 2))
        panel = view._render()
    lines = out.getvalue().splitlines()
    assert lines[0].endswith("[chance_level, layers_empty]")
    assert "[" not in lines[1]
    summed = [int(found) for found in re.findall(r"complete, (\d+) with warnings", out.getvalue())]
    assert sum(summed) + sum("[" in line for line in lines) == 30  # 29 of the 58, and the first
    assert panel.headline[1].endswith(", 30 with warnings")


def test_the_dashboard_has_the_codes(tmp_path: Path) -> None:
    plan = begun(make_space(grid={"density": [0.5, 0.2]}), tmp_path / "s")
    plan.folder.append({"space": plan.space.document()})
    run_out(plan, lambda config: 0.5)
    first, *_ = sorted((tmp_path / "s" / "trials").glob("*/state.json"))
    content = document(first)
    write_document(first, {**content, "result": {**content["result"], "warnings": ["one_class"]}})
    import optuna

    copy = StudyCopy(plan.folder, optuna.storages.InMemoryStorage())
    copy.refresh()
    studies = optuna.get_all_study_summaries(copy.storage)
    trials = [t for s in studies for t in optuna.load_study(study_name=s.study_name, storage=copy.storage).trials]
    warned = [t.user_attrs["trial"] for t in trials if t.user_attrs.get("warnings") == ["one_class"]]
    assert warned == [first.parent.name] * 2  # in its cell's study, and in that of all points
