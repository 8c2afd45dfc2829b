"""Files that many trials read are read once per process, and nobody can change what others are given."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.buckets import BUCKET, served
from trials.storage import read_once
from trials.storage.place import Place, place
from trials.storage.read_once import KEPT_BYTES, SOURCES, ReadOnce, own_copy


class Reader:
    """Reads files and counts how often."""

    def __init__(self, *files: Place) -> None:
        self.files, self.calls = files, 0

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        return {"content": [file.read_bytes() for file in self.files], "w": torch.arange(250.0)}


def file_of(path: Path, content: bytes = b"old") -> Path:
    path.write_bytes(content)
    return path


def test_it_is_read_once_until_a_file_changes(tmp_path: Path) -> None:
    kept, files = ReadOnce(10**6), [file_of(tmp_path / name) for name in "ab"]
    reader = Reader(*files)
    for _ in range(3):
        assert kept.get("x", files, reader)["content"] == [b"old", b"old"]
    assert reader.calls == 1
    kept.get("another kind", files, reader)
    assert reader.calls == 2
    file_of(files[1], b"new")
    assert kept.get("x", files, reader)["content"] == [b"old", b"new"]
    assert reader.calls == 3
    kept.get("x", files, reader)
    assert reader.calls == 3


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    """As a copy that preserves times makes it, in place or by another file of the same name."""
    kept, file = ReadOnce(10**6), file_of(tmp_path / "a")
    reader = Reader(file)
    before = file.stat()
    kept.get("x", [file], reader)
    file_of(file, b"new")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kept.get("x", [file], reader)["content"] == [b"new"]
    os.utime(file_of(tmp_path / "b", b"b.."), ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "b").replace(file)
    assert kept.get("x", [file], reader)["content"] == [b"b.."]


def test_a_missing_file_and_errors_are_the_readers_business(tmp_path: Path) -> None:
    kept, file = ReadOnce(10**6), tmp_path / "a"
    reader = Reader(file)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            kept.get("x", [file], reader)
    file_of(file)
    kept.get("x", [file], reader)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        kept.get("x", [file], reader)
    assert reader.calls == 4
    for n in (1, 2):  # nothing names files: nothing is kept
        assert kept.get("x", [], lambda n=n: n) == n


def test_what_is_read_last_stays_within_the_limit(tmp_path: Path) -> None:
    files = [file_of(tmp_path / str(n)) for n in range(4)]
    readers = [Reader(file) for file in files]
    kept = ReadOnce(3500)  # two of about 1,500 bytes
    for n in (0, 1, 0, 2, 0, 1):
        kept.get("x", [files[n]], readers[n])
        assert kept.size <= 3500
    assert [reader.calls for reader in readers] == [1, 2, 1, 0]
    file_of(files[0], b"changed")  # takes the place of what it was
    kept.get("x", [files[0]], readers[0])
    assert kept.size <= 3500
    kept.get("x", [files[1]], readers[1])
    assert readers[1].calls == 2


def test_what_is_larger_than_the_limit_is_not_kept_and_drives_nothing_out(tmp_path: Path) -> None:
    small, large = file_of(tmp_path / "small"), file_of(tmp_path / "large")
    reader, kept = Reader(small), ReadOnce(3500)
    kept.get("x", [small], reader)
    for _ in range(2):
        kept.get("x", [large], lambda: torch.zeros(10_000))
    assert 0 < kept.size < 3500
    kept.get("x", [small], reader)
    assert reader.calls == 1


def deep() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(10**5):
        found = {"deeper": found}
    return found


@pytest.mark.parametrize("make", [lambda: {"w": torch.ones(3).to_sparse()}, deep])
def test_what_cannot_be_counted_or_copied_is_read_each_time(tmp_path: Path, make: Callable[[], Any]) -> None:
    kept, file, calls = ReadOnce(10**9), file_of(tmp_path / "a"), []

    def read() -> Any:
        calls.append(make())
        return calls[-1]

    for n in (1, 2):
        assert kept.get("x", [file], read) is calls[-1]
        assert (len(calls), kept.size) == (n, 0)


def test_the_limit_of_a_process() -> None:
    assert 0 < SOURCES.most <= KEPT_BYTES


@pytest.mark.parametrize(
    ("cores", "memory", "most"), [(2, 4 * 4096, 256), (2, 6400, 100), (64, 4 * 4096, 64), (64, 6400, 25)]
)
def test_the_processes_of_all_cores_leave_most_of_the_memory(
    cores: int, memory: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_once, "usable_cores", lambda: cores)
    monkeypatch.setattr(read_once, "usable_memory", lambda: memory)
    assert read_once._most() == most
    assert read_once._most() * cores <= 4 * 4096 // 4


def test_what_is_kept_is_read_anew_if_it_is_not_what_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coarse clocks: a file that is replaced by one of equal size may have the same stamp."""
    monkeypatch.setattr(read_once, "stamp_of", lambda file: (0,))
    kept, file = ReadOnce(10**6), file_of(tmp_path / "a")
    reader = Reader(file)
    for content, calls in ((b"old", 1), (b"old", 1), (b"new", 2), (b"new", 2)):
        file_of(file, content)
        found = kept.get("x", [file], reader, lambda kept, content=content: kept["content"] == [content])
        assert found["content"] == [content]
        assert reader.calls == calls


@dataclass(frozen=True)
class Pair:
    tensors: dict[str, torch.Tensor]
    number: int


def test_what_callers_are_given_is_their_own(tmp_path: Path) -> None:
    state = OrderedDict(w=torch.arange(6.0).view(2, 3).t(), n=torch.tensor(3))
    state._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    value = {
        "state": state,
        "rows": [{"warnings": ["a"], "loss": 0.5, "none": None}],
        "tuple": (torch.ones(2), "text"),
        "pair": Pair({"m": torch.ones(2, dtype=torch.bool)}, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "layout": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    kept, file = ReadOnce(10**6), file_of(tmp_path / "a")
    first = kept.get("x", [file], lambda: value)
    for given in (first, *(kept.get("x", [file], lambda: None) for _ in range(2))):
        assert given["state"]["w"].tolist() == [[0, 3], [1, 4], [2, 5]]
        assert given["state"]._metadata == {"": {"version": 2}}
        assert given["rows"] == [{"warnings": ["a"], "loss": 0.5, "none": None}]
        assert given["tuple"][0].tolist() == [1, 1]
        assert given["pair"].tensors["m"].all()
        assert isinstance(given["parameter"], torch.nn.Parameter)
        assert given["layout"].is_contiguous(memory_format=torch.channels_last)
        for tensor in (given["state"]["w"], given["tuple"][0], given["pair"].tensors["m"], given["parameter"].data):
            tensor.zero_()
        given["state"]["w2"] = given["state"].pop("n")
        given["rows"][0]["warnings"].append("b")
        given["rows"].append({})
        given["rows"][0]["loss"] = 0.0


def test_copies_of_what_is_shared_within_a_content() -> None:
    weight = torch.ones(2)
    found = own_copy({"a": weight, "b": weight})
    found["a"].zero_()
    assert weight.tolist() == [1, 1]


def test_threads_may_read_at_the_same_time(tmp_path: Path) -> None:
    files = [file_of(tmp_path / str(n), str(n).encode()) for n in range(5)]
    kept, wrong = ReadOnce(3000), []

    def read(seed: int) -> None:
        for n in range(200):
            file = files[(n * seed) % 5]
            if kept.get("x", [file], Reader(file))["content"] != [file.name.encode()]:
                wrong.append(file)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert kept.size <= 3000


def test_objects_of_a_store(tmp_path: Path) -> None:
    with served():
        where = place(f"s3://{BUCKET}/folder/net.pt")
        with pytest.raises(FileNotFoundError):
            where.stamp()  # type: ignore[union-attr]
        where.write_bytes(b"old")
        kept, reader = ReadOnce(10**6), Reader(where)
        for _ in range(2):
            assert kept.get("x", [where], reader)["content"] == [b"old"]
        assert reader.calls == 1
        where.write_bytes(b"another")
        assert kept.get("x", [where], reader)["content"] == [b"another"]
