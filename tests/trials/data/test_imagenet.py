"""ImageNet: every layout is read to the same images, and missing parts are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.trials.layouts import (
    CLASSES,
    CROP,
    encoded,
    forget,
    large_images,
    load_large,
    picture,
    put,
    write_imagenet,
    write_imagenet_parquet,
    write_parquet,
)
from trials.data import DATASETS, load_data, packed
from trials.errors import DataError

pytestmark = pytest.mark.usefixtures("small_crops")


# --- layouts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "source"), [(write_imagenet, "folder"), (write_imagenet_parquet, "parquet")])
def test_every_image_is_read_with_its_label(tmp_path, write, source):
    data = load_large(write(tmp_path))
    train, test = large_images()
    assert [data.train.read(i) for i in range(len(data.train))] == [image for _, image in train]
    assert [data.test.read(i) for i in range(len(data.test))] == [image for _, image in test]
    assert data.train_labels.tolist() == [label for label, _ in train]
    assert data.test_labels.tolist() == [label for label, _ in test]
    assert (data.num_classes, data.in_channels, data.image_size, data.source) == (3, 3, (CROP, CROP), source)
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_the_registry_gives_crops_of_224(tmp_path, monkeypatch):
    monkeypatch.undo()
    data = DATASETS["imagenet"](write_imagenet(tmp_path))
    assert (data.image_size, data.resize) == ((224, 224), 256)


def test_images_are_named_by_file_and_row(tmp_path):
    folder = load_large(write_imagenet(tmp_path / "a"))
    assert folder.train.where(5) == str(tmp_path / f"a/train/{CLASSES[1]}/{CLASSES[1]}_005.JPEG")
    parquet = load_large(write_imagenet_parquet(tmp_path / "b"))
    where = [parquet.train.where(i).removeprefix(str(tmp_path / "b/data/train-")) for i in (0, 4, 5, 11)]
    first, second = "00000-of-00002.parquet", "00001-of-00002.parquet"
    assert where == [f"{first} row 0", f"{first} row 4", f"{second} row 0", f"{second} row 6"]


def test_fingerprint_follows_names_sizes_and_labels_not_paths(tmp_path, monkeypatch):
    for write, name in ((write_imagenet, "a"), (write_imagenet_parquet, "b")):
        first = load_large(write(tmp_path / name)).fingerprint
        shutil.copytree(tmp_path / name, tmp_path / f"{name}-copy", copy_function=shutil.copyfile)
        assert load_large(tmp_path / f"{name}-copy").fingerprint == first
        assert len(first) == 16
    file = tmp_path / f"a/train/{CLASSES[1]}/{CLASSES[1]}_006.JPEG"
    seen = {load_large(tmp_path / "a").fingerprint}
    for change in (lambda: put(file, file.read_bytes() + b"x"), lambda: file.rename(file.with_name("other.JPEG"))):
        change()
        forget(monkeypatch)
        seen.add(load_large(tmp_path / "a").fingerprint)
    assert len(seen) == 3


def lose_val(root: Path) -> None:
    shutil.rmtree(root / "val")


def flat_val(root: Path) -> None:
    for file in list((root / "val").glob("*/*")):
        file.rename(root / "val" / file.name)
        if not list(file.parent.iterdir()):
            file.parent.rmdir()


def lose_class(root: Path) -> None:
    shutil.rmtree(root / "val" / CLASSES[0])


def lose_training_class(root: Path) -> None:
    shutil.rmtree(root / "train" / CLASSES[0])


def empty_class(root: Path) -> None:
    for file in (root / "train" / CLASSES[2]).iterdir():
        file.rename(file.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_val, r"holds no imagenet: it must have train/<class>/ and val/<class>/ .* or train-\*\.parquet and val"),
        (flat_val, r"holds no imagenet: it must have train/<class>/ and val/<class>/"),
        (lose_class, r"val has 2 classes and training 3, .*lacks n01443537; extract"),
        (lose_training_class, r"val has 3 classes and training 2, .*has n01443537, which training lacks"),
        (empty_class, r"train/n01641577 holds no images \(\.jpg, \.jpeg, \.png, "),
    ],
)
def test_missing_parts_are_named_in_one_line(tmp_path, change, message):
    change(write_imagenet(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        load_data("imagenet", str(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_it_needs_a_data_dir():
    with pytest.raises(DataError, match="'imagenet' has no data_dir, but needs one"):
        load_data("imagenet")


# --- Parquet, unpacked -----------------------------------------------------------------------------------------


def test_parquet_is_unpacked_once(tmp_path, monkeypatch):
    first = load_large(write_imagenet_parquet(tmp_path))
    forget(monkeypatch)
    monkeypatch.setattr(packed, "_unpack", lambda *_: pytest.fail("unpacked again"))
    assert load_large(tmp_path).fingerprint == first.fingerprint


@pytest.mark.parametrize("suffix", ["bin", "npz"])
def test_a_truncated_or_missing_unpacked_file_is_unpacked_again(tmp_path, monkeypatch, suffix):
    first = load_large(write_imagenet_parquet(tmp_path))
    wanted = [first.train.read(i) for i in range(12)]
    for damage in (lambda file: file.write_bytes(file.read_bytes()[:-5]), Path.unlink):
        for file in (tmp_path / "cache/sparsity-sweeper/packed").glob(f"*.{suffix}"):
            damage(file)
        forget(monkeypatch)
        again = load_large(tmp_path)
        assert [again.train.read(i) for i in range(12)] == wanted


def test_no_room_to_unpack(tmp_path, monkeypatch):
    write_imagenet_parquet(tmp_path)
    monkeypatch.setattr(packed.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DataError, match=r"cannot be unpacked into .*set XDG_CACHE_HOME .* 0\.0 GiB are free") as caught:
        load_data("imagenet", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_row_without_an_image(tmp_path):
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"{split}.parquet", [encoded(picture(0)), None], [0, 1])
    with pytest.raises(DataError, match=r"train\.parquet row 1 holds no image"):
        load_data("imagenet", str(tmp_path))
    assert not list((tmp_path / "cache/sparsity-sweeper/packed").glob("*.tmp"))


def test_labels_are_checked(tmp_path):
    for split, labels in (("train", [0, 1]), ("validation", [0, 2])):
        write_parquet(tmp_path / f"{split}.parquet", [encoded(picture(0))] * 2, labels)
    with pytest.raises(DataError, match=r"imagenet test labels run from 0 to 2, but must be in 0\.\.1"):
        load_data("imagenet", str(tmp_path))
