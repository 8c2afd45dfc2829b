"""No point of a finite search uses up two samples, whatever suggests them, and a rebuilt study goes on alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.search.cells.study import CellStudy
from sweeper.search.outcomes import FAILED
from sweeper.space.checks import check_space
from sweeper.space.finite import key_of
from sweeper.space.load import from_document
from sweeper.space.options.samplers import SAMPLERS
from tests.sweeper.search.test_study import History, complete, read_back
from tests.sweeper.sweeps import asked, begun, make_space, run_out, trials_of

CHOICES = {
    "finetune.momentum": {"choice": [0.0, 0.5, 0.9]},
    "finetune.batch_size": {"int": [16, 19]},
}
FEW = {"finetune.momentum": {"choice": [0.0, 0.5, 0.9]}}
INTEGERS = {"finetune.batch_size": {"int": [16, 19]}, "pretrain.warmup_epochs": {"int": [0, 2]}}
OPTIONS: dict[str, dict[str, Any]] = {
    "cmaes": {"popsize": 4},
    "gp": {"n_startup_trials": 2},
    "nsga2": {"population_size": 3},
    "nsga3": {"population_size": 3},
}


def space_of(sampler: str, samples: int = 20, **fields: Any) -> Any:
    search = {"cmaes": INTEGERS, "gp": FEW}.get(sampler, CHOICES)  # a suggestion takes gp seconds
    options = {"name": sampler, **OPTIONS.get(sampler, {})}
    samples = 12 if sampler == "grid" else samples
    return make_space(**{"search": search, "sampler": options, "samples": samples, **fields})


def points(history: History) -> list[Any]:
    return [key_of(sample.params) for sample in history.samples]


class Rising(History):
    """Tells the values of few parameters, so that samplers come back to the best points; every fifth trial fails."""

    def answer(self, number: int) -> None:
        params = self.samples[number].params
        outcome = complete(float(params.get("finetune.batch_size") == 17) + sum(map(float, params.values())) / 100)
        self.tell(number, outcome if number % 5 != 3 else FAILED)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_asks_every_point_once_and_a_rebuilt_study_goes_on_alike(sampler: str) -> None:
    history, size = Rising(space_of(sampler)), 3 if sampler == "gp" else 12
    while history.study.wants or len(history.told) < len(history.samples):
        running = len(history.samples) - len(history.told)
        if running < 3 and history.study.wants:
            rebuilt = history.rebuilt()
            assert rebuilt.total == history.study.total == size
            assert trials_of(rebuilt) == trials_of(history.study)
            assert rebuilt._study_attrs() == history.study._study_attrs()
            assert history.ask() == rebuilt.ask()
        else:
            history.answer(len(history.told))
    assert len(history.samples) == len(set(points(history))) == size
    shorter = history.rebuilt().shorter
    if sampler == "grid":
        assert shorter is None
    else:
        assert shorter is not None
        assert (shorter.samples, shorter.over, shorter.why) == (size, True, "its search has no more points")
    assert not history.rebuilt().wants


def test_what_is_no_repeat_is_suggested_as_without_the_option() -> None:
    same = 0
    for seed in range(5):
        ours, before = (Rising(space_of("tpe", seed=seed, ask_again=n)) for n in (10, 0))
        while len(set(points(before))) == len(before.samples):
            assert ours.samples == before.samples
            same += len(ours.samples)
            ours.ask()
            before.ask()
    assert same > 5


def test_without_the_option_points_repeat_and_use_up_the_samples() -> None:
    history = Rising(space_of("random", ask_again=0))
    for _ in history.run(20):
        pass
    assert len(set(points(history))) < 12
    assert history.study.shorter is None


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_a_sequence_goes_on_where_repeats_were_passed_over(sampler: str) -> None:
    """A try may leave its mark on the study, such as the place in a sequence: it is committed with the sample."""
    history = Rising(space_of(sampler, samples=11))
    for _ in history.run(11):
        rebuilt = history.rebuilt()
        assert rebuilt._study_attrs() == history.study._study_attrs()
    assert len(set(points(history))) == 11


def test_a_search_of_numbers_is_asked_again_where_the_space_says_so() -> None:
    study = CellStudy(space_of("random", search={"finetune.lr": {"uniform": [0.1, 0.2]}}), make_space().cells()[0])
    assert (study._points.tries, study._points.left, study.total) == (0, None, 20)
    asking = space_of("random", search={"finetune.lr": {"uniform": [0.1, 0.2]}}, ask_again=3)
    assert CellStudy(asking, asking.cells()[0])._points.tries == 3
    huge = space_of("random", search={"finetune.batch_size": {"int": [1, 20_000]}})
    assert CellStudy(huge, huge.cells()[0])._points.tries == 0


def test_points_of_the_space_and_of_the_sampler_do_not_repeat_each_other() -> None:
    first = {"finetune.momentum": 0.9, "finetune.batch_size": 16}
    enqueue = [first, dict(first), {"finetune.momentum": 0.9}, {"finetune.batch_size": 19}]
    history = Rising(space_of("tpe", enqueue=enqueue))
    while history.study.wants:
        rebuilt = history.rebuilt()
        assert history.ask() == rebuilt.ask()
        history.answer(len(history.told))
    assert history.samples[0].params == first
    assert history.samples[2].params["finetune.momentum"] == 0.9
    assert history.samples[3].params["finetune.batch_size"] == 19
    assert len(set(points(history))) == len(history.samples) == 12


def test_points_that_the_space_tries_first_are_not_asked_by_the_grid_again() -> None:
    enqueue = [{"finetune.momentum": 0.5, "finetune.batch_size": 18}]
    one = make_space(search=CHOICES, sampler="grid", enqueue=enqueue)
    assert one.samples == 13
    history = Rising(one)
    while history.study.wants:
        history.ask()
        history.answer(len(history.told))
    assert len(set(points(history))) == len(history.samples) == 12


def test_hyperparameters_that_are_not_searched_everywhere_make_fewer_points() -> None:
    search = {
        "score": {"choice": ["magnitude", "random"]},
        "finetune.momentum": {"choice": [0.0, 0.5, 0.9], "when": {"score": "magnitude"}},
    }
    for sampler in ("grid", "tpe"):
        history = Rising(make_space(search=search, sampler=sampler, samples=6))
        history.answer = lambda number, of=history: of.tell(number, complete(0.1 * number))  # type: ignore[method-assign]
        while history.study.wants:
            rebuilt = history.rebuilt()
            assert history.ask() == rebuilt.ask()
            history.answer(len(history.told))
        assert len(set(points(history))) == len(history.samples) == 4


def test_a_cell_with_a_repeat_of_an_older_version_has_one_point_more() -> None:
    history = Rising(space_of("random", ask_again=0, samples=30))
    for _ in history.run(13):
        pass
    different = len(set(points(history)))
    assert different < 12
    study = CellStudy(space_of("random", samples=30), history.cell)
    for sample in history.samples:
        study.replay(read_back(sample), history.told[sample.number])
    assert study.total == 13 + 12 - different


def test_a_sweep_ends_when_its_points_are_used_up_and_says_so(tmp_path: Path) -> None:
    space = make_space(search={"finetune.momentum": {"choice": [0.0, 0.9]}}, samples=5, sampler="tpe")
    plan = begun(space, tmp_path)
    assert plan.totals == {"density=0.5": 2, "density=0.2": 2}
    assert len(run_out(plan, lambda config: config["finetune"]["momentum"])) == 4
    assert list(plan.shorter.notes) == [
        f"density={d}: ended after 2 samples: its search has no more points" for d in (0.5, 0.2)
    ]
    assert set(asked(plan.folder)) == {(f"density={d}", n) for d in (0.5, 0.2) for n in range(2)}
    again = begun(space, tmp_path)
    assert again.complete
    assert again.totals == plan.totals


@pytest.mark.parametrize(("field", "value"), [("ask_again", 3), ("stop_at", 0.5)])
def test_the_options_are_written_only_if_they_are_set(field: str, value: Any) -> None:
    plain = space_of("tpe")
    assert field not in plain.document()
    given = space_of("tpe", **{field: value})
    assert given.document()[field] == value
    again = from_document(given.document())
    check_space(again)
    assert again == given
