"""scikit-learn's digits: small enough to train on in seconds, available without a download."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from trials.data.raw import Arrays, RawData, channel_statistics, raw_data

TEST_EVERY = 5
DIVISION_SEED = 0  # fixed, not a trial's seed: every trial is tested on the same 360 images


def load_digits(_data_dir: Path | None = None) -> RawData:
    """Load 1,797 gray 8x8 images of ten digits: 1,437 for training, 360 for testing, in a fixed stratified split.

    Pixel values 0..16 are scaled to 0..255. No mirroring (a mirrored 2 is not a 2). Random crops from one pixel of
    padding: the outer columns are almost always empty, so cropping exercises the augmentation and costs nothing.
    The images come with scikit-learn, so ``_data_dir`` is ignored.
    """
    pixels, labels = _bundled()
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    shuffled = np.random.RandomState(DIVISION_SEED).permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    is_test = np.arange(len(labels)) % TEST_EVERY == 0
    train, test = np.sort(by_label[~is_test]), np.sort(by_label[is_test])
    arrays = Arrays(images[train], labels[train], images[test], labels[test])
    mean, std = channel_statistics(arrays.train_images)
    return raw_data(
        "digits",
        arrays,
        num_classes=10,
        mean=mean,
        std=std,
        pad=1,
        flip=False,
        source="scikit-learn",
        class_names=tuple("0123456789"),
    )


def _bundled() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [1797, 64] and labels int64 [1797], from scikit-learn's file: importing sklearn is ten times slower."""
    spec = importlib.util.find_spec("sklearn")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else Path()
    if path.is_file():
        table = np.loadtxt(path, delimiter=",", dtype=np.float64)
        return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits as bundled

    digits = bundled()
    return np.asarray(digits.data, dtype=np.float64), np.asarray(digits.target, dtype=np.int64)
