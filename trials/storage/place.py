"""Storage locations: a path that all hosts can write, or an object store (``s3://bucket/prefix``).

A :data:`Place` is either a ``pathlib.Path`` or an :class:`ObjectPath`, which implements the part of Path's interface
that this project uses. The differences: an object is written atomically by one PUT, and there are no folders, no locks
and no atomic rename.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from trials.errors import DamagedFile, UserError
from trials.storage.outages import in_this_thread, patiently
from trials.storage.stored_path import StoredPath
from trials.system.user_path import user_path

STORAGE_LAG_S = 10.0
"""Seconds for which another host may not yet see a write, because NFS clients cache what they have read."""


ENVIRONMENT = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"),
)
"""Environment variables for access to an object store; those that are set are passed on to workers."""

READS, READ_PAUSE_S = 10, 0.02
"""Maximum number of reads of an object that is replaced during the read, and the pause per read so far in seconds."""

_UNREACHABLE = re.compile(r"NETWORK_CONNECTION|curlCode|SLOW_DOWN|UNAVAILABLE|status (5\d\d|40[0-3])")
"""What is in the error of a store that does not answer, rather than of an object that is replaced during the read."""

STORE_TRIES = 5
"""How often a client makes a request, with pauses of its own, until it says that the store errs."""

REQUESTS_AT_ONCE = 32
"""Parallel requests to an object store, whose latency is high."""

_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_KEY = r"[A-Za-z0-9_][A-Za-z0-9_.=-]*"
_S3 = re.compile(rf"s3://({_BUCKET}(?:/{_KEY})*)/?")

_SCHEME = re.compile(r"s3:|[A-Za-z][A-Za-z0-9+.-]*:/")
"""What begins a URI, also one that lacks a slash."""

_T = TypeVar("_T")
R = TypeVar("R")


@dataclass(frozen=True, order=True)
class ObjectPath:
    """An object in an S3 bucket, or the "folder" of all objects under ``<key>/``.

    Attributes:
        key: bucket and name, ``bucket/prefix/name``.
    """

    key: str

    def __str__(self) -> str:
        return f"s3://{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(f"{self.key}/{name}")

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(str(PurePosixPath(self.key).parent))

    def with_name(self, name: str) -> ObjectPath:
        return self.parent / name

    def read_bytes(self, most: int | None = None) -> bytes:
        """Return the whole content, verified against the object's MD5 (ETag) or its current size.

        Arrow asks for the size first and then reads that many bytes; the object may have been replaced in between.

        Raises:
            FileNotFoundError: there is no such object.
            DamagedFile: it has more than ``most`` bytes.
            OSError: every read failed, or the object was replaced during each of them.
        """
        return self._call(lambda: self._read(most))

    def _read(self, most: int | None) -> bytes:
        for attempt in range(READS):
            try:
                with _client().open_input_file(self.key) as stream:
                    if most is not None and (size := stream.size()) > most:
                        raise DamagedFile(f"{self} has {size} bytes, but may have at most {most}")
                    tag = (stream.metadata() or {}).get("ETag", b"").decode().strip('"')
                    content = bytes(stream.read())
            except FileNotFoundError:
                raise
            except OSError as error:
                if attempt == READS - 1 or _UNREACHABLE.search(str(error)):
                    raise
            else:  # the ETag is the MD5, unless the object was uploaded in parts or is encrypted with a KMS key
                whole = hashlib.md5(content, usedforsecurity=False).hexdigest() == tag
                if whole or self._info().size == len(content):
                    return content
            time.sleep(READ_PAUSE_S * (attempt + 1))
        raise OSError(f"{self} changes faster than it can be read")

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def read_range(self, offset: int, length: int) -> bytes:
        """Return some bytes of an object that is never replaced; fewer if it is shorter.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: it cannot be read.
        """

        def get() -> bytes:
            with _client().open_input_file(self.key) as stream:
                return bytes(stream.read_at(length, offset))

        return self._call(get)

    def stream(self) -> Any:
        """Return a stream that writes the object, in parts from 10 MB on; the object appears when it is closed."""
        return _client().open_output_stream(self.key)

    def write_bytes(self, content: bytes) -> None:
        """Write by one PUT, or from 10 MB on by a multipart upload; either way the object appears atomically."""

        def put() -> None:
            with _client().open_output_stream(self.key) as stream:
                stream.write(content)

        self._call(put)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._call(lambda: _client().delete_file(self.key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: ObjectPath) -> None:
        """Copy to ``target``, then delete the original; a kill in between leaves both."""
        self._call(lambda: _client().copy_file(self.key, target.key))
        self.unlink()

    def exists(self) -> bool:
        from pyarrow.fs import FileType

        return bool(self._info().type != FileType.NotFound)

    def is_file(self) -> bool:
        return bool(self._info().is_file)

    def is_dir(self) -> bool:
        from pyarrow.fs import FileType

        return bool(self._info().type == FileType.Directory)

    def stamp(self) -> tuple[int, int]:
        """(mtime in ns at whole-second resolution, size in bytes); raises FileNotFoundError if there is no object."""
        info = self._info()
        if not info.is_file:
            raise FileNotFoundError(str(self))
        return info.mtime_ns, info.size

    def _info(self) -> Any:
        return self._call(lambda: _client().get_file_info(self.key))

    def _call(self, act: Callable[[], _T]) -> _T:
        """Make a request, again and again while the store errs; each time with the keys as they are then."""
        return patiently(act, self.parent, _client_of.cache_clear)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: an object store has no folders."""

    def rmdir(self) -> None:
        """Delete the marker object that an emptied folder leaves, and all objects below."""
        self._call(lambda: _client().delete_dir(self.key))

    def iterdir(self) -> Iterator[ObjectPath]:
        """Iterate over what lies directly below, without markers of emptied folders; empty if there is nothing."""
        return (ObjectPath(info.path) for info in self._listed(recursive=False))

    def stamps(self) -> dict[str, tuple[int, int]]:
        """(mtime in ns at whole-second resolution, size in bytes) of every object below, by relative name."""
        found = self._listed(recursive=True)
        return {info.path[len(self.key) + 1 :]: (info.mtime_ns, info.size) for info in found if info.is_file}

    def _listed(self, *, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        below = FileSelector(self.key, allow_not_found=True, recursive=recursive)
        return self._call(lambda: list(_client().get_file_info(below)))


Place = Path | ObjectPath


def place(where: str | Place) -> Place:
    """Parse a location: a path (made absolute), or ``s3://bucket/prefix``.

    Raises:
        UserError: it is a URI of another form, or no path that can be used (:func:`trials.system.user_path.user_path`).
    """
    if isinstance(where, ObjectPath):
        return where
    text = str(where)
    if "://" in text or _SCHEME.match(text):
        match = _S3.fullmatch(text)
        if match is None:
            raise UserError(
                f"{text!r} cannot be a storage: give a path, or s3://BUCKET/PREFIX of letters, digits, "
                "'_', '-', '=', '.' and '/'"
            )
        return ObjectPath(match[1])
    return StoredPath(user_path(where, "the storage").absolute())


def as_stored(where: Place) -> Place:
    """The same place, whose calls wait while the storage errs, if somebody waits (:mod:`.outages`)."""
    return where if isinstance(where, (ObjectPath, StoredPath)) else StoredPath(where)


def environment(where: Place) -> dict[str, str]:
    """Environment variables of this process that other processes need to access ``where``; none for a path."""
    return {n: os.environ[n] for n in ENVIRONMENT if n in os.environ} if isinstance(where, ObjectPath) else {}


def each(function: Callable[[_T], R], items: Iterable[_T], where: Place) -> list[R]:
    """Apply ``function`` to every item and return the results in order; in parallel threads for an object store.

    The threads wait for a store that errs as this thread would (:mod:`.outages`). Where one of them fails, the others
    give up waiting; a signal waits for none of them.
    """
    if isinstance(where, Path):
        return list(map(function, items))
    from concurrent.futures import ThreadPoolExecutor  # reports of a sweep on a path do without

    over, pool = threading.Event(), ThreadPoolExecutor(REQUESTS_AT_ONCE)
    try:
        found = list(pool.map(in_this_thread(over.is_set)(function), items))
    except BaseException as error:
        over.set()
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()
    return found


def _client() -> Any:
    return _client_of(os.getpid(), tuple(os.environ.get(name) for name in ENVIRONMENT))


@functools.lru_cache(maxsize=4)
def _client_of(process: int, settings: tuple[str | None, ...]) -> Any:
    """The S3 client of a process, cached by PID because it does not survive a fork.

    Arrow reads the credentials from the environment itself, but not the endpoint.
    """
    from pyarrow import fs

    set_to = dict(zip(ENVIRONMENT, settings, strict=True))
    scheme, _, host = (set_to["AWS_ENDPOINT_URL_S3"] or set_to["AWS_ENDPOINT_URL"] or "").rpartition("://")
    options = {
        "scheme": scheme or None,
        "endpoint_override": host.rstrip("/") or None,
        "region": set_to["AWS_REGION"] or set_to["AWS_DEFAULT_REGION"],
        "tls_ca_file_path": set_to["AWS_CA_BUNDLE"],
    }
    return fs.S3FileSystem(
        background_writes=False,
        allow_delayed_open=True,  # small objects are then written by one PUT
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=STORE_TRIES),
        connect_timeout=10,
        request_timeout=60,
        **{name: value for name, value in options.items() if value},
    )
