"""Distributions of a space become Optuna's; and their corners."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from sweeper.space.distributions import MOST_CORNERS, corners, read_distribution


@pytest.mark.parametrize(
    ("content", "edges", "distribution"),
    [
        ({"uniform": [1, 2]}, (1.0, 2.0), optuna.distributions.FloatDistribution(1, 2)),
        ({"loguniform": [1e-6, 1]}, (1e-6, 1.0), optuna.distributions.FloatDistribution(1e-6, 1, log=True)),
        ({"int": [1, 9]}, (1, 9), optuna.distributions.IntDistribution(1, 9)),
        ({"int": [1, 9], "log": True}, (1, 9), optuna.distributions.IntDistribution(1, 9, log=True)),
        ({"choice": ["a", None, 3]}, ("a", None, 3), optuna.distributions.CategoricalDistribution(("a", None, 3))),
    ],
)
def test_distributions_are_optunas(content: dict[str, Any], edges: tuple[Any, ...], distribution: Any) -> None:
    mine = read_distribution(content, "search.x")
    assert mine.edges() == edges
    assert mine.optuna_distribution() == distribution
    assert read_distribution(mine.document(), "search.x") == mine
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        value = mine.suggest(trial, "x")
        assert trial.distributions == {"x": distribution}
        assert value in edges if "choice" in content else edges[0] <= value <= edges[1]
        assert isinstance(value, int) == ("int" in content) or "choice" in content


def test_corners_are_all_combinations_while_these_are_few() -> None:
    two = {path: read_distribution({"uniform": [0, 1]}, path) for path in ("a", "b")}
    assert corners(two) == [{"a": a, "b": b} for a in (0, 1) for b in (0, 1)]
    assert corners({}) == [{}]
    many = {f"x{i}": read_distribution({"uniform": [0, 1]}, "x") for i in range(30)}
    points = corners(many)
    assert len(points) == 60 <= MOST_CORNERS
    assert all({point[path] for point in points} == {0, 1} for path in many)
