"""The data set ``folder``: images of any size in class folders, in memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets, transforms

from tests.trials.layouts import CLASSES, decoded, encoded, forget, picture, put, write_folders
from trials.commands.run import run_config
from trials.data import DataOptions, RawData, load_data, room
from trials.data import decoded as decoding
from trials.data.raw import channel_statistics
from trials.data.sets import folder
from trials.errors import DataError

pytestmark = pytest.mark.usefixtures("small_crops")


def load(root: Path, image_size: int | None = None) -> RawData:
    raw = load_data("folder", str(root), DataOptions(image_size=image_size))
    assert isinstance(raw, RawData)
    return raw


def write_sizes(root: Path) -> Path:
    """Images of many sizes, so many that threads decode them in several turns."""
    for split, count in (("train", 14), ("test", 5)):
        for label, name in enumerate(CLASSES):
            for i in range(count):
                pixels = picture(100 * label + i, 10 + (7 * i) % 13, 10 + (5 * i) % 11)
                put(root / split / name / f"{i}.png", encoded(pixels, "PNG"))
    return root


# --- what is read --------------------------------------------------------------------------------------------------


def test_every_image_with_its_label(tmp_path):
    raw = load(write_folders(tmp_path))
    for split, images, labels in (
        ("train", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        files = [tmp_path / split / name / f"{i}.png" for name in CLASSES for i in range(4)]
        stored = [decoded(file.read_bytes()).transpose(2, 0, 1) for file in files]
        assert torch.equal(images, torch.from_numpy(np.stack(stored)))
        assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (raw.name, raw.num_classes, raw.image_size, raw.source, raw.notes) == ("folder", 3, (16, 16), "folder", ())
    assert (raw.mean, raw.std) == channel_statistics(raw.train_images.numpy())
    assert (raw.pad, raw.flip, raw.pad_colour) == (2, True, "black")


@pytest.mark.parametrize("size", [8, 12, 32])
@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_with_a_size_it_is_torchvisions_image_folder(tmp_path, monkeypatch, size, at_once):
    monkeypatch.setattr(decoding, "_AT_ONCE", at_once)
    monkeypatch.setattr(decoding, "available_workers", lambda: 4)
    raw = load(write_sizes(tmp_path), size)
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.PILToTensor()]
    for split, images, labels in (
        ("train", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        wanted = datasets.ImageFolder(tmp_path / split, transform=transforms.Compose(steps))
        assert len(wanted) == len(images)
        for (pixels, label), ours, our_label in zip(wanted, images, labels.tolist(), strict=True):
            assert torch.equal(pixels, ours)
            assert label == our_label


def test_images_of_several_sizes_need_a_size(tmp_path):
    with pytest.raises(DataError, match=r"all images must have the same size: give image_size, for example") as caught:
        load(write_sizes(tmp_path))
    assert str(tmp_path / "train") in str(caught.value)


def test_a_test_image_of_another_size_needs_a_size(tmp_path):
    write_folders(tmp_path)
    put(tmp_path / "test" / CLASSES[1] / "9.png", encoded(picture(0, 16, 20), "PNG"))
    with pytest.raises(DataError, match=r"test/n01629819/9\.png is 16x20 pixels and .* 16x16.* give image_size"):
        load(tmp_path)
    assert load(tmp_path, 16).image_size == (16, 16)


@pytest.mark.parametrize("coloured", ["", "train", "test"])
def test_gray_only_if_all_images_are(tmp_path, coloured):
    for split in ("train", "test"):
        for name in ("a", "b"):
            put(tmp_path / split / name / "x.png", encoded(picture(1)[:, :, 0], "PNG"))
    if coloured:
        put(tmp_path / coloured / "b/y.png", encoded(picture(2), "PNG"))
    raw = load(tmp_path)
    assert raw.train_images.shape[1] == raw.test_images.shape[1] == (3 if coloured else 1)
    assert raw.flip is bool(coloured)


def test_images_of_16_bits_are_refused(tmp_path):
    write_folders(tmp_path)
    deep = tmp_path / "train" / CLASSES[0] / "deep.png"
    Image.fromarray(np.full((16, 16), 40_000, dtype=np.uint16)).save(deep)
    with pytest.raises(DataError, match=r"deep\.png has pixels of mode 'I;16', but must have 8 bits a channel"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["digits", "cifar10", "tinyimagenet", "imagenet"])
def test_other_data_sets_take_no_size(tmp_path, name):
    with pytest.raises(DataError, match=r"image_size is 8, but is an option of folder.*, not of"):
        load_data(name, str(tmp_path), DataOptions(image_size=8))


# --- splits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [
        (["test"], "test"),
        (["val"], "val"),
        (["valid"], "valid"),
        (["validation"], "validation"),
        (["val", "test"], "test"),
        (["valid", "val"], "val"),
        (["validation", "valid", "test"], "test"),
    ],
)
def test_the_test_images_are_those_of_the_first_split(tmp_path, splits, chosen):
    raw = load(write_folders(tmp_path, ("train", *splits)))
    first = decoded((tmp_path / chosen / CLASSES[0] / "0.png").read_bytes())
    assert np.array_equal(raw.test_images[0].permute(1, 2, 0).numpy(), first)
    assert len(raw.test_labels) == 12
    if len(splits) == 1:
        assert raw.notes == ()
    else:
        (note,) = raw.notes
        others = " and ".join(f"{split}/" for split in ("val", "valid", "validation") if split in splits[:-1])
        assert note == f"not read in {tmp_path}: {others}; the test images are those of {chosen}/"


def test_test_images_without_classes_are_left_out_with_a_note(tmp_path):
    write_folders(tmp_path, ("train", "val"))
    put(tmp_path / "test/1.png", encoded(picture(1)))
    raw = load(tmp_path)
    assert len(raw.test_labels) == 12
    assert raw.notes == (f"not read in {tmp_path}: test/; the test images are those of val/",)


@pytest.mark.parametrize("name", ["dev", "extra", "Test"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_folder_that_looks_like_a_split_is_named(tmp_path, name, flat):
    write_folders(tmp_path, ("train", "val", name))
    (tmp_path / "docs/figures").mkdir(parents=True)
    if flat:
        shutil.rmtree(tmp_path / name)
        put(tmp_path / name / "1.png", encoded(picture(1)))
    assert load(tmp_path).notes == (f"not read in {tmp_path}: {name}/; the test images are those of val/",)


def test_images_beside_the_splits_are_counted(tmp_path):
    write_folders(tmp_path)
    for name in ("b.png", "a.JPG", ".c.png", "labels.csv"):
        put(tmp_path / name, b"x")
    (note,) = load(tmp_path).notes
    assert note.startswith(
        f"2 files are not read in {tmp_path}: 2 outside of the class folders; the first is a.JPG. An"
    )


@pytest.mark.parametrize("split", ["train", "test", "val", "valid"])
def test_a_split_that_leads_nowhere_is_refused(tmp_path, split):
    write_folders(tmp_path, [name for name in ("train", "validation") if name != split])
    (tmp_path / split).symlink_to("nowhere")
    with pytest.raises(DataError, match=rf"{tmp_path}/{split} is a link that leads nowhere: restore what it names"):
        load(tmp_path)


def images_without_folders(root: Path) -> None:
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "test")
    put(root / "1.png", encoded(picture(1)))
    put(root / "2.jpg", encoded(picture(1)))


def classes_without_splits(root: Path) -> None:
    shutil.rmtree(root / "test")
    for name in CLASSES:
        (root / "train" / name).rename(root / name)
    (root / "train").rmdir()


def deeper(root: Path) -> None:
    for name in ("train", "test"):
        (root / "inner").mkdir(exist_ok=True)
        (root / name).rename(root / "inner" / name)


def no_class_folders(root: Path) -> None:
    shutil.rmtree(root / "train")
    put(root / "train/1.png", encoded(picture(1)))


def nothing_in_train(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def nothing(root: Path) -> None:
    images_without_folders(root)
    (root / "1.png").unlink()
    (root / "2.jpg").unlink()


def no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def loose_test_images(root: Path) -> None:
    shutil.rmtree(root / "test")
    put(root / "test/1.png", encoded(picture(1)))


def unlabelled(root: Path) -> None:
    shutil.rmtree(root / "test")
    put(root / "test/images/1.png", encoded(picture(1)))


def damaged(root: Path) -> None:
    file = root / "test" / CLASSES[2] / "3.png"
    file.write_bytes(file.read_bytes()[:100])


LAYOUT = "it must have train/<class>/ and test/<class>/ (or val/, valid/ or validation/) with image files"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (images_without_folders, f"has no folder train/ (images: 2): {LAYOUT}, so move each image into the folder"),
        (classes_without_splits, f"no folder train/ (folders: n01443537/, n01629819/, n01641577/): {LAYOUT}"),
        (deeper, "has no folder train/, but {root}/inner has: give that as data_dir"),
        (no_class_folders, f"has a folder train/ without class folders (images: 1): {LAYOUT}"),
        (nothing_in_train, f"has a folder train/ without class folders: {LAYOUT}"),
        (nothing, f"has no folder train/: {LAYOUT}"),
        (no_test, f"has no test images: there is no folder test/, but {LAYOUT}; move some images of each class there"),
        (loose_test_images, f"has no test images: test/ has no class folders, but {LAYOUT}"),
        (unlabelled, "test has 1 classes and training 3, but both must have the same: it lacks n01443537, n01629819, "),
        (unlabelled, "has images, which training lacks; name them alike, or move test/ away if its images have no cl"),
        (damaged, "{root}/test/n01641577/3.png is not a readable image: remove or repair it"),
    ],
)
def test_what_is_missing_or_damaged_is_named_in_one_line(tmp_path, change, said):
    change(write_folders(tmp_path))
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert said.format(root=tmp_path) in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_several_damaged_images_the_first_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "available_workers", lambda: 4)
    write_folders(tmp_path)
    for file in sorted((tmp_path / "train").glob("*/*"))[3:]:
        file.write_bytes(b"?")
    with pytest.raises(DataError, match=f"{CLASSES[0]}/3.png is not a readable image"):
        load(tmp_path)


def test_it_needs_a_data_dir():
    with pytest.raises(DataError, match="'folder' has no data_dir, but needs one: name a folder with train/<class>/"):
        load_data("folder")


# --- memory and cache ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("image_size", "gib"), [(None, 24 * 16 * 16 * 3), (32, 24 * 32 * 32 * 3)])
def test_data_too_large_for_memory_are_refused_before_they_are_decoded(tmp_path, monkeypatch, image_size, gib):
    write_folders(tmp_path)
    monkeypatch.setattr(folder, "_decode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(folder, "MOST_BYTES", gib - 1)
    with pytest.raises(
        DataError, match=r"can be used: give a smaller image_size, or dataset: imagenet, which"
    ) as caught:
        load(tmp_path, image_size)
    assert "\n" not in str(caught.value)


def test_data_too_large_for_this_machine_are_refused(tmp_path, monkeypatch):
    write_folders(tmp_path)
    monkeypatch.setattr(room, "available_bytes", lambda: 1000)
    with pytest.raises(DataError, match="give a smaller image_size"):
        load(tmp_path)
    monkeypatch.undo()
    assert room.available_bytes() > 2**20


def test_data_that_just_fit_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MOST_BYTES", 24 * 16 * 16 * 3)
    assert len(load(write_folders(tmp_path)).train_labels) == 12


def test_a_second_process_does_not_decode(tmp_path, monkeypatch):
    first = load(write_sizes(tmp_path), 8)
    forget(monkeypatch)
    monkeypatch.setattr(folder, "_decode", lambda *_: pytest.fail("decoded again"))
    again = load(tmp_path, 8)
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.test_images, first.test_images)


def other_content(root: Path) -> None:
    put(root / "train" / CLASSES[0] / "0.png", encoded(picture(999, 16, 16), "PNG"))


def other_time(root: Path) -> None:
    """The same length, and other bytes."""
    file = root / "train" / CLASSES[0] / "0.ppm"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(0, 0))


def other_class(root: Path) -> None:
    file = root / "test" / CLASSES[0] / "0.png"
    file.rename(root / "test" / CLASSES[1] / "7.png")


def one_more(root: Path) -> None:
    put(root / "train" / CLASSES[0] / "in/0.png", encoded(picture(999, 16, 16), "PNG"))


@pytest.mark.parametrize("change", [other_content, other_time, other_class, one_more])
def test_a_change_is_seen(tmp_path, monkeypatch, change):
    first = load(write_folders(tmp_path, kind="PPM" if change is other_time else "PNG")).fingerprint
    change(tmp_path)
    forget(monkeypatch)
    assert load(tmp_path).fingerprint != first


def test_equal_data_elsewhere_have_the_same_fingerprint(tmp_path):
    raw = load(write_folders(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    (tmp_path / "b/test").rename(tmp_path / "b/val")
    assert load(tmp_path / "b").fingerprint == raw.fingerprint


def test_each_size_is_data_of_its_own(tmp_path):
    write_folders(tmp_path)
    sizes = (None, 8, 12)
    assert [load(tmp_path, size).image_size for size in sizes] == [(16, 16), (8, 8), (12, 12)]
    assert len({load(tmp_path, size).fingerprint for size in sizes}) == 3


# --- a trial -------------------------------------------------------------------------------------------------------


def test_a_trial_reads_them_and_says_what_it_does_not_read(tmp_path, capsys):
    write_sizes(tmp_path / "data")
    put(tmp_path / "data/train" / CLASSES[0] / "notes.txt", b"?")
    lines = ["method: dense", "model: tiny", "dataset: folder", f"data_dir: {tmp_path}/data", "image_size: 8"]
    lines += ["device: cpu", "train: {epochs: 1, batch_size: 8, lr: 0.1}"]
    put(tmp_path / "config.yaml", "\n".join(lines).encode())
    assert run_config([str(tmp_path / "config.yaml"), "--storage", str(tmp_path / "results")]) == 0
    out, err = capsys.readouterr()
    assert "is complete" in out
    assert err.startswith(
        f"note: 1 file is not read in {tmp_path}/data: 1 .txt; the first is train/n01443537/notes.txt"
    )
