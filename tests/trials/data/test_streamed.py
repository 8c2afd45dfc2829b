"""Batches from worker processes are the same for any number of workers, and cropped as drawn."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from tests.trials.batches import epoch as epoch_of
from tests.trials.batches import pixels as pixels_of
from tests.trials.batches import same
from tests.trials.layouts import (
    CLASSES,
    CROP,
    RESIZE,
    decoded,
    load_large,
    put,
    write_imagenet,
    write_imagenet_parquet,
)
from trials.data import EncodedData, Streamed, streamed, to_loader
from trials.errors import DataError
from trials.seeding import derive_seed, generator

pytestmark = pytest.mark.usefixtures("small_crops")


def loader(data: EncodedData, workers=0, val_fraction=0.25, **options) -> Streamed:
    return Streamed(data, workers=workers, device="cpu", val_fraction=val_fraction, split_seed=0, **options)


def epoch(data: Streamed, batch_size=2, **options) -> list[tuple[Tensor, Tensor]]:
    return epoch_of(data, batch_size=batch_size, **options)


def pixels(x: Tensor, data: EncodedData) -> np.ndarray:
    """Batches in Pillow's layout: uint8 [B, H, W, 3]."""
    return pixels_of(x, data).permute(0, 2, 3, 1).numpy()


def test_place_streams_it_with_the_same_interface(tmp_path):
    data = to_loader(load_large(write_imagenet(tmp_path)), device="cpu", val_fraction=0.25, split_seed=0)
    assert isinstance(data, Streamed)
    assert (data.train_size, data.val_size, data.test_size, data.steps(2)) == (9, 3, 6, 5)
    assert (data.num_classes, data.in_channels, data.image_size) == (3, 3, (CROP, CROP))
    assert not set(data.train_indices.tolist()) & set(data.val_indices.tolist())


def expected(data: EncodedData, index: int, key: tuple[int, str, int]) -> np.ndarray:
    """The augmented image, computed step by step: draw, crop, resize, mirror."""
    image = Image.fromarray(decoded(data.train.read(index)))
    torch.manual_seed(derive_seed("augment", *key, index))
    top, left, height, width = transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
    mirrored = bool(torch.rand(1) < 0.5)
    part = image.crop((left, top, left + width, top + height)).resize((CROP, CROP), Image.Resampling.BILINEAR)
    return np.asarray(part)[:, ::-1] if mirrored else np.asarray(part)


@pytest.mark.parametrize("write", [write_imagenet, write_imagenet_parquet])
def test_training_images_are_cut_as_the_draws_say(tmp_path, write):
    data = load_large(write(tmp_path))
    batches = loader(data)
    x, y = (torch.cat(part) for part in zip(*epoch(batches, seed=5, epoch=2, stream="scores"), strict=True))
    order = torch.randperm(9, generator=generator("batches", 5, "scores", 2))
    indices = batches.train_indices[order].tolist()
    assert y.tolist() == data.train_labels[indices].tolist()
    for image, index in zip(pixels(x, data), indices, strict=True):
        assert np.array_equal(image, expected(data, index, (5, "scores", 2)))


def test_augmentation_varies_and_mirrors(tmp_path):
    data = loader(load_large(write_imagenet(tmp_path)), val_fraction=0)
    runs = [epoch(data), epoch(data, seed=1), epoch(data, epoch=1), epoch(data, stream="scores")]
    for left, right in itertools.combinations(runs, 2):
        assert not same(left, right)
    assert same(epoch(data), runs[0])
    plain = [epoch(data, augment=False), epoch(data, augment=False)]
    assert same(*plain)
    assert [y.tolist() for _, y in plain[0]] == [y.tolist() for _, y in runs[0]]


def test_evaluation_takes_the_centre(tmp_path):
    data = load_large(write_imagenet(tmp_path))
    for split, images, count in (("test", data.test, 6), ("val", data.train, 3), ("train", data.train, 9)):
        batches = list(loader(data).eval_batches(split, 4))
        indices = {"test": torch.arange(6), "val": loader(data).val_indices, "train": loader(data).train_indices}[split]
        labels = data.test_labels if split == "test" else data.train_labels
        assert torch.equal(torch.cat([y for _, y in batches]), labels[indices])
        assert sum(len(y) for _, y in batches) == count
        for image, index in zip(pixels(torch.cat([x for x, _ in batches]), data), indices.tolist(), strict=True):
            whole = Image.fromarray(decoded(images.read(index)))
            width, height = (int(RESIZE * side / min(whole.size)) for side in whole.size)
            left, top = round((width - CROP) / 2), round((height - CROP) / 2)
            resized = np.asarray(whole.resize((width, height), Image.Resampling.BILINEAR))
            assert np.array_equal(image, resized[top : top + CROP, left : left + CROP])


def test_no_validation_split_gives_no_batches(tmp_path):
    assert list(loader(load_large(write_imagenet(tmp_path)), val_fraction=0).eval_batches("val", 4)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_start_yields_the_tail_of_the_epoch_whatever_the_workers(tmp_path, workers):
    data = load_large(write_imagenet(tmp_path))
    whole = epoch(loader(data))
    assert len(whole) == 5
    for start in (0, 1, 4, 5):
        assert same(epoch(loader(data, workers), start=start), whole[start:])
    assert same(epoch(loader(data, workers), drop_last=True), whole[:4])
    with pytest.raises(ValueError, match=r"start is 6, but must be in \[0, 5\]"):
        epoch(loader(data, workers), start=6)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_is_left_alone(tmp_path, workers):
    data = loader(load_large(write_imagenet(tmp_path)), workers)
    before = torch.get_rng_state()
    for x, _ in data.batches(seed=0, epoch=0, stream="train", batch_size=4):
        assert torch.equal(torch.get_rng_state(), before)
        x.zero_()
    list(data.eval_batches("test", 4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(tmp_path, workers):
    write_imagenet(tmp_path)
    put(tmp_path / f"val/{CLASSES[0]}/{CLASSES[0]}_001.JPEG", b"no image")
    data = loader(load_large(tmp_path), workers)
    with pytest.raises(DataError, match=r"n01443537_001\.JPEG is not a readable image") as caught:
        list(data.eval_batches("test", 4))
    assert "\n" not in str(caught.value)
    (tmp_path / f"val/{CLASSES[0]}/{CLASSES[0]}_001.JPEG").unlink()
    with pytest.raises(DataError, match=r"n01443537_001\.JPEG cannot be read: restore it \(No such file"):
        list(data.eval_batches("test", 4))


def test_a_signal_to_the_whole_group_leaves_the_trial_its_workers(tmp_path):
    data = load_large(write_imagenet(tmp_path))
    batches = loader(data, workers=2).batches(seed=0, epoch=0, stream="train", batch_size=2)
    seen = [next(batches), next(batches)]  # one batch of each worker, so that both run
    children = multiprocessing.active_children()
    assert len(children) == 2
    for number, child in itertools.product((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), children):
        os.kill(child.pid, number)
    assert same([*seen, *batches], epoch(loader(data)))
    assert not multiprocessing.active_children()


def test_no_more_workers_than_threads_of_the_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert streamed.available_workers() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert streamed.available_workers() == 2


@pytest.mark.parametrize("write", [write_imagenet, write_imagenet_parquet])
def test_workers_that_are_not_forked_get_the_same(tmp_path, write):
    data = load_large(write(tmp_path))
    images = streamed.Images(data.train, streamed.train_transform(data), (0, "train", 0))
    assert torch.equal(pickle.loads(pickle.dumps(images))[[3, 1]], images[[3, 1]])


def test_dtype_and_layout(tmp_path):
    data = load_large(write_imagenet(tmp_path))
    x, y = epoch(loader(data, dtype=torch.float64, channels_last=True))[0]
    assert (x.dtype, y.dtype, x.shape) == (torch.float64, torch.int64, (2, 3, CROP, CROP))
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(x.float(), epoch(loader(data))[0][0], atol=1e-6)


def test_crop_size_can_be_varied(tmp_path):
    data = dataclasses.replace(load_large(write_imagenet(tmp_path)), crop_size=8, resize=10)
    assert epoch(loader(data))[0][0].shape == (2, 3, 8, 8)
