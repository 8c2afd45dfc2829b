"""Paired tests against SciPy's, Holm's correction by hand, and figures for which a test is not defined."""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from sweeper.paired.paired_tests import holm, paired_test

A = [0.91, 0.88, 0.93, 0.90, 0.87, 0.92, 0.895]
B = [0.92, 0.91, 0.92, 0.93, 0.90, 0.95, 0.91]


@pytest.mark.parametrize("n", range(2, 8))
def test_the_figures_are_scipys(n: int) -> None:
    found = paired_test(A[:n], B[:n])
    wanted = stats.ttest_rel(B[:n], A[:n])
    interval = wanted.confidence_interval(0.95)
    assert found.n == n
    assert found.difference == pytest.approx(sum(B[:n]) / n - sum(A[:n]) / n)
    assert (found.p, found.low, found.high) == pytest.approx((wanted.pvalue, interval.low, interval.high))
    assert found.note == ""
    assert math.isnan(found.p_wilcoxon) == (n < 6)


def test_wilcoxons_test_is_scipys_and_knows_ties_that_rounding_hides() -> None:
    draw = random.Random(0)
    a = [draw.random() for _ in range(9)]
    b = [x + draw.gauss(0.1, 0.2) for x in a]
    assert paired_test(a, b).p_wilcoxon == pytest.approx(stats.wilcoxon(b, a).pvalue)
    steps = [1, 2, 2, -1, 3, 3, 1]
    tied = paired_test([0.1 * i for i in range(7)], [0.1 * i + 0.01 * s for i, s in enumerate(steps)])
    assert tied.p_wilcoxon == pytest.approx(stats.wilcoxon(steps).pvalue)


@pytest.mark.parametrize("shift", [0.01, -0.05, 1e-9])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_differences_without_spread_have_no_p_and_say_so(n: int, shift: float) -> None:
    found = paired_test(A[:n], [a + shift for a in A[:n]])
    assert found.difference == pytest.approx(shift, rel=1e-3)
    assert found.std == 0
    assert all(math.isnan(x) for x in (found.p, found.low, found.high))
    assert found.note == "every difference is the same: without spread there is no t test"  # in no unit of its own
    assert math.isnan(found.p_wilcoxon) == (n < 6)


def test_equal_figures_have_no_p_at_all() -> None:
    found = paired_test(A, A)
    assert (found.difference, found.std) == (0, 0)
    assert math.isnan(found.p)
    assert math.isnan(found.p_wilcoxon)
    assert found.note.startswith("every difference is 0:")


def test_one_pair_has_a_difference_only_and_none_has_nothing() -> None:
    one = paired_test([0.5], [0.75])
    assert (one.n, one.difference) == (1, 0.25)
    assert math.isnan(one.p)
    assert one.note == "one seed in common: no test"
    assert math.isnan(paired_test([], []).difference)


def test_holms_correction() -> None:
    nan = math.nan
    assert holm([]) == []
    assert holm([0.03]) == [0.03]
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9, 0.6]) == pytest.approx([1, 1, 1])
    found = holm([nan, 0.02, nan, 0.01])
    assert math.isnan(found[0])
    assert math.isnan(found[2])
    assert found[1::2] == pytest.approx([0.02, 0.02])
