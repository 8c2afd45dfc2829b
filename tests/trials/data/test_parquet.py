"""Parquet files in Hugging Face's form, and the cache of decoded images."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.trials.layouts import encoded, forget
from tests.trials.parquet_files import pictures, write, write_both
from tests.trials.processes import CONTEXT
from trials.data import cache, load_data, parquet_arrays
from trials.errors import DataError


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget(monkeypatch)
    return tmp_path / "cache" / "sparsity-sweeper" / "decoded"


def test_rgb_round_trip(tmp_path):
    raw = load_data("parquet", str(write_both(tmp_path)))
    assert torch.equal(raw.train_images, torch.from_numpy(pictures(6)).permute(0, 3, 1, 2))
    assert torch.equal(raw.test_images, torch.from_numpy(pictures(3, seed=1)).permute(0, 3, 1, 2))
    assert raw.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (raw.num_classes, raw.in_channels, raw.image_size, raw.source) == (3, 3, (6, 6), "parquet")
    assert raw.mean == pytest.approx((pictures(6) / 255).mean(axis=(0, 1, 2)))
    assert raw.std == pytest.approx((pictures(6) / 255).std(axis=(0, 1, 2)))
    assert (raw.pad, raw.flip) == (0, True)


def test_gray_images_stay_gray_and_are_not_mirrored(tmp_path):
    raw = load_data("parquet", str(write_both(tmp_path, pictures(6, (16, 16)), pictures(3, (16, 16)))))
    assert torch.equal(raw.train_images[:, 0], torch.from_numpy(pictures(6, (16, 16))))
    assert (raw.in_channels, len(raw.mean), raw.pad, raw.flip) == (1, 1, 2, False)


def test_a_gray_image_among_rgb_becomes_rgb(tmp_path):
    mixed = [*pictures(5), pictures(1, (6, 6), seed=7)[0]]
    raw = load_data("parquet", str(write_both(tmp_path, mixed)))
    assert raw.train_images.shape == (6, 3, 6, 6)
    assert torch.equal(raw.train_images[5], torch.from_numpy(mixed[5]).expand(3, 6, 6))


def test_shards_are_read_in_order_from_data_below(tmp_path):
    for shard in (1, 0):
        write(tmp_path / f"data/train-{shard:05}-of-00002.parquet", pictures(3, seed=shard), [0, 1, 2])
    write(tmp_path / "data/test-00000-of-00001.parquet", pictures(3), [0, 1, 2])
    raw = load_data("parquet", str(tmp_path))
    both = np.concatenate([pictures(3, seed=0), pictures(3, seed=1)])
    assert torch.equal(raw.train_images, torch.from_numpy(both).permute(0, 3, 1, 2))


def test_a_missing_shard_is_noticed(tmp_path):
    write_both(tmp_path)
    (tmp_path / "train-00000-of-00001.parquet").rename(tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(DataError, match=r"has 1 train files .* promise 2"):
        load_data("parquet", str(tmp_path))


@pytest.mark.parametrize("name", ["validation", "valid"])
def test_validation_serves_as_test_where_there_is_none(tmp_path, name):
    assert len(load_data("parquet", str(write_both(tmp_path, test_name=name))).test_labels) == 3


def test_one_split_alone_is_not_enough(tmp_path):
    write_both(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="only the training split"):
        load_data("parquet", str(tmp_path))


def test_columns_are_found_by_type_and_by_name_where_there_are_several(tmp_path):
    one = load_data("parquet", str(write_both(tmp_path / "a", image="picture", label="kind")))
    assert one.num_classes == 3
    for split, n in (("train", 6), ("test", 3)):
        write(
            tmp_path / f"b/{split}.parquet",
            pictures(n),
            [i % 3 for i in range(n)],
            coarse=pa.array([9] * n, pa.int32()),
        )
    assert load_data("parquet", str(tmp_path / "b")).num_classes == 3


def test_columns_that_are_missing_or_ambiguous(tmp_path):
    extra = {"coarse": pa.array([0] * 3, pa.int8())}
    for folder, label in (("a", "x"), ("b", "y")):
        for split in ("train", "test"):
            write(tmp_path / folder / f"{split}.parquet", pictures(3), [0, 1, 2], label=label, **extra)
    with pytest.raises(DataError, match=r"several .* labels .*: x, coarse; none .* label_column"):
        load_data("parquet", str(tmp_path / "a"))
    for split in ("train", "test"):
        pq.write_table(pa.table({"label": [0, 1, 2]}), tmp_path / "b" / f"{split}.parquet")
    with pytest.raises(DataError, match=r"no column that could hold images"):
        load_data("parquet", str(tmp_path / "b"))


NAMES = json.dumps(list("abcde"))
HUGGING_FACE = json.dumps({"info": {"features": {"label": {"names": list("abcde"), "_type": "ClassLabel"}}}})


@pytest.mark.parametrize("metadata", [{"class_names": NAMES}, {"huggingface": HUGGING_FACE}])
def test_the_class_count_is_read_from_the_metadata_and_kept_in_the_cache(tmp_path, metadata, monkeypatch):
    folder = str(write_both(tmp_path, metadata=metadata))
    assert load_data("parquet", folder).num_classes == 5
    forget(monkeypatch)
    assert load_data("parquet", folder).num_classes == 5


def test_metadata_that_are_not_json(tmp_path):
    with pytest.raises(DataError, match="metadata with unreadable class names"):
        load_data("parquet", str(write_both(tmp_path, metadata={"huggingface": "{"})))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3], "class 0 never occurs"),
        ([0, 1, 3], "class 2 never occurs"),
        ([0, 10**9, 1], "class 2 never occurs"),
        ([1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_007], "class 0 never occurs"),
        ([0, 1, 2**63 - 1], "class 2 never occurs"),
        ([0, -1, 1], r"run from -1 to 1"),
        ([0, None, 1], "rows without a 'label'"),
    ],
)
def test_labels_must_be_zero_to_c_minus_one(tmp_path, labels, message):
    write(tmp_path / "train.parquet", pictures(3), labels)
    write(tmp_path / "test.parquet", pictures(1), [0])
    with pytest.raises(DataError, match=message):
        load_data("parquet", str(tmp_path))


def test_test_labels_unknown_to_training(tmp_path):
    write(tmp_path / "train.parquet", pictures(3), [0, 1, 2])
    write(tmp_path / "test.parquet", pictures(1), [3])
    with pytest.raises(DataError, match=r"test labels run from 3 to 3, but must be in 0\.\.2"):
        load_data("parquet", str(tmp_path))


def test_images_of_different_sizes(tmp_path):
    folder = write_both(tmp_path, [*pictures(4), pictures(1, (6, 5, 3))[0]])
    with pytest.raises(DataError, match=r"row 4 is 6x5 pixels and .*row 0 6x6, but all images must have the same size"):
        load_data("parquet", str(folder))


def truncated_png() -> bytes:
    return encoded(pictures(1, (64, 64, 3))[0], "PNG")[:2000]


def broken_jpeg() -> bytes:
    return encoded(pictures(1, (64, 64, 3))[0], "JPEG")[:500]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"not an image at all", "not a readable image.*of no known format"),
        (truncated_png(), "not a readable image"),
        (broken_jpeg(), "not a readable image"),
        (None, "holds no image"),
        (encoded(np.zeros((6, 6), np.uint16), "PNG"), "8 bits a channel"),
    ],
)
def test_damaged_image_is_named_by_file_and_row(tmp_path, bad, message):
    folder = write_both(tmp_path, [*pictures(2), bad])
    with pytest.raises(DataError, match=rf"train-00000-of-00001\.parquet row 2 .*{message}") as caught:
        load_data("parquet", str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.98])
def test_truncated_file_is_named(tmp_path, keep):
    file = write_both(tmp_path) / "test-00000-of-00001.parquet"
    data = file.read_bytes()
    file.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet cannot be read as Parquet") as caught:
        load_data("parquet", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_garbage_within_a_file_is_named(tmp_path):
    file = write_both(tmp_path) / "train-00000-of-00001.parquet"
    data = bytearray(file.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet"):
        load_data("parquet", str(tmp_path))


def test_empty_split(tmp_path):
    write_both(tmp_path, test=[])
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet holds no rows"):
        load_data("parquet", str(tmp_path))


def test_second_process_does_not_decode(tmp_path, monkeypatch):
    first = load_data("parquet", str(write_both(tmp_path)))
    forget(monkeypatch)
    monkeypatch.setattr(parquet_arrays, "_decode", lambda *_: pytest.fail("decoded again"))
    second = load_data("parquet", str(tmp_path))
    assert second is not first
    assert second.fingerprint == first.fingerprint
    assert torch.equal(second.train_images, first.train_images)


def test_a_changed_file_is_decoded_again(tmp_path, monkeypatch):
    first = load_data("parquet", str(write_both(tmp_path)))
    forget(monkeypatch)
    second = load_data("parquet", str(write_both(tmp_path, pictures(6, seed=9))))
    assert second.fingerprint != first.fingerprint


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


def garbage(file: Path) -> None:
    file.write_bytes(b"[1, 2]")


@pytest.mark.parametrize("damage", [flip_a_byte, cut, garbage, Path.unlink])
@pytest.mark.parametrize("suffix", ["train_images.npy", "test_labels.npy", "json"])
def test_damaged_cache_is_built_again(tmp_path, monkeypatch, cache_home, suffix, damage):
    first = load_data("parquet", str(write_both(tmp_path)))
    (file,) = cache_home.glob(f"*.{suffix}")
    damage(file)
    forget(monkeypatch)
    assert load_data("parquet", str(tmp_path)).fingerprint == first.fingerprint
    forget(monkeypatch)
    monkeypatch.setattr(parquet_arrays, "_decode", lambda *_: pytest.fail("was not repaired"))
    assert load_data("parquet", str(tmp_path)).fingerprint == first.fingerprint
    assert not list(cache_home.glob("*.tmp"))


def test_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        raw = load_data("parquet", str(write_both(tmp_path / "data")))
    assert len(raw.train_labels) == 6
    assert "not cached" in caplog.text


def test_full_disk_leaves_no_half_an_entry(tmp_path, monkeypatch, caplog, cache_home):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.np, "save", full)
        assert len(load_data("parquet", str(write_both(tmp_path))).train_labels) == 6
    assert "No space left" in caplog.text
    assert not [f for f in cache_home.iterdir() if f.suffix != ".lock"]


def test_cache_holds_no_pickles(tmp_path, cache_home):
    load_data("parquet", str(write_both(tmp_path)))
    assert {f.suffix for f in cache_home.iterdir()} <= {".npy", ".json", ".lock"}
    for file in cache_home.glob("*.npy"):
        assert np.load(file, allow_pickle=False).dtype in (np.uint8, np.int64)


def test_cache_dir_honours_xdg(monkeypatch, tmp_path):
    assert cache.cache_dir() == tmp_path / "cache/sparsity-sweeper"
    for useless in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", useless)
        assert cache.cache_dir() == Path.home() / ".cache/sparsity-sweeper"


def load_slowly(cache_home: str, folder: str, log: str, barrier, results) -> None:
    """Runs in another process: decoding takes a while and adds a line to ``log``."""
    decode = parquet_arrays._decode

    def slow(*args):
        with Path(log).open("a") as stream:
            stream.write("decoded\n")
        time.sleep(0.5)
        return decode(*args)

    parquet_arrays._decode = slow
    os.environ["XDG_CACHE_HOME"] = cache_home
    barrier.wait()
    results.put(load_data("parquet", folder).fingerprint)


def test_two_processes_at_once_decode_once(tmp_path):
    folder, log = write_both(tmp_path / "data"), tmp_path / "log"
    barrier, results = CONTEXT.Barrier(2, timeout=60), CONTEXT.Queue()
    arguments = (os.environ["XDG_CACHE_HOME"], str(folder), str(log), barrier, results)
    processes = [CONTEXT.Process(target=load_slowly, args=arguments, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    prints = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(timeout=30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert prints == {load_data("parquet", str(folder)).fingerprint}
    assert log.read_text() == "decoded\n"
