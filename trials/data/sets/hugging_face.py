"""Data sets of Hugging Face's hub: ``hf:OWNER/NAME`` or ``hf:OWNER/NAME/CONFIGURATION``, through ``datasets``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trials.data.cache import cached, source_key
from trials.data.images import DECODING, ImageStack
from trials.data.parquet_arrays import classes_in
from trials.data.parquet_classes import common_class_names, number_labels
from trials.data.parquet_columns import Wanted, find_columns
from trials.data.parquet_file import LabelColumn, ParquetHeader, label_column
from trials.data.parquet_splits import TEST_SPLITS
from trials.data.raw import Arrays, RawData, channel_statistics, raw_data
from trials.errors import AbsentData, DataError, UserError, listed, shown
from trials.optional import require

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(/[\w.-]+)?", re.ASCII)
_ROWS_AT_ONCE = 256


def hugging_face(name: str) -> Callable[..., RawData]:
    """Return the loader of the data set ``name`` of the hub, ``OWNER/NAME`` or ``OWNER/NAME/CONFIGURATION``.

    Raises:
        UserError: that is no such name, or ``datasets`` is not installed.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise UserError(f"dataset is {f'hf:{name}'!r}, but must be hf:OWNER/NAME or hf:OWNER/NAME/CONFIGURATION")
    require("datasets", "hf", f"dataset 'hf:{name}'")
    return partial(load_hugging_face, name)


def load_hugging_face(
    name: str,
    data_dir: Path | None,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    image_size: int | None = None,
) -> RawData:
    """Load a data set of the hub, from the cache of ``datasets`` or, where it is not there, by a download.

    Split ``train`` is trained on; the first of ``test``, ``validation``, ``valid``, ``val`` and ``dev`` that has labels
    is tested on. Columns, class numbers, normalisation, augmentation and ``image_size`` are as for Parquet files
    (:func:`trials.data.sets.parquet.load_parquet`); the fingerprint is of the pixels and labels.

    Args:
        name: ``OWNER/NAME`` or ``OWNER/NAME/CONFIGURATION``.
        data_dir: cache folder of ``datasets``; None takes its own ($HF_HOME/datasets).

    Raises:
        AbsentData: it is neither in the cache nor can it be downloaded.
        DataError: it lacks a split or a column, has labels that are no classes, or images that cannot be read.
    """
    splits = _splits(name, data_dir)
    wanted = Wanted(image_column, label_column)
    try:
        train = _Split.of(name, "train", splits, wanted)
        test, notes = _test_split(name, splits, wanted, train.header.columns.label)
        arrays = _decoded(name, train, test, image_size)
    except DataError as error:
        raise DataError(str(error).replace(" (data set 'parquet')", "")) from None
    mean, std = channel_statistics(arrays.train_images)
    return raw_data(
        f"hf:{name}",
        arrays,
        num_classes=arrays.class_count or classes_in(f"hf:{name}", arrays.train_labels),
        mean=mean,
        std=std,
        pad=min(arrays.train_images.shape[2:]) // 8,
        flip=arrays.train_images.shape[1] == 3,
        source="hugging face",
        notes=notes,
        class_names=train.header.columns.class_names,
    )


def _splits(name: str, cache: Path | None) -> Mapping[str, Any]:
    """Every split of the data set, as a ``datasets.Dataset``, by name."""
    datasets = require("datasets", "hf", f"dataset 'hf:{name}'")
    owner, short, *configuration = name.split("/")
    repository, where = f"{owner}/{short}", None if cache is None else str(cache)
    if Path(repository).exists():  # datasets would read that instead
        raise DataError(
            f"dataset is 'hf:{name}', but there is a folder {repository} here, which datasets would read: run the "
            "command elsewhere, or read that folder with dataset: parquet or folder"
        )
    try:
        found: Mapping[str, Any] = datasets.load_dataset(repository, *configuration, cache_dir=where)
    except (OSError, datasets.exceptions.DatasetNotFoundError) as error:  # OSError: no network, no room
        snapshot = _snapshot(repository)
        if snapshot is None:
            raise AbsentData(
                f"hf:{name} is not in the cache ({where or datasets.config.HF_DATASETS_CACHE}), and cannot be "
                f"downloaded ({_line(error)}): check the name, log in (hf auth login) if it is not public, or load it "
                "once where there is a network"
            ) from None
        found = _of_snapshot(datasets, name, snapshot, configuration, where)
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"hf:{name} cannot be loaded: {_line(error)}; give hf:OWNER/NAME/CONFIGURATION") from None
    return found


def _snapshot(repository: str) -> Path | None:
    """Folder of a repository's files in the hub's cache, as ``hf download`` fills it; None if they are not there."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, repo_type="dataset", local_files_only=True))
    except OSError:  # LocalEntryNotFoundError
        return None


def _of_snapshot(
    datasets: Any, name: str, snapshot: Path, configuration: list[str], cache: str | None
) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = datasets.load_dataset(str(snapshot), *configuration, cache_dir=cache)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"hf:{name} cannot be loaded from {snapshot}: {_line(error)}") from None
    return found


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


class _Split:
    """A split: its table, and which columns are read.

    Attributes:
        header: names the split in messages where a file would be named.
    """

    def __init__(self, table: Any, header: ParquetHeader) -> None:
        self.table, self.header = table, header

    @classmethod
    def of(cls, name: str, split: str, splits: Mapping[str, Any], wanted: Wanted) -> _Split:
        if split not in splits:
            raise DataError(
                f"hf:{name} has the splits {listed(splits) or 'none'}, but must have train and one of "
                f"{', '.join(TEST_SPLITS)}: choose another configuration, or write Parquet files of such splits"
            )
        table, called = splits[split], Path(f"hf:{name} {split}")
        columns = find_columns(called, table.features.arrow_schema, wanted)
        return cls(table, ParquetHeader(called, len(table), columns))

    def rows(self) -> Iterator[tuple[list[bytes | None], Any]]:
        """Yield chunks of (encoded images, labels as a ``pyarrow.Array``)."""
        image, label = self.header.columns.image, self.header.columns.label
        chosen = self.table.select_columns([image, label]).with_format("arrow")
        for chunk in chosen.iter(batch_size=_ROWS_AT_ONCE):
            yield [_bytes_of(one) for one in chunk.column(image).to_pylist()], chunk.column(label).combine_chunks()

    @property
    def files(self) -> list[Path]:
        return [Path(file["filename"]) for file in self.table.cache_files]


def _bytes_of(image: Any) -> bytes | None:
    """Encoded bytes of an image, which may stand as a path of a file that ``datasets`` has unpacked."""
    if not isinstance(image, dict):
        return image if isinstance(image, bytes) else None
    if image.get("bytes") is None and image.get("path"):
        return Path(image["path"]).read_bytes()
    found: bytes | None = image.get("bytes")
    return found


def _test_split(name: str, splits: Mapping[str, Any], wanted: Wanted, label: str) -> tuple[_Split, tuple[str, ...]]:
    """The first test split that has labels, and notes on those that are not read."""
    present = [split for split in TEST_SPLITS if split in splits]
    chosen = next((split for split in present if not _lacks_labels(splits[split], label)), None)
    if chosen is None:
        if present:
            raise DataError(
                f"hf:{name} has no labels in {label!r} of {listed(present)}, but images to test on must have them: "
                "write Parquet files with a test split taken out of the training images"
            )
        return _Split.of(name, "test", splits, wanted), ()
    unread = [split for split in splits if split not in ("train", chosen)]
    note = f"not read in hf:{name}: {listed(unread)}; the images to test on are those of {chosen}"
    return _Split.of(name, chosen, splits, wanted), (note,) if unread else ()


def _lacks_labels(table: Any, label: str) -> bool:
    """Whether no row has a label: all are null, empty or -1, or the column is missing."""
    if label not in table.column_names:
        return True
    return len(table) > 0 and set(table.unique(label)) <= {None, -1, ""}


def _decoded(name: str, train: _Split, test: _Split, image_size: int | None) -> Arrays:
    columns = (train.header.columns, test.header.columns)
    facts = ["hf", DECODING, shown(image_size), str(len(train.files)), *map(str, columns)]
    whole = [split.table.num_rows for split in (train, test)]
    if not (train.files and test.files):  # in memory: nothing tells the content of one table from another's
        return _decode(train, test, image_size)
    key = source_key([*train.files, *test.files], name, *facts, *map(str, whole))
    return cached(key, partial(_decode, train, test, image_size))


def _decode(train: _Split, test: _Split, image_size: int | None) -> Arrays:
    common_class_names([train.header, test.header])  # refused before anything is decoded
    first, of_train = _decode_split(train, image_size, beside=test.header.rows)
    second, of_test = _decode_split(test, image_size)
    labels = number_labels([of_train], [of_test])
    gray = first.gray and second.gray
    return Arrays(first.array(gray), labels.train, second.array(gray), labels.test, labels.class_count)


def _decode_split(split: _Split, image_size: int | None, beside: int = 0) -> tuple[ImageStack, LabelColumn]:
    header, row, chunks = split.header, 0, []
    if not header.rows:
        raise DataError(f"{header.file} holds no rows, but each split must have some")
    stack = ImageStack(header.rows, image_size, way_out="give image_size", beside=beside)
    for encoded, labels in split.rows():
        for data in encoded:
            stack.add(data, f"{header.file} row {row}")
            row += 1
        chunks.append(labels)
    return stack, label_column(header, chunks)
