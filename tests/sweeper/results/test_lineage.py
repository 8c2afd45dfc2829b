"""A population in the results: its best trial, the plot of its lineage, and its dry run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from sweeper import lineage_plot
from sweeper.cli import COMPLETE, main
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.report.figures import lineage
from sweeper.report.gathered import gathered
from sweeper.report.page import report_html
from sweeper.results.summary import summarise
from sweeper.results.tables import load
from tests.sweeper.populations import SEARCH, landscape, places, population
from tests.sweeper.sweeps import begun, run_out
from tests.trials.buckets import prefix, served
from tests.upgrade.stored import STORAGE
from trials.errors import UserError


def test_the_lineage_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    space = population(search={**SEARCH, "finetune.schedule": {"choice": ["cosine", "constant"]}})
    plan = begun(space, tmp_path / "small")
    plan.folder.append({"space": space.document()})
    run_out(plan, landscape)
    rows = lineage.draw(gathered(tmp_path / "small"), "density=0.5").rows
    assert list(dict.fromkeys(rows["panel"])) == ["val accuracy [%]", *sorted(space.search)]
    mine = rows[(rows["cell"] == "density=0.5") & (rows["panel"] == "val accuracy [%]")]
    samples = places(plan)
    assert (mine["kind"] == "reached").sum() == len(samples) == 12
    assert (mine["best"] & (mine["kind"] == "link")).sum() == 2  # the best one's two steps
    for row in mine[mine["kind"] == "reached"].to_dict("records"):
        config = space.config(plan.cells[0], samples[row["generation"], row["member"]].params).model_dump()
        assert row["value"] == pytest.approx(100 * landscape(config))
    with pytest.raises(UserError, match=r"cells with a population are: 'density=0\.2', 'density=0\.5'"):
        lineage.draw(gathered(tmp_path / "small"), "density=0.3")
    assert lineage_plot.main([str(tmp_path / "small"), "--to", str(tmp_path / "lineage.svg")]) == 0
    assert (tmp_path / "lineage.svg").stat().st_size > 10_000
    assert lineage_plot.main([str(tmp_path / "nothing"), "--to", str(tmp_path / "x.png")]) == 2


def test_the_ancestry_begins_where_an_ancestor_is_lost(tmp_path: Path) -> None:
    """A damaged config is left out of the tables; figures and report are drawn without it."""
    plan = begun(population(), tmp_path / "small")
    plan.folder.append({"space": plan.space.document()})
    run_out(plan, landscape)
    whole = load(tmp_path / "small").lineage

    def ancestry() -> pd.DataFrame:
        rows = lineage.draw(gathered(tmp_path / "small"), "density=0.5").rows
        rows = rows[(rows["cell"] == "density=0.5") & (rows["kind"] == "reached") & rows["best"]]
        return rows.sort_values("generation")

    best = ancestry()
    assert best["generation"].tolist() == [0, 1, 2]
    first = whole[(whole["cell"] == "density=0.5") & (whole["generation"] == 0)]
    lost = first[first["member"] == best["member"].tolist()[0]]["trial"].tolist()[0]
    (plan.folder.trial_folder(lost) / "config.json").write_text("{")
    found = gathered(tmp_path / "small")
    assert lost in "".join(found.sweep.damaged)
    assert ancestry()["generation"].tolist() == [1, 2]
    assert "lineage" in report_html(found)


def test_the_lineage_of_a_sweep_in_a_bucket_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    with served():
        storage = prefix(tmp_path.name)
        for file in (file for file in (STORAGE / "population").rglob("*") if file.is_file()):
            (storage / "population" / file.relative_to(STORAGE / "population").as_posix()).write_bytes(
                file.read_bytes()
            )
        arguments = [f"{storage}/population", "--to", str(tmp_path / "lineage.svg")]
        assert arguments[0].startswith("s3://")
        assert lineage_plot.main(arguments) == 0
    assert (tmp_path / "lineage.svg").stat().st_size > 10_000


def test_several_objectives_draw_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command refuses several objectives beside pbt; in a file changed by hand the first one counts."""
    folder = SweepFolder(shutil.copytree(STORAGE / "population", tmp_path / "population"))
    space = folder.space_document() or {}
    several = [{"column": "val_loss", "direction": "minimize"}, {"column": "flops", "direction": "minimize"}]
    rest = {name: value for name, value in space.items() if name not in ("objective", "direction")}
    folder.append({"space": {**rest, "objectives": several}})
    assert lineage_plot.main([str(folder.path), "--to", str(tmp_path / "x.csv")]) == 0
    rows = pd.read_csv(tmp_path / "x.csv")
    reached = rows[rows["kind"] == "reached"]
    assert set(reached["panel"]) == {"val_loss"}
    last = reached[reached["generation"] == reached["generation"].max()]
    assert last.loc[last["best"], "value"].tolist() == [last["value"].min()]
    folder.append({"space": {**rest, "objective": "unit_sparsity"}})
    assert lineage_plot.main([str(folder.path), "--to", str(tmp_path / "x.csv")]) == 2
    assert capsys.readouterr().err.startswith("error: objective is 'unit_sparsity', but no trial has reported it")


def test_the_best_trial_is_of_the_last_generation(tmp_path: Path) -> None:
    plan = begun(population(), tmp_path / "s")
    run_out(plan, lambda config: landscape(config) - config["until_epoch"])  # later generations score lower
    summary = summarise(
        load(tmp_path / "s"), objective="val_accuracy", direction="maximize", grid=["density"], search=list(SEARCH)
    )
    for cell, reached in zip((0.5, 0.2), summary["val_accuracy_mean"], strict=True):
        last = [s for (generation, _), s in places(plan, f"density={cell}").items() if generation == 2]
        configs = [plan.space.config(plan.cells[0], s.params).model_dump() for s in last]
        assert reached == pytest.approx(max(map(landscape, configs)) - 6)
    assert summary["done"].tolist() == [12, 12]


def test_a_dry_run_shows_the_size_of_a_population(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "bip_pbt", "--profile", "demo", "--dry-run", "--storage", str(tmp_path)]) == COMPLETE
    said = capsys.readouterr().out
    assert "2 cells x 36 samples = 72 trials of bip" in said
    assert "population based training, 6 members x 6 generations of 2 epochs" in said
    assert "dense networks to train first, shared: 1" in said
