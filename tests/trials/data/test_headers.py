"""Headers of data sets: what is known before a trial runs, and what it costs."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.trials.layouts import forget, write_imagenet, write_imagenet_parquet, write_tinyimagenet_parquet
from tests.trials.parquet_files import hugging_face, pictures, write, write_both
from trials.data import DataOptions, load_data, packed, peek_header, require_data
from trials.data_header import DataHeader
from trials.errors import DataError

pytestmark = pytest.mark.usefixtures("small_crops")


@pytest.fixture
def no_unpacking(monkeypatch):
    monkeypatch.setattr(packed, "_unpack", lambda *_: pytest.fail("unpacked"))


@pytest.mark.parametrize(
    ("dataset", "write_data", "header"),
    [
        ("parquet", write_both, DataHeader("parquet", 3, 3, (6, 6), 6)),
        ("tinyimagenet", write_tinyimagenet_parquet, DataHeader("tinyimagenet", 3, 3, (64, 64), 12)),
        ("imagenet", write_imagenet_parquet, DataHeader("imagenet", 3, 3, (16, 16), 12)),
        ("imagenet", write_imagenet, DataHeader("imagenet", 3, 3, (16, 16), 12)),
    ],
)
@pytest.mark.parametrize("look", [require_data, peek_header])
def test_the_header_is_that_of_the_loaded_data(tmp_path, dataset, write_data, header, look):
    folder = str(write_data(tmp_path))
    loaded = load_data(dataset, folder)
    found = look(dataset, folder)
    facts = (found.name, found.num_classes, found.in_channels, found.image_size, found.train_size)
    assert facts == (header.name, header.num_classes, header.in_channels, header.image_size, header.train_size)
    assert found.fingerprint == loaded.fingerprint


def test_the_header_follows_the_options(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", pictures(3), [0, 1, 2], colour=pa.array(["red", "blue", "red"]))
    options = DataOptions(label_column="colour", image_size=12)
    assert peek_header("parquet", str(tmp_path), options) == require_data("parquet", str(tmp_path), options)
    assert peek_header("parquet", str(tmp_path), options).num_classes == 2
    assert peek_header("parquet", str(tmp_path), options).image_size == (12, 12)


@pytest.mark.usefixtures("no_unpacking")
def test_imagenet_is_not_unpacked_to_see_its_header(tmp_path):
    header = peek_header("imagenet", str(write_imagenet_parquet(tmp_path)))
    assert header == DataHeader("imagenet", 3, 3, (16, 16), 12, None, header.notes)
    assert [note[:15] for note in header.notes] == ["1 file is not r"]  # the official test images, without labels
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.usefixtures("no_unpacking")
def test_classes_are_counted_where_the_files_do_not_name_them(tmp_path, shift):
    for split in ("train", "validation"):
        write(tmp_path / f"{split}.parquet", pictures(4), [label + shift for label in (0, 1, 4, 3)])
    with pytest.raises(DataError, match=r"class \d never occurs"):
        peek_header("imagenet", str(tmp_path))
    write(tmp_path / "train.parquet", pictures(5), [label + shift for label in (0, 1, 4, 3, 2)])
    assert peek_header("imagenet", str(tmp_path)).num_classes == 5


def test_an_unpacked_imagenet_has_its_fingerprint(tmp_path, monkeypatch):
    folder = str(write_imagenet_parquet(tmp_path))
    fingerprint = require_data("imagenet", folder).fingerprint
    forget(monkeypatch)
    assert fingerprint is not None
    assert peek_header("imagenet", folder).fingerprint == fingerprint


@pytest.mark.parametrize("others", [["x", "y"], ["x", "x"]])
@pytest.mark.usefixtures("no_unpacking")
def test_a_look_refuses_what_loading_refuses(tmp_path, others):
    write(tmp_path / "train.parquet", pictures(2), [0, 1], metadata=hugging_face("xz"))
    write(tmp_path / "validation.parquet", pictures(2), [0, 1], metadata=hugging_face(others))
    for look in (peek_header, require_data):
        with pytest.raises(DataError, match=r"validation\.parquet (has|lacks) .*names") as caught:
            look("imagenet", str(tmp_path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("look", [peek_header, require_data])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagenets",), "data set is 'imagenets'"),
        (("imagenet",), "no data_dir"),
        (("imagenet", "absent"), "which is missing"),
        (("imagenet", ".", DataOptions(image_size=8)), "image_size is 8, but is an option of folder and parquet, not"),
    ],
)
def test_a_look_names_what_is_missing(look, arguments, message):
    with pytest.raises(DataError, match=message):
        look(*arguments)
