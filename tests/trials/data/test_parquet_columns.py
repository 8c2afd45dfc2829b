"""Image and label columns of Parquet files as people have them: kinds, names, options, sizes."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.trials.layouts import encoded, picture
from tests.trials.parquet_files import hugging_face, image_column, pictures, write, write_both
from tests.trials.small_trials import run_in
from trials.data import DataOptions, load_data, room
from trials.errors import DataError
from trials.methods.parsing import parse

pytestmark = pytest.mark.usefixtures("small_crops")

CLASSES = (2, 0, 1, 2)
"""Classes of the images that the tests write."""

LABELS = {
    "int8": pa.array(CLASSES, pa.int8()),
    "uint64": pa.array(CLASSES, pa.uint64()),
    "float": pa.array(CLASSES, pa.float32()),
    "double": pa.array(CLASSES, pa.float64()),
    "from one": pa.array([c + 1 for c in CLASSES], pa.int32()),
    "string": pa.array(["abc"[c] for c in CLASSES]),
    "large_string": pa.array(["abc"[c] for c in CLASSES], pa.large_string()),
    "categories": pa.array(["abc"[c] for c in CLASSES]).dictionary_encode(),
    "numbered categories": pa.array(CLASSES).dictionary_encode(),
}
KINDS = ("struct", "binary", "large_binary")


def load(folder, **options):
    return load_data("parquet", str(folder), DataOptions(**options))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", LABELS)
def test_every_kind_of_label_beside_every_kind_of_image_is_the_same_data(tmp_path, labels, kind, named):
    image, label = ("picture", "species") if named else ("image", "label")
    for split in ("train", "test"):
        file = tmp_path / f"{split}.parquet"
        write(file, pictures(4), LABELS[labels], image, label, kind=kind, name=pa.array(list("wxyz")))
    options = {"image_column": image, "label_column": label} if named else {}
    data = load(tmp_path, **options)
    assert data.train_labels.tolist() == data.test_labels.tolist() == list(CLASSES)
    assert torch.equal(data.train_images, torch.from_numpy(pictures(4)).permute(0, 3, 1, 2))
    assert data.num_classes == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", LABELS)
def test_every_kind_is_unpacked_too(tmp_path, labels, kind):
    images = [encoded(picture(seed, 30, 20)) for seed in range(4)]
    for split in ("train", "validation"):
        write(tmp_path / f"{split}.parquet", images, LABELS[labels], kind=kind)
    data = load_data("imagenet", str(tmp_path))
    assert data.train_labels.tolist() == data.test_labels.tolist() == list(CLASSES)
    assert [data.train.read(i) for i in range(4)] == images


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array([0, 1, 1.5]), r"has the label 1\.5 in 'label', but labels must be whole numbers"),
        (pa.array([0, 1, float("inf")]), "has the label inf in 'label'"),
        (pa.array([0, 1, float("nan")]), "rows without a 'label'"),
        (pa.array([0, 1, None]), "rows without a 'label'"),
        (pa.array(["a", "b", None]), "rows without a 'label'"),
        (pa.array(["a", "b", ""]), "rows without a 'label'"),
        (pa.array(["a", "b", None]).dictionary_encode(), "rows without a 'label'"),
        (pa.array([True, False, None]), "rows without a 'label'"),
        (pa.array([0, 1, 2**63], pa.uint64()), "has the label 9223372036854775808 in 'label'"),
        (pa.array([[0], [1], [1, 2]]), r"column 'label' values of type list<.*>, but they must be labels"),
        (pa.array([b"a", b"b", b"c"]), r"column 'label' values of type binary"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_that_are_none_are_refused_in_one_line(tmp_path, labels, message, split):
    for name in ("train", "test"):
        write(tmp_path / f"{name}.parquet", pictures(3), labels if name == split else [0, 1, 2], id=pa.array([7, 8, 9]))
    with pytest.raises(DataError, match=rf"{split}\.parquet.*{message}") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


# --- which columns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["image_column", "label_column"])
def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path, option):
    with pytest.raises(
        DataError, match=rf"{option} is 'nothing', but .*train.* has the columns image, label: name one"
    ):
        load(write_both(tmp_path), **{option: "nothing"})


@pytest.mark.parametrize(("option", "other"), [("image_column", "label"), ("label_column", "image")])
def test_a_column_that_does_not_fit_is_refused(tmp_path, option, other):
    with pytest.raises(DataError, match=rf"column '{other}' values of type .*name another column as {option}"):
        load(write_both(tmp_path), **{option: other})


def test_the_options_choose_among_several_columns(tmp_path):
    more = {"photo": image_column(pictures(3, seed=5)), "colour": pa.array(["red", "blue", "red"])}
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", pictures(3), [0, 1, 2], **more)
    assert load(tmp_path).train_labels.tolist() == [0, 1, 2]
    assert load(tmp_path, label_column="colour").train_labels.tolist() == [1, 0, 1]
    photos = torch.from_numpy(pictures(3, seed=5)).permute(0, 3, 1, 2)
    assert torch.equal(load(tmp_path, image_column="photo").train_images, photos)
    assert not torch.equal(load(tmp_path).train_images, photos)


@pytest.mark.parametrize(
    ("more", "option"),
    [
        ({"thumb": image_column(pictures(3))}, "image_column"),
        ({"id": pa.array([0, 1, 2])}, "label_column"),
        ({"genus": pa.array(["a", "b", "c"])}, "label_column"),
        ({"good": pa.array([True, False, True])}, "label_column"),
    ],
)
def test_two_columns_that_could_be_meant_are_refused_with_the_way_out(tmp_path, more, option):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", pictures(3), [0, 1, 2], "picture", "species", **more)
    with pytest.raises(DataError, match=rf"could hold .*: (picture|species), {next(iter(more))}; .*{option}") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    assert load(tmp_path, image_column="picture", label_column="species").train_labels.tolist() == [0, 1, 2]


def test_the_column_that_hugging_face_marks_as_classes_is_meant(tmp_path):
    for split in ("train", "test"):
        more = {"id": pa.array([0, 1, 2]), "weight": pa.array([0.5, 1, 2])}
        metadata = hugging_face("abc", "species")
        write(tmp_path / f"{split}.parquet", pictures(3), [2, 1, 0], label="species", metadata=metadata, **more)
    assert load(tmp_path).train_labels.tolist() == [2, 1, 0]


def test_the_index_that_pandas_writes_is_no_label(tmp_path):
    for split in ("train", "test"):
        more = {"__index_level_0__": pa.array([2, 0, 1])}
        write(tmp_path / f"{split}.parquet", pictures(3), pa.array(["b", "a", "c"]), label="species", **more)
    assert load(tmp_path).train_labels.tolist() == [1, 0, 2]


def test_names_belong_to_the_column_that_is_read(tmp_path):
    features = {"label": {"names": list("abcdef")}, "coarse": {"names": ["x", "y"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for split in ("train", "test"):
        more = {"coarse": pa.array([0, 1, 1])}
        write(tmp_path / f"{split}.parquet", pictures(3), [0, 1, 2], metadata=metadata, **more)
    assert (load(tmp_path).num_classes, load(tmp_path, label_column="coarse").num_classes) == (6, 2)


def test_files_that_take_their_labels_from_different_columns(tmp_path):
    write(tmp_path / "train.parquet", pictures(3), [0, 1, 2], label="species")
    write(tmp_path / "test.parquet", pictures(3), [0, 1, 2], label="genus")
    with pytest.raises(DataError, match=r"test\.parquet has its labels in 'genus' and .*train\.parquet in 'species'"):
        load(tmp_path)


@pytest.mark.parametrize("dataset", ["parquet", "imagenet"])
@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [
        (["image", "thumbnail"], ["thumbnail"], "struct"),
        (["thumbnail"], ["image", "thumbnail"], "struct"),
        (["image", "img"], ["img"], "struct"),
        (["image", "other", "mask"], ["mask"], "binary"),
    ],
)
def test_images_of_a_column_that_another_file_has_but_does_not_use_are_refused(tmp_path, dataset, train, test, kind):
    for split, names in (("train", train), ("test" if dataset == "parquet" else "validation", test)):
        columns = {name: image_column(pictures(3, (20, 20, 3), seed), kind) for seed, name in enumerate(names)}
        pq.write_table(pa.table({**columns, "label": [0, 1, 2]}), tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=r"has images in .* of which .* is read, but .*image_column") as caught:
        load_data(dataset, str(tmp_path))
    assert "\n" not in str(caught.value)
    if dataset == "parquet":
        chosen = set(train) & set(test)
        data = load_data("parquet", str(tmp_path), DataOptions(image_column=chosen.pop()))
        assert len(data.test_labels) == 3


def test_images_of_one_kind_may_have_another_name_in_each_file(tmp_path):
    write(tmp_path / "train.parquet", pictures(3), [0, 1, 2], image="image")
    write(tmp_path / "test.parquet", pictures(3), [0, 1, 2], image="picture")
    assert len(load_data("parquet", str(tmp_path)).test_labels) == 3


@pytest.mark.parametrize("options", [DataOptions(label_column="x"), DataOptions()])
def test_line_breaks_in_names_of_columns_leave_one_line(tmp_path, options):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", pictures(3), [0, 1, 2], label="a\nb", more=pa.array([1, 2, 3]))
    with pytest.raises(DataError, match=r"a\\nb") as caught:
        load_data("parquet", str(tmp_path), options)
    assert "\n" not in str(caught.value)


def test_several_columns_of_one_name(tmp_path):
    for split in ("train", "test"):
        table = pa.table([image_column(pictures(2)), pa.array([0, 1]), pa.array([1, 0])], ["image", "label", "label"])
        pq.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match="several columns named 'label'"):
        load(tmp_path)


@pytest.mark.parametrize("dataset", ["cifar10", "digits", "imagenet", "tinyimagenet"])
@pytest.mark.parametrize("option", [{"image_column": "x"}, {"label_column": "x"}])
def test_data_sets_of_fixed_content_have_no_columns_to_choose(tmp_path, dataset, option):
    with pytest.raises(DataError, match=rf"is 'x', but is an option of parquet, not of '{dataset}'"):
        load_data(dataset, str(tmp_path), DataOptions(**option))


def test_an_image_of_which_only_the_path_is_there(tmp_path):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    (tmp_path / "a.png").write_bytes(encoded(pictures(1)[0], "PNG"))
    for split in ("train", "test"):
        table = pa.table({"image": pa.array([{"bytes": None, "path": "a.png"}], struct), "label": [0]})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=r"train\.parquet row 0 holds no image: its bytes must be in the file"):
        load(tmp_path)


# --- sizes -----------------------------------------------------------------------------------------------------


def mixed() -> list[np.ndarray]:
    return [picture(0, 12, 9), picture(1, 40, 70), picture(2, 6, 6)[:, :, 0], picture(3, 8, 8)]


def test_images_of_several_sizes_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"row 1 is 40x70 pixels and .*row 0 12x9, .*give image_size"):
        load(write_both(tmp_path, mixed()))


@pytest.mark.parametrize("rows", [(6, 3), (3, 20)])
@pytest.mark.parametrize(("image_size", "way_out"), [(None, "give image_size"), (16, "give a smaller image_size")])
def test_images_of_both_splits_that_do_not_fit_in_memory_are_refused(tmp_path, monkeypatch, rows, image_size, way_out):
    """The training images alone would fit."""
    monkeypatch.setattr(room, "available_bytes", lambda: 3 * 16 * 16 * sum(rows) - 1)
    folder = write_both(tmp_path, *(pictures(n, (16, 16, 3)) for n in rows))
    with pytest.raises(
        DataError, match=rf"{sum(rows)} images of 16x16 pixels.* take .* can be used: {way_out}"
    ) as error:
        load(folder, image_size=image_size)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(room, "available_bytes", lambda: 3 * 16 * 16 * sum(rows))
    assert len(load(folder, image_size=image_size).train_labels) == rows[0]


@pytest.mark.parametrize("kind", KINDS)
def test_image_size_makes_images_of_any_size_one(tmp_path, kind):
    data = load(write_both(tmp_path, mixed(), mixed()[::-1], kind=kind), image_size=8)
    assert data.train_images.shape == data.test_images.shape == (4, 3, 8, 8)
    assert data.image_size == (8, 8)
    assert data.pad == 1
    assert torch.equal(data.train_images[3], torch.tensor(mixed()[3]).permute(2, 0, 1))  # has that size already
    stream = io.BytesIO(encoded(mixed()[2], "PNG"))
    small = np.asarray(Image.open(stream).convert("RGB").resize((8, 8), Image.Resampling.BILINEAR))
    assert torch.equal(data.train_images[2], torch.tensor(small).permute(2, 0, 1))
    assert torch.equal(data.test_images, data.train_images.flip(0))


def test_image_size_is_part_of_the_data_and_not_mixed_up_in_the_cache(tmp_path):
    folder = write_both(tmp_path)
    plain, same, double = load(folder), load(folder, image_size=6), load(folder, image_size=12)
    assert plain.fingerprint == same.fingerprint != double.fingerprint
    assert double.image_size == (12, 12)
    assert not double.train_images.eq(0).all()


def test_a_trial_runs_with_all_options(tmp_path):
    photos = [picture(seed, 12 + seed, 9) for seed in range(12)]
    for split in ("train", "validation"):
        species = pa.array(["ant", "bee", "cat"] * 4)
        write(tmp_path / f"data/default/{split}/0000.parquet", photos, species, "photo", "species", kind="binary")
    config = parse(
        {
            "method": "dense",
            "model": "tiny",
            "dataset": "parquet",
            "data_dir": str(tmp_path / "data"),
            "image_column": "photo",
            "label_column": "species",
            "image_size": 8,
            "stratify_split": True,
            "val_fraction": 0.25,
            "train": {"epochs": 1, "batch_size": 4, "lr": 0.01},
            "device": "cpu",
        }
    )
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    assert state.result["data"] == load_data(*config.data_key).fingerprint


def test_gray_images_stay_gray_when_resized(tmp_path):
    gray = [image[:, :, 0] for image in (picture(0, 12, 9), picture(1, 9, 12), picture(2, 10, 10))]
    assert load(write_both(tmp_path, gray, gray), image_size=8).in_channels == 1
