"""More samples go on with a search as it was begun: what depends on their number is fixed by the first document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import BaseSampler, RandomSampler

from sweeper.folder.first_document import first_samples
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.cells.study import CellStudy
from sweeper.search.plan import Plan
from sweeper.space.options.sampler import Question, Sampler
from sweeper.space.options.samplers import SAMPLERS, Gp, Tpe
from sweeper.space.space import Space
from tests.sweeper.sweeps import run_out, searching
from trials.errors import UserError

GRID = {"density": [0.5]}


def study_of(plan: Plan) -> CellStudy:
    (search,) = plan._searches.values()
    assert isinstance(search, CellStudy)
    return search


def startup_of(plan: Plan) -> int:
    return int(study_of(plan)._sampler(50)._n_startup_trials)  # type: ignore[attr-defined]


def documented(path: Path, *spaces: Space) -> SweepFolder:
    folder = SweepFolder(path)
    for space in spaces:
        folder.append({"space": space.document()})
    return folder


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_random_start_is_that_of_the_first_document(tmp_path: Path, sampler: str) -> None:
    short, long = (searching(sampler, samples, grid=GRID) for samples in (6, 60))
    assert startup_of(Plan(short, documented(tmp_path / "begun", short))) == 2
    assert startup_of(Plan(long, documented(tmp_path / "extended", short, long))) == 2
    assert startup_of(Plan(long, documented(tmp_path / "long", long))) == 10
    assert startup_of(Plan(long, SweepFolder(tmp_path / "without"))) == 10
    given = searching({"name": sampler, "n_startup_trials": 7}, 60, grid=GRID)  # type: ignore[arg-type]
    assert startup_of(Plan(given, documented(tmp_path / "given", short, given))) == 7


def test_a_new_cell_of_an_extended_sweep_begins_as_the_others_did(tmp_path: Path) -> None:
    short, long = searching("tpe", 6, grid=GRID), searching("tpe", 60, grid={"density": [0.5, 0.2]})
    plan = Plan(long, documented(tmp_path, short, long))
    assert {search._sampler(50)._n_startup_trials for search in plan._searches.values()} == {2}  # type: ignore[union-attr,attr-defined]


def test_an_extended_search_suggests_what_it_has_learned(tmp_path: Path) -> None:
    """Right after an extension, suggestions come from the model of the study, not from random draws."""
    short, long = (searching("tpe", samples, grid=GRID) for samples in (6, 40))
    folder = documented(tmp_path / "sweep", short)
    run_out(Plan(short, folder))
    folder.append({"space": long.document()})
    random = searching({"name": "tpe", "n_startup_trials": 10}, 40, grid=GRID)  # type: ignore[arg-type]
    learned, drawn = (study_of(Plan(space, folder)).ask().params for space in (long, random))
    assert learned != drawn
    fixed = searching({"name": "tpe", "n_startup_trials": 2}, 40, grid=GRID)  # type: ignore[arg-type]
    assert learned == study_of(Plan(fixed, folder)).ask().params


def test_what_any_sampler_is_told_of_samples_does_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    class Counting(Sampler):
        name: str = "counting"

        def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
            told.append(question.samples)
            return RandomSampler(seed=seed)

    monkeypatch.setitem(SAMPLERS, "counting", Counting)
    short, long = searching("counting", 4, grid=GRID), searching("counting", 9, grid=GRID)
    folder = documented(tmp_path, short)
    run_out(Plan(short, folder))
    folder.append({"space": long.document()})
    run_out(Plan(long, folder))
    assert set(told) == {4}


def test_built_in_samplers_take_numbers_of_samples_from_the_question_only() -> None:
    for sampler in (Tpe(), Gp()):
        one, other = (sampler.make(Question({}, samples), 0, 0) for samples in (3, 300))
        assert (one._n_startup_trials, other._n_startup_trials) == (1, 10)  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", [{}, {"space": None}, {"space": {}}, {"space": {"samples": "8"}}])
def test_a_first_document_that_does_not_say_it_leaves_the_number_to_the_space(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    folder = SweepFolder(tmp_path)
    folder.append({"schema": 1, **content})
    assert first_samples(folder) is None


def test_a_damaged_document_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("a: [")
    with pytest.raises(UserError, match="damaged"):
        first_samples(SweepFolder(tmp_path))
