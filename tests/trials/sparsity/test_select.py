"""The exact selection against a stable sort."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.memory import peak_bytes
from trials.sparsity import DISTRIBUTIONS, PATTERNS, build_masks, keep_count, select
from trials.sparsity.select_wide import RowMajor
from trials.training.strides import memory_order

SELECT_FILE = importlib.import_module("trials.sparsity.select")  # trials.sparsity.select is the function
CHUNK = SELECT_FILE._CHUNK
select_flat, select_each, select_rows = (getattr(SELECT_FILE, f"select_{how}") for how in ("flat", "each", "rows"))
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SPECIAL = [0.0, -0.0, float("inf"), -float("inf"), 1.0, -1.0, 1e-8, -1e-8, 5e-324, 1e-40, 65504.0, 3e38]


def by_stable_sort(scores: Sequence[Tensor], keep: int, absolute: bool) -> list[Tensor]:
    """Sort all entries ascending and stably, drop the first ones: the definition."""
    flat = np.concatenate([layer.to(torch.float64).reshape(-1).numpy() for layer in scores])
    if absolute:
        flat = np.abs(flat)
    mask = np.ones(len(flat), dtype=bool)
    mask[np.argsort(flat, kind="stable")[: len(flat) - keep]] = False
    parts = torch.from_numpy(mask).split([layer.numel() for layer in scores])
    return [part.reshape(layer.shape) for part, layer in zip(parts, scores, strict=True)]


def assert_selects(scores: Sequence[Tensor], keep: int, absolute: bool) -> None:
    masks = select(scores, keep, absolute=absolute)
    assert all(mask.dtype == torch.bool for mask in masks)
    assert [mask.shape for mask in masks] == [layer.shape for layer in scores]
    assert sum(int(mask.sum()) for mask in masks) == keep
    for mask, expected in zip(masks, by_stable_sort(scores, keep, absolute), strict=True):
        assert torch.equal(mask, expected)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Tensor], int, bool]:
    dtype = draw(st.sampled_from(DTYPES))
    few = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0])  # many ties
    wide = st.one_of(st.floats(allow_nan=False, width=32), st.sampled_from(SPECIAL))
    values = draw(st.sampled_from([few, wide]))
    layers = draw(st.lists(st.lists(values, min_size=1, max_size=30), min_size=1, max_size=4))
    keep = draw(st.integers(0, sum(map(len, layers))))
    scores = [torch.tensor(layer, dtype=torch.float64).to(dtype) for layer in layers]
    return scores, keep, draw(st.booleans())


@given(problems())
def test_equals_stable_sort(problem: tuple[list[Tensor], int, bool]) -> None:
    assert_selects(*problem)


@given(problem=problems(), chunk=st.integers(1, 7))
def test_equals_stable_sort_over_many_chunks(problem: tuple[list[Tensor], int, bool], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SELECT_FILE, "_CHUNK", chunk)
        assert_selects(*problem)


@given(problems())
def test_flat_selection_is_the_same(problem: tuple[list[Tensor], int, bool]) -> None:
    scores, keep, absolute = problem
    drop = sum(layer.numel() for layer in scores) - keep
    if keep and drop:
        for mask, flat in zip(
            select(scores, keep, absolute=absolute), select_flat(scores, drop, absolute), strict=True
        ):
            assert flat.dtype == torch.bool
            assert torch.equal(flat, mask)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_flat_selection_of_convolutions_is_the_same(memory_format: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(5)
    shapes = ((8, 4, 3, 3), (1, 8, 1, 1), (16, 8, 3, 3))
    scores = [
        torch.randint(-9, 10, shape, generator=generator).float().to(memory_format=memory_format) for shape in shapes
    ]
    for drop in (1, 700, 1400, 1447):
        assert all(map(torch.equal, select_flat(scores, drop, True), select(scores, 1448 - drop, absolute=True)))


@given(problem=problems(), data=st.data())
def test_rows_are_ranked_each_for_itself(problem: tuple[list[Tensor], int, bool], data: st.DataObject) -> None:
    scores, _, absolute = problem
    keep = [data.draw(st.integers(0, layer.numel())) for layer in scores]
    expected = [by_stable_sort([layer], count, absolute)[0] for layer, count in zip(scores, keep, strict=True)]
    for masks in (select_rows(scores, keep, absolute), select_each(scores, keep, absolute=absolute)):
        assert [mask.dtype for mask in masks] == [torch.bool] * len(scores)
        assert all(map(torch.equal, masks, expected))


@pytest.mark.parametrize("choose", [select_rows, lambda *arguments: select_each(*arguments[:2])])
def test_more_than_a_row_has_is_refused(choose: Any) -> None:
    with pytest.raises(ValueError, match="keep is 4, but must be between 0 and the number of scores, 3"):
        choose([torch.arange(5.0), torch.arange(3.0)], [2, 4], False)


@pytest.mark.parametrize("pattern", ["weight", "filter", "channel"])
@pytest.mark.parametrize("distribution", ["global", "uniform"])
@pytest.mark.parametrize("absolute", [False, True])
def test_nothing_waits_for_the_device(pattern: str, distribution: str, absolute: bool) -> None:
    """Tensors on ``meta`` have no numbers, so reading one raises."""
    shapes = {"conv": (4, 3, 3, 3), "wide": (64, 40, 3, 3), "narrow": (6, 4, 1, 1)}
    scores = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    masks = build_masks(
        scores,
        density=0.3,
        pattern=PATTERNS[pattern],
        distribution=DISTRIBUTIONS[distribution],
        absolute=absolute,
    )
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == shapes
    assert all(mask.is_meta and mask.dtype == torch.bool for mask in masks.values())
    with pytest.raises(RuntimeError):
        int(masks["conv"].sum())


def launches(device: str, shapes: Sequence[tuple[int, ...]], each: bool) -> int:
    """Operators that a selection from float32 scores takes, views aside."""
    scores = [torch.empty(shape, device=device) for shape in shapes]
    with Counting() as counting:
        if each:
            select_each(scores, [layer.numel() // 2 for layer in scores], absolute=True)
        else:
            select(scores, sum(layer.numel() for layer in scores) // 2, absolute=True)
    return counting.count


class Counting(TorchDispatchMode):
    """Counts the operators that compute something."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_launches_do_not_grow_with_the_layers() -> None:
    few, many = [(16, 16, 3, 3)] * 2, [(16, 16, 3, 3)] * 20
    assert launches("meta", few, False) == launches("meta", many, False) <= 14
    rows = [(64, 1, 1, 1)] * 20
    assert launches("meta", rows, True) <= 80


@given(seed=st.integers(0, 2**32 - 1), keep_share=st.floats(0, 1), levels=st.sampled_from([2, 5, 1000]))
def test_equals_stable_sort_on_convolutions(seed: int, keep_share: float, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = [
        torch.randint(-levels, levels + 1, shape, generator=generator).float() / levels
        for shape in ((4, 3, 3, 3), (6, 4, 1, 1), (5, 24))
    ]
    total = sum(layer.numel() for layer in scores)
    for absolute in (False, True):
        assert_selects(scores, round(keep_share * total), absolute)


def layers_of(total: int, kind: str, dtype: torch.dtype) -> list[Tensor]:
    """Layers of different scales, with so many scores together."""
    generator = torch.Generator().manual_seed(total)
    sizes = (total // 2, total // 3, total - total // 2 - total // 3)
    values = [
        scale * torch.randn(size, generator=generator) for size, scale in zip(sizes, (1.0, 0.01, 5.0), strict=True)
    ]
    if kind == "sorted":
        values = [layer.sort().values for layer in values]
    if kind == "half zero":
        values = [torch.where(torch.rand(layer.shape, generator=generator) < 0.5, 0.0, layer) for layer in values]
    if kind == "periodic":  # like a kernel's positions: every ninth is large
        values = [torch.where(torch.arange(len(layer)) % 9 == 4, 100 * layer, layer) for layer in values]
    return [layer.to(dtype) for layer in values]


@pytest.mark.parametrize("kind", ["plain", "sorted", "half zero", "periodic"])
@pytest.mark.parametrize("total", [40_000, 200_000, 700_000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_brackets_from_samples_are_exact(kind: str, total: int, dtype: torch.dtype) -> None:
    """One, two and three samples; scores of which samples say little."""
    scores = layers_of(total, kind, dtype)
    for absolute, share in ((True, 0.5), (False, 0.001), (True, 0.999), (False, 0.5)):
        assert_selects(scores, round(share * total), absolute)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_radix_selection_finds_what_a_bracket_finds(memory_format: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(4)
    scores = [
        torch.randn(shape, generator=generator).to(memory_format=memory_format)
        for shape in ((64, 200, 3, 3), (64, 64, 1, 1), (128, 64, 7, 7))
    ]
    total = sum(layer.numel() for layer in scores)
    for drop in (1, 999, total // 2, total - 1):
        for absolute in (False, True):
            found = SELECT_FILE._bracketed([memory_order(layer) for layer in scores], drop, absolute)
            assert found is not None
            assert (
                found
                == SELECT_FILE._by_digits(scores, drop, absolute)
                == SELECT_FILE._threshold(scores, drop, absolute)
            )


def test_a_bracket_without_room_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [torch.zeros(300_000), torch.ones(10)]
    assert SELECT_FILE._bracketed(scores, 5, True) is None
    assert SELECT_FILE._threshold(scores, 5, True) == (0, 5, 300_000)


@pytest.mark.parametrize("drop", [1, 700, 1400, 1447])
def test_ties_go_by_flat_index_in_any_layout(drop: int) -> None:
    """With the map of the layout, nothing is copied, and masks lie as their scores."""
    generator = torch.Generator().manual_seed(5)
    shapes = ((8, 4, 3, 3), (1, 8, 1, 1), (16, 8, 3, 3))
    plain = [torch.randint(-9, 10, shape, generator=generator).float() for shape in shapes]
    scores = [layer.to(memory_format=torch.channels_last) for layer in plain]
    row_major = RowMajor.of(scores)
    assert row_major is not None
    assert RowMajor.of(plain) is None
    masks = select_flat(scores, drop, True, row_major)
    assert all(map(torch.equal, masks, by_stable_sort(plain, 1448 - drop, True)))
    assert [mask.stride() for mask in masks] == [layer.stride() for layer in scores]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("absolute", [False, True])
def test_sizes_beyond_one_chunk(dtype: torch.dtype, absolute: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    sizes = (CHUNK + 1, 7, 2 * CHUNK, 2 * CHUNK + 100)
    scores = [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]
    for share in (0.01, 0.5):
        assert_selects(scores, round(share * sum(sizes)), absolute)


def test_ties_beyond_one_chunk_are_dropped_from_the_start() -> None:
    scores = [torch.zeros(CHUNK + 3), torch.zeros(CHUNK)]
    first, second = select(scores, CHUNK - 1)
    assert not first.any()
    assert torch.equal(second, torch.arange(CHUNK) >= 1)
    first, second = select(scores, CHUNK + 1)
    assert torch.equal(first, torch.arange(CHUNK + 3) >= CHUNK + 2)
    assert second.all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_of_either_sign_are_one_tie(dtype: torch.dtype) -> None:
    scores = [torch.tensor([0.0, -0.0, 0.0], dtype=dtype), torch.tensor([-0.0, 0.0], dtype=dtype)]
    for absolute in (False, True):
        first, second = select(scores, 2, absolute=absolute)
        assert first.tolist() == [False, False, False]
        assert second.tolist() == [True, True]


def test_minus_infinity_goes_first() -> None:
    (mask,) = select([torch.tensor([-torch.inf, -3e38, -torch.inf, 0.0])], 2)
    assert mask.tolist() == [False, True, False, True]


def test_scores_are_not_changed_and_may_lie_in_any_layout() -> None:
    scores = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(1))
    before = scores.clone()
    strided = scores.to(memory_format=torch.channels_last)
    (mask,), (from_strided,) = select([scores], 100), select([strided], 100)
    assert torch.equal(scores, before)
    assert torch.equal(mask, from_strided)
    assert torch.equal(
        select([scores.transpose(0, 1)], 100)[0], by_stable_sort([scores.transpose(0, 1)], 100, False)[0]
    )


def test_scores_that_require_grad_give_masks_without_one() -> None:
    (mask,) = select([torch.nn.Parameter(torch.arange(4.0))], 2)
    assert mask.tolist() == [False, False, True, True]
    assert not mask.requires_grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("levels", [2, 10**6])
def test_memory_beside_weights_and_masks_stays_under_a_megabyte(
    dtype: torch.dtype, absolute: bool, levels: int
) -> None:
    """Without and with masks, with few ties and ties only, in any memory order."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((96, 256, 3, 3), (40, 2048), (64, 3, 7, 7))
    scores = [torch.randint(-levels, levels, shape, generator=generator).to(dtype) for shape in shapes]
    scores[0] = scores[0].to(memory_format=torch.channels_last)
    total = sum(layer.numel() for layer in scores)
    keep = total // 10
    assert peak_bytes(lambda: SELECT_FILE._threshold(scores, total - keep, absolute)) < 1e6
    assert 0 < peak_bytes(lambda: select(scores, keep, absolute=absolute)) - total < 1e6


def test_the_measure_of_memory_sees_what_operators_allocate() -> None:
    x = torch.ones(10**6)
    assert peak_bytes(lambda: x.sum()) < 1000
    assert 4e6 <= peak_bytes(lambda: (x + 1).sum()) < 5e6
    assert peak_bytes(lambda: x.sort()) >= 12e6


@pytest.mark.parametrize("keep", [-1, 6])
def test_keep_out_of_range(keep: int) -> None:
    with pytest.raises(ValueError, match=f"keep is {keep}, but must be between 0 and the number of scores, 5"):
        select([torch.arange(3.0), torch.arange(2.0)], keep)


@pytest.mark.parametrize(
    ("density", "n", "dropped"),
    [(0.9, 10, 0), (0.8, 20, 3), (0.8, 640, 127), (0.9, 100, 9), (1.0, 17, 0), (0.5, 7, 3), (0.0092, 268_336, 265_867)],
)
def test_keep_count_truncates_as_published(density: float, n: int, dropped: int) -> None:
    assert n - keep_count(density, n) == dropped


@given(st.floats(1e-6, 1), st.integers(1, 10**8))
def test_keep_count_is_within_one_of_exact(density: float, n: int) -> None:
    kept = keep_count(density, n)
    assert 1 <= kept <= n
    assert -1e-6 * n - 1e-6 <= kept - density * n < 1 + 1e-6


@given(st.integers(1, 10**6))
def test_the_smallest_densities_keep_one(n: int) -> None:
    assert keep_count(1 / n, n) in (1, 2)
    assert keep_count(0.4 / n, n) == 1
