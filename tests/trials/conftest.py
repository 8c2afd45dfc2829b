"""Fixtures of the trials' tests: data sets so small that a trial takes a tenth of a second, and no caches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.trials.layouts import CROP, RESIZE, forget
from trials.data import DATASETS, RawData, device
from trials.data.sets.digits import load_digits
from trials.data.sets.imagenet import load_imagenet


@pytest.fixture(scope="module")
def few_digits() -> Iterator[None]:
    """The data set ``few_digits``: 400 of the training images of digits and 100 of its test images."""
    with pytest.MonkeyPatch.context() as patch:
        put_few_digits(patch)
        yield


def put_few_digits(patch: pytest.MonkeyPatch) -> None:
    """Make ``few_digits`` a data set of this process, without a fixture."""

    def few(_data_dir: Path | None) -> RawData:
        raw = load_digits()
        return dataclasses.replace(
            raw,
            train_images=raw.train_images[:400],
            train_labels=raw.train_labels[:400],
            test_images=raw.test_images[:100],
            test_labels=raw.test_labels[:100],
            fingerprint="400" + raw.fingerprint[3:],
        )

    patch.setitem(DATASETS, "few_digits", few)


@pytest.fixture
def nothing_resident(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clears the images that other tests left on the device."""
    monkeypatch.setattr(device, "_resident", type(device._resident)())


@pytest.fixture
def small_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ImageNet of small images, and an own cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(DATASETS, "imagenet", partial(load_imagenet, crop_size=CROP, resize=RESIZE))
    forget(monkeypatch)
