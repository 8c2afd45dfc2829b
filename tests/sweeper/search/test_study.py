"""A study rebuilt from committed samples suggests the same as the original study."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from sweeper.folder.sweep_folder import Sample
from sweeper.search.cells.study import CellStudy
from sweeper.search.outcomes import FAILED, RUNNING, Outcome, outcome_of
from sweeper.space.options.samplers import SAMPLERS
from sweeper.space.space import Space
from tests.sweeper.sweeps import ONE_SHOT, make_space, trials_of
from trials.storage.trial_folder import State

SEARCH = {
    "finetune.lr": {"loguniform": [1e-3, 1.0]},
    "finetune.momentum": {"uniform": [0.0, 0.95]},
    "finetune.batch_size": {"int": [16, 256], "log": True},
    "finetune.schedule": {"choice": ["cosine", "constant"]},
    "pretrain.warmup_epochs": {"int": [0, 5]},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "cmaes": {"popsize": 4},
    "gp": {"n_startup_trials": 4},
    "nsga2": {"population_size": 4},
    "nsga3": {"population_size": 4},
}
"""Options that shorten the random start of samplers, so that a short study gets beyond it."""

NAMES = sorted(SAMPLERS)


def space(sampler: str = "tpe", samples: int = 30, **fields: Any) -> Space:
    search = {path: d for path, d in SEARCH.items() if sampler != "cmaes" or "choice" not in d}
    if sampler == "gp":  # a suggestion takes it seconds
        search = dict(list(search.items())[1:3])
    options = {"name": sampler, **OPTIONS.get(sampler, {})}
    return make_space(search=search, sampler=options, samples=samples, **fields)


def complete(*values: float, **violations: float) -> Outcome:
    return Outcome(TrialState.COMPLETE, values, violations)


def value_of(params: dict[str, Any]) -> float:
    return -abs(math.log(params.get("finetune.lr", 1.0) / 0.1)) - abs(params["finetune.momentum"] - 0.6)


def cost_of(params: dict[str, Any]) -> float:
    return params["finetune.batch_size"] + 100 * params["finetune.momentum"]


def only_once(sampler: str) -> bool:
    """Whether the sampler never repeats a point; evolution may, and then the known result counts."""
    return not sampler.startswith("nsga")


def read_back(sample: Sample) -> Sample:
    """The sample as the next driver reads it from its record."""
    return Sample(**json.loads(json.dumps(asdict(sample))))


class History:
    """Asks and tells a study, and keeps samples and outcomes as records do."""

    def __init__(self, space: Space, cell: int = 0) -> None:
        self.space, self.cell = space, space.cells()[cell]
        self.study = CellStudy(space, self.cell)
        self.samples: list[Sample] = []
        self.told: dict[int, Outcome] = {}

    def ask(self) -> Sample:
        sample = self.study.ask()
        self.samples.append(sample)
        return sample

    def tell(self, number: int, outcome: Outcome) -> None:
        self.study.tell(self.samples[number], outcome)
        self.told[number] = outcome

    def answer(self, number: int) -> None:
        """Tell the sample's outcome: every seventh fails; with constraints every third is infeasible."""
        params = self.samples[number].params
        values = (value_of(params), cost_of(params))[: len(self.space.objectives)]
        violations = {c.key: 0.5 if number % 3 == 0 else -0.5 for c in self.space.constraints}
        self.tell(number, FAILED if number % 7 == 3 else Outcome(TrialState.COMPLETE, values, violations))

    def rebuilt(self) -> CellStudy:
        study = CellStudy(self.space, self.cell)
        for sample in self.samples:
            study.replay(read_back(sample), self.told.get(sample.number, RUNNING))
        return study

    def run(self, count: int, at_once: int = 3) -> Iterator[None]:
        """Run ``count`` samples, up to ``at_once`` at a time; yields after each sample asked and each outcome told."""
        while len(self.samples) < count or len(self.told) < len(self.samples):
            running = len(self.samples) - len(self.told)
            if running < at_once and len(self.samples) < count:
                self.ask()
            else:
                self.answer(len(self.told))
            yield


SEARCHES: dict[str, dict[str, Any]] = {
    **{name: {"sampler": name} for name in NAMES},
    "tpe minimize": {"sampler": "tpe", "direction": "minimize"},
    "cmaes minimize": {"sampler": "cmaes", "direction": "minimize"},
}
SEVERAL = [{"column": "val_accuracy", "direction": "maximize"}, {"column": "flops", "direction": "minimize"}]
for _name in ("gp", "nsga2", "nsga3", "tpe"):
    SEARCHES[f"{_name} of two"] = {"sampler": _name, "objectives": SEVERAL}
    SEARCHES[f"{_name} bounded"] = {"sampler": _name, "constraints": [{"column": "density", "at_most": 0.5}]}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_a_rebuilt_study_equals_the_original_and_continues_like_it(search: dict[str, Any]) -> None:
    samples = 6 if search["sampler"] == "gp" else 24
    history = History(space(samples=samples, **search))
    for _ in history.run(samples):
        rebuilt = history.rebuilt()
        assert trials_of(rebuilt) == trials_of(history.study)
        assert rebuilt._study_attrs() == history.study._study_attrs()
        if rebuilt.count < samples and len(history.samples) - len(history.told) < 3:
            assert history.ask() == rebuilt.ask()
    if only_once(search["sampler"]):
        assert len({tuple(sample.params.items()) for sample in history.samples}) == samples


def test_a_rebuilt_study_continues_alone_like_the_original() -> None:
    history = History(space())
    for _ in history.run(14):
        pass
    running = history.ask()
    rebuilt = history.rebuilt()
    for study in (history.study, rebuilt):  # a trial that ran when the driver died ends under the next driver
        study.tell(running, complete(value_of(running.params)))
    for _ in range(5):
        ours, theirs = history.study.ask(), rebuilt.ask()
        assert theirs == ours
        for study in (history.study, rebuilt):
            study.tell(ours, complete(value_of(ours.params)))


def test_running_trials_count() -> None:
    history = History(space())
    for _ in history.run(14):
        pass
    for _ in range(10):
        history.ask()
    with_them = history.rebuilt().ask()
    del history.samples[14:]
    without = history.rebuilt()
    without._asked.update(range(14, 24))
    assert without.ask().number == with_them.number == 24
    assert without.study.trials[-1].params != with_them.params


@pytest.mark.parametrize("sampler", sorted(set(NAMES) - {"grid", "qmc"}))
def test_suggestions_depend_on_seed_cell_and_number(sampler: str) -> None:
    def first(seed: int, cell: int, number: int) -> tuple[Any, ...]:
        one = space(sampler, seed=seed)
        study = CellStudy(one, one.cells()[cell])
        study._asked.update(range(number))
        sample = study.ask()
        assert (sample.cell, sample.number) == (one.cells()[cell].key, number)
        return tuple(sample.params.values())

    assert first(0, 0, 0) == first(0, 0, 0)
    assert len({first(seed, cell, number) for seed in (0, 1) for cell in (0, 1) for number in (0, 1, 2)}) == 12


@pytest.mark.parametrize("sampler", sorted(name for name in NAMES if name != "gp" and only_once(name)))
def test_nothing_is_suggested_again_after_any_resume(sampler: str) -> None:
    history = History(space(sampler))
    for _ in range(30):
        history.study = history.rebuilt()
        sample = history.ask()
        history.tell(sample.number, complete(value_of(sample.params)))
    assert len({tuple(sample.params.values()) for sample in history.samples}) == 30


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_direction_is_followed(direction: str) -> None:
    one = space("tpe", samples=40, direction=direction)
    sign = 1 if direction == "maximize" else -1
    study = CellStudy(one, one.cells()[0])
    reached = []
    for _ in range(40):
        sample = study.ask()
        study.tell(sample, complete(sign * value_of(sample.params)))
        reached.append(value_of(sample.params))
    assert sum(reached[20:]) > sum(reached[:20])
    assert study.study.best_value == sign * max(reached)


def test_every_kind_of_value_survives_the_record() -> None:
    history = History(space("random"))
    for _ in range(20):
        sample = history.ask()
        assert read_back(sample) == sample
        assert {type(value) for value in sample.params.values()} == {float, int, str}
        history.space.config(history.cell, sample.params)
    rebuilt = history.rebuilt().study
    assert [trial.params for trial in rebuilt.trials] == [sample.params for sample in history.samples]
    for ours, theirs in zip(history.study.study.trials, rebuilt.trials, strict=True):
        assert theirs.distributions == ours.distributions


def test_an_outcome_given_twice_counts_once() -> None:
    history = History(space("random"))
    sample = history.ask()
    history.tell(0, complete(-1.0))
    history.study.tell(sample, complete(-2.0))
    assert history.study.study.trials[0].value == -1.0


def test_a_failed_trial_has_no_value() -> None:
    history = History(space("tpe"))
    history.ask()
    history.tell(0, FAILED)
    assert history.study.study.trials[0].state == TrialState.FAIL
    assert history.rebuilt().study.trials[0].state == TrialState.FAIL


@pytest.mark.parametrize(
    ("result", "value"),
    [
        ({"val_accuracy": 0.5}, 0.5),
        ({"val_accuracy": 1}, 1.0),
        ({}, None),
        ({"test_accuracy": 0.5}, None),
        ({"val_accuracy": None}, None),
        ({"val_accuracy": math.nan}, None),
        ({"val_accuracy": math.inf}, None),
        ({"val_accuracy": "0.5"}, None),
    ],
)
def test_the_objective_of_a_result(result: dict[str, Any], value: float | None) -> None:
    one = space()
    outcome = outcome_of(one.objectives, one.constraints, {}, State(status="complete", result=result))
    assert outcome == (FAILED if value is None else complete(value))


def test_without_search_there_is_no_study() -> None:
    one = make_space()
    study = CellStudy(one, one.cells()[0])
    sample = study.ask()
    assert (sample.number, sample.params, sample.attrs) == (0, {}, {})
    assert study.count == 1
    study.tell(sample, complete(0.5))
    study.replay(sample, complete(0.5))
    assert study._study is None
    assert study.count == 1


def test_a_lost_number_is_asked_before_new_ones() -> None:
    history = History(space("random"))
    samples = [history.ask() for _ in range(5)]
    history.samples = [sample for sample in samples if sample.number not in (1, 3)]
    rebuilt = history.rebuilt()
    assert rebuilt.count == 3
    assert [rebuilt.ask() for _ in range(3)] == [samples[1], samples[3], history.ask()]


def test_thousands_of_samples_are_replayed_without_looking_at_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one = space("random", samples=2_001)
    params = CellStudy(one, one.cells()[0]).ask().params
    study = CellStudy(one, one.cells()[0])
    looks = 0

    def counted(*_: Any, **__: Any) -> Any:
        nonlocal looks
        looks += 1
        return []

    monkeypatch.setattr(optuna.storages.InMemoryStorage, "get_all_trials", counted)
    for number in range(2_000):
        study.replay(Sample("density=0.5", number, {}, params, {}), complete(0.5))
    assert looks == 0
    monkeypatch.undo()
    assert study.ask().number == 2_000
    assert len(study.study.trials) == 2_001


EXPERIMENTAL: dict[str, dict[str, Any]] = {
    "nsga3": {"sampler": "nsga3"},
    "qmc": {"sampler": "qmc"},
    "groups": {"sampler": {"name": "tpe", "multivariate": True, "group": True}},
    "patience": {"sampler": "random", "pruner": {"name": "patient", "patience": 1}},
}


@pytest.mark.parametrize("fields", EXPERIMENTAL.values(), ids=EXPERIMENTAL)
def test_experimental_parts_warn_unless_the_space_names_them(fields: dict[str, Any]) -> None:
    wanted = make_space(search=SEARCH, samples=60, trial={**ONE_SHOT, "finetune": {"epochs": 9}}, **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = CellStudy(wanted, wanted.cells()[0])
        assert study.ask().params
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        optuna.samplers.QMCSampler()
