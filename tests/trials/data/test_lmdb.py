"""ImageNet in two LMDB files: read as written by LMDB itself, and refused in one line if it is anything else."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import lzma
import os
import pickle
import random
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.layouts import CROP, forget, large_images, load_large, write_imagenet
from trials.data import Streamed, load_data, peek_header
from trials.data.lmdb.btree import BadLmdb, Extent, entries
from trials.data.lmdb.images import LmdbImages, read_lmdb
from trials.data.lmdb.plain_pickle import NotPlain, plain_value
from trials.data.sets.imagenet import load_validation
from trials.errors import DataError

pytestmark = pytest.mark.usefixtures("small_crops")

RECORDED = Path(__file__).parent / "recorded_lmdb"
SPLITS = ("train", "val")


def recorded(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        (folder / f"{split}.lmdb").write_bytes(lzma.decompress((RECORDED / f"{split}.lmdb.xz").read_bytes()))
    return folder


def leaf_file(records: Mapping[bytes, bytes]) -> bytes:
    """An LMDB file with a single leaf page and values that fit into it, in LMDB 0.9's format, or in overflow pages."""
    size, nodes, overflow = 4096, [], b""
    for key in sorted(records):
        value, flags, data = records[key], 0, records[key]
        if len(value) > 200:
            number = 3 + len(overflow) // size
            pages = -(-(len(value) + 16) // size)
            overflow += (struct.pack("<QHHI", number, 0, 4, pages) + value).ljust(pages * size, b"\0")
            flags, data = 1, struct.pack("<Q", number)
        node = struct.pack("<4H", len(value) & 0xFFFF, len(value) >> 16, flags, len(key)) + key + data
        nodes.append(node + b"\0" * (len(node) % 2))
    at, places = size, []
    body = bytearray(size)
    for node in nodes:
        at -= len(node)
        body[at : at + len(node)] = node
        places.append(at)
    lower = 16 + 2 * len(nodes)
    assert lower <= at, "one page only"
    body[:lower] = struct.pack(f"<QHHHH{len(places)}H", 2, 0, 2, lower, at, *places)
    nothing = 2**64 - 1
    metas = b""
    for number in (0, 1):
        free = struct.pack("<IHH5Q", size, 0, 0, 0, 0, 0, 0, nothing)
        main = struct.pack("<IHH5Q", 0, 0, 1, 0, 1, 0, len(nodes), 2 if number else nothing)
        meta = struct.pack("<IIQQ", 0xBEEFC0DE, 1, 0, 1 << 30) + free + main + struct.pack("<QQ", 2, number)
        metas += (struct.pack("<QHHHH", number, 0, 8, 0, 0) + meta).ljust(size, b"\0")
    return metas + bytes(body) + overflow


def pairs(images: list[tuple[Any, Any]], **others: bytes) -> dict[bytes, bytes]:
    """Records in the layout of folder2lmdb."""
    records = {str(i).encode(): pickle.dumps(pair) for i, pair in enumerate(images)}
    records |= {b"__keys__": pickle.dumps(list(records)), b"__len__": pickle.dumps(len(images))}
    return records | {name.encode(): value for name, value in others.items()}


def with_records(folder: Path, train: Mapping[bytes, bytes]) -> Path:
    """The recorded validation images, and these records of training."""
    (recorded(folder) / "train.lmdb").write_bytes(leaf_file(train))
    return folder


def test_every_image_is_read_with_its_label(tmp_path: Path) -> None:
    data = load_large(recorded(tmp_path))
    assert (data.num_classes, data.in_channels, data.image_size, data.source) == (3, 3, (CROP, CROP), "lmdb")
    about = json.loads((RECORDED / "images.json").read_text())
    for split, images, labels in (("train", data.train, data.train_labels), ("val", data.test, data.test_labels)):
        found = [hashlib.sha256(images.read(i)).hexdigest()[:16] for i in range(len(images))]
        assert list(zip(labels.tolist(), found, strict=True)) == [tuple(pair) for pair in about[split]]
        assert images.where(1) == f"{tmp_path / f'{split}.lmdb'} image 1"


def test_batches_are_those_of_class_folders(tmp_path: Path) -> None:
    """The images are decoded, cropped and ordered alike, in workers too."""
    files = recorded(tmp_path / "a")
    folders = tmp_path / "b"
    listed = load_large(files)
    for split, images, labels in (
        ("train", listed.train, listed.train_labels),
        ("val", listed.test, listed.test_labels),
    ):
        for i, label in enumerate(labels.tolist()):
            target = folders / split / f"class{label}" / f"{i:03}.JPEG"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(images.read(i))
    options: dict[str, Any] = {"device": "cpu", "val_fraction": 0.25, "split_seed": 0}
    one = Streamed(listed, workers=2, **options)
    other = Streamed(load_large(folders), workers=0, **options)
    for split in ("train", "val", "test"):
        for (x, y), (u, v) in zip(one.eval_batches(split, 4), other.eval_batches(split, 4), strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
    batches = [list(data.batches(seed=0, epoch=0, stream="train", batch_size=4)) for data in (one, other)]
    assert all(torch.equal(x, u) for (x, _), (u, _) in zip(*batches, strict=True))


def test_the_header_is_the_data_sets_and_no_image_is_read_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LmdbImages, "read", lambda *_: pytest.fail("an image was read"))
    header = peek_header("imagenet", str(recorded(tmp_path)))
    data = load_data("imagenet", str(tmp_path))
    assert (header.num_classes, header.train_size, header.fingerprint) == (3, 12, data.fingerprint)


def test_the_fingerprint_follows_sizes_and_labels_not_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_large(recorded(tmp_path / "a")).fingerprint
    assert load_large(recorded(tmp_path / "b")).fingerprint == before
    (tmp_path / "c" / "train.lmdb").mkdir(parents=True)  # the library's other form: a folder with data.mdb
    (tmp_path / "b/train.lmdb").rename(tmp_path / "c/train.lmdb/data.mdb")
    (tmp_path / "b/val.lmdb").rename(tmp_path / "c/val.lmdb")
    assert load_large(tmp_path / "c").fingerprint == before
    images = [(b"a", 0), (b"bb", 1), (b"ccc", 2)]
    prints = set()
    for number, changed in enumerate([images, [*images[:2], (b"cccc", 2)], [images[1], images[0], images[2]]]):
        prints.add(load_large(with_records(tmp_path / f"d{number}", pairs(changed))).fingerprint)
    assert len(prints | {before}) == 4


def test_labels_are_cached_and_follow_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_records(tmp_path, pairs([(b"a", 0), (b"b", 1), (b"c", 2)]))
    assert load_large(folder).train_labels.tolist() == [0, 1, 2]
    forget(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("trials.data.lmdb.images.entries", lambda _: pytest.fail("the file was scanned again"))
        assert load_large(folder).train_labels.tolist() == [0, 1, 2]
    with_records(tmp_path, pairs([(b"a", 2), (b"b", 1), (b"c", 0)]))
    forget(monkeypatch)
    assert load_large(folder).train_labels.tolist() == [2, 1, 0]
    for entry in (tmp_path / "cache/sparsity-sweeper/lmdb").glob("*.npz"):
        entry.write_bytes(b"damaged")
    forget(monkeypatch)
    assert load_large(folder).train_labels.tolist() == [2, 1, 0]


def test_class_folders_come_first(tmp_path: Path) -> None:
    """A folder that was read before these files lay beside its images keeps its data."""
    write_imagenet(tmp_path)
    before = load_large(tmp_path)
    recorded(tmp_path)
    assert load_large(tmp_path).fingerprint == before.fingerprint
    assert load_validation(tmp_path).source == before.source == "folder"


def test_validation_images_are_enough_for_pretrained_networks(tmp_path: Path) -> None:
    recorded(tmp_path)
    (tmp_path / "train.lmdb").unlink()
    data = load_validation(tmp_path, crop_size=CROP, resize=18)
    assert (data.num_classes, len(data.test_labels), data.source) == (3, 6, "lmdb")
    with pytest.raises(DataError, match=r"holds val\.lmdb but no train\.lmdb: put both files there"):
        load_large(tmp_path)


class Call:
    """Its pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("where", ["record", "keys", "len"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_calls_something_is_refused_and_not_executed(where: str, protocol: int, tmp_path: Path) -> None:
    hostile = pickle.dumps((Call(os.mkdir, str(tmp_path / "executed")), 0), protocol=protocol)
    key = {"record": "0", "keys": "__keys__", "len": "__len__"}[where]
    folder = with_records(tmp_path / "data", pairs([(b"a", 0), (b"b", 1)], **{key: hostile}))
    with pytest.raises(DataError, match="a pickle is never executed here") as refused:
        load_large(folder)
    assert str(refused.value).isprintable()
    assert key in str(refused.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ({b"0": pickle.dumps((b"a", 0))}, "has no record '__keys__'"),
        (pairs([(b"a", 0)], __len__=pickle.dumps(2)), "lists 1 keys, but says that it has 2 images"),
        (
            pairs([(b"a", 0)], __keys__=pickle.dumps([b"0", b"7"]), __len__=pickle.dumps(2)),
            "lists the key b'7', but has",
        ),
        (pairs([(b"a", 0)], __keys__=pickle.dumps({"0": 1})), "never executed"),
        (pairs([(b"a", 0)], __keys__=pickle.dumps(3)), "must be a list of keys"),
        (pairs([(b"", 0)]), "record b'0' holds no image"),
        (pairs([(b"a", -1)]), "has the label -1"),
        (pairs([(b"a", 1.0)]), "never executed here: write the file anew with images as bytes and labels as int"),
        (pairs([("a", 1)]), "must be a pair of an encoded image and a whole number"),
        (pairs([(b"a", True)]), "must be a pair"),
        (pairs([(b"a", 0), (b"b", 2)]), "has labels from 0 to 2, but none is 1"),
        (pairs([(b"a", 0)], **{"0": pickle.dumps((b"a", 0))[:-4]}), "is damaged"),
        (pairs([(b"a", 0)], __len__=pickle.dumps([[1]])), "says that it has something else than a number of them"),
        (pairs([(b"a", 0)] * 2, __keys__=pickle.dumps([b"0", b"0"])), "lists a key twice"),
        (pairs([], __keys__=pickle.dumps([])), "lists 0 keys"),
    ],
)
def test_other_content_is_refused_in_one_line(records: dict[bytes, bytes], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        load_large(with_records(tmp_path, records))
    assert said in str(refused.value)
    assert str(refused.value).isprintable()
    assert str(tmp_path / "train.lmdb") in str(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: b"", "cannot be read"),
        (lambda c: b"no database", "is truncated"),
        (lambda c: bytes(len(c)), "is no LMDB file of a 64-bit little-endian machine"),
        (lambda c: c[:20] + b"\2" + c[21:], "has LMDB's data version 2, and only 1 is read"),
        (lambda c: c[: len(c) // 2], "is truncated"),
        (lambda c: c[:-5000], "is truncated"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(change: Callable[[bytes], bytes], said: str, tmp_path: Path) -> None:
    file = recorded(tmp_path) / "train.lmdb"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError) as refused:
        load_large(tmp_path)
    assert said in str(refused.value)
    assert str(refused.value).isprintable()


def test_pages_below_pages_without_end_are_refused() -> None:
    """Each of 5,000 branch pages names the next one; deeper than the library's own limit."""
    size, pages = 4096, 5000
    content = bytearray(leaf_file({})[: 2 * size]) + bytearray(size * pages)
    for number in range(2, 2 + pages):
        following = struct.pack("<4H", (number + 1) & 0xFFFF, 0, 0, 0)
        content[number * size : number * size + 18] = struct.pack("<QHHHHH", number, 0, 1, 18, 4088, 4088)
        content[number * size + 4088 : (number + 1) * size] = following
    with pytest.raises(BadLmdb, match="is damaged"):
        list(entries(bytes(content)))


def test_random_damage_never_ends_in_another_error(tmp_path: Path) -> None:
    """Nothing but the readers' own errors, and it always ends."""
    content, draw = (recorded(tmp_path) / "train.lmdb").read_bytes(), random.Random(3)
    for _ in range(300):
        damaged = bytearray(content[: draw.choice([len(content), draw.randrange(len(content))])])
        for _ in range(draw.choice([1, 5, 50])):
            start = draw.randrange(len(damaged) + 1)
            damaged[start : start + 4] = draw.randbytes(4)
        whole = bytes(damaged)
        try:
            for _, span in entries(whole):
                plain_value(whole, span)
        except (BadLmdb, NotPlain):
            pass


def test_a_file_that_becomes_shorter_fails_in_one_line(tmp_path: Path) -> None:
    data = load_large(recorded(tmp_path))
    os.truncate(tmp_path / "train.lmdb", 10_000)
    with pytest.raises(DataError, match=r"image 11 is cut off: restore the file, which has become shorter"):
        data.train.read(11)
    (tmp_path / "train.lmdb").unlink()
    with pytest.raises(DataError, match="cannot be read: restore the file"):
        data.train.read(0)


PLAIN = [
    *(None, True, False, 0, -1, 255, 256, 65535, 65536, 2**31, -(2**70), "", "text", "é" * 300, (), (1,), (1, 2)),
    *((1, 2, 3), (1, 2, 3, 4), [], [1], [1, [2, (3, "x")]], [str(i) for i in range(2500)], ["x"] * 3),
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_are_read_as_they_were_written(protocol: int) -> None:
    for value in PLAIN:
        content = b"before" + pickle.dumps(value, protocol=protocol) + b"after"
        assert plain_value(content, Extent(6, len(content) - 11)) == value, value
    for pickler in (pickle._Pickler, pickle.Pickler):  # type: ignore[attr-defined]
        stream = io.BytesIO()
        pickler(stream, protocol=max(protocol, 3)).dump((b"x" * 100_000, 7))
        (start, length), label = plain_value(stream.getvalue(), Extent(0, len(stream.getvalue())))
        assert stream.getvalue()[start : start + length] == b"x" * 100_000
        assert label == 7


@pytest.mark.skipif(importlib.util.find_spec("lmdb") is None, reason="the lmdb package, which is not needed, is absent")
@pytest.mark.parametrize("count", [1, 40, 3000])
def test_files_of_the_library_are_read(count: int, tmp_path: Path) -> None:
    lmdb, draw = importlib.import_module("lmdb"), random.Random(count)
    images = [(draw.randbytes(draw.choice([1, 100, 1900, 2100, 5000])), i % 3) for i in range(count)]
    with lmdb.open(str(tmp_path / "train.lmdb"), subdir=False, map_size=1 << 30) as database:
        for key, value in pairs(images).items():
            with database.begin(write=True) as transaction:
                transaction.put(key, value)
    data, labels = read_lmdb(tmp_path / "train.lmdb")
    assert [data.read(i) for i in range(count)] == [image for image, _ in images]
    assert labels.tolist() == [label for _, label in images]


def test_the_recorded_files_hold_the_made_up_images() -> None:
    assert [label for label, _ in json.loads((RECORDED / "images.json").read_text())["train"]] == [
        label for label, _ in large_images()[0]
    ]
