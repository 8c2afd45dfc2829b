"""Any image-classification data in Parquet files, in Hugging Face's layout."""

from __future__ import annotations

from pathlib import Path

from trials.data.parquet_splits import LABEL_NAMES, classes_in, find_files, layout, read_arrays
from trials.data.raw import RawData, channel_statistics, raw_data
from trials.errors import DataError


def load_parquet(data_dir: Path | None) -> RawData:
    """Load any data set in this layout: gray or RGB images, all of one size, labels 0..C-1.

    C is the number of class names in the files' metadata, or else follows from the training labels, where each of
    0..C-1 must then occur. Mean and standard deviation are those of the training images. Augmentation: crops from a
    padding of an eighth of the smaller side (4 for 32 pixels), mirroring for RGB only (gray images often show
    characters). Raises DataError if the data are absent, incomplete or damaged.
    """
    if data_dir is None:
        raise DataError(f"data set 'parquet' has no data_dir, but needs one: name a folder with {layout()}")
    files = find_files(data_dir)
    if files is None:
        raise DataError(f"{data_dir} has no {layout()}, neither itself nor in data/: name the folder that has")
    arrays = read_arrays(files, LABEL_NAMES)
    mean, std = channel_statistics(arrays.train_images)
    return raw_data(
        "parquet",
        arrays,
        num_classes=arrays.class_count or classes_in("parquet", arrays.train_labels),
        mean=mean,
        std=std,
        pad=min(arrays.train_images.shape[2:]) // 8,
        flip=arrays.train_images.shape[1] == 3,
        source="parquet",
    )
