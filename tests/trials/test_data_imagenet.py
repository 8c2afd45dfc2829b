"""ImageNet in each of its layouts, and its batches from worker processes."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import pickle
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

import trials.data
from tests.trials.layouts import (
    CLASSES,
    decoded,
    encoded,
    large_images,
    picture,
    put,
    write_imagenet,
    write_imagenet_parquet,
    write_parquet,
)
from trials.data import DATASETS, EncodedData, Streamed, load, packed, place, streamed
from trials.data.imagenet import load_imagenet
from trials.errors import DataError
from trials.seeding import derive_seed, generator

CROP, RESIZE = 16, 18


@pytest.fixture(autouse=True)
def small_crops(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(DATASETS, "imagenet", partial(load_imagenet, crop_size=CROP, resize=RESIZE))
    forget(monkeypatch)


def forget(monkeypatch) -> None:
    monkeypatch.setattr(trials.data, "_loaded", {})


def load_large(root: Path) -> EncodedData:
    data = load("imagenet", str(root))
    assert isinstance(data, EncodedData)
    return data


def loader(data: EncodedData, workers=0, val_fraction=0.25, **options) -> Streamed:
    return Streamed(data, workers=workers, device="cpu", val_fraction=val_fraction, split_seed=0, **options)


def epoch(data: Streamed, seed=0, epoch=0, stream="train", batch_size=2, **options) -> list[tuple[Tensor, Tensor]]:
    return list(data.batches(seed=seed, epoch=epoch, stream=stream, batch_size=batch_size, **options))


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def pixels(x: Tensor, data: EncodedData) -> np.ndarray:
    """Undo the normalisation: uint8 [B, H, W, 3]."""
    mean, std = torch.tensor(data.mean).view(1, -1, 1, 1), torch.tensor(data.std).view(1, -1, 1, 1)
    return ((x * std + mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


# --- layouts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "source"), [(write_imagenet, "folder"), (write_imagenet_parquet, "parquet")])
def test_every_image_is_there_with_its_label(tmp_path, write, source):
    data = load_large(write(tmp_path))
    train, test = large_images()
    assert [data.train.read(i) for i in range(len(data.train))] == [image for _, image in train]
    assert [data.test.read(i) for i in range(len(data.test))] == [image for _, image in test]
    assert data.train_labels.tolist() == [label for label, _ in train]
    assert data.test_labels.tolist() == [label for label, _ in test]
    assert (data.num_classes, data.in_channels, data.image_size, data.source) == (3, 3, (CROP, CROP), source)
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_the_row_of_the_registry_says_224(tmp_path, monkeypatch):
    monkeypatch.undo()
    data = DATASETS["imagenet"](write_imagenet(tmp_path))
    assert (data.image_size, data.resize) == ((224, 224), 256)


def test_images_are_named_by_file_and_row(tmp_path):
    folder = load_large(write_imagenet(tmp_path / "a"))
    assert folder.train.where(5) == str(tmp_path / f"a/train/{CLASSES[1]}/{CLASSES[1]}_005.JPEG")
    parquet = load_large(write_imagenet_parquet(tmp_path / "b"))
    where = [parquet.train.where(i).removeprefix(str(tmp_path / "b/data/train-")) for i in (0, 4, 5, 11)]
    first, second = "00000-of-00002.parquet", "00001-of-00002.parquet"
    assert where == [f"{first} row 0", f"{first} row 4", f"{second} row 0", f"{second} row 6"]


def test_fingerprint_follows_names_sizes_and_labels_not_places(tmp_path, monkeypatch):
    for write, name in ((write_imagenet, "a"), (write_imagenet_parquet, "b")):
        first = load_large(write(tmp_path / name)).fingerprint
        shutil.copytree(tmp_path / name, tmp_path / f"{name}-copy", copy_function=shutil.copyfile)
        assert load_large(tmp_path / f"{name}-copy").fingerprint == first
        assert len(first) == 16
    file = tmp_path / f"a/train/{CLASSES[1]}/{CLASSES[1]}_006.JPEG"
    seen = {load_large(tmp_path / "a").fingerprint}
    for change in (lambda: put(file, file.read_bytes() + b"x"), lambda: file.rename(file.with_name("other.JPEG"))):
        change()
        forget(monkeypatch)
        seen.add(load_large(tmp_path / "a").fingerprint)
    assert len(seen) == 3


def lose_val(root: Path) -> None:
    shutil.rmtree(root / "val")


def flat_val(root: Path) -> None:
    for file in list((root / "val").glob("*/*")):
        file.rename(root / "val" / file.name)
        if not list(file.parent.iterdir()):
            file.parent.rmdir()


def lose_class(root: Path) -> None:
    shutil.rmtree(root / "val" / CLASSES[0])


def lose_training_class(root: Path) -> None:
    shutil.rmtree(root / "train" / CLASSES[0])


def empty_class(root: Path) -> None:
    for file in (root / "train" / CLASSES[2]).iterdir():
        file.rename(file.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_val, r"holds no imagenet: it must have train/<class>/ and val/<class>/ .* or train-\*\.parquet and val"),
        (flat_val, r"holds no imagenet: it must have train/<class>/ and val/<class>/"),
        (lose_class, r"val has 2 classes and training 3, .*lacks n01443537; extract"),
        (lose_training_class, r"val has 3 classes and training 2, .*has n01443537, which training lacks"),
        (empty_class, r"train/n01641577 holds no images \(\.jpeg, \.jpg, \.png\)"),
    ],
)
def test_what_is_incomplete_is_named_in_one_line(tmp_path, change, message):
    change(write_imagenet(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        load("imagenet", str(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_it_needs_a_data_dir():
    with pytest.raises(DataError, match="'imagenet' has no data_dir, but needs one"):
        load("imagenet")


# --- Parquet, unpacked -----------------------------------------------------------------------------------------


def test_parquet_is_unpacked_once(tmp_path, monkeypatch):
    first = load_large(write_imagenet_parquet(tmp_path))
    forget(monkeypatch)
    monkeypatch.setattr(packed, "_unpack", lambda *_: pytest.fail("unpacked again"))
    assert load_large(tmp_path).fingerprint == first.fingerprint


@pytest.mark.parametrize("suffix", ["bin", "npz"])
def test_what_was_unpacked_is_unpacked_again_when_it_is_cut_short_or_gone(tmp_path, monkeypatch, suffix):
    first = load_large(write_imagenet_parquet(tmp_path))
    wanted = [first.train.read(i) for i in range(12)]
    for damage in (lambda file: file.write_bytes(file.read_bytes()[:-5]), Path.unlink):
        for file in (tmp_path / "cache/sparsity-sweeper/packed").glob(f"*.{suffix}"):
            damage(file)
        forget(monkeypatch)
        again = load_large(tmp_path)
        assert [again.train.read(i) for i in range(12)] == wanted


def test_no_room_to_unpack(tmp_path, monkeypatch):
    write_imagenet_parquet(tmp_path)
    monkeypatch.setattr(packed.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DataError, match=r"cannot be unpacked into .*set XDG_CACHE_HOME .* 0\.0 are free") as caught:
        load("imagenet", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_row_without_an_image(tmp_path):
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"{split}.parquet", [encoded(picture(0)), None], [0, 1])
    with pytest.raises(DataError, match=r"train\.parquet row 1 holds no image"):
        load("imagenet", str(tmp_path))
    assert not list((tmp_path / "cache/sparsity-sweeper/packed").glob("*.tmp"))


def test_labels_are_checked(tmp_path):
    for split, labels in (("train", [0, 1]), ("validation", [0, 2])):
        write_parquet(tmp_path / f"{split}.parquet", [encoded(picture(0))] * 2, labels)
    with pytest.raises(DataError, match=r"imagenet test labels run from 0 to 2, but must be in 0\.\.1"):
        load("imagenet", str(tmp_path))


# --- batches ---------------------------------------------------------------------------------------------------


def test_place_streams_it_with_the_same_interface(tmp_path):
    data = place(load_large(write_imagenet(tmp_path)), device="cpu", val_fraction=0.25, split_seed=0)
    assert isinstance(data, Streamed)
    assert (data.train_size, data.val_size, data.test_size, data.steps(2)) == (9, 3, 6, 5)
    assert (data.num_classes, data.in_channels, data.image_size) == (3, 3, (CROP, CROP))
    assert not set(data.train_indices.tolist()) & set(data.val_indices.tolist())


def expected(data: EncodedData, index: int, key: tuple[int, str, int]) -> np.ndarray:
    """The augmented image by hand: draw, cut, resize, mirror."""
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
    seen = [next(batches), next(batches)]  # one of each worker: both are up
    children = multiprocessing.active_children()
    assert len(children) == 2
    for number, child in itertools.product((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), children):
        os.kill(child.pid, number)
    assert same([*seen, *batches], epoch(loader(data)))
    assert not multiprocessing.active_children()


def test_no_more_workers_than_threads_of_the_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
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
