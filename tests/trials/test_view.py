"""What a stage may look at before it begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trials.data import load, place
from trials.view import View

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture
def view() -> View:
    data = place(load("few_digits"), device="cpu", val_fraction=0.1, split_seed=0)
    return View.of(data, 5, {})


def test_pixels_lie_between_black_and_white(view: View) -> None:
    x = torch.cat([x for x, _ in view.batches("train", 100)])  # digits use the whole range
    assert view.black.shape == view.white.shape == (1, 1, 1)
    torch.testing.assert_close(x.min(), view.black.squeeze())
    torch.testing.assert_close(x.max(), view.white.squeeze())


def test_training_images_come_shuffled_whole_and_the_same_again(view: View) -> None:
    data = place(load("few_digits"), device="cpu", val_fraction=0.1, split_seed=0)
    ordered = torch.cat([x for x, _ in data.eval_batches("train", 100)])
    first, again = (torch.cat([x for x, _ in view.batches("train", size)]) for size in (100, 7))
    assert torch.equal(first, again)
    assert not torch.equal(first, ordered)
    assert sorted(image.numpy().tobytes() for image in first) == sorted(image.numpy().tobytes() for image in ordered)
    other = torch.cat([x for x, _ in View.of(data, 6, {}).batches("train", 100)])
    assert not torch.equal(first, other)


def test_nothing_is_read_before_it_is_asked_for() -> None:
    data = place(load("few_digits"), device="cpu", val_fraction=0.1, split_seed=0)
    read: list[str] = []

    def batches(split: str, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        read.append(split)
        yield from ()

    data._eval_batches = batches  # type: ignore[method-assign]
    val = View.of(data, 5, {}).batches("val", 10)
    assert not read
    assert list(val) == []
    assert read == ["val"]
