"""check_score, check_distribution and check_pattern let this package's own pass, and catch what is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trials.extend import DISTRIBUTIONS, PATTERNS, SCORES, Layer, Pattern, Pool, Score, apportioned, nearest_count
from trials.testing import check_distribution, check_pattern, check_score


@pytest.mark.parametrize("name", SCORES)
def test_scores_of_this_package_pass(name: str) -> None:
    check_score(name)
    check_score(SCORES[name])


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_of_this_package_pass(name: str) -> None:
    check_distribution(name)


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_of_this_package_pass(name: str) -> None:
    check_pattern(name)


def test_a_function_is_a_score() -> None:
    check_score(lambda weights, generator: {name: weight.detach().square() for name, weight in weights.items()})


def _doubled(weights: Any, generator: Any) -> Any:
    for weight in weights.values():
        weight.mul_(2)
    return dict(weights)


SCORES_BROKEN: dict[str, tuple[Any, str]] = {
    "of another shape": (lambda weights, generator: {n: w.mean() for n, w in weights.items()}, "of its shape"),
    "of some weights": (lambda weights, generator: {"stem.weight": weights["stem.weight"]}, "must score every weight"),
    "not finite": (lambda weights, generator: {n: w.log() for n, w in weights.items()}, "finite floating-point scores"),
    "of integers": (lambda weights, generator: {n: w.long() for n, w in weights.items()}, "floating-point"),
    "drawn elsewhere": (
        lambda weights, generator: {n: torch.rand_like(w) for n, w in weights.items()},
        "from the generator that it is given",
    ),
    "changes weights": (_doubled, "must not change the weights"),
    "by memory": (
        lambda weights, generator: {
            n: torch.empty_like(w)
            .as_strided((w.numel(),), (1,))
            .copy_(torch.arange(w.numel()))
            .as_strided(w.shape, w.stride())
            for n, w in weights.items()
        },
        "memory format channels_last",
    ),
    "no score": (3, "must be usable by its name"),
    "units of another shape": (
        Score(SCORES["magnitude"].of_weights, lambda w, p, g, left: {n: x.abs() for n, x in w.items()}),
        "must rank the units of pattern",
    ),
}


@pytest.mark.parametrize("case", SCORES_BROKEN)
def test_a_broken_score_is_caught(case: str) -> None:
    score, sentence = SCORES_BROKEN[case]
    with pytest.raises(AssertionError, match=sentence):
        check_score(score)


def by_size(layers: Any, density: Any, count: Any) -> list[Pool]:
    """A sound one: more of small layers."""
    keep = nearest_count(density, sum(layer.units for layer in layers))
    from fractions import Fraction

    shares = [Fraction(keep * layer.units, sum(other.units for other in layers)) for layer in layers]
    return [Pool((i,), kept) for i, kept in enumerate(apportioned(shares, layers, keep))]


def test_a_sound_distribution_passes() -> None:
    check_distribution(by_size)


def _rounded(layers: Any, density: Any, count: Any) -> list[Pool]:
    return [Pool((i,), round(float(density) * layer.units)) for i, layer in enumerate(layers)]


def _refuses(layers: Any, density: Any, count: Any) -> list[Pool]:
    raise ValueError("no")


DISTRIBUTIONS_BROKEN: dict[Callable[..., Any], str] = {
    _rounded: "must keep exactly nearest_count",
    _refuses: "must divide some of the densities",
    lambda layers, density, count: [Pool((0,), 1)]: "must put every layer into one pool",
    lambda layers, density, count: [Pool(tuple(range(len(layers))), 10**6)]: "a whole number of a pool's",
}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS_BROKEN)
def test_a_broken_distribution_is_caught(distribution: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match=DISTRIBUTIONS_BROKEN[distribution]):
        check_distribution(distribution)


PATTERNS_BROKEN: dict[str, tuple[Pattern, str]] = {
    "reduces other dimensions": (
        Pattern("rows", lambda score: score.sum((2, 3), keepdim=True), linear=False, inside=(1, 2, 3)),
        "must give stem.weight unit scores of shape",
    ),
    "chooses another share": (
        Pattern("half", lambda score: score, linear=True, choose=lambda s: s >= s.median(), density=0.25),
        "the share of units that its density says",
    ),
    "prunes nothing": (
        Pattern("wide", lambda score: score, linear=True, multiple=4096),
        "must prune a layer of",
    ),
}


@pytest.mark.parametrize("case", PATTERNS_BROKEN)
def test_a_broken_pattern_is_caught(case: str) -> None:
    pattern, sentence = PATTERNS_BROKEN[case]
    with pytest.raises(AssertionError, match=sentence):
        check_pattern(pattern)


def test_a_layer_is_what_a_distribution_gets() -> None:
    assert Layer(3, 4, (2, 2)).most == 3
