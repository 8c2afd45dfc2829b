"""Which spaces are populations, and how invalid ones are refused."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.space.compatibility import contradictions
from sweeper.space.load import from_document
from sweeper.space.space import Space
from tests.sweeper.populations import PBT, SEARCH, TRIAL, population
from tests.sweeper.sweeps import make_space
from trials.errors import UserError

GREG = {"method": "greg1", "dataset": "digits", "model": "tiny", "stage_pr": {"1": 0.5}}


def space_of(**fields: Any) -> Space:
    return make_space(**{"trial": TRIAL, "search": SEARCH, "pbt": PBT, **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pbt": {**PBT, "population": 1}}, "pbt.population is 1, but must be greater than or equal to 2"),
        ({"pbt": {**PBT, "quantile": 0.6}}, "pbt.quantile is 0.6, but must be less than or equal to 0.5"),
        ({"pbt": {**PBT, "perturb": [0.8, 1]}}, "pbt.perturb has 1, but must be factors above 0 that change a number"),
        ({"pbt": {"population": 4, "interval": 2}}, "pbt.generations is missing: add it"),
        ({"pbt": {**PBT, "generation": 3}}, "pbt: key is 'generation', but must be one of: generations, interval"),
        ({"pbt": 8}, "pbt is 8, but must be a mapping of keys to values"),
        ({"samples": 5}, "samples is 5, but pbt has 4 members x 3 generations = 12 trials per cell: leave samples out"),
        ({"search": {}}, "search is empty, but pbt needs hyperparameters to change: add some, or remove pbt"),
        ({"sampler": "random"}, "sampler is 'random', but pbt chooses values itself: remove one of them"),
        (
            {"objectives": [{"column": c, "direction": "minimize"} for c in ("flops", "val_loss")]},
            "pbt ranks its members by one objective, but there are 2: keep one, and bound the others by constraints",
        ),
        ({"pruner": "median"}, "pruner is 'median', but pbt replaces the worst itself: remove one of them"),
        ({"from_sweep": "earlier"}, "from_sweep is 'earlier', but pbt draws its first members: remove one of them"),
        ({"enqueue": [{"finetune.lr": 0.1}]}, "enqueue has 1 points, but pbt draws its first members: remove one of"),
        (
            {"search": {**SEARCH, "finetune.lr": {"loguniform": [1e-3, 1.0], "when": {"density": 0.5}}}},
            "search.finetune.lr has a condition, but pbt gives every member a value: remove when",
        ),
        (
            {"trial": GREG, "search": {"prune.lr": {"uniform": [0.1, 0.2]}}, "grid": {}},
            "search has prune.lr, which is fixed once a trial of greg1 has begun: none of its hyperparameters may",
        ),
        (
            {"pbt": {**PBT, "generations": 4}},
            "pbt has 4 generations of 2 epochs, but stage finetune has only 6: give fewer, shorter ones, or more "
            "epochs (the trials at density=0.5)",
        ),
        (
            {"search": {"finetune.epochs": {"int": [6, 9]}}},
            "search has finetune.epochs, which is fixed once a trial of one_shot has begun: only finetune.batch_size, "
            "finetune.lr, finetune.momentum, finetune.schedule, finetune.weight_decay may change",
        ),
        (
            {"search": {"score": {"choice": ["magnitude", "random"]}}},
            "search has score, which is fixed once a trial of one_shot has begun",
        ),
        ({"trial": {**TRIAL, "until_epoch": 3}}, "until_epoch is set in trial, cases or grid, but pbt sets it"),
        ({"grid": {"until_epoch": [1, 2]}}, "until_epoch is set in trial, cases or grid, but pbt sets it"),
        (
            {"cases": {"short": {"when": {"density": 0.5}, "trial": {"until_epoch": 3}}}},
            "until_epoch is set in trial, cases or grid, but pbt sets it",
        ),
        (
            {"trial": {"method": "imp", "dataset": "digits", "model": "tiny"}, "grid": {"prune_fraction": [0.2, 0.5]}},
            "search has finetune.lr, which is fixed once a trial of imp has begun: none of its hyperparameters may",
        ),
    ],
)
def test_invalid_populations_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        space_of(**fields)
    assert str(error.value).startswith(said)


def test_a_space_comes_back_from_its_document() -> None:
    space = population()
    assert space.samples == 12
    assert from_document(space.document()) == space


def test_only_generations_may_be_added() -> None:
    assert contradictions(population(pbt={"generations": 2}), population()) == []
    assert contradictions(population(), population(pbt={"generations": 2})) == [
        "samples is 8, but the sweep was begun with 12"
    ]
    other = population(pbt={"population": 6, "perturb": [0.5, 2.0]})
    assert contradictions(population(), other) == [
        "pbt.population is 6, but the sweep was begun with 4",
        "pbt.perturb is (0.5, 2.0), but the sweep was begun with (0.8, 1.2)",
    ]
    plain = make_space(trial=TRIAL, search=SEARCH, samples=12)
    assert contradictions(population(), plain) == ["pbt is missing, but the sweep was begun with it"]
    assert contradictions(plain, population()) == ["pbt is there, but the sweep was begun without it"]
