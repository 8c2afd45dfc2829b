"""Augmentation does what its options name, and nothing else."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trials.batches import epoch, made_up, on_device, pixels, same
from trials.data.augment import crop_and_flip

pytestmark = pytest.mark.usefixtures("nothing_resident")


def naive_crop(image: Tensor, top: int, left: int, flip: bool, pad: int) -> Tensor:
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for c, i, j in itertools.product(range(channels), range(height), range(width)):
        row, col = i + top - pad, (width - 1 - j if flip else j) + left - pad
        if 0 <= row < height and 0 <= col < width:
            out[c, i, j] = image[c, row, col]
    return out


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    pad=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_crop_and_flip_equals_the_naive_loop(shape, pad, seed):
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, shape, generator=source, dtype=torch.uint8)
    offsets = torch.randint(0, 2 * pad + 1, (shape[0], 2), generator=source)
    flips = torch.rand(shape[0], generator=source) < 0.5
    expected = [
        naive_crop(image, int(top), int(left), bool(flip), pad)
        for image, (top, left), flip in zip(images, offsets, flips, strict=True)
    ]
    assert torch.equal(crop_and_flip(images, offsets, flips, pad), torch.stack(expected))


def test_training_images_are_all_possible_crops():
    raw = made_up(n=20, shape=(1, 4, 4), pad=1)
    data = on_device(raw)
    seen = set()
    for number in range(40):
        ((x, y),) = epoch(data, epoch=number, batch_size=20)
        for image, label in zip(pixels(x, raw), y.tolist(), strict=True):
            crops = {
                (top, left, flip)
                for top, left, flip in itertools.product(range(3), range(3), (False, True))
                if torch.equal(naive_crop(raw.train_images[label], top, left, flip, 1), image)
            }
            assert len(crops) == 1
            seen |= crops
    assert len(seen) == 18


def test_padding_is_black_before_normalising():
    raw = made_up(pad=2)
    x = torch.cat([x for x, _ in epoch(on_device(raw))])
    black = torch.tensor([-m / s for m, s in zip(raw.mean, raw.std, strict=True)]).view(1, 3, 1, 1)
    outside = pixels(x, raw) == 0
    assert outside.any()
    assert torch.allclose(x[outside], black.expand_as(x)[outside])


def test_padding_is_exactly_the_mean_colour_if_requested():
    """Equal to normalising before padding with zeros, as the BiP code does for TinyImageNet."""
    raw = dataclasses.replace(made_up(pad=2), pad_colour="mean")
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        data = on_device(raw, dtype=dtype)
        _, offsets, flips = data.draw((0, "train", 0))
        ((x, y),) = epoch(data, batch_size=50)
        ((images, numbers),) = epoch(data, batch_size=50, augment=False)
        plain = dict(zip(numbers.tolist(), images, strict=True))
        for image, label, (top, left), flip in zip(x, y.tolist(), offsets, flips, strict=True):
            assert torch.equal(image, naive_crop(plain[label], int(top), int(left), bool(flip), 2))
    assert same(epoch(on_device(raw), augment=False), epoch(on_device(made_up(pad=2)), augment=False))
    black = torch.cat([x for x, _ in epoch(on_device(made_up(pad=2)))])
    mean = torch.cat([x for x, _ in epoch(on_device(raw))])
    assert torch.equal(black[mean != 0], mean[mean != 0])
    assert (mean == 0).any()


def test_flips_alone_are_fair():
    raw = made_up(n=400, pad=0)
    ((x, y),) = epoch(on_device(raw), batch_size=400)
    images, originals = pixels(x, raw), raw.train_images[y]
    plain = (images == originals).flatten(1).all(1)
    mirrored = (images == originals.flip(3)).flatten(1).all(1)
    assert (plain ^ mirrored).all()
    assert 140 < int(mirrored.sum()) < 260


@pytest.mark.parametrize(("pad", "flip"), [(0, False), (0, True), (2, False)])
def test_only_the_requested_augmentation_is_done(pad, flip):
    raw = made_up(pad=pad, flip=flip)
    data = on_device(raw)
    changed = [not torch.equal(a, b) for (a, _), (b, _) in zip(epoch(data), epoch(data, augment=False), strict=True)]
    assert any(changed) == (pad > 0 or flip)
    if pad and not flip:
        x, y = epoch(data)[0]
        for image, label in zip(pixels(x, raw), y.tolist(), strict=True):
            assert any(
                torch.equal(naive_crop(raw.train_images[label], top, left, False, pad), image)
                for top, left in itertools.product(range(5), range(5))
            )
