"""Where the files of a Parquet data set may lie, and which split is which."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trials.parquet_files import pictures, write
from trials.data import load_data, peek_header, require_data
from trials.data.sets.imagenet import load_validation
from trials.errors import DataError

pytestmark = pytest.mark.usefixtures("small_crops")

LAYOUTS = {
    "flat": ("train.parquet", "test.parquet"),
    "numbered": ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
    "data": ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
    "folders": ("train/0000.parquet", "test/0000.parquet"),
    "folders in data": ("data/train/a.parquet", "data/test/b.parquet"),
    "converted": ("default/train/0000.parquet", "default/test/0000.parquet"),
    "another configuration": ("plain_text/train/0000.parquet", "plain_text/test/0000.parquet"),
    "files of a configuration": ("cropped/train-00000-of-00001.parquet", "cropped/test-00000-of-00001.parquet"),
    "configuration in data": ("data/small/train/0.parquet", "data/small/test/0.parquet"),
    "half and half": ("train/0.parquet", "test.parquet"),
}


def put_split(root, file, seed, n=3):
    return write(root / file, pictures(n, seed=seed), [i % 3 for i in range(n)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_data(tmp_path, layout):
    wanted = load_data("parquet", str(_written(tmp_path / "wanted", LAYOUTS["flat"])))
    data = load_data("parquet", str(_written(tmp_path / "data", LAYOUTS[layout])))
    assert data.fingerprint == wanted.fingerprint
    assert np.array_equal(data.train_images.permute(0, 2, 3, 1), pictures(3, seed=0))
    assert np.array_equal(data.test_images.permute(0, 2, 3, 1), pictures(3, seed=1))


def _written(root, files):
    for seed, file in enumerate(files):
        put_split(root, file, seed)
    return root


def test_files_in_a_folder_are_read_in_order(tmp_path):
    for number in (1, 0, 2):
        put_split(tmp_path, f"default/train/{number:04}.parquet", number)
    put_split(tmp_path, "default/test/0000.parquet", 9)
    (tmp_path / "default/train/._0003.parquet").write_bytes(b"left by another system")
    data = load_data("parquet", str(tmp_path))
    both = np.concatenate([pictures(3, seed=seed) for seed in range(3)])
    assert np.array_equal(data.train_images.permute(0, 2, 3, 1), both)


@pytest.mark.parametrize("below", ["", "data/"])
@pytest.mark.parametrize("files", ["{}/train/0.parquet", "{}/train.parquet", "{}/test-0.parquet"])
def test_several_configurations_are_refused_and_named(tmp_path, files, below):
    for name in ("default", "large"):
        put_split(tmp_path, below + files.format(name), 0)
    with pytest.raises(
        DataError, match=r"several folders \(default, large\), but a trial reads one.*data_dir"
    ) as caught:
        load_data("parquet", str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("others", [("large/train/0.parquet", "small/train/0.parquet"), (".cache/train.parquet",)])
def test_files_in_the_folder_itself_come_first(tmp_path, others):
    put_split(tmp_path, "train.parquet", 0)
    put_split(tmp_path, "test.parquet", 1)
    for other in others:
        put_split(tmp_path, other, 5)
    data = load_data("parquet", str(tmp_path))
    assert np.array_equal(data.train_images.permute(0, 2, 3, 1), pictures(3, seed=0))


def test_data_comes_before_configurations(tmp_path):
    _written(tmp_path, LAYOUTS["data"])
    put_split(tmp_path, "default/train/0.parquet", 5)
    data = load_data("parquet", str(tmp_path))
    assert np.array_equal(data.train_images.permute(0, 2, 3, 1), pictures(3, seed=0))


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    _written(tmp_path, LAYOUTS["converted"])
    (tmp_path / "lost+found").mkdir()
    listed = type(tmp_path).iterdir

    def refusing(folder):
        if folder.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(type(tmp_path), "iterdir", refusing)
    assert len(load_data("parquet", str(tmp_path)).train_labels) == 3


@pytest.mark.parametrize("below", ["", "data/", "{}/"])
@pytest.mark.parametrize(
    "names",
    [
        ("{}-00000-of-00002",),
        ("{}-00000-of-00001", "{}-00001-of-00002"),
        ("{}-00000-of-00002-aaaa", "{}-00000-of-00002-bbbb"),
        ("{}-00000-of-00002", "{}-extra"),
        ("{}-00000-of-00001", "{}"),
        ("{}-00000-of-00002", "{}-00002-of-00002"),
        ("{}-00000-of-00003", "{}-00001-of-00003", "{}-00003-of-00003"),
        ("{}-00000-of-00001", "{}-00001-of-00001"),
    ],
)
@pytest.mark.parametrize(("split", "whole"), [("train", "test"), ("test", "train")])
def test_numbered_files_must_be_one_whole_set(tmp_path, split, whole, names, below):
    put_split(tmp_path, f"{below.format(whole)}{whole}-00000-of-00001.parquet", 9)
    for seed, name in enumerate(names):
        put_split(tmp_path, f"{below.format(split)}{name.format(split)}.parquet", seed)
    with pytest.raises(DataError, match=rf"has {len(names)} {split} files .*, but their names promise \d") as caught:
        load_data("parquet", str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("end", ["", "-0a1b2c3d"])
def test_a_whole_set_is_read_in_order_from_whichever_number(tmp_path, first, end):
    for seed in range(3):
        put_split(tmp_path, f"train-{seed + first:05}-of-00003{end}.parquet", seed)
    put_split(tmp_path, "test.parquet", 9)
    data = load_data("parquet", str(tmp_path))
    wanted = np.concatenate([pictures(3, seed=seed) for seed in range(3)])
    assert np.array_equal(data.train_images.permute(0, 2, 3, 1), wanted)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_in_two_places_is_refused(tmp_path, split):
    _written(tmp_path, LAYOUTS["flat"])
    put_split(tmp_path, f"{split}/0.parquet", 3)
    with pytest.raises(DataError, match=rf"has {split} files .* and more in {split}/ .*one place"):
        load_data("parquet", str(tmp_path))


def test_a_configuration_with_one_split_is_not_enough(tmp_path):
    put_split(tmp_path, "default/train/0.parquet", 0)
    with pytest.raises(DataError, match=r"default has only the training split"):
        load_data("parquet", str(tmp_path))


@pytest.mark.parametrize("pattern", ["{}.parquet", "{}-00000-of-00001.parquet", "default/{}/0000.parquet"])
@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_validation_images_are_the_test_images_where_there_are_no_others(tmp_path, name, pattern):
    put_split(tmp_path, pattern.format("train"), 0)
    put_split(tmp_path, pattern.format(name), 1)
    data = load_data("parquet", str(tmp_path))
    assert np.array_equal(data.test_images.permute(0, 2, 3, 1), pictures(3, seed=1))


@pytest.mark.parametrize("pattern", ["{}.parquet", "default/{}/0000.parquet"])
@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_the_test_split_is_the_test_split_where_there_is_one(tmp_path, name, pattern):
    for seed, split in enumerate(("train", "test", name)):
        put_split(tmp_path, pattern.format(split), seed)
    data = load_data("parquet", str(tmp_path))
    assert np.array_equal(data.test_images.permute(0, 2, 3, 1), pictures(3, seed=1))
    assert len(data.train_labels) == 3
    (note,) = require_data("parquet", str(tmp_path)).notes
    assert note.startswith(f"the split {name} beside {tmp_path}")
    assert "is not read" in note


@pytest.mark.parametrize(
    ("files", "more", "said"),
    [
        (
            "folders",
            ["train/more/1.parquet"],
            "1 file is not read in {}: 1 .parquet; the first is train/more/1.parquet. A",
        ),
        ("flat", ["train-1.PARQUET"], "1 file is not read in {}: 1 .parquet; the first is train-1.PARQUET. A split is"),
        (
            "flat",
            ["extra-0.parquet", "extra-1.parquet"],
            "2 files are not read in {}: 2 .parquet; the first is extra-0",
        ),
        (
            "flat",
            ["data/train-0.parquet", "data/test-0.parquet"],
            "2 files are not read in {}: 2 .parquet; the first is",
        ),
        ("flat", ["test-0.parquet.incomplete"], "1 file is not read in {}: 1 .incomplete; the first is test-0.parquet"),
        ("folders", ["train/a.jpg", "extra/b.PNG"], "2 files are not read in {}: 1 .jpg, 1 .png; the first is extra/b"),
        ("converted", ["default/more.parquet"], "1 file is not read in {}/default: 1 .parquet; the first is more"),
    ],
)
def test_files_that_are_not_read_are_counted(tmp_path, files, more, said):
    _written(tmp_path, LAYOUTS[files])
    for name in more:
        put_split(tmp_path, name, 7)
    (tmp_path / "README.md").write_text("no images")
    (note,) = require_data("parquet", str(tmp_path)).notes
    assert note.startswith(said.format(tmp_path))


@pytest.mark.parametrize(
    ("dataset", "side", "splits"),
    [
        ("cifar10", 32, ("test", "validation")),
        ("tinyimagenet", 64, ("valid", "test")),
        ("imagenet", 20, ("validation", "val")),
    ],
)
def test_every_data_set_says_what_is_not_read(tmp_path, dataset, side, splits):
    for split in ("train", *splits, "extra"):
        write(tmp_path / f"{split}.parquet", pictures(3, (side, side, 3)), [0, 1, 2])
    for look in (peek_header, require_data):
        split, file = look(dataset, str(tmp_path)).notes
        assert split.startswith(f"the split {splits[1]} beside {tmp_path}/{splits[0]}.parquet is not read")
        assert file.startswith(f"1 file is not read in {tmp_path}: 1 .parquet; the first is extra.parquet")


def test_nothing_is_noted_where_everything_is_read(tmp_path):
    assert require_data("parquet", str(_written(tmp_path, LAYOUTS["flat"]))).notes == ()


def empty(split):
    split.mkdir()


def unfinished(split):
    split.mkdir()
    (split / "0000.parquet.incomplete").write_bytes(b"PAR1")


def hidden_only(split):
    split.mkdir()
    (split / ".cache").write_bytes(b"")


def dead_link(split):
    split.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (empty, "holds no file, and another split must not take its place: fill it, or remove it"),
        (unfinished, "holds no whole file, but 0000.parquet.incomplete, and another split"),
        (hidden_only, "holds no file"),
        (dead_link, "is a link that leads nowhere: restore what it names, or remove it"),
    ],
)
@pytest.mark.parametrize("place", ["", "data/", "default/"])
@pytest.mark.parametrize(("split", "other"), [("test", "validation"), ("test", "dev"), ("valid", "val")])
def test_a_split_that_cannot_be_read_is_not_replaced_by_another(tmp_path, split, other, place, damage, said):
    put_split(tmp_path, f"{place}train/0.parquet", 0)
    put_split(tmp_path, f"{place}{other}/0.parquet", 1)
    damage(tmp_path / place / split)
    with pytest.raises(DataError) as caught:
        load_data("parquet", str(tmp_path))
    assert f"{tmp_path / place / split} {said}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [empty, unfinished, dead_link])
def test_so_is_a_training_split_and_validation_images_alone(tmp_path, damage):
    put_split(tmp_path, "val/0.parquet", 1)
    damage(tmp_path / "train")
    with pytest.raises(DataError, match=rf"{tmp_path}/train (holds no|is a link)"):
        load_data("parquet", str(tmp_path))
    damage(tmp_path / "validation")
    with pytest.raises(DataError, match=rf"{tmp_path}/validation (holds no|is a link)"):
        load_validation(tmp_path)


@pytest.mark.parametrize("split", ["train", "test", "default/test"])
def test_a_split_that_may_not_be_read_is_named(tmp_path, monkeypatch, split):
    place, listed = split.rpartition("/")[0], type(tmp_path).iterdir
    for seed, name in enumerate(("train", "test", "validation")):
        put_split(tmp_path / place, f"{name}/0.parquet", seed)

    def refusing(folder):
        if folder == tmp_path / split:
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(type(tmp_path), "iterdir", refusing)
    with pytest.raises(DataError, match=rf"{tmp_path}/{split} cannot be read: make it readable \(Permission denied\)"):
        load_data("parquet", str(tmp_path))


@pytest.mark.parametrize("damage", [empty, dead_link])
def test_a_split_that_would_not_be_read_anyway_may_be_empty(tmp_path, damage):
    _written(tmp_path, LAYOUTS["folders"])
    damage(tmp_path / "validation")
    assert len(load_data("parquet", str(tmp_path)).test_labels) == 3


NO_LABELS = {
    "-1": pa.array([-1] * 4, pa.int64()),
    "-1.0": pa.array([-1.0] * 4),
    "NaN": pa.array([float("nan")] * 4),
    "null": pa.array([None] * 4, pa.int64()),
    "null text": pa.array([None] * 4, pa.string()),
    "empty text": pa.array([""] * 4),
    "nothing at all": pa.nulls(4),
    "no column": None,
    "an id instead": pa.array([10, 11, 12, 13]),
}


def put_unlabelled(root, file, labels, side=6):
    path = write(root / file, pictures(4, (side, side, 3), seed=5), NO_LABELS[labels] or [0] * 4)
    table = pq.read_table(path)
    if labels == "no column":
        table = table.drop_columns("label")
    elif labels == "an id instead":
        table = table.rename_columns(["image", "id"])
    pq.write_table(table, path)


@pytest.mark.parametrize("labels", NO_LABELS)
@pytest.mark.parametrize(
    ("dataset", "side", "splits"),
    [
        ("parquet", 6, ("test", "validation")),
        ("parquet", 6, ("test", "dev")),
        ("cifar10", 32, ("test", "val")),
        ("tinyimagenet", 64, ("valid", "test")),
        ("imagenet", 20, ("validation", "val")),
    ],
)
def test_a_split_without_labels_leaves_the_test_to_the_next(tmp_path, labels, dataset, side, splits):
    for seed, split in ((0, "train"), (1, splits[1])):
        write(tmp_path / split / "0.parquet", pictures(3, (side, side, 3), seed), [0, 1, 2])
    for part in range(2):
        put_unlabelled(tmp_path, f"{splits[0]}/{part}.parquet", labels, side)
    peeked = peek_header(dataset, str(tmp_path)).notes
    data = load_data(dataset, str(tmp_path))
    assert data.test_labels.tolist() == [0, 1, 2]
    for notes in (data.notes, peeked):
        (note,) = notes
        assert note.startswith(f"the split {splits[0]} beside {tmp_path / splits[1] / '0.parquet'} has no labels")


@pytest.mark.parametrize("labels", NO_LABELS)
@pytest.mark.parametrize("dataset", ["parquet", "imagenet"])
@pytest.mark.parametrize("others", [False, True])
def test_without_any_labels_the_file_is_named_and_what_to_do(tmp_path, labels, dataset, others):
    splits = ("test", "validation") if dataset == "parquet" else ("validation", "val")
    write(tmp_path / "train.parquet", pictures(3, (20, 20, 3)), [0, 1, 2])
    for split in splits[: 2 if others else 1]:
        put_unlabelled(tmp_path, f"{split}.parquet", labels, 20)
    with pytest.raises(DataError) as caught:
        load_data(dataset, str(tmp_path))
    said = f"{tmp_path}/{splits[0]}.parquet has no labels in 'label' (missing, null or -1), but images to test on must"
    assert str(caught.value).startswith(said)
    assert "put files with labels in its place" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [[0, -1, 1], [0, None, 1]])
def test_a_split_that_lacks_some_labels_is_not_passed_over(tmp_path, labels):
    for split in ("train", "validation"):
        put_split(tmp_path, f"{split}.parquet", 0)
    write(tmp_path / "test.parquet", pictures(3), labels)
    with pytest.raises(DataError, match=r"labels run from -1|has rows without a 'label'"):
        load_data("parquet", str(tmp_path))


@pytest.mark.parametrize("files", ["validation/0000.parquet", "default/validation/0000.parquet", "data/val-0.parquet"])
def test_validation_images_alone_are_found_in_every_layout(tmp_path, files):
    put_split(tmp_path, files, 0)
    assert len(load_validation(tmp_path).test_labels) == 3


@pytest.mark.parametrize("dataset", ["tinyimagenet", "imagenet", "cifar10"])
def test_other_data_sets_are_found_in_every_layout(tmp_path, dataset):
    side = {"tinyimagenet": 64, "imagenet": 20, "cifar10": 32}[dataset]
    for split in ("train", "test" if dataset == "cifar10" else "validation"):
        write(tmp_path / f"default/{split}/0000.parquet", pictures(3, (side, side, 3)), [0, 1, 2])
    assert load_data(dataset, str(tmp_path)).train_labels.tolist() == [0, 1, 2]
