"""Classes are numbered alike in all files of a Parquet data set, whatever data set it is read as."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.trials.layouts import forget
from tests.trials.parquet_files import hugging_face, pictures, write
from trials.data import Source, cache, load_data, packed
from trials.data.sets.imagenet import load_validation
from trials.errors import DataError

pytestmark = pytest.mark.usefixtures("small_crops")


@dataclass(frozen=True)
class Kind:
    """A data set that is read from Parquet: number of classes, side of its images, file name of its test split."""

    classes: int
    side: int
    test: str = "test"

    @property
    def names(self) -> list[str]:
        return [f"class {label}" for label in range(self.classes)]


KINDS = {
    "parquet": Kind(4, 6),
    "cifar10": Kind(10, 32),
    "cifar100": Kind(100, 32),
    "tinyimagenet": Kind(4, 64, "valid"),
    "imagenet": Kind(4, 20, "validation"),
}
FILES = ("train-00000-of-00002", "train-00001-of-00002", "test")
UNNAMED: list[str] = []


def images_of(kind: Kind, count: int, seed: int) -> np.ndarray:
    return pictures(count, (kind.side, kind.side, 3), seed)


def write_named(root: Path, kind: Kind, orders, metadata=hugging_face, shift=0) -> Path:
    """Two training files and a test file. ``orders``: for each the names of its classes in its order, maybe none.

    Image i of a file is of class i (names in ``kind.names``), so every file has one image of each class.
    """
    for number, (name, order) in enumerate(zip(FILES, orders, strict=True)):
        labels = [(order or kind.names).index(own) + shift for own in kind.names]
        file = root / f"{name if name != 'test' else kind.test}.parquet"
        write(file, images_of(kind, kind.classes, number), labels, metadata=metadata(order) if order else None)
    return root


def class_names(names) -> dict[str, str]:
    return {"class_names": json.dumps(list(names))}


def shuffled(names, seed: int) -> list[str]:
    order = list(names)
    random.Random(seed).shuffle(order)
    assert order != names
    return order


def labels_of(data: Source) -> tuple[list[int], list[int]]:
    return data.train_labels.tolist(), data.test_labels.tolist()


@pytest.mark.parametrize("metadata", [hugging_face, class_names])
@pytest.mark.parametrize("other", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("dataset", KINDS)
def test_the_first_training_files_order_holds_in_all_files(tmp_path, dataset, other, metadata):
    kind = KINDS[dataset]
    orders = [shuffled(kind.names, seed) if seed in other else kind.names for seed in range(3)]
    data = load_data(dataset, str(write_named(tmp_path / "mixed", kind, orders, metadata)))
    wanted = [orders[0].index(name) for name in kind.names]
    assert labels_of(data) == (wanted * 2, wanted)
    assert data.num_classes == kind.classes
    one_order = load_data(dataset, str(write_named(tmp_path / "one", kind, [orders[0]] * 3, metadata)))
    assert data.fingerprint == one_order.fingerprint


@pytest.mark.parametrize("named", [(0,), (1,), (2,), (0, 2)])
@pytest.mark.parametrize("dataset", ["parquet", "tinyimagenet", "imagenet"])
def test_files_without_names_number_their_classes_as_the_others(tmp_path, dataset, named):
    kind = KINDS[dataset]
    orders = [kind.names if number in named else UNNAMED for number in range(3)]
    data = load_data(dataset, str(write_named(tmp_path, kind, orders)))
    assert labels_of(data) == ([0, 1, 2, 3] * 2, [0, 1, 2, 3])
    assert data.num_classes == 4


@pytest.mark.parametrize("silent", [0, 1, 2])
@pytest.mark.parametrize("dataset", ["parquet", "tinyimagenet", "imagenet"])
def test_numbers_without_names_beside_different_orders_are_refused(tmp_path, dataset, silent):
    kind = KINDS[dataset]
    first, second = (file for file in range(3) if file != silent)
    orders = {silent: UNNAMED, first: kind.names, second: shuffled(kind.names, 1)}
    root = write_named(tmp_path, kind, [orders[file] for file in range(3)])
    with pytest.raises(DataError, match=r"names no classes, but .* different orders.* write the names"):
        load_data(dataset, str(root))


@pytest.mark.parametrize("file", [1, 2])
@pytest.mark.parametrize("dataset", ["parquet", "tinyimagenet", "imagenet"])
def test_a_label_that_the_others_names_do_not_have_is_refused(tmp_path, dataset, file):
    kind = KINDS[dataset]
    write_named(tmp_path, kind, [kind.names, UNNAMED, UNNAMED])
    name = f"{(*FILES[:2], kind.test)[file]}.parquet"
    write(tmp_path / name, images_of(kind, 2, 0), [0, 4])
    with pytest.raises(
        DataError, match=rf"{name} labels run from 0 to 4, but must be in 0\.\.3 for 4 classes"
    ) as caught:
        load_data(dataset, str(tmp_path))
    assert "\n" not in str(caught.value)


def renamed(names):
    return [*names[:-1], "another"]


def fewer(names):
    return names[:-1]


def more(names):
    return [*names, "another"]


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        (renamed, "has 'another' and lacks '{last}'"),
        (fewer, "lacks '{last}'"),
        (more, "has 'another'"),
    ],
)
@pytest.mark.parametrize("file", [1, 2])
@pytest.mark.parametrize("dataset", KINDS)
def test_other_names_are_refused_with_the_file_and_the_names(tmp_path, dataset, file, change, differ, monkeypatch):
    kind = KINDS[dataset]
    names = [*(change(kind.names) if number == file else kind.names for number in range(3))]
    for name, order in zip((*FILES[:2], kind.test), names, strict=True):
        write(tmp_path / f"{name}.parquet", images_of(kind, 2, 0), [0, 1], metadata=hugging_face(order))
    monkeypatch.setattr(packed, "_unpack", lambda *_: pytest.fail("unpacked before the names were compared"))
    with pytest.raises(DataError) as caught:
        load_data(dataset, str(tmp_path))
    wrong = (*FILES[:2], kind.test)[file]
    assert f"{wrong}.parquet {differ.format(last=kind.names[-1])} among the names" in str(caught.value)
    assert f"{FILES[0]}.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metadata", [hugging_face, class_names])
@pytest.mark.parametrize("file", [0, 1, 2])
@pytest.mark.parametrize("dataset", ["parquet", "tinyimagenet", "imagenet"])
def test_a_name_of_two_classes_is_refused(tmp_path, dataset, file, metadata):
    kind = KINDS[dataset]
    names = [[*kind.names[:-1], kind.names[0]] if number == file else kind.names for number in range(3)]
    for name, order in zip((*FILES[:2], kind.test), names, strict=True):
        write(tmp_path / f"{name}.parquet", images_of(kind, 2, 0), [0, 1], metadata=metadata(order))
    with pytest.raises(
        DataError, match=rf"{(*FILES[:2], kind.test)[file]}\.parquet has several classes named 'class 0'"
    ):
        load_data(dataset, str(tmp_path))


def test_two_lists_of_names_in_one_file(tmp_path):
    kind = KINDS["parquet"]
    both = {**hugging_face(kind.names), **class_names(kind.names)}
    write_named(tmp_path / "same", kind, [kind.names] * 3, lambda _: both)
    assert load_data("parquet", str(tmp_path / "same")).num_classes == 4
    both = {**hugging_face(kind.names), **class_names(reversed(kind.names))}
    write_named(tmp_path / "unlike", kind, [kind.names] * 3, lambda _: both)
    with pytest.raises(DataError, match=r"'class 0', .* in Hugging Face's features and 'class 3', .* as 'class_names'"):
        load_data("parquet", str(tmp_path / "unlike"))


@pytest.mark.parametrize("bad", ['{"0": "a", "2": "b"}', '[["a"], ["b"]]', '"abcd"', "[null, null]", "3", "[1.5]"])
def test_names_that_are_no_list(tmp_path, bad):
    for name in FILES:
        write(tmp_path / f"{name}.parquet", pictures(2), [0, 1], metadata={"class_names": bad})
    with pytest.raises(DataError, match="metadata with unreadable class names"):
        load_data("parquet", str(tmp_path))


def test_names_by_number(tmp_path):
    numbered = {"class_names": json.dumps({str(label): f"class {label}" for label in (3, 1, 0, 2)})}
    write_named(tmp_path, KINDS["parquet"], [KINDS["parquet"].names] * 3, lambda _: numbered)
    assert load_data("parquet", str(tmp_path)).num_classes == 4


def test_validation_images_alone_are_numbered_alike(tmp_path):
    names = KINDS["imagenet"].names
    for shard, order in enumerate((names, shuffled(names, 1))):
        labels = [order.index(name) for name in names]
        file = tmp_path / f"data/validation-{shard:05}-of-00002.parquet"
        write(file, pictures(4, (20, 20, 3), shard), labels, metadata=hugging_face(order))
    assert load_validation(tmp_path).test_labels.tolist() == [0, 1, 2, 3] * 2


@dataclass(frozen=True)
class Case:
    """Labels of the training and the validation file, with the names of their classes, if any."""

    train: Sequence[object]
    test: Sequence[object]
    train_names: str = ""
    test_names: str = ""


CASES = {
    "another order": Case([0, 1, 2], [0, 1, 2], "abc", "cab"),
    "names in training only": Case([0, 1, 2], [2, 0], "abc"),
    "names that are in validation only": Case([0, 1, 2], [2, 0], "", "abc"),
    "text": Case(["c", "a", "b"], ["c", "b", "a"]),
    "text that lacks a class": Case(["c", "a", "b"], ["c", "b"]),
    "text beside names": Case(["c", "a"], ["c", "b"], "cab", ""),
    "numbers in training, text in validation": Case([0, 1, 2], ["c", "b"], "cab", ""),
    "numbers that lack a class": Case([0, 1, 2], [2, 1]),
    "numbers from 1": Case([1, 2, 3], [3, 2]),
    "booleans": Case([True, False], [True]),
}


@pytest.mark.parametrize("place", ["", "data/", "default/"])
@pytest.mark.parametrize("case", CASES)
def test_validation_images_are_numbered_as_in_training(tmp_path, monkeypatch, case, place):
    labels = CASES[case]
    for split in ("train", "validation"):
        values, names = ((labels.train, labels.train_names), (labels.test, labels.test_names))[split != "train"]
        metadata = hugging_face(names) if names else None
        images = pictures(len(values), (20, 20, 3))
        write(tmp_path / f"{place}{split}.parquet", images, pa.array(list(values)), metadata=metadata)
    data = load_data("imagenet", str(tmp_path))
    monkeypatch.setattr(packed, "read_rows", lambda header: pytest.fail(f"images of {header.file} are read"))
    alone = load_validation(tmp_path)
    assert alone.test_labels.tolist() == data.test_labels.tolist()
    assert alone.num_classes == data.num_classes


def test_validation_images_of_other_classes_than_training_are_refused(tmp_path):
    write(tmp_path / "train.parquet", pictures(2, (20, 20, 3)), [0, 1], metadata=hugging_face("ab"))
    write(tmp_path / "validation.parquet", pictures(2, (20, 20, 3)), [0, 1], metadata=hugging_face("ac"))
    with pytest.raises(DataError, match=r"validation\.parquet has 'c' and lacks 'b' among the names") as caught:
        load_validation(tmp_path)
    assert "\n" not in str(caught.value)


def test_names_that_look_alike_are_shown_as_escapes(tmp_path):
    write(tmp_path / "train.parquet", pictures(2), [0, 1], metadata=hugging_face(["caf\u00e9", "x"]))
    write(tmp_path / "test.parquet", pictures(2), [0, 1], metadata=hugging_face(["cafe\u0301", "x"]))
    with pytest.raises(DataError, match=r"has 'cafe.+u0301' and lacks 'caf.+xe9'"):
        load_data("parquet", str(tmp_path))


# --- labels from 1 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("dataset", KINDS)
def test_labels_from_one_are_the_same_data_as_labels_from_zero(tmp_path, dataset, named):
    kind = KINDS[dataset]
    orders = [kind.names if named else UNNAMED] * 3
    data = [load_data(dataset, str(write_named(tmp_path / str(shift), kind, orders, shift=shift))) for shift in (0, 1)]
    assert labels_of(data[1]) == labels_of(data[0])
    assert data[1].fingerprint == data[0].fingerprint
    assert data[1].num_classes == kind.classes


def test_names_in_another_order_of_labels_from_one(tmp_path):
    kind = KINDS["parquet"]
    orders = [kind.names, shuffled(kind.names, 1), shuffled(kind.names, 2)]
    data = load_data("parquet", str(write_named(tmp_path, kind, orders, shift=1)))
    assert labels_of(data) == ([0, 1, 2, 3] * 2, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([1, 2, 3], [0, 1], "class 0 never occurs"),  # 0 in the test split: they are not numbered from 1
        ([0, 1, 2], [1, 2, 3], r"test labels run from 1 to 3, but must be in 0\.\.2"),
        ([1, 2, 3], [3, 4], r"test\.parquet labels run from 3 to 4, but must be in 1\.\.3 for 3 classes"),
        ([1, 2, 4], [1], "class 0 never occurs"),
        ([2, 3, 4], [2], "class 0 never occurs"),
    ],
)
def test_labels_that_are_neither_from_zero_nor_from_one(tmp_path, train, test, message):
    write(tmp_path / "train.parquet", pictures(len(train)), train)
    write(tmp_path / "test.parquet", pictures(len(test)), test)
    with pytest.raises(DataError, match=message):
        load_data("parquet", str(tmp_path))


def test_cifar_without_its_first_class_is_not_renumbered(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", pictures(3, (32, 32, 3)), [1, 2, 3])
    assert labels_of(load_data("cifar10", str(tmp_path))) == ([1, 2, 3], [1, 2, 3])


# --- text and booleans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", KINDS)
def test_text_labels_are_classes_in_sorted_order(tmp_path, dataset):
    kind = KINDS[dataset]
    backwards = list(reversed(kind.names))
    for number, name in enumerate((*FILES[:2], kind.test)):
        images = images_of(kind, kind.classes, number)
        write(tmp_path / f"{name}.parquet", images, pa.array(backwards if number else kind.names))
    data = load_data(dataset, str(tmp_path))
    order = [sorted(kind.names).index(name) for name in kind.names]
    assert labels_of(data) == (order + order[::-1], order[::-1])
    assert data.num_classes == kind.classes


@pytest.mark.parametrize("dataset", ["parquet", "tinyimagenet", "imagenet"])
def test_a_file_may_lack_classes_but_the_test_split_has_no_new_ones(tmp_path, dataset, monkeypatch):
    kind = KINDS[dataset]
    for name, labels in zip((*FILES[:2], kind.test), (["b", "b"], ["c", "a"], ["c"]), strict=True):
        write(tmp_path / f"{name}.parquet", images_of(kind, len(labels), 0), pa.array(labels))
    assert labels_of(load_data(dataset, str(tmp_path))) == ([1, 1, 2, 0], [2])
    forget(monkeypatch)
    write(tmp_path / f"{kind.test}.parquet", images_of(kind, 2, 0), pa.array(["a", "zebra"]))
    with pytest.raises(
        DataError, match=rf"{kind.test}\.parquet has the label 'zebra', but the classes.* 'a', 'b', 'c'"
    ):
        load_data(dataset, str(tmp_path))


def test_text_and_named_numbers_are_the_same_classes(tmp_path):
    write(tmp_path / "train.parquet", pictures(3), pa.array(["cat", "ant", "bee"]))
    write(tmp_path / "test.parquet", pictures(3), [0, 1, 2], metadata=hugging_face(["bee", "cat", "ant"]))
    assert labels_of(load_data("parquet", str(tmp_path))) == ([1, 2, 0], [0, 1, 2])


def test_text_beside_numbers_without_names_is_refused(tmp_path):
    write(tmp_path / "train.parquet", pictures(3), pa.array(["cat", "ant", "bee"]))
    write(tmp_path / "test.parquet", pictures(3), [0, 1, 2])
    with pytest.raises(DataError, match=r"test\.parquet has numbers as labels and .*train\.parquet text") as caught:
        load_data("parquet", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_booleans_are_two_classes(tmp_path):
    write(tmp_path / "train.parquet", pictures(3), pa.array([True, True, True]))
    write(tmp_path / "test.parquet", pictures(2), pa.array([True, False]))
    data = load_data("parquet", str(tmp_path))
    assert labels_of(data) == ([1, 1, 1], [1, 0])
    assert data.num_classes == 2


# --- the number of classes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [hugging_face, lambda names: {"class_names": json.dumps(names)}])
@pytest.mark.parametrize("dataset", ["parquet", "tinyimagenet", "imagenet"])
def test_equal_images_of_more_classes_are_other_data(tmp_path, dataset, metadata):
    kind, fingerprints = KINDS[dataset], []
    for more in (None, 0, 1, 2):  # names of classes that have no image
        names = None if more is None else [*kind.names, *"xy"[:more]]
        for number, file in enumerate(("train", kind.test)):
            images = images_of(kind, kind.classes, number)
            folder = tmp_path / str(more)
            write(folder / f"{file}.parquet", images, range(4), metadata=metadata(names) if names else None)
        data = load_data(dataset, str(folder))
        assert data.num_classes == kind.classes + (more or 0)
        fingerprints.append(data.fingerprint)
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


# --- what lies in the cache ------------------------------------------------------------------------------------


def test_labels_that_older_code_cached_are_not_used(tmp_path):
    kind = KINDS["parquet"]
    folder = write_named(tmp_path, kind, [kind.names, kind.names, shuffled(kind.names, 1)])
    files = [folder / f"{name}.parquet" for name in FILES]
    zeros = np.zeros((4, 3, 6, 6), np.uint8)
    older = cache.Arrays(zeros, np.zeros(4, np.int64), zeros, np.zeros(4, np.int64), 4)
    cache.cached(cache.source_key(files, "parquet", "label", "labels", "fine_label", "2"), lambda: older)
    assert labels_of(load_data("parquet", str(folder))) == ([0, 1, 2, 3] * 2, [0, 1, 2, 3])
