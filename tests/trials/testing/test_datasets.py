"""check_dataset lets sound data sets pass, and catches each way to break the contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trials.extend import Arrays, DataError, FolderImages, RawData, encoded_data, raw_data
from trials.testing import check_dataset


def sound(data_dir: Path | None = None, seed: int | None = 0) -> RawData:
    """Random images of three classes; without a seed, others at every call."""
    draws = np.random.RandomState(np.random.randint(1 << 30) if seed is None else seed)
    images = draws.randint(0, 256, (60, 1, 6, 6)).astype(np.uint8)
    labels = np.arange(60) % 3
    arrays = Arrays(images[:45], labels[:45], images[45:], labels[45:])
    return raw_data("sound", arrays, num_classes=3, mean=(0.5,), std=(0.25,), pad=1, flip=True, source="drawn")


def changed(**fields: Any) -> Callable[[Path | None], RawData]:
    return lambda data_dir=None: dataclasses.replace(sound(), **fields)


def pictures(data_dir: Path | None) -> Any:
    """PNG files of a folder, read one at a time."""
    assert data_dir is not None
    names = sorted(path.name for path in data_dir.glob("*.png"))
    if not names:
        raise DataError(f"data_dir is '{data_dir}', which holds no PNG file: give the folder that does")
    labels = np.array([int(name.split("_")[0]) for name in names])
    images, splits = FolderImages.of(data_dir, names), [slice(0, None, 2), slice(1, None, 2)]
    parts = [(FolderImages.of(data_dir, names[split]), labels[split]) for split in splits]
    assert len(images) == len(names)
    moments = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    return encoded_data(
        "pictures", *parts, 2, **moments, crop_size=8, resize=8, source=str(data_dir), fingerprint="0123456789abcdef"
    )


def careless(data_dir: Path | None) -> Any:
    """The same, without a look at what the folder holds."""
    assert data_dir is not None
    return pictures(data_dir) if any(data_dir.iterdir()) else sound()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(12):
        Image.new("RGB", (9, 9), (20 * i, 0, 0)).save(tmp_path / f"{i % 2}_{i}.png")
    return tmp_path


@pytest.mark.parametrize("dataset", [sound, "digits"])
def test_sound_data_pass(dataset: Any) -> None:
    check_dataset(dataset)


def test_data_on_disk_pass(folder: Path) -> None:
    check_dataset(pictures, data_dir=folder)


def test_a_folder_that_does_not_hold_the_data_must_be_refused(folder: Path) -> None:
    with pytest.raises(AssertionError, match="must refuse a folder that does not hold it"):
        check_dataset(careless, data_dir=folder)


BROKEN: dict[str, tuple[Callable[..., Any], str]] = {
    "other images at every call": (lambda data_dir: sound(seed=None), "must give equal data the same fingerprint"),
    "a constant fingerprint": (changed(fingerprint="f" * 16), "must have the fingerprint of its own images"),
    "no fingerprint": (changed(fingerprint=""), "must have a fingerprint"),
    "images as floats": (changed(train_images=torch.rand(45, 1, 6, 6)), "dtype uint8"),
    "labels of another type": (changed(train_labels=torch.arange(45, dtype=torch.int32) % 3), "dtype int64"),
    "a class too many": (changed(test_labels=torch.arange(15) % 4), "in 0..2, but those of test run from 0 to 3"),
    "fewer labels": (changed(train_labels=torch.arange(44) % 3), "as many as labels"),
    "other sizes": (changed(test_images=torch.zeros(15, 1, 7, 7, dtype=torch.uint8)), "images of one shape"),
    "constants of other channels": (changed(mean=(0.5, 0.5, 0.5)), "one mean for each of 1 channels"),
    "constants of other pixels": (changed(std=(64.0,)), "pixels scaled to 0..1"),
    "a deviation of zero": (changed(std=(0.0,)), "one std for each"),
    "a tuple": (lambda data_dir: (1, 2), "must return a RawData or an EncodedData"),
    "no parameter": (lambda: sound(), "must be called with data_dir"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_data_are_caught(case: str) -> None:
    dataset, sentence = BROKEN[case]
    with pytest.raises(AssertionError, match=sentence):
        check_dataset(dataset)
