"""What a stage may look at before it begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trials.data import Loader, load, place
from trials.training.stage_context import Site

pytestmark = pytest.mark.usefixtures("few_digits")


def site_of(data: Loader, seed: int = 5) -> Site:
    return Site(data, {}, lambda function, shared, items: [], seed, {}.__getitem__)


@pytest.fixture
def site() -> Site:
    return site_of(place(load("few_digits"), device="cpu", val_fraction=0.1, split_seed=0))


def test_pixels_lie_between_black_and_white(site: Site) -> None:
    x = torch.cat([x for x, _ in site.look("train", 100)])  # digits use the whole range
    black, white = site.data.pixel_range()
    assert black.shape == white.shape == (1, 1, 1)
    torch.testing.assert_close(x.min(), black.squeeze())
    torch.testing.assert_close(x.max(), white.squeeze())


def test_training_images_come_shuffled_whole_and_the_same_again(site: Site) -> None:
    ordered = torch.cat([x for x, _ in site.data.eval_batches("train", 100)])
    first, again = (torch.cat([x for x, _ in site.look("train", size)]) for size in (100, 7))
    assert torch.equal(first, again)
    assert not torch.equal(first, ordered)
    assert sorted(image.numpy().tobytes() for image in first) == sorted(image.numpy().tobytes() for image in ordered)
    other = torch.cat([x for x, _ in site_of(site.data, 6).look("train", 100)])
    assert not torch.equal(first, other)


def test_nothing_is_read_before_it_is_asked_for() -> None:
    data = place(load("few_digits"), device="cpu", val_fraction=0.1, split_seed=0)
    read: list[str] = []

    def batches(split: str, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        read.append(split)
        yield from ()

    data._eval_batches = batches  # type: ignore[method-assign]
    val = site_of(data).look("val", 10)
    assert not read
    assert list(val) == []
    assert read == ["val"]
