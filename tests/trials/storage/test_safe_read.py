"""Reading a file of a storage: only regular files of a bounded size, at once, and never through a link."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from trials.errors import DamagedFile
from trials.storage import safe_read
from trials.storage.safe_read import read_plain, read_range, require_own_folder

pytestmark = pytest.mark.fault("no-file")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket is short
        server.bind(path.name)
        os.chdir(here)


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "a named pipe"),
    "socket": (_socket, "a socket"),
    "folder": (Path.mkdir, "a folder"),
    "link to a file": (lambda path: path.symlink_to(__file__), "a link"),
    "link to nothing": (lambda path: path.symlink_to("nothing"), "a link"),
    "link to itself": (lambda path: path.symlink_to(path), "a link"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "a link"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_file_is_not_read(kind: str, tmp_path: Path) -> None:
    make, said = OTHERS[kind]
    make(tmp_path / "state.json")
    with pytest.raises(DamagedFile, match=f"state.json is {said}"):
        read_plain(tmp_path / "state.json")


def test_a_device_is_not_read() -> None:
    with pytest.raises(DamagedFile, match="/dev/zero is a device"):
        read_plain(Path("/dev/zero"))


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"12345")
    assert read_plain(path, 5) == b"12345"
    with pytest.raises(DamagedFile, match="5 bytes, but may have at most 4"):
        read_plain(path, 4)
    with path.open("wb") as file:
        file.truncate(1 << 40)  # without a byte on the disk
    with pytest.raises(DamagedFile, match="at most"):
        read_plain(path)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "state.json")


def test_a_folder_may_be_missing_but_nothing_else(tmp_path: Path) -> None:
    require_own_folder(tmp_path)
    require_own_folder(tmp_path / "missing")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    for name, said in (("link", "a link"), ("file", "a file")):
        with pytest.raises(DamagedFile, match=said):
            require_own_folder(tmp_path / name)


def test_a_range_is_read_whole_where_a_call_gives_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux gives at most 2,147,479,552 bytes a call."""
    (tmp_path / "pack").write_bytes(bytes(range(100)))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, length, offset: pread(file, min(length, 7), offset))
    assert read_range(tmp_path / "pack", 10, 50) == bytes(range(10, 60))
    assert read_range(tmp_path / "pack", 90, 50) == bytes(range(90, 100))
    assert read_range(tmp_path / "pack", 200, 50) == b""


def test_a_large_file_of_another_hash_is_not_held_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "000001-a1-0123456789ab.pt"
    with file.open("wb") as written:
        written.truncate(1 << 30)
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedFile, match="does not match its hash"):
        read_plain(file, 1 << 40, "0123456789ab")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began < 200_000  # KiB


def test_a_large_file_of_this_hash_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_read, "LARGE_BYTES", 2)
    monkeypatch.setattr(safe_read, "_PIECE_BYTES", 3)
    (tmp_path / "file").write_bytes(b"content")
    assert read_plain(tmp_path / "file", digest=hashlib.sha256(b"content").hexdigest()[:12]) == b"content"
