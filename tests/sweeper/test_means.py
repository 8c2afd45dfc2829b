"""Means and deviations of any numbers: those of the standard library, and no error for large or infinite ones."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sweeper.means import deviation_of, mean_of
from sweeper.paired.paired_tests import paired_test
from sweeper.screen.number_texts import fixed
from sweeper.search.cells.racing import can_matter, pooled_spread
from sweeper.space.options.replicates import JUDGES

LARGEST = 1.7976931348623157e308
FIGURES = st.one_of(st.floats(), st.sampled_from([1e200, -1e200, 1e308, LARGEST, -LARGEST, 5e-324, math.inf, math.nan]))


@given(st.lists(st.floats(-1e150, 1e150), min_size=1, max_size=6))
def test_ordinary_figures_have_the_exact_mean_and_deviation(numbers: list[float]) -> None:
    assert mean_of(numbers) == math.fsum(numbers) / len(numbers)
    if len(numbers) > 1:
        largest = max(map(abs, numbers))
        assert deviation_of(numbers) == pytest.approx(statistics.stdev(numbers), rel=1e-9, abs=1e-9 * largest)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=6))
def test_large_figures_have_the_mean_and_deviation_that_float64_holds(numbers: list[float]) -> None:
    exact = sum(map(Fraction, numbers)) / len(numbers)
    largest = max(map(abs, numbers))
    assert mean_of(numbers) == pytest.approx(float(exact), rel=1e-9, abs=max(1e-9 * largest, 5e-324))
    variance = sum((Fraction(number) - exact) ** 2 for number in numbers) / (len(numbers) - 1)
    scale = Fraction(largest) if largest else Fraction(1)
    wanted = math.sqrt(float(variance / scale**2))
    found = deviation_of(numbers)
    if math.isfinite(found) and largest > 1e-300:  # below, few digits are left
        assert found / largest == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    else:
        assert wanted > 0.99 or largest <= 1e-300


@example([0.0, 1e-170])
@example([1e-170, 0.0, 5e-324, 1e-300])
@example([LARGEST, LARGEST])
@example([LARGEST, -LARGEST])
@given(st.lists(FIGURES, max_size=6))
def test_no_figures_are_an_error(numbers: list[float]) -> None:
    assert isinstance(mean_of(numbers), float)
    assert isinstance(deviation_of(numbers), float)
    known = [number for number in numbers if math.isfinite(number)]
    if known:
        for judge, sign in ((judge(), sign) for judge in JUDGES.values() for sign in (1, -1)):
            assert math.isfinite(judge.value(known, sign)) or len(known) > 1
        assert all(JUDGES[name]().value([LARGEST, LARGEST], 1) == LARGEST for name in ("mean", "median"))
        assert JUDGES["lower_bound"](k=0).value([LARGEST, -LARGEST], 1) == 0
        spread, freedom = pooled_spread([known, [0.0, LARGEST], [1.0]])
        assert can_matter(known, 7, 0.5, 1, spread, freedom) in (True, False)
        paired_test(known, known[::-1])


def test_infinities() -> None:
    for numbers in permutations([math.inf, 1e308, 1e308]):
        assert mean_of(numbers) == math.inf
        assert mean_of([-number for number in numbers]) == -math.inf
        assert math.isnan(deviation_of(numbers))
    assert math.isnan(mean_of([math.inf, -math.inf]))
    assert math.isnan(mean_of([]))
    assert math.isnan(deviation_of([1.0]))


@pytest.mark.parametrize(
    ("value", "text"), [(0.123456, "0.1235"), (-2.0, "-2.0000"), (1.5e308, "1.5e+308"), (-1e15, "-1e+15"),
                        (math.inf, "inf"), (math.nan, "nan")],
)  # fmt: skip
def test_numbers_have_decimals_unless_they_are_large(value: float, text: str) -> None:
    assert fixed(value, 4) == text
    assert fixed(value, 4, "+") == (text if text.startswith("-") else f"+{text}")
