"""The data that a stage may read before it begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trials.data import Loader, load_data, to_loader
from trials.training.stage_context import StageContext

pytestmark = pytest.mark.usefixtures("few_digits")


def context_of(data: Loader, seed: int = 5) -> StageContext:
    return StageContext(data, {}, lambda function, shared, items: [], seed, {}.__getitem__)


@pytest.fixture
def context() -> StageContext:
    return context_of(to_loader(load_data("few_digits"), device="cpu", val_fraction=0.1, split_seed=0))


def test_pixels_lie_between_black_and_white(context: StageContext) -> None:
    x = torch.cat([x for x, _ in context.look("train", 100)])  # digits use the whole range
    black, white = context.data.pixel_range()
    assert black.shape == white.shape == (1, 1, 1)
    torch.testing.assert_close(x.min(), black.squeeze())
    torch.testing.assert_close(x.max(), white.squeeze())


def test_training_images_come_shuffled_whole_and_the_same_again(context: StageContext) -> None:
    ordered = torch.cat([x for x, _ in context.data.eval_batches("train", 100)])
    first, again = (torch.cat([x for x, _ in context.look("train", size)]) for size in (100, 7))
    assert torch.equal(first, again)
    assert not torch.equal(first, ordered)
    assert sorted(image.numpy().tobytes() for image in first) == sorted(image.numpy().tobytes() for image in ordered)
    other = torch.cat([x for x, _ in context_of(context.data, 6).look("train", 100)])
    assert not torch.equal(first, other)


def test_nothing_is_read_before_it_is_asked_for() -> None:
    data = to_loader(load_data("few_digits"), device="cpu", val_fraction=0.1, split_seed=0)
    read: list[str] = []

    def batches(split: str, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        read.append(split)
        yield from ()

    data._eval_batches = batches  # type: ignore[method-assign]
    val = context_of(data).look("val", 10)
    assert not read
    assert list(val) == []
    assert read == ["val"]
