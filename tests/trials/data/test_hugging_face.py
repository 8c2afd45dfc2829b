"""``hf:OWNER/NAME``: data sets of Hugging Face's hub, from caches that these tests write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest

from tests.trials.layouts import forget
from tests.trials.parquet_files import hugging_face, pictures, write
from trials.data import DATASETS, DataOptions, RawData, load_data
from trials.errors import AbsentData, DataError, UserError

NAMES = ["round", "square", "flat"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, on a machine without a network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "decoded"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    datasets.disable_progress_bars()
    forget(monkeypatch)
    return tmp_path


def parquet_files(folder: Path, splits: Sequence[str], labels: Sequence[int] | None = None, **options: object) -> Path:
    """Files as a repository has them: 12 RGB images of 6x6 pixels to train on, 6 in every other split."""
    for number, split in enumerate(splits):
        count = 12 if split == "train" else 6
        given = list(labels) if labels and split != "train" else [i % 3 for i in range(count)]
        fields = {"metadata": hugging_face(NAMES, str(options.get("label", "label"))), **options}
        write(folder / f"{split}-00000-of-00001.parquet", pictures(count, seed=number), given, **fields)
    return folder


def in_hub_cache(home: Path, **options: object) -> None:
    """``own/shapes`` as ``hf download`` leaves it."""
    place = home / "hub" / "datasets--own--shapes"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    parquet_files(place / "snapshots" / ("0" * 40) / "data", **{"splits": ("train", "test"), **options})  # type: ignore[arg-type]


def in_datasets_cache(home: Path) -> None:
    """``own/shapes`` as ``datasets.load_dataset`` leaves it."""
    source = parquet_files(home / "source", ("train", "test"))
    files = {split: str(next(source.glob(f"{split}-*"))) for split in ("train", "test")}
    builder = datasets.load_dataset_builder("parquet", data_files=files, cache_dir=str(home / "build"))
    builder.download_and_prepare()
    to = home / "datasets" / "own___shapes" / "default" / "0.0.0" / "0123"
    to.parent.mkdir(parents=True)
    Path(builder.cache_dir).rename(to)
    for file in to.glob("parquet-*.arrow"):
        file.rename(file.with_name(file.name.replace("parquet", "shapes")))


@pytest.mark.parametrize("fill", [in_hub_cache, in_datasets_cache])
def test_a_cached_data_set_is_read_as_its_parquet_files_are(home: Path, fill: object) -> None:
    fill(home)  # type: ignore[operator]
    found = load_data("hf:own/shapes")
    assert isinstance(found, RawData)
    same = load_data("parquet", str(parquet_files(home / "same", ("train", "test"))))
    assert (found.name, found.num_classes, found.image_size) == ("hf:own/shapes", 3, (6, 6))
    assert np.array_equal(found.train_images, pictures(12).transpose(0, 3, 1, 2))
    assert found.train_labels.tolist() == [0, 1, 2] * 4
    assert found.fingerprint == same.fingerprint
    assert (found.mean, found.std, found.pad, found.flip) == (same.mean, same.std, same.pad, same.flip)


def test_columns_and_size_are_options(home: Path) -> None:
    in_hub_cache(home, image="photo", label="kind")
    options = DataOptions("photo", "kind", 4)
    assert load_data("hf:own/shapes", None, options).image_size == (4, 4)
    with pytest.raises(
        DataError, match=r"image_column is 'picture', but hf:own/shapes train has the columns photo, kind"
    ):
        load_data("hf:own/shapes", None, DataOptions("picture"))


def test_the_first_split_with_labels_is_tested_on(home: Path) -> None:
    in_hub_cache(home, splits=("train", "test", "validation"))
    found = load_data("hf:own/shapes")
    assert found.notes == ("not read in hf:own/shapes: validation; the images to test on are those of test",)


def test_a_test_split_without_labels_is_not_tested_on(home: Path) -> None:
    in_hub_cache(home, splits=("train", "test"), labels=[-1] * 6)
    with pytest.raises(DataError, match="has no labels in 'label' of test, but images to test on must have them"):
        load_data("hf:own/shapes")


def test_a_data_set_without_test_images_is_refused(home: Path) -> None:
    in_hub_cache(home, splits=("train",))
    with pytest.raises(DataError, match="hf:own/shapes has the splits train, but must have train and one of test, "):
        load_data("hf:own/shapes")


def test_what_is_not_cached_is_absent_without_a_network(home: Path) -> None:
    with pytest.raises(AbsentData, match=r"hf:own/shapes is not in the cache \(.*datasets\), and cannot be downloaded"):
        load_data("hf:own/shapes")


def test_a_folder_of_the_same_name_is_not_taken_for_the_data_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    parquet_files(home / "own" / "shapes", ("train", "test"))
    with pytest.raises(DataError, match="there is a folder own/shapes here"):
        load_data("hf:own/shapes")


@pytest.mark.parametrize("name", ["hf:mnist", "hf:../data/x", "hf:a/b/c/d", "hf:", "hf:/etc/x", "hf:a/..b/../c"])
def test_names_that_are_none_of_the_hub_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="must be hf:OWNER/NAME"):
        DATASETS.require(name, "dataset")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"dataset 'hf:own/other' needs datasets, .*sparsity-sweeper\[hf\]"):
        DATASETS.prefixes["hf"]("own/other")
