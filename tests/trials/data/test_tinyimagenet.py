"""TinyImageNet in each of its layouts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trials.layouts import (
    CLASSES,
    decoded,
    encoded,
    forget,
    picture,
    put,
    tiny_images,
    write_parquet,
    write_tinyimagenet,
    write_tinyimagenet_parquet,
)
from trials.data import RawData, load_data
from trials.data.sets import tinyimagenet
from trials.errors import DataError


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget(monkeypatch)


def load_tiny(root: Path) -> RawData:
    raw = load_data("tinyimagenet", str(root))
    assert isinstance(raw, RawData)
    return raw


def as_stored(images) -> torch.Tensor:
    return torch.from_numpy(np.stack([decoded(data).transpose(2, 0, 1) for data in images]))


def test_official_layout_is_read_whole_and_in_order(tmp_path):
    raw = load_tiny(write_tinyimagenet(tmp_path))
    train, test = tiny_images()
    assert torch.equal(raw.train_images, as_stored(train.values()))  # the last one too
    assert torch.equal(raw.test_images, as_stored(data for _, data in test.values()))
    assert raw.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert raw.test_labels.tolist() == [CLASSES.index(wnid) for wnid, _ in test.values()] == [0, 2, 1, 0, 2, 1]
    assert (raw.mean, raw.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (raw.num_classes, raw.pad, raw.flip, raw.pad_colour, raw.source) == (3, 4, True, "mean", "folder")


@pytest.mark.parametrize("layout", ["classes", "images", "moved"])
def test_other_layouts_of_val_are_the_same_data(tmp_path, layout):
    official = load_tiny(write_tinyimagenet(tmp_path / "official"))
    raw = load_tiny(write_tinyimagenet(tmp_path / layout, layout))
    assert raw.fingerprint == official.fingerprint
    assert len(raw.test_labels) == 6


def test_folders_in_test_that_are_no_classes_are_counted_if_others_are(tmp_path, monkeypatch):
    root = write_tinyimagenet(tmp_path, "moved")
    assert load_tiny(root).notes == ()
    (root / "test/N01443537").mkdir()
    forget(monkeypatch)
    (note,) = load_tiny(root).notes
    assert "1 outside of the class folders; the first is test/N01443537" in note


def test_the_archives_own_folder_may_be_named_by_its_parent(tmp_path):
    write_tinyimagenet(tmp_path / "tiny-imagenet-200")
    assert load_tiny(tmp_path).fingerprint == load_tiny(tmp_path / "tiny-imagenet-200").fingerprint


def test_parquet_is_the_same_data(tmp_path):
    raw = load_tiny(write_tinyimagenet_parquet(tmp_path / "a"))
    assert (raw.source, raw.pad_colour, raw.num_classes) == ("parquet", "mean", 3)
    assert raw.fingerprint == load_tiny(write_tinyimagenet(tmp_path / "b")).fingerprint


def test_second_process_does_not_decode_but_a_changed_file_is_seen(tmp_path, monkeypatch):
    first = load_tiny(write_tinyimagenet(tmp_path))
    forget(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(tinyimagenet, "_decode", lambda *_: pytest.fail("decoded again"))
        assert load_tiny(tmp_path).fingerprint == first.fingerprint
    put(tmp_path / "val/images/val_5.JPEG", encoded(picture(77)))
    forget(monkeypatch)
    assert load_tiny(tmp_path).fingerprint != first.fingerprint


def lose_annotations(root: Path) -> None:
    (root / "val/val_annotations.txt").unlink()


def lose_annotation(root: Path) -> None:
    table = root / "val/val_annotations.txt"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))


def annotate_nonsense(root: Path) -> None:
    table = root / "val/val_annotations.txt"
    table.write_text(table.read_text().replace(CLASSES[1], "n99999999"))


def cut_annotations(root: Path) -> None:
    table = root / "val/val_annotations.txt"
    table.write_text(table.read_text().replace(f"\t{CLASSES[1]}\t0\t0\t63\t63", ""))


def annotate_twice(root: Path) -> None:
    table = root / "val/val_annotations.txt"
    table.write_text(table.read_text() + f"val_2.JPEG\t{CLASSES[0]}\t0\t0\t63\t63\n")


def same_name_twice(root: Path) -> None:
    put(root / "val/images/more/val_2.JPEG", encoded(picture(1)))


def lose_test_image(root: Path) -> None:
    (root / "val/images/val_3.JPEG").unlink()


def lose_class(root: Path) -> None:
    shutil.rmtree(root / "train" / CLASSES[2])


def empty_class(root: Path) -> None:
    shutil.rmtree(root / "train" / CLASSES[1] / "images")


def damage(root: Path) -> None:
    put(root / "val/images/val_1.JPEG", encoded(picture(1))[:200])


def resize(root: Path) -> None:
    put(root / "train" / CLASSES[0] / "images" / f"{CLASSES[0]}_0.JPEG", encoded(picture(1, 64, 48)))


def lose_val(root: Path) -> None:
    shutil.rmtree(root / "val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_annotations, r"val_annotations\.txt is missing"),
        (lose_annotation, r"val_annotations\.txt lacks val_0\.JPEG"),
        (annotate_nonsense, r"val_annotations\.txt has 3 classes and training 3, .*lacks n01629819"),
        (cut_annotations, r"val_annotations\.txt has 3 classes and training 3, .*lacks n01629819"),
        (annotate_twice, r"val_annotations\.txt names val_2\.JPEG more than once"),
        (same_name_twice, r"val/images/(more/)?val_2\.JPEG has a name that another image in val/images has too"),
        (lose_test_image, r"val/images lacks val_3\.JPEG"),
        (lose_class, r"wnids\.txt has 3 classes and training 2, .*has n01641577, which training lacks"),
        (empty_class, r"train/n01629819 holds no images"),
        (damage, r"val_1\.JPEG is not a readable image"),
        (resize, r"but all images must have the same size"),
        (lose_val, r"holds no tinyimagenet: it must have train/<class>/images/ and val/ .* valid-\*\.parquet"),
    ],
)
def test_missing_or_damaged_parts_are_named_in_one_line(tmp_path, change, message):
    change(write_tinyimagenet(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        load_data("tinyimagenet", str(tmp_path))
    assert "\n" not in str(caught.value)
    assert re.search(re.escape(str(tmp_path)), str(caught.value))


def test_a_class_without_test_images_in_folders(tmp_path):
    write_tinyimagenet(tmp_path, "classes")
    shutil.rmtree(tmp_path / "val" / CLASSES[0])
    with pytest.raises(DataError, match=r"val has 2 classes and training 3, .*lacks n01443537"):
        load_data("tinyimagenet", str(tmp_path))


def test_images_of_another_size_are_another_data_set(tmp_path):
    for split in ("train", "valid"):
        write_parquet(tmp_path / f"{split}.parquet", [encoded(picture(0, 32, 32))], [0])
    with pytest.raises(DataError, match=r"\(3, 32, 32\), but must have \(3, 64, 64\)"):
        load_data("tinyimagenet", str(tmp_path))


def test_it_needs_a_data_dir():
    with pytest.raises(DataError, match="'tinyimagenet' has no data_dir, but needs one"):
        load_data("tinyimagenet")
