"""Data sets by name: digits, the registry, and data sets made from arrays."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import trials.data
from trials.data import DATASETS, RawData, load_data, require_data
from trials.data.raw import Arrays, channel_statistics, fingerprint, raw_data
from trials.errors import DataError


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trials.data, "_loaded", {})


def arrays(train=6, test=3, shape=(1, 4, 4), classes=3, seed=0) -> Arrays:
    rng = np.random.default_rng(seed)

    def split(n):
        return rng.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n, dtype=np.int64) % classes

    return Arrays(*split(train), *split(test))


def build(a: Arrays, classes=3) -> RawData:
    return raw_data("made up", a, num_classes=classes, mean=(0.5,), std=(0.5,), pad=0, flip=False, source="here")


def test_registry_names():
    assert set(DATASETS) == {"digits", "cifar10", "cifar100", "tinyimagenet", "imagenet", "parquet", "folder"}


def test_digits_are_divided_once_and_for_all():
    raw = load_data("digits")
    assert raw.train_images.shape == (1437, 1, 8, 8)
    assert raw.test_images.shape == (360, 1, 8, 8)
    assert raw.train_images.dtype == torch.uint8
    assert raw.train_labels.dtype == torch.int64
    assert (raw.num_classes, raw.in_channels, raw.image_size) == (10, 1, (8, 8))
    assert (raw.source, raw.pad, raw.flip) == ("scikit-learn", 1, False)
    assert int(raw.train_images.max()) == 255
    assert raw.fingerprint == "dcca5f684b6d3049"  # pinned: another division would make results incomparable


def test_digits_division_is_stratified():
    raw = load_data("digits")
    train, test = torch.bincount(raw.train_labels), torch.bincount(raw.test_labels)
    assert ((test / (train + test) - 360 / 1797).abs() < 0.01).all()


def test_digits_statistics_are_those_of_the_training_images():
    raw = load_data("digits")
    pixels = raw.train_images.double() / 255
    assert raw.mean == pytest.approx([pixels.mean().item()])
    assert raw.std == pytest.approx([pixels.std(correction=0).item()])


def test_load_reads_once_per_process(monkeypatch):
    first = load_data("digits")
    monkeypatch.setitem(DATASETS, "digits", lambda _: pytest.fail("read again"))
    assert load_data("digits") is first


def test_raw_data_is_frozen_and_can_be_varied():
    raw = load_data("digits")
    with pytest.raises(dataclasses.FrozenInstanceError):
        raw.pad = 3
    assert dataclasses.replace(raw, pad=0).pad == 0


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(DataError, match=r"data set is 'cifar', .*cifar is called cifar10 or cifar100 here"):
        require_data("cifar")


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_data_dir_that_is_missing_or_a_file(name, tmp_path):
    with pytest.raises(DataError, match="which is missing"):
        require_data(name, str(tmp_path / "absent"))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="not a folder"):
        require_data(name, str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "parquet"])
def test_a_data_dir_without_data_is_refused_with_the_expected_layout(name, tmp_path):
    with pytest.raises(DataError, match=r"train-\*\.parquet and test-\*\.parquet") as caught:
        require_data(name, str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "/x/train"), OSError(5, "I/O error")])
def test_what_the_system_cannot_read_is_one_line(tmp_path, monkeypatch, error):
    def unreadable(_):
        raise error

    monkeypatch.setitem(DATASETS, "parquet", unreadable)
    with pytest.raises(DataError, match=f"parquet cannot be read: .*{error.filename or tmp_path}.*{error.strerror}"):
        load_data("parquet", str(tmp_path))


def test_parquet_needs_a_data_dir():
    with pytest.raises(DataError, match="needs one"):
        require_data("parquet")


@pytest.mark.parametrize("wrong", [-1, 3])
@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_out_of_range(split, wrong):
    a = arrays()
    getattr(a, f"{split}_labels")[1] = wrong
    with pytest.raises(DataError, match=rf"{split}.* labels run from .* must be in 0\.\.2"):
        build(a)


def test_splits_must_agree_in_shape_and_not_be_empty():
    good = arrays()
    with pytest.raises(DataError, match="same shape"):
        build(dataclasses.replace(good, test_images=arrays(shape=(1, 4, 5)).test_images))
    with pytest.raises(DataError, match="6 training and 0 test images"):
        build(dataclasses.replace(good, test_images=good.test_images[:0], test_labels=good.test_labels[:0]))


def test_fingerprint_sees_one_pixel_one_label_and_the_shape():
    first = fingerprint(arrays(), 3)
    assert fingerprint(arrays(), 3) == first
    assert len(first) == 16
    for name in ("train_images", "test_images", "train_labels", "test_labels"):
        changed = arrays()
        getattr(changed, name).reshape(-1)[-1] ^= 1
        assert fingerprint(changed, 3) != first
    a = arrays()
    assert fingerprint(dataclasses.replace(a, train_images=a.train_images.reshape(6, 1, 2, 8)), 3) != first


def test_fingerprint_sees_classes_that_training_does_not_show():
    found = {count: build(arrays(), count).fingerprint for count in (3, 4, 6)}
    assert len(set(found.values())) == 3
    assert found[3] == "9dac20c047095042"  # pinned: data whose labels show the classes keep their fingerprint


def test_channel_statistics_of_many_images_and_of_a_constant_channel():
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 2, 2), dtype=np.uint8)
    images[:, 2] = 51
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 2, 3)))
    assert std[:2] == pytest.approx((images / 255).std(axis=(0, 2, 3))[:2])
    assert (mean[2], std[2]) == (pytest.approx(0.2), 1.0)
