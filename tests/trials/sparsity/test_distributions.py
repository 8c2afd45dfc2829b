"""Distributions: which layers share a pool, and how much each pool keeps."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trials.sparsity import DISTRIBUTIONS, Layer, Pool, drop_nearest, keep_count, keep_nearest, nearest_count
from trials.sparsity.counts import exact_share

SIZES = st.lists(st.integers(1, 5000), min_size=1, max_size=20)
DENSITY = st.floats(1e-4, 1)


@st.composite
def networks(draw: st.DrawFn) -> list[Layer]:
    """Convolutions and a linear layer, some of them pruned already."""
    layers = []
    for position in range(draw(st.integers(1, 8))):
        conv = draw(st.booleans()) if position else True
        out, inputs = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        shape = (out, inputs, 3, 3) if conv else (out, inputs)
        total = out * inputs * (9 if conv else 1)
        layers.append(Layer(draw(st.integers(0, total)), total, shape))
    return layers


def layers_of(sizes: list[int]) -> list[Layer]:
    return [Layer(size, size, (size, 1)) for size in sizes]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("count", [keep_count, keep_nearest, drop_nearest])
@given(layers=networks(), density=DENSITY)
def test_every_layer_is_in_one_pool_and_no_budget_exceeds_its_layers(
    name: str, count: object, layers: list[Layer], density: float
) -> None:
    try:
        pools = DISTRIBUTIONS[name](layers, density, count)  # type: ignore[arg-type]
    except ValueError:
        assert name == "uniform_plus"
        return
    assert sorted(layer for pool in pools for layer in pool.layers) == list(range(len(layers)))
    for pool in pools:
        assert isinstance(pool.keep, int)
        assert 0 <= pool.keep <= sum(layers[layer].units for layer in pool.layers)


@given(sizes=SIZES, density=DENSITY)
def test_global_is_one_ranking(sizes: list[int], density: float) -> None:
    pools = DISTRIBUTIONS["global"](layers_of(sizes), density, keep_count)
    assert pools == [Pool(tuple(range(len(sizes))), keep_count(density, sum(sizes)))]


@given(sizes=SIZES, density=DENSITY)
def test_uniform_gives_each_layer_its_own_share(sizes: list[int], density: float) -> None:
    pools = DISTRIBUTIONS["uniform"](layers_of(sizes), density, keep_count)
    assert pools == [Pool((i,), keep_count(density, size)) for i, size in enumerate(sizes)]
    share = sum(pool.keep for pool in pools) - density * sum(sizes)
    assert -1e-6 <= share <= len(sizes)


@pytest.mark.parametrize("name", ["erk", "uniform_plus"])
@given(layers=networks(), density=DENSITY)
def test_what_is_rounded_per_layer_misses_the_budget_by_less_than_half_a_unit_a_layer(
    name: str, layers: list[Layer], density: float
) -> None:
    try:
        pools = DISTRIBUTIONS[name](layers, density, keep_count)
    except ValueError:
        assume(False)
    budget = keep_count(density, sum(layer.units for layer in layers))
    assert abs(sum(pool.keep for pool in pools) - budget) <= len(layers) / 2 + 1


@given(layers=networks(), density=DENSITY)
def test_erk_is_in_proportion_to_the_sum_of_the_shape_where_a_layer_is_not_dense(
    layers: list[Layer], density: float
) -> None:
    pools = DISTRIBUTIONS["erk"](layers, density, keep_count)
    open_ = [i for i, pool in enumerate(pools) if pool.keep < layers[i].units]
    for i in open_:
        for j in open_:
            share_i, share_j = pools[i].keep / sum(layers[i].shape), pools[j].keep / sum(layers[j].shape)
            slack = 0.5 / sum(layers[i].shape) + 0.5 / sum(layers[j].shape)
            assert abs(share_i - share_j) <= slack + 1e-9


@given(layers=networks(), density=DENSITY)
def test_uniform_plus_spares_the_first_convolution_and_a_fifth_of_the_last_layer(
    layers: list[Layer], density: float
) -> None:
    try:
        pools = DISTRIBUTIONS["uniform_plus"](layers, density, keep_count)
    except ValueError:
        return
    assert pools[0].keep == layers[0].units
    assert pools[-1].keep >= min(round(0.2 * layers[-1].total), layers[-1].units)


def test_uniform_plus_reports_what_it_cannot_remove() -> None:
    layers = [Layer(90, 90, (10, 1, 3, 3)), Layer(10, 10, (5, 2))]
    with pytest.raises(ValueError, match="must remove 50 units, but the first convolution stays dense"):
        DISTRIBUTIONS["uniform_plus"](layers, 0.5, keep_count)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@given(layers=networks(), density=DENSITY)
def test_all_layers_together_keep_exactly_what_the_density_says(name: str, layers: list[Layer], density: float) -> None:
    units = sum(layer.units for layer in layers)
    try:
        pools = DISTRIBUTIONS[name](layers, density, None)
    except ValueError:
        assert name == "uniform_plus"
        return
    assert sum(pool.keep for pool in pools) == nearest_count(density, units) == round(exact_share(density) * units)
    for pool in pools:
        assert 0 <= pool.keep <= sum(layers[i].units for i in pool.layers)
    if name == "uniform":
        assert all(abs(pool.keep - density * layers[i].units) < 1 for i, pool in enumerate(pools))
    if name == "uniform_plus":
        assert pools[0].keep == layers[0].units
        assert pools[-1].keep >= min(round(0.2 * layers[-1].total), layers[-1].units)
    if name == "erk":
        open_ = [i for i, pool in enumerate(pools) if pool.keep < layers[i].units]
        for i, j in product(open_, open_):  # their shares are in proportion, each to less than one unit
            one, other = sum(layers[i].shape), sum(layers[j].shape)
            assert pools[j].keep / other - pools[i].keep / one <= 1 / one + 1 / other + 1e-9


@pytest.mark.parametrize(
    ("density", "n", "kept"),
    [
        (0.9, 1000, 900),
        (0.9, 10, 9),
        (1 - 0.1, 10, 9),
        (0.7**2, 150, 74),
        (0.5, 5, 2),
        (0.5, 7, 4),
        (0.45000001, 10, 5),
    ],
)
def test_the_nearest_count_is_of_the_density_as_it_is_written(density: float, n: int, kept: int) -> None:
    assert nearest_count(density, n) == kept


@given(st.integers(1, 999), st.integers(1, 10**9))
def test_the_nearest_count_rounds_halves_to_even(thousandths: int, n: int) -> None:
    assert nearest_count(thousandths / 1000, n) == round(Fraction(thousandths, 1000) * n)


def test_of_equal_remainders_the_later_layers_keep_the_units() -> None:
    layers = layers_of([3, 3, 3, 3])  # shares of 1.5
    assert [pool.keep for pool in DISTRIBUTIONS["uniform"](layers, 0.5, None)] == [1, 1, 2, 2]
    larger = layers_of([10, 13])  # shares of 3 and 3.9
    assert [pool.keep for pool in DISTRIBUTIONS["uniform"](larger, 0.3, None)] == [3, 4]


@pytest.mark.parametrize("name", ["uniform", "erk"])
def test_no_layer_keeps_more_than_it_has_left(name: str) -> None:
    layers = [Layer(10, 10, (10, 1), 3), Layer(10, 10, (10, 1), 8), Layer(10, 10, (10, 1), 10)]
    kept = [pool.keep for pool in DISTRIBUTIONS[name](layers, 0.5, None)]
    assert sum(kept) == 15
    assert all(one <= layer.most for one, layer in zip(kept, layers, strict=True))
    with pytest.raises(ValueError, match="must be kept, but the layers have 21"):
        DISTRIBUTIONS[name](layers, 0.9, None)
