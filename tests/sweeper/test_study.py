"""A study that is rebuilt from committed samples thinks like the one that lived."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from sweeper.ledger import Sample
from sweeper.space import Space
from sweeper.study import SAMPLERS, CellStudy, objective_of
from tests.sweeper.sweeps import make_space

SEARCH = {
    "finetune.lr": {"loguniform": [1e-3, 1.0]},
    "finetune.momentum": {"uniform": [0.0, 0.95]},
    "finetune.batch_size": {"int": [16, 256], "log": True},
    "finetune.schedule": {"choice": ["cosine", "constant"]},
    "pretrain.warmup_epochs": {"int": [0, 5]},
}


def space(sampler: str = "tpe", samples: int = 30, **fields: Any) -> Space:
    return make_space(search=SEARCH, sampler=sampler, samples=samples, **fields)


def value_of(params: dict[str, Any]) -> float:
    return -abs(math.log(params["finetune.lr"] / 0.1)) - abs(params["finetune.momentum"] - 0.6)


def read_back(sample: Sample) -> Sample:
    """As the ledger gives it to the next driver."""
    return Sample(**json.loads(json.dumps(asdict(sample))))


class History:
    """What a study was asked and told, as the records keep it."""

    def __init__(self, space: Space, cell: int = 0) -> None:
        self.space, self.cell = space, space.cells()[cell]
        self.study = CellStudy(space, self.cell)
        self.samples: list[Sample] = []
        self.told: dict[int, float | None] = {}

    def ask(self) -> Sample:
        sample = self.study.ask()
        self.samples.append(sample)
        return sample

    def tell(self, number: int, value: float | None) -> None:
        self.study.tell(self.samples[number], value)
        self.told[number] = value

    def rebuilt(self) -> CellStudy:
        study = CellStudy(self.space, self.cell)
        for sample in self.samples:
            value = self.told.get(sample.number)
            state = TrialState.COMPLETE if value is not None else TrialState.FAIL
            state = state if sample.number in self.told else TrialState.RUNNING
            study.replay(read_back(sample), state, value)
        return study

    def run(self, count: int, at_once: int = 3) -> Iterator[None]:
        """``count`` samples, some running, every seventh failing; yields after each question and answer."""
        while len(self.samples) < count or len(self.told) < len(self.samples):
            running = len(self.samples) - len(self.told)
            if running < at_once and len(self.samples) < count:
                self.ask()
            else:
                number = len(self.told)
                value = None if number % 7 == 3 else value_of(self.samples[number].params)
                self.tell(number, value)
            yield


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_rebuilt_study_asks_what_the_one_that_lived_asks(sampler: str, direction: str) -> None:
    history = History(space(sampler, samples=24, direction=direction))
    for _ in history.run(24):
        rebuilt = history.rebuilt()
        assert rebuilt.count == history.study.count
        if rebuilt.count < 24:
            expected = rebuilt.ask()
            before = len(history.samples)
            again = history.rebuilt().ask()
            assert again == expected
            if len(history.samples) - len(history.told) < 3:
                assert history.ask() == expected
                assert len(history.samples) == before + 1


def test_a_rebuilt_study_goes_on_by_itself_as_the_one_that_lived() -> None:
    history = History(space())
    for _ in history.run(14):
        pass
    running = history.ask()
    rebuilt = history.rebuilt()
    for study in (history.study, rebuilt):  # what ran when the driver died ends under the next one
        study.tell(running, value_of(running.params))
    for _ in range(5):
        ours, theirs = history.study.ask(), rebuilt.ask()
        assert theirs == ours
        for study in (history.study, rebuilt):
            study.tell(ours, value_of(ours.params))


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


@pytest.mark.parametrize("sampler", SAMPLERS)
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


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_is_suggested_again_after_any_resume(sampler: str) -> None:
    history = History(space(sampler))
    for _ in range(30):
        history.study = history.rebuilt()
        sample = history.ask()
        history.tell(sample.number, value_of(sample.params))
    assert len({sample.params["finetune.lr"] for sample in history.samples}) == 30


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_direction_is_followed(direction: str) -> None:
    one = space("tpe", samples=40, direction=direction)
    sign = 1 if direction == "maximize" else -1
    study = CellStudy(one, one.cells()[0])
    reached = []
    for _ in range(40):
        sample = study.ask()
        study.tell(sample, sign * value_of(sample.params))
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


def test_what_is_told_twice_counts_once() -> None:
    history = History(space("random"))
    sample = history.ask()
    history.tell(0, -1.0)
    history.study.tell(sample, -2.0)
    assert history.study.study.trials[0].value == -1.0


def test_a_failed_trial_has_no_value() -> None:
    history = History(space("tpe"))
    history.ask()
    history.tell(0, None)
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
    assert objective_of(space(), result) == value


def test_without_search_there_is_no_study() -> None:
    one = make_space()
    study = CellStudy(one, one.cells()[0])
    sample = study.ask()
    assert (sample.number, sample.params, sample.attrs) == (0, {}, {})
    assert study.count == 1
    study.tell(sample, 0.5)
    study.replay(sample, TrialState.COMPLETE, 0.5)
    assert study._study is None
    assert study.count == 1


def test_a_lost_number_is_asked_before_new_ones() -> None:
    history = History(space("random"))
    samples = [history.ask() for _ in range(5)]
    history.samples = [sample for sample in samples if sample.number not in (1, 3)]
    rebuilt = history.rebuilt()
    assert rebuilt.count == 3
    assert [rebuilt.ask() for _ in range(3)] == [samples[1], samples[3], history.ask()]


def test_two_thousand_samples_are_replayed_with_one_look_each(monkeypatch: pytest.MonkeyPatch) -> None:
    one = space("random", samples=2_001)
    study = CellStudy(one, one.cells()[0])
    samples = [Sample("density=0.5", n, {}, {}, {}) for n in range(2_000)]
    params = CellStudy(one, one.cells()[0]).ask().params
    looks = 0
    get_trials = optuna.study.Study.get_trials

    def counted(self: optuna.Study, *arguments: Any, **options: Any) -> Any:
        nonlocal looks
        looks += 1
        assert options.get("deepcopy") is False or arguments == (False,)
        return get_trials(self, *arguments, **options)

    monkeypatch.setattr(optuna.study.Study, "get_trials", counted)
    for sample in samples:
        study.replay(Sample("density=0.5", sample.number, {}, params, {}), TrialState.COMPLETE, 0.5)
    assert looks <= 2_000
    assert study.ask().number == 2_000
