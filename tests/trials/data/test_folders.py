"""Images in class folders: all are read, in torchvision's order, by every loader; what is not read is counted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from tests.trials.layouts import decoded, encoded, forget, picture, put
from trials.data import EncodedData, RawData, header_of, load_data
from trials.data.folders import SUFFIXES
from trials.data.sets.imagenet import load_imagenet, load_validation
from trials.errors import DataError, UserError

pytestmark = pytest.mark.usefixtures("small_crops")

KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".ppm": "PPM", ".pgm": "PPM", ".tif": "TIFF", ".tiff": "TIFF"}
Read = tuple[list[np.ndarray], list[int], RawData | EncodedData]
"""Pixels [H, W, 3] of the images of one split, their labels, and the data."""


def in_memory(name: str) -> Callable[[Path], Read]:
    def read(root: Path) -> Read:
        raw = load_data(name, str(root))
        assert isinstance(raw, RawData)
        images = raw.train_images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
        return list(images), raw.train_labels.tolist(), raw

    return read


def streamed(root: Path) -> Read:
    data = load_data("imagenet", str(root))
    assert isinstance(data, EncodedData)
    return [decoded(data.train.read(i)) for i in range(len(data.train))], data.train_labels.tolist(), data


def validation(root: Path) -> Read:
    data = load_validation(root)
    return [decoded(data.test.read(i)) for i in range(len(data.test))], data.test_labels.tolist(), data


LOADERS: dict[str, tuple[str, Callable[[Path], Read]]] = {
    "folder": ("train", in_memory("folder")),
    "tinyimagenet": ("train", in_memory("tinyimagenet")),
    "imagenet": ("train", streamed),
    "validation images": ("val", validation),
}
"""By what reads class folders: the split that ``read`` returns, and ``read``."""

every_loader = pytest.mark.parametrize(("split", "read"), LOADERS.values(), ids=LOADERS)


def image(seed: int, suffix: str = ".png") -> bytes:
    pixels = picture(seed)
    return encoded(pixels[:, :, 0] if suffix == ".pgm" else pixels, KINDS.get(suffix, suffix[1:].upper()))


def write_plain(root: Path) -> Path:
    """One image in each of two class folders of both splits."""
    for number, split in enumerate(("train", "val")):
        for label, name in enumerate(("cat", "dog")):
            put(root / split / name / "m.png", image(10 * number + label))
    return root


def assert_as_torchvision(root: Path, split: str, read: Callable[[Path], Read], count: int) -> None:
    images, labels, data = read(root)
    expected = make_dataset(root / split, extensions=IMG_EXTENSIONS)
    assert labels == [label for _, label in expected]
    assert len(labels) == count
    for pixels, (path, _) in zip(images, expected, strict=True):
        assert np.array_equal(pixels, decoded(Path(path).read_bytes())), path
    assert data.notes == ()


# --- what is read --------------------------------------------------------------------------------------------------


def test_the_suffixes_are_torchvisions() -> None:
    assert SUFFIXES == IMG_EXTENSIONS


@every_loader
@pytest.mark.parametrize("place", ["", "zoo/", "images/", "a/b/"])
@pytest.mark.parametrize("suffix", IMG_EXTENSIONS)
def test_every_suffix_is_read_in_the_class_folder_and_below(tmp_path, split, read, suffix, place):
    write_plain(tmp_path)
    put(tmp_path / split / "cat" / f"{place}a{suffix}", image(50, suffix))
    put(tmp_path / split / "dog" / f"{place}z{suffix.upper()}", image(51, suffix))
    assert_as_torchvision(tmp_path, split, read, 4)


@every_loader
def test_folders_and_names_that_sort_unlike_their_paths(tmp_path, split, read):
    write_plain(tmp_path)
    for number, name in enumerate(("b.png", "a/z.png", "a-b/y.png", "a/c/x.png", "B.png", "a.png", "10.png", "9.png")):
        put(tmp_path / split / "cat" / name, image(60 + number))
    assert_as_torchvision(tmp_path, split, read, 10)


@every_loader
def test_links_are_followed(tmp_path, split, read):
    write_plain(tmp_path / "data")
    put(tmp_path / "elsewhere/in/x.png", image(70))
    (tmp_path / "data" / split / "cat/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / split / "dog/linked.png").symlink_to(tmp_path / "elsewhere/in/x.png")
    assert_as_torchvision(tmp_path / "data", split, read, 4)
    for each in ("train", "val"):
        (tmp_path / "data" / each / "emu").symlink_to(tmp_path / "elsewhere")
    assert load_imagenet(tmp_path / "data").num_classes == 3


@every_loader
def test_hidden_files_and_folders_are_left_out_without_a_word(tmp_path, split, read):
    write_plain(tmp_path)
    for name in (".x.png", ".DS_Store", "._m.png", ".ipynb_checkpoints/m.png"):
        put(tmp_path / split / "cat" / name, image(80))
    put(tmp_path / split / ".cache/m.png", image(81))
    images, _, data = read(tmp_path)
    assert (len(images), data.num_classes, data.notes) == (2, 2, ())


def test_the_fingerprint_of_what_was_read_before_is_the_same(tmp_path):
    """Pinned by the version that read .jpeg, .jpg and .png in class folders themselves only."""
    number = 0
    for split in ("train", "val"):
        for name in ("n1", "n2"):
            for file in ("b.JPEG", "a.jpg", "a-b.png", "z.PNG", ".hidden.png"):
                number += 1
                put(tmp_path / split / name / file, b"x" * number)
        put(tmp_path / split / "n1/n1_boxes.txt", b"boxes")
    assert load_imagenet(tmp_path).fingerprint == "50d2a2783acc953a"
    assert load_validation(tmp_path).fingerprint == "c9e418c61990a819"


# --- what is not read ----------------------------------------------------------------------------------------------


@every_loader
@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["cat/a.gif"], "1 file is not read .*: 1 .gif; the first is {split}/cat/a.gif"),
        (["cat/x/a.AVIF", "dog/b.gif", "dog/c.gif"], "3 files are .*: 2 .gif, 1 .avif; the first is {split}/cat/x/a"),
        (["dog/README", "cat/tar.gz"], "2 files are not read .*: 1 .gz, 1 without a suffix; .* {split}/cat/tar.gz"),
        (["m.png", "list.txt"], "2 files are not read .*: 2 outside of the class folders; the first is {split}/list"),
        (["dog.tar", "dog/a.heic"], ": 1 .heic, 1 outside of the class folders; the first is {split}/dog/a.heic"),
        ([f"cat/a.x{i}" for i in range(5)], "5 files are .*: 1 .x0, 1 .x1, 1 .x2 and 2 more; the first is"),
    ],
)
def test_other_files_are_counted_in_one_line(tmp_path, split, read, files, said):
    write_plain(tmp_path)
    for file in files:
        put(tmp_path / split / file, b"?")
    images, _, data = read(tmp_path)
    assert len(images) == 2
    (note,) = data.notes
    assert "\n" not in note
    assert str(tmp_path) in note
    assert re.search(said.format(split=split), note), note
    assert note.endswith("ends in " + ", ".join(IMG_EXTENSIONS))
    assert header_of(data).notes == data.notes


def test_the_lists_of_tinyimagenet_are_not_counted(tmp_path, monkeypatch):
    write_plain(tmp_path)
    put(tmp_path / "train/cat/cat_boxes.txt", b"boxes")
    put(tmp_path / "val/val_annotations.txt", b"classes")
    assert load_data("tinyimagenet", str(tmp_path)).notes == ()
    put(tmp_path / "val/cat/other.txt", b"boxes")
    forget(monkeypatch)
    (note,) = load_data("tinyimagenet", str(tmp_path)).notes
    assert "1 file is not read" in note
    assert "val/cat/other.txt" in note


@every_loader
def test_names_that_are_no_text_are_read_and_shown_in_one_line(tmp_path, split, read):
    write_plain(tmp_path)
    for name in (b"caf\xe9.png", b"line\nbreak.png", b"caf\xe9\n\x1b[31m.gif"):
        put(Path(os.fsdecode(os.fsencode(tmp_path / split / "cat") + b"/" + name)), image(1))
    images, _, data = read(tmp_path)
    assert len(images) == 4
    assert f"the first is {split}/cat/caf\\udce9\\n\\x1b[31m.gif" in data.notes[0]
    assert data.notes[0].isprintable()


@every_loader
def test_pipes_are_no_images(tmp_path, split, read):
    write_plain(tmp_path)
    os.mkfifo(tmp_path / split / "cat/pipe.png")
    images, _, data = read(tmp_path)
    assert len(images) == 2
    assert "pipe.png" in data.notes[0]


# --- what is refused -----------------------------------------------------------------------------------------------


def no_image(split: Path) -> None:
    (split / "dog/m.png").rename(split / "dog/m.gif")


def empty_folder(split: Path) -> None:
    (split / "dog/m.png").unlink()


def zero_bytes(split: Path) -> None:
    put(split / "dog/x/none.jpg", b"")


def broken_link(split: Path) -> None:
    (split / "dog/gone.jpg").symlink_to("nowhere.jpg")


def broken_folder(split: Path) -> None:
    (split / "emu").symlink_to("nowhere")


def circle(split: Path) -> None:
    put(split / "dog/x/y/a.png", image(1))
    (split / "dog/x/y/up").symlink_to("../../x")


def own_circle(split: Path) -> None:
    (split / "dog/me").symlink_to("me")


@every_loader
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_image, "{split}/dog holds no images (.jpg, .jpeg, .png, "),
        (empty_folder, "{split}/dog holds no images (.jpg, .jpeg, .png, "),
        (zero_bytes, "{split}/dog/x/none.jpg is an empty file: restore it, or remove it"),
        (broken_link, "{split}/dog/gone.jpg cannot be read: restore it, or remove it (No such file"),
        (broken_folder, "{split}/emu is a link that leads nowhere: restore what it names, or remove it"),
        (circle, "{split}/dog/x/y/up is a link to a folder that holds it"),
        (own_circle, "{split}/dog/me cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, split, read, change, said):
    change(write_plain(tmp_path) / split)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert said.format(split=tmp_path / split) in str(caught.value)
    assert "\n" not in str(caught.value)


@every_loader
def test_a_folder_without_permission_is_named(tmp_path, split, read, monkeypatch):
    write_plain(tmp_path)
    closed = tmp_path / split / "dog/closed"
    put(closed / "a.png", image(1))
    scan = os.scandir

    def refuse(folder):
        if Path(folder) == closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"dog/closed cannot be read: .*\(Permission denied\)"):
        read(tmp_path)


# --- classes of both splits ----------------------------------------------------------------------------------------


def lack(split: Path) -> None:
    (split / "dog/m.png").unlink()
    (split / "dog").rmdir()


def surplus(split: Path) -> None:
    put(split / "emu/m.png", image(1))


def renamed(split: Path) -> None:
    (split / "dog").rename(split / "emu")


def other_case(split: Path) -> None:
    (split / "dog").rename(split / "Dog")


def file_instead(split: Path) -> None:
    lack(split)
    put(split / "dog", b"")


def hidden_instead(split: Path) -> None:
    (split / "dog").rename(split / ".dog")


CHANGES = {
    lack: ("lacks dog", "has dog, which training lacks"),
    surplus: ("has emu, which training lacks", "lacks emu"),
    renamed: ("lacks dog and has emu, which training lacks", "lacks emu and has dog, which training lacks"),
    other_case: ("lacks dog and has Dog, which training lacks", "lacks Dog and has dog, which training lacks"),
    file_instead: ("lacks dog", "has dog, which training lacks"),
    hidden_instead: ("lacks dog", "has dog, which training lacks"),
}


@every_loader
@pytest.mark.parametrize("part", ["val", "train"])
@pytest.mark.parametrize("change", CHANGES)
def test_splits_with_other_classes_are_refused_and_the_classes_named(tmp_path, split, read, part, change):
    change(write_plain(tmp_path) / part)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert f"{tmp_path}/val has " in str(caught.value)
    assert f"but both must have the same: it {CHANGES[change][part == 'train']}; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_validation_images_alone_need_no_training_classes(tmp_path):
    write_plain(tmp_path)
    shutil.rmtree(tmp_path / "train")
    surplus(tmp_path / "val")
    assert load_validation(tmp_path).num_classes == load_validation(tmp_path / "val").num_classes == 3


@pytest.mark.parametrize("name", ["folder", "tinyimagenet", "imagenet"])
def test_classes_are_numbered_by_name_in_both_splits(tmp_path, name):
    for split, names in (("train", ("b", "10", "a", "9")), ("val", ("9", "a", "b", "10"))):
        for number, folder in enumerate(names):  # made in another order
            put(tmp_path / split / folder / f"{folder}.png", image(number))
    data = load_data(name, str(tmp_path))
    assert data.train_labels.tolist() == data.test_labels.tolist() == [0, 1, 2, 3]
    if isinstance(data, EncodedData):
        assert [Path(data.test.where(i)).stem for i in range(4)] == ["10", "9", "a", "b"]
    else:
        stored = [decoded((tmp_path / f"val/{folder}/{folder}.png").read_bytes()) for folder in ("10", "9", "a", "b")]
        assert np.array_equal(data.test_images.permute(0, 2, 3, 1).numpy(), np.stack(stored))


@every_loader
def test_what_macos_leaves_in_archives_is_no_class(tmp_path, split, read):
    write_plain(tmp_path)
    put(tmp_path / split / "__MACOSX/cat/._a.png", b"x")
    _, labels, data = read(tmp_path)
    assert data.num_classes == len(set(labels)) == 2
    assert any(f"1 outside of the class folders; the first is {split}/__MACOSX" in note for note in data.notes)


@pytest.mark.parametrize("forms", [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_names_that_look_alike_are_shown_as_escapes(tmp_path, name, forms):
    for part, form in zip(("train", "val"), forms, strict=True):
        put(tmp_path / part / form / "a.png", b"x")
    escapes = [form.encode("unicode_escape").decode() for form in forms]
    with pytest.raises(DataError) as caught:
        load_data(name, str(tmp_path))
    assert f"it lacks {escapes[0]} and has {escapes[1]}" in str(caught.value)


@pytest.mark.parametrize("name", ["folder", "imagenet", "parquet", "tinyimagenet"])
def test_a_line_break_in_a_path_leaves_one_line(tmp_path, name):
    for part in ("train", "val"):
        put(tmp_path / "two\nlines" / part / "cat/a.png", b"")
    with pytest.raises(UserError, match=r"two\\nlines") as caught:
        load_data(name, str(tmp_path / "two\nlines"))
    assert "\n" not in str(caught.value)
