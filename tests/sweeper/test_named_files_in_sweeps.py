"""Files named in a space: found and hashed before anything starts, wherever the space names them."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import sweeper
from sweeper.cli import COMPLETE, main
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.warm_start import warm_start
from tests.sweeper.command_line import SPACE, sweep, wrong
from tests.sweeper.sweeps import ONE_SHOT, make_space, run_space
from trials import models
from trials.config.source_mask import SourceMask
from trials.networks import named_files

pytestmark = pytest.mark.usefixtures("here", "no_stray_handlers")

TRIAL: dict[str, Any] = {**ONE_SHOT, "dataset": "few_digits"}


def weights(path: Path, seed: int = 0, **shape: int) -> Path:
    model = models.build("tiny", **{"num_classes": 10, "in_channels": 1, **shape}, seed=seed)
    torch.save(model.state_dict(), path)
    return path


def write_space(here: Path, **content: Any) -> None:
    (here / "small.yaml").write_text(yaml.safe_dump({"trial": TRIAL, "grid": {"density": [0.5]}, **content}))


WHERE_GIVEN: dict[str, dict[str, Any]] = {
    "trial": {"trial": {**TRIAL, "source_net": "net.pt"}},
    "grid": {"grid": {"density": [0.5], "source_net": ["other.pt", "net.pt"]}},
    "cases": {
        "grid": {"density": [0.5, 0.2]},
        "cases": {"low": {"when": {"density": 0.2}, "trial": {"source_net": "net.pt"}}},
    },
    "search": {"search": {"source_net": {"choice": ["other.pt", "net.pt", "third.pt"]}}, "samples": 2},
}


@pytest.mark.parametrize("given", WHERE_GIVEN)
@pytest.mark.parametrize("problem", ["missing", "folder", "namespace", "classes"])
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_what_cannot_be_a_source_is_refused_before_anything_starts(
    given: str, problem: str, dry: list[str], here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("other.pt", "third.pt"):
        weights(here / name, seed=len(name))
    write_space(here, **WHERE_GIVEN[given])
    says = {
        "missing": "there is none",
        "folder": "that is a folder",
        "namespace": "argparse.Namespace",
        "classes": "5 classes",
    }
    if problem == "folder":
        (here / "net.pt").mkdir()
    elif problem == "namespace":
        torch.save(argparse.Namespace(), here / "net.pt")
    elif problem == "classes":
        weights(here / "net.pt", num_classes=5)
    wrong(capsys, [*SPACE, *dry], "source_net is", str(here / "net.pt"), says[problem])
    assert ran == []
    assert not (here / "results").exists()


SCORED: dict[str, Any] = {**TRIAL, "method": "imp", "rewind": "none", "levels": 1, "source_net": "net.pt"}


def scores(path: Path) -> None:
    state = models.build("tiny", num_classes=10, in_channels=1, seed=1).state_dict()
    torch.save({**state, "conv2.popup_scores": torch.rand(state["conv2.weight"].shape)}, path)


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_mask_of_scores_without_a_distribution_is_refused(
    dry: list[str], here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    scores(here / "net.pt")
    write_space(here, trial=SCORED, grid={"source_mask.density": [0.5, 0.2]})
    wrong(capsys, [*SPACE, *dry], "source_mask has no distribution", "global", "uniform")
    assert ran == []


def test_a_sweep_begun_without_a_distribution_goes_on_with_the_global_one(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(here / "net.pt")
    write_space(here, trial=SCORED, grid={"source_mask.density": [0.5, 0.2]})
    with monkeypatch.context() as earlier:
        earlier.setattr(SourceMask, "leaves_open", lambda mask: False)
        assert sweep() == COMPLETE
    before = sorted(ran)
    write_space(
        here, trial={**SCORED, "source_mask": {"distribution": "global"}}, grid={"source_mask.density": [0.5, 0.2]}
    )
    assert sweep() == COMPLETE
    assert sorted(ran) == before
    assert len(set(before)) == 2
    write_space(here, trial={**SCORED, "source_mask": {"distribution": "uniform"}}, grid={"source_mask.density": [0.5]})
    wrong(capsys, SPACE, "source_mask.distribution is 'uniform', but the sweep was begun with 'global'")


def test_distributions_of_scores_are_cells(here: Path, ran: list[str]) -> None:
    scores(here / "net.pt")
    trial = {**SCORED, "source_mask": {"density": 0.5}}
    write_space(here, trial=trial, grid={"source_mask.distribution": ["global", "uniform"]})
    assert sweep() == COMPLETE
    assert len(set(ran)) == 2


def test_a_relative_path_is_the_drivers(here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    weights(here / "net.pt")
    write_space(here, **WHERE_GIVEN["trial"])
    assert sweep() == COMPLETE
    (record,) = SweepFolder(here / "results" / "small").records()
    assert record.content["source_net"] == str(here / "net.pt")
    assert list(record.content["file_hashes"]) == ["source_net"]
    assert record.config.id == record.id
    (here / "net.pt").unlink()
    assert main(["--show", "small"]) == COMPLETE
    assert len(sweeper.load(here / "results" / "small").trials) == 1


def test_every_value_of_grid_and_search_has_its_content_in_the_name(here: Path) -> None:
    weights(here / "a.pt")
    weights(here / "b.pt", seed=1)
    shutil.copy(here / "a.pt", here / "c.pt")
    paths = ["a.pt", "b.pt", "c.pt", str(here / "a.pt")]
    searching = make_space(
        trial={**TRIAL, "density": 0.5}, grid={}, search={"source_net": {"choice": paths}}, samples=3
    )
    (cell,) = searching.cells()  # samples of a search share a trial
    gridded = [make_space(trial=TRIAL, grid={"density": [0.5], "source_net": [path]}) for path in paths]
    for ids in (
        [searching.config(cell, {"source_net": path}).id for path in paths],
        [space.config(one).id for space in gridded for one in space.cells()],
    ):
        assert ids[0] == ids[2] == ids[3]
        assert ids[1] != ids[0]


EQUAL_FILES: dict[str, dict[str, Any]] = {
    "grid": {"grid": {"density": [0.5], "source_net": ["a.pt", "b.pt", "c.pt"]}},
    "two axes": {"grid": {"source_net": ["a.pt", "b.pt", "c.pt"], "density": [0.5, 0.2]}},
    "condition": {
        "grid": {
            "density": [0.5, 0.2],
            "source_net": {"values": ["a.pt", "b.pt", "c.pt"], "when": {"density": 0.2}},
        }
    },
    "cases": {
        "grid": {"density": [0.5], "source_net": ["a.pt", "b.pt", "c.pt"]},
        "cases": {"last": {"when": {"source_net": "c.pt"}, "trial": {"finetune": {"epochs": 1}}}},
    },
    "search": {
        "grid": {"density": [0.5], "source_net": ["a.pt", "b.pt", "c.pt"]},
        "search": {"finetune.lr": {"uniform": [0.1, 0.2]}},
        "samples": 2,
    },
    "one file": {"grid": {"density": [0.5], "source_net": ["a.pt", "./a.pt"]}},
}


@pytest.mark.parametrize("given", EQUAL_FILES)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_grid_values_of_equal_content_are_refused(
    given: str, dry: list[str], here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    weights(here / "a.pt")
    weights(here / "b.pt", seed=1)
    shutil.copy(here / "a.pt", here / "c.pt")
    write_space(here, **EQUAL_FILES[given])
    other = "./a.pt" if given == "one file" else "c.pt"
    wrong(capsys, [*SPACE, *dry], f"grid.source_net has 'a.pt' and '{other}'", "have the same content", "leave one out")
    assert ran == []
    assert not (here / "results").exists()


def test_a_space_reads_a_file_once_and_keeps_to_its_content(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights(here / "net.pt")
    read: list[object] = []
    digest = named_files.digest_of_file
    monkeypatch.setattr(named_files, "digest_of_file", lambda where, what: read.append(where) or digest(where, what))
    space = make_space(trial={**TRIAL, "source_net": "net.pt"}, grid={"density": [0.5, 0.2], "seed": list(range(20))})
    ids = [space.config(cell).id for cell in space.cells()]
    assert read == [here / "net.pt"]
    weights(here / "net.pt", seed=1)
    searching = make_space(
        trial={**TRIAL, "source_net": "net.pt"}, search={"finetune.lr": {"uniform": [0.1, 0.2]}}, samples=2
    )
    cell = searching.cells()[0]
    before = searching.config(cell, {"finetune.lr": 0.15}).id
    weights(here / "net.pt", seed=2)
    assert searching.config(cell, {"finetune.lr": 0.15}).id == before
    other = make_space(trial={**TRIAL, "source_net": "net.pt"}, grid={"density": [0.5, 0.2], "seed": list(range(20))})
    assert not {other.config(cell).id for cell in other.cells()} & set(ids)


@pytest.mark.parametrize("written", ["moved.pt", "./net.pt", "absolute"])
def test_a_moved_file_of_a_grid_is_put_where_it_was(
    written: str, here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    weights(here / "net.pt")
    write_space(here, grid={"density": [0.5], "source_net": ["net.pt"]})
    assert sweep() == COMPLETE
    before = [record.id for record in SweepFolder(here / "results" / "small").records()]
    if written == "moved.pt":
        shutil.move(here / "net.pt", here / "moved.pt")
    now = str(here / "net.pt") if written == "absolute" else written
    write_space(here, grid={"density": [0.5], "source_net": [now]})
    wrong(
        capsys, SPACE, "grid.source_net lacks net.pt", "cells are named by the paths as given", "links to them, there"
    )
    if written == "moved.pt":
        (here / "net.pt").symlink_to(here / "moved.pt")
    write_space(here, grid={"density": [0.5, 0.2], "source_net": ["net.pt"]})
    assert sweep() == COMPLETE
    after = [record.id for record in SweepFolder(here / "results" / "small").records()]
    assert len(after) == 2
    assert set(before) < set(after)


@pytest.mark.parametrize("given", ["trial", "grid", "search"])
@pytest.mark.parametrize("change", ["none", "moved", "overwritten"])
def test_an_earlier_sweep_is_of_the_same_question_by_content(given: str, change: str, here: Path) -> None:
    weights(here / "net.pt")
    weights(here / "other.pt", seed=1)
    search: dict[str, Any] = {"finetune.lr": {"loguniform": [1e-3, 1.0]}, "finetune.momentum": {"uniform": [0.0, 0.9]}}
    trial, grid = dict(TRIAL), {"density": [0.5]}
    if given == "trial":
        trial["source_net"] = "net.pt"
    elif given == "grid":
        grid["source_net"] = ["net.pt"]  # type: ignore[list-item]
    else:
        search["source_net"] = {"choice": ["net.pt", "other.pt"]}
    run_space(make_space(trial=trial, grid=grid, search=search, samples=4, sampler="random"), here / "earlier")
    if change == "overwritten":
        weights(here / "net.pt", seed=5)
        weights(here / "other.pt", seed=6)
    elif change == "moved" and given == "trial":
        shutil.move(here / "net.pt", here / "moved.pt")
        trial["source_net"] = "moved.pt"
    later = make_space(trial=trial, grid=grid, search=search, samples=2, sampler="tpe", from_sweep="earlier", seed=1)
    (warm,) = warm_start(later, SweepFolder(here / "later")).values()
    assert len(warm.observations) == (0 if change == "overwritten" else 4)
