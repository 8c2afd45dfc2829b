"""Values that a population draws and perturbs stay within their distribution."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sweeper.search.cells.perturbation import draw_value, perturb_value
from sweeper.space.distributions import Choice, Distribution, Int, Uniform
from tests.sweeper.populations import landscape, places, population
from tests.sweeper.sweeps import begun, run_out


@pytest.mark.parametrize(
    "distribution",
    [Uniform(-1.0, 2.0), Uniform(1e-6, 1e-2, log=True), Int(1, 9), Int(1, 1000, log=True), Choice((1, 2.5, "a", None))],
)
def test_values_stay_in_their_distribution(distribution: Distribution) -> None:
    draw, seen = random.Random(0), []
    value = draw_value(distribution, draw)
    for _ in range(500):
        seen.append(value)
        value = (
            perturb_value(distribution, value, (0.8, 1.2), draw)
            if draw.random() < 0.9
            else draw_value(distribution, draw)
        )
    low, high = distribution.edges()[0], distribution.edges()[-1]
    if isinstance(distribution, Choice):
        assert set(seen) == set(distribution.choices)
    else:
        assert all(low <= value <= high for value in seen)  # type: ignore[operator]
        assert {type(value) for value in seen} == {float if isinstance(distribution, Uniform) else int}
    assert len(set(seen)) > 3


def test_perturbing() -> None:
    draw = random.Random(1)
    assert {perturb_value(Uniform(0.0, 10.0), 2.0, (0.5, 2.0), draw) for _ in range(50)} == {1.0, 4.0}
    assert {perturb_value(Uniform(0.0, 3.0), 2.0, (0.5, 2.0), draw) for _ in range(50)} == {1.0, 3.0}
    assert {perturb_value(Int(1, 100), 50, (0.8, 1.2), draw) for _ in range(50)} == {40, 60}
    assert {perturb_value(Int(1, 100), 2, (0.8, 1.2), draw) for _ in range(50)} == {1, 3}
    choice = Choice((16, 32, 64))
    assert {perturb_value(choice, 32, (0.8,), draw) for _ in range(50)} == {16, 64}
    assert {perturb_value(choice, 64, (0.8,), draw) for _ in range(50)} == {32}
    assert perturb_value(Choice(("a",)), "a", (0.8,), draw) == "a"


def test_resampling_always_or_never(tmp_path: Path) -> None:
    for probability, how in ((0.0, {"perturbed"}), (1.0, {"resampled"})):
        plan = begun(population(pbt={"resample_probability": probability}), tmp_path / str(probability))
        run_out(plan, landscape)
        copies = [s for place, s in places(plan).items() if place[0] and s.attrs["pbt"]["changes"]]
        assert copies
        assert {change for sample in copies for change in sample.attrs["pbt"]["changes"].values()} == how
