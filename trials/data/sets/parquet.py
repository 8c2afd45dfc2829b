"""Any image-classification data in Parquet files, in Hugging Face's layouts."""

from __future__ import annotations

from pathlib import Path

from trials.data.parquet_arrays import class_names_in, classes_in, read_arrays
from trials.data.parquet_columns import Wanted
from trials.data.parquet_splits import find_labelled, layout
from trials.data.raw import RawData, channel_statistics, raw_data
from trials.errors import AbsentData


def load_parquet(
    data_dir: Path | None,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    image_size: int | None = None,
) -> RawData:
    """Load any data set in these layouts: gray or RGB images, all of one size or resized to it, with one label each.

    C is the number of class names in the files' metadata or, for labels that are text, of texts in training; otherwise
    it follows from the training labels, where each of the C must then occur. Mean and standard deviation are those of
    the training images. Augmentation: crops from a padding of an eighth of the smaller side (4 for 32 pixels),
    mirroring for RGB only (gray images often show characters). Raises DataError if the data are absent, incomplete,
    damaged or contradictory.

    Args:
        data_dir: folder with the files, see :func:`find_labelled`.
        image_column: column of the images, encoded, as binary or as a struct with ``bytes``; None finds it.
        label_column: column of the labels; None finds it. See trials/data/parquet_classes.py for how they are numbered.
        image_size: S makes every image S x S pixels: its smaller side is resized to S (bilinear, with antialiasing) and
            the centre is cropped. None leaves images as they are; they must then have the same size.
    """
    if data_dir is None:
        raise AbsentData(f"data set 'parquet' has no data_dir, but needs one: name a folder with {layout()}")
    wanted = Wanted(image_column, label_column)
    files = find_labelled(data_dir, wanted)
    if files is None:
        raise AbsentData(
            f"{data_dir} has no {layout()}, neither itself nor in data/ or one folder below: give the folder that has "
            "them"
        )
    arrays = read_arrays(files, wanted, image_size=image_size)
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
        notes=files.notes,
        class_names=class_names_in(files, wanted),
    )
