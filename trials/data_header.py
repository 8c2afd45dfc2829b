"""What is known of a data set before its images are read: sizes, channels, classes and fingerprint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataHeader:
    """The facts of a data set that decide whether a trial can run on it.

    Attributes:
        name: the data set's name, a key of ``trials.data.DATASETS``.
        in_channels: C, 1 for gray images and 3 for RGB.
        image_size: (H, W) in pixels, as the network sees them.
        train_size: number of training images, those for validation included.
        fingerprint: 16 hex digits of the content; None where only the published sizes are known.
        notes: lines that a user should see, such as how many files were not read.
    """

    name: str
    num_classes: int
    in_channels: int
    image_size: tuple[int, int]
    train_size: int
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()
