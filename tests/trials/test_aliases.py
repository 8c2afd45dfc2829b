"""Names that people type who come from elsewhere: every suggestion exists, and is made where the name is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from sweeper.columns import COLUMNS
from sweeper.options import read_options
from sweeper.space.distributions import DISTRIBUTION_KINDS
from sweeper.space.grid.conditions import CONDITION_KEYS
from sweeper.space.load import from_document
from sweeper.space.options.pruners import PRUNERS
from sweeper.space.options.samplers import SAMPLERS
from sweeper.space.space import Space
from tests.sweeper.space_files import refusal
from trials.aliases import ALIASES, EXPLAINED, NOT_HERE, ONLY_NEAR, named_here
from trials.config.schedules import SCHEDULES
from trials.data import DATASETS
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES


def fields_of(model: type[BaseModel]) -> set[str]:
    inside = [
        part for f in model.model_fields.values() for part in (f.annotation, *getattr(f.annotation, "__args__", ()))
    ]
    nested = [part for part in inside if isinstance(part, type) and issubclass(part, BaseModel) and part is not model]
    return set(model.model_fields).union(*(fields_of(part) for part in nested))


def known_names() -> set[str]:
    registries: list[Any] = [METHODS, MODELS, DATASETS, SCHEDULES, SCORES, DISTRIBUTIONS, PATTERNS, SAMPLERS, PRUNERS]
    fields = [fields_of(method.Config) for method in METHODS.values()]
    return {
        *(name for registry in registries for name in registry),
        *DISTRIBUTION_KINDS,
        *CONDITION_KEYS,
        *COLUMNS["trials"],
        *("maximize", "minimize", "objective", "direction"),
        *set().union(*fields, fields_of(Space)),
    }


def test_what_is_suggested_exists() -> None:
    known = known_names()
    assert {alias for names in ALIASES.values() for alias in names} - known == set()
    assert set(ONLY_NEAR) <= set(ALIASES)
    assert all(alias in ALIASES[name] for name, alias in EXPLAINED)
    assert not {name for name in NOT_HERE if name in known - {"taylor"}}


SPACE: dict[str, Any] = {
    "name": "s",
    "trial": {"method": "one_shot", "model": "tiny", "dataset": "digits", "density": 0.5},
}
SEARCHED = {"search": {"finetune.lr": {"uniform": [0.1, 0.2]}}, "samples": 4}

TYPED: dict[str, tuple[dict[str, Any], str]] = {
    "pruner": ({**SEARCHED, "pruner": "ASHA"}, "asha is called halving here"),
    "sampler": ({**SEARCHED, "sampler": "bayes"}, "bayes is called tpe or gp here"),
    "sampler with options": ({**SEARCHED, "sampler": {"name": "RandomSearch"}}, "random_search is called random here"),
    "search": ({"search": {"finetune.lr": {"log_uniform": [1, 2]}}, "samples": 2}, "log_uniform is called loguniform"),
    "section": ({"num_samples": 3}, "num_samples is called samples here"),
    "objective": ({"objective": "accuracy"}, "accuracy is called val_accuracy here"),
    "direction": ({"direction": "max"}, "max is called maximize here"),
    "resources": ({"resources": {"gpus": 1}}, "gpus is called gpu here"),
    "method": ({"trial": {**SPACE["trial"], "method": "lottery"}}, "lottery is called imp here"),
    "absent method": (
        {"trial": {**SPACE["trial"], "method": "RigL"}},
        "RigL is not built in, but docs/extending.md has it as a plug-in",
    ),
    "model": ({"trial": {**SPACE["trial"], "model": "resnet56"}}, "resnet56 is called resnet56s here"),
    "data set": ({"trial": {**SPACE["trial"], "dataset": "cifar"}}, "cifar is called cifar10 or cifar100 here"),
    "field": ({"trial": {**SPACE["trial"], "sparsity": 0.9}}, "sparsity 0.9 is density 0.1"),
    "nested field": (
        {"trial": {**SPACE["trial"], "finetune": {"learning_rate": 1}}},
        "learning_rate is called lr here",
    ),
    "field of the grid": ({"grid": {"finetune.wd": [0.1]}}, "wd is called weight_decay here"),
    "schedule": (
        {"trial": {**SPACE["trial"], "finetune": {"schedule": "CosineAnnealingLR"}}},
        "cosineannealinglr is called cosine here",
    ),
    "optimiser": ({"trial": {**SPACE["trial"], "optimizer": "adam"}}, "training is SGD with momentum"),
    "score": ({"trial": {**SPACE["trial"], "score": "l1_norm"}}, "l1_norm is called magnitude here"),
    "score by gradients": ({"trial": {**SPACE["trial"], "score": "taylor"}}, "layer_prune (score: taylor or gradient)"),
    "distribution": ({"trial": {**SPACE["trial"], "distribution": "layerwise"}}, "layerwise is called uniform here"),
    "pattern": ({"trial": {**SPACE["trial"], "pattern": "unstructured"}}, "unstructured is called weight here"),
    "choice": ({"trial": {**SPACE["trial"], "precision": "amp"}}, "must be 'auto', 'float32', 'float64' or 'bf16'"),
}


@pytest.mark.parametrize("kind", TYPED)
def test_names_of_other_libraries_are_told_what_they_are_called_here(kind: str) -> None:
    changes, said = TYPED[kind]

    def build() -> None:
        space = from_document({**SPACE, **changes})
        for cell in space.cells():
            space.config(cell)

    assert said in refusal(build)


def test_options_too() -> None:
    assert "num_samples is called samples here" in refusal(lambda: read_options(["--num-samples", "3"]))
    assert "did you mean 'resume'" in refusal(lambda: read_options(["--resumes"]))


def test_only_names_that_are_known_where_it_is_refused_are_suggested() -> None:
    assert named_here("sha", ["median"]) == ""
    assert named_here("pruning_ratio", ["stage_pr"]) == "pruning_ratio is called stage_pr here"
    assert named_here("half", ["precision"]) == "the nearest to half is precision: bf16 is its half precision"
    assert named_here("nothing of the kind", ["precision"]) == ""
