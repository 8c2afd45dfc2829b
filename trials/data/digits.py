"""scikit-learn's digits: small enough to train on in seconds, there without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trials.data.raw import Arrays, RawData, channel_statistics, raw_data

TEST_SIZE = 360
DIVISION_SEED = 0  # of the data set, not of a trial: every trial is tested on the same 360 images


def load_digits(_data_dir: Path | None = None) -> RawData:
    """1,797 gray 8x8 images of ten digits: 1,437 for training, 360 for testing, stratified, always the same.

    Pixel values 0..16 are scaled to 0..255. No mirroring (a mirrored 2 is not a 2). Random crops from one pixel of
    padding: the outer columns are almost always empty, and accuracy does not differ from that without crops (a small
    ConvNet, 5 seeds: 99.1 +- 0.6 % against 98.9 +- 0.5 %), so that the whole augmentation can be exercised on it.
    The images come with scikit-learn, so no folder is looked at.
    """
    from sklearn.datasets import load_digits as bundled
    from sklearn.model_selection import train_test_split

    digits = bundled()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # [1797, 1, 8, 8]
    labels = digits.target.astype(np.int64)
    split = train_test_split(images, labels, test_size=TEST_SIZE, random_state=DIVISION_SEED, stratify=labels)
    train_images, test_images, train_labels, test_labels = (np.ascontiguousarray(part) for part in split)
    arrays = Arrays(train_images, train_labels, test_images, test_labels)
    mean, std = channel_statistics(train_images)
    return raw_data("digits", arrays, num_classes=10, mean=mean, std=std, pad=1, flip=False, source="scikit-learn")
