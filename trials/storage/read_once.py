"""Read files once per process if many trials read them: the networks that they start from, with their rows.

A small file still decides what is read (``state.json``, the hash of a file in a config). What is kept here is only in
place of the reading, hashing and unpickling of a file that has not changed since. Damage that a file suffers without a
new time of change is not seen as long as its content is kept, which is harmless: what is kept is the whole content.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from trials.storage.place import Place
from trials.system.machine import usable_cores, usable_memory

_T = TypeVar("_T")

KEPT_BYTES, KEPT_SHARE = 1 << 30, 64
"""What a process keeps at most: so many bytes, or one part in so many of the memory that it may use, whichever is less;
with many cores, a quarter of a core's share of the memory."""

_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
_OVERHEAD = 64

_Stamp = tuple[int, ...]


@dataclass(frozen=True)
class _Content:
    stamps: tuple[_Stamp, ...]
    value: Any
    size: int


class ReadOnce:
    """Keeps what was read last, up to a number of bytes.

    Nobody is given what is kept: every caller gets tensors, dicts and lists of its own, whatever it does to them.

    Args:
        most: bytes to keep at most. A content that is larger is not kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: OrderedDict[tuple[str, ...], _Content] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(content.size for content in self._kept.values())

    def contents(self) -> dict[tuple[str, ...], Any]:
        """Copies of what is kept, by kind and files."""
        return {key: own_copy(content.value) for key, content in self._kept.items()}

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()

    def get(
        self,
        kind: str,
        files: Sequence[Place],
        read: Callable[[], _T],
        fits: Callable[[_T], bool] = lambda kept: True,
        *,
        fixed: bool = False,
    ) -> _T:
        """Return what ``read`` makes of ``files``: called again only if one of them has changed, or is not kept.

        ``kind`` tells apart different readings of a file. Errors of ``read`` are raised, and nothing is kept then.
        ``fits``: whether what is kept is what the caller expects; it must not change it. If not, the files are read
        anew: coarse clocks and object stores can give another content of equal size the same stamp.
        ``fixed``: their names tell the contents, so that what is kept of them holds without asking.
        """
        stamps = tuple((0,) for _ in files) if fixed else _stamps(files)
        if not stamps:  # one is missing: what to say of it is known to ``read``
            return read()
        key = (kind, *map(str, files))
        with self._lock:
            known = self._kept.get(key)
            if known is not None and known.stamps == stamps and fits(known.value):
                self._kept.move_to_end(key)
                return cast("_T", own_copy(known.value))
        value = read()
        self._keep(key, stamps, value)
        return value

    def _keep(self, key: tuple[str, ...], stamps: tuple[_Stamp, ...], value: Any) -> None:
        try:
            size = _bytes(value)
            mine = own_copy(value) if size <= self.most else None
        except Exception:  # noqa: BLE001  files may hold sparse tensors, or what else cannot be counted or copied
            size, mine = self.most + 1, None
        with self._lock:
            self._kept.pop(key, None)
            if size > self.most:
                return
            while self.size + size > self.most:
                self._kept.popitem(last=False)
            self._kept[key] = _Content(stamps, mine, size)


def own_copy(value: Any) -> Any:
    """A copy with which no tensor, dict or list of the original can be changed."""
    import torch  # here, so that reading rows and states does not import torch

    def copy_of(value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        if type(value) is torch.Tensor and not value.requires_grad:
            return value.clone()
        if isinstance(value, dict):
            found = copy.copy(value)  # an OrderedDict keeps the versions that torch stores beside a state dict
            for key, item in value.items():
                found[key] = item if type(item) in _PLAIN else copy_of(item)
            return found
        if type(value) in (list, tuple):
            return type(value)(item if type(item) in _PLAIN else copy_of(item) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [field.name for field in dataclasses.fields(value)]
            return dataclasses.replace(value, **{name: copy_of(getattr(value, name)) for name in fields})
        return copy.deepcopy(value)

    return copy_of(value)


def _bytes(value: Any) -> int:
    """About how many bytes a value takes."""
    if isinstance(value, dict):
        return _OVERHEAD + sum(_bytes(key) + _bytes(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return _OVERHEAD + sum(map(_bytes, value))
    if isinstance(value, (str, bytes)):
        return _OVERHEAD + len(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _OVERHEAD + sum(_bytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    return _OVERHEAD + int(getattr(value, "nbytes", 0))


def _stamps(files: Sequence[Place]) -> tuple[_Stamp, ...] | None:
    """What changes with a file, of each of them; None if one cannot be asked. Empty without files."""
    try:
        return tuple(stamp_of(file) for file in files)
    except OSError:
        return None


def stamp_of(file: Place) -> _Stamp:
    """What tells a file from every other that lay or will lie at its place, without reading it.

    Size and time of change alone do not: tools that copy a file set its time.
    """
    if not isinstance(file, Path):
        return file.stamp()
    there = file.stat()
    if stat.S_ISREG(there.st_mode):  # a file that is opened is asked of an NFS server; the answer to stat may be old
        opened = os.open(file, os.O_RDONLY)
        there = os.fstat(opened)
        os.close(opened)
    return (there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns)


def _most() -> int:
    memory = usable_memory()
    if memory is None:
        return KEPT_BYTES // 4
    return min(KEPT_BYTES, memory // max(KEPT_SHARE, 4 * usable_cores()))


SOURCES = ReadOnce(_most())
"""What this process keeps of the networks that trials start from or use."""
