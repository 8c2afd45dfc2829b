"""Budgets: which layers share a pool, and how much each pool keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trials.sparsity import DISTRIBUTIONS, Pool, keep_count

SIZES = st.lists(st.integers(1, 5000), min_size=1, max_size=20)
DENSITY = st.floats(1e-4, 1)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@given(sizes=SIZES, density=DENSITY)
def test_every_layer_is_in_one_pool_and_no_budget_exceeds_its_layers(
    name: str, sizes: list[int], density: float
) -> None:
    pools = DISTRIBUTIONS[name](sizes, density)
    assert sorted(layer for pool in pools for layer in pool.layers) == list(range(len(sizes)))
    for pool in pools:
        assert isinstance(pool.keep, int)
        assert pool.keep == keep_count(density, sum(sizes[layer] for layer in pool.layers))


@given(sizes=SIZES, density=DENSITY)
def test_global_is_one_ranking(sizes: list[int], density: float) -> None:
    assert DISTRIBUTIONS["global"](sizes, density) == [Pool(tuple(range(len(sizes))), keep_count(density, sum(sizes)))]


@given(sizes=SIZES, density=DENSITY)
def test_uniform_gives_each_layer_its_own_share(sizes: list[int], density: float) -> None:
    pools = DISTRIBUTIONS["uniform"](sizes, density)
    assert pools == [Pool((i,), keep_count(density, size)) for i, size in enumerate(sizes)]
    share = sum(pool.keep for pool in pools) - density * sum(sizes)
    assert -1e-6 <= share <= len(sizes)
