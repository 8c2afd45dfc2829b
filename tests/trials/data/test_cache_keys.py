"""Decoded and unpacked images are those of the files that are read, however much other files resemble them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.trials.layouts import encoded, forget
from tests.trials.parquet_files import hugging_face, pictures, write
from trials.data import EncodedData, RawData, Source, load_data
from trials.data.cache import _end_of

pytestmark = pytest.mark.usefixtures("small_crops")

SIDES = {"parquet": 6, "folder": 6, "tinyimagenet": 64, "imagenet": 20}
TESTS = {"parquet": "test", "folder": "test", "tinyimagenet": "val", "imagenet": "validation"}


def write_data(root: Path, dataset: str, seed: int) -> Path:
    """Two classes with images that take equally many bytes in each file, whatever ``seed`` is."""
    for split in ("train", TESTS[dataset]):
        images = pictures(2, (SIDES[dataset], SIDES[dataset], 3), seed)
        if dataset in ("parquet", "imagenet"):
            data = [encoded(pixels, "BMP") for pixels in images]
            write(root / f"{split}.parquet", data, [0, 1])
        else:
            for name, pixels in zip("ab", images, strict=True):
                (root / split / name).mkdir(parents=True, exist_ok=True)
                (root / split / name / "0.bmp").write_bytes(encoded(pixels, "BMP"))
    return root


def files_in(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def same_times(root: Path) -> None:
    for file in files_in(root):
        os.utime(file, ns=(10**18, 10**18))


def first_image(data: Source) -> bytes:
    if isinstance(data, EncodedData):
        return data.train.read(0)
    assert isinstance(data, RawData)
    return data.train_images[0].numpy().tobytes()


def wanted(dataset: str, seed: int) -> bytes:
    pixels = pictures(2, (SIDES[dataset], SIDES[dataset], 3), seed)[0]
    return encoded(pixels, "BMP") if dataset == "imagenet" else pixels.transpose(2, 0, 1).tobytes()


def another_folder(root: Path, other: Path) -> Path:
    return other


def moved_into_place(root: Path, other: Path) -> Path:
    shutil.rmtree(root)
    other.rename(root)
    return root


def written_over(root: Path, other: Path) -> Path:
    for file in files_in(other):
        target = root / file.relative_to(other)
        target.write_bytes(file.read_bytes())
    same_times(root)
    return root


def link_to_files(root: Path, other: Path) -> Path:
    for file in files_in(other):
        target = root / file.relative_to(other)
        target.unlink()
        target.symlink_to(file)
    return root


def link_to_folder(root: Path, other: Path) -> Path:
    shutil.rmtree(root)
    root.symlink_to(other)
    return root


@pytest.mark.parametrize("change", [another_folder, moved_into_place, written_over, link_to_files, link_to_folder])
@pytest.mark.parametrize("dataset", SIDES)
def test_files_that_resemble_others_are_read_themselves(tmp_path, monkeypatch, dataset, change):
    root, other = (write_data(tmp_path / name, dataset, seed) for seed, name in enumerate("AB"))
    for folder in (root, other):
        same_times(folder)
    sizes = [[file.stat().st_size for file in files_in(folder)] for folder in (root, other)]
    assert sizes[0] == sizes[1]
    assert first_image(load_data(dataset, str(root))) == wanted(dataset, 0)
    forget(monkeypatch)
    assert first_image(load_data(dataset, str(change(root, other)))) == wanted(dataset, 1)


def written_at_once(tmp_path: Path, dataset: str) -> tuple[Path, Path] | None:
    """Two data sets whose files of one name have the same times, ``ctime`` included; None if the clock is too fine.

    Some kernels give a file whose times were read a finer time at its next change: each attempt writes new files, and
    reads no times before the change.
    """
    for attempt in range(50):
        root, other = (write_data(tmp_path / str(attempt) / name, dataset, seed) for seed, name in enumerate("AB"))
        names = [path.relative_to(root) for path in root.rglob("*.*")]
        pairs = [(root / name, other / name) for name in names]
        for pair in pairs:
            for file in pair:
                os.utime(file, ns=(10**18, 10**18))
        if all(one.stat().st_ctime_ns == two.stat().st_ctime_ns for one, two in pairs):
            return root, other
    return None


@pytest.mark.parametrize("dataset", SIDES)
def test_files_that_changed_at_once_are_told_apart(tmp_path, monkeypatch, dataset):
    written = written_at_once(tmp_path, dataset)
    if written is None:
        pytest.skip("this file system gives no two files the same ctime")
    root, other = written
    assert first_image(load_data(dataset, str(root))) == wanted(dataset, 0)
    forget(monkeypatch)
    assert first_image(load_data(dataset, str(moved_into_place(root, other)))) == wanted(dataset, 1)


def test_a_copy_in_another_folder_is_the_same_data(tmp_path):
    shutil.copytree(write_data(tmp_path / "A", "folder", 0), tmp_path / "B")
    prints = {load_data("folder", str(tmp_path / name)).fingerprint for name in "AB"}
    assert len(prints) == 1


@pytest.mark.parametrize("names", [4, 500, 5000])
def test_the_whole_footer_counts(tmp_path, names):
    """A label differs, and so the statistics, which stand in the footer before the names."""
    metadata, ends = hugging_face([f"class {label:05}" for label in range(names)]), set()
    for label in (1, 2):
        file = write(tmp_path / f"{label}.parquet", pictures(3), [0, label, 0], metadata=metadata)
        with file.open("rb") as stream:
            ends.add(_end_of(stream, file.stat().st_size))
    assert len(ends) == 2
    assert min(map(len, ends)) >= min(file.stat().st_size, 14 * names)
