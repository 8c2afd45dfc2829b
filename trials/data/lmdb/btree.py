"""Read the entries of an LMDB file where they lie, without the library.

The library maps a file into memory and trusts it: a truncated file ends the process with SIGBUS, and an environment
must not cross a fork, as DataLoader's workers do. Here every offset is checked against the file's size, and a value is
a place in the file, which any process can read. The format is that of LMDB 0.9 (data version 1) on 64-bit little-endian
machines, as described by its header lmdb.h and by struct MDB_meta, MDB_page and MDB_node of mdb.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_PAGE_HEADER = 16  # page number (8 bytes), padding, flags, and the ends of the free space (2 each)
_META = struct.Struct("<IIQQ")  # magic, version, address, map size
_DATABASE = struct.Struct("<IHH5Q")  # page size, flags, depth; pages of branches, leaves, overflow; entries; root
_BRANCH, _LEAF = 1, 2
_BIG, _SUB, _DUPLICATES = 1, 2, 4
_NOTHING = 2**64 - 1
_DEEPEST = 32
"""Most pages above one another, as in the library."""


class Extent(NamedTuple):
    """A place in a file: ``length`` bytes from ``start``."""

    start: int
    length: int


class BadLmdb(Exception):
    """The content is no LMDB file of the known format, or it is damaged; the message is a clause that says how."""


def entries(content: mmap | bytes) -> Iterator[tuple[bytes, Extent]]:
    """Yield the keys of the main database in the file's order (by bytes), and where their values lie.

    Raises:
        BadLmdb: the content is of another format, truncated or damaged.
    """
    try:
        size, root = _newest(content)
        if root != _NOTHING:
            yield from _below(content, size, root, set())
    except struct.error:
        raise BadLmdb("is truncated") from None


def _newest(content: mmap | bytes) -> tuple[int, int]:
    """Size of a page, and number of the root page, as the newer of the two meta pages has them."""
    size, root, transaction = _meta(content, 0)
    other = _meta(content, size)
    return (size, other[1]) if other[2] > transaction else (size, root)


def _meta(content: mmap | bytes, start: int) -> tuple[int, int, int]:
    """Size of a page, number of the root page and number of the transaction of the meta page at ``start``."""
    start += _PAGE_HEADER
    magic, version, _, _ = _META.unpack_from(content, start)
    if magic != _MAGIC:
        raise BadLmdb("is no LMDB file of a 64-bit little-endian machine")
    if version != _VERSION:
        raise BadLmdb(f"has LMDB's data version {version}, and only {_VERSION} is read")
    start += _META.size
    size, *_ = _DATABASE.unpack_from(content, start)  # the list of free pages has the page size in its padding
    *_, root = _DATABASE.unpack_from(content, start + _DATABASE.size)
    _, transaction = struct.unpack_from("<QQ", content, start + 2 * _DATABASE.size)
    if not 256 <= size <= 65536 or size & (size - 1):
        raise BadLmdb(f"says that its pages have {size} bytes")
    return size, root, transaction


def _below(
    content: mmap | bytes, size: int, number: int, seen: set[int], above: int = 0
) -> Iterator[tuple[bytes, Extent]]:
    """Yield the entries below a page; ``seen`` holds the pages that were read, ``above`` counts those above it."""
    if number in seen or above > _DEEPEST:
        raise BadLmdb("is damaged")
    seen.add(number)
    start = number * size
    page = content[start : start + size]
    if len(page) < size:
        raise BadLmdb("is truncated")
    flags, lower = struct.unpack_from("<HH", page, 10)
    if not flags & (_BRANCH | _LEAF) or not _PAGE_HEADER <= lower <= size:
        raise BadLmdb("is damaged")
    for offset in struct.unpack_from(f"<{(lower - _PAGE_HEADER) // 2}H", page, _PAGE_HEADER):
        low, high, node_flags, key_size = struct.unpack_from("<4H", page, offset)
        if flags & _BRANCH:
            yield from _below(content, size, low | high << 16 | node_flags << 32, seen, above + 1)
            continue
        if node_flags & (_SUB | _DUPLICATES):
            raise BadLmdb("holds named databases or several values of a key")
        data = offset + 8 + key_size
        place = start + data
        if node_flags & _BIG:
            place = struct.unpack_from("<Q", page, data)[0] * size + _PAGE_HEADER
        length = low | high << 16
        if place + length > len(content):
            raise BadLmdb("is truncated")
        yield page[offset + 8 : data], Extent(place, length)
