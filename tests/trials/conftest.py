"""For the tests of trials: a data set so small that a whole trial takes a tenth of a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from trials.data import DATASETS, RawData
from trials.data.digits import load_digits


@pytest.fixture(scope="module")
def few_digits() -> Iterator[None]:
    """The data set ``few_digits``: 400 of the training images of digits and 100 of its test images."""

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

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "few_digits", few)
        yield
