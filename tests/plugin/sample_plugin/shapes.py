"""Images of squares and crosses."""

from pathlib import Path

import numpy as np

from trials.extend import Arrays, RawData, channel_statistics, raw_data

SIDE = 10


def shapes(data_dir: Path | None = None) -> RawData:
    """Draw 240 training and 60 test images [1, 10, 10] of two classes: squares (0) and crosses (1)."""
    draws = np.random.default_rng(0)
    labels = np.arange(300) % 2
    images = draws.integers(0, 60, (300, 1, SIDE, SIDE)).astype(np.uint8)
    for image, label in zip(images[:, 0], labels, strict=True):
        y, x = draws.integers(1, SIDE - 5, 2)
        if label:
            image[y : y + 5, x + 2] = image[y + 2, x : x + 5] = 255
        else:
            image[y : y + 5, x : x + 5] = 255
    arrays = Arrays(images[:240], labels[:240], images[240:], labels[240:], class_count=2)
    mean, std = channel_statistics(arrays.train_images)
    return raw_data("shapes", arrays, num_classes=2, mean=mean, std=std, pad=1, flip=True, source="drawn")
