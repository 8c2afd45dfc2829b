"""Where things lie: a path that all machines can write, or an object store (``s3://bucket/prefix``).

A :data:`Place` is a ``pathlib.Path``, used as it is, or an :class:`ObjectPath`, which has the part of its interface
that this project uses. What differs is that an object is written by one PUT, there whole or not at all, and that there
are no folders, no locks and no rename.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from trials.errors import UserError

STORAGE_LAG_S = 10.0
"""How long what one machine has written may be invisible to another: NFS caches what it has read for some seconds."""


ENVIRONMENT = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"),
)
"""What says how an object store is reached; what is set of it is handed to workers."""

READS, READ_PAUSE_S = 10, 0.02
"""An object that is replaced while it is read is read again, so often."""

REQUESTS_AT_ONCE = 32
"""An object store answers late, but many at once."""

_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_KEY = r"[A-Za-z0-9_][A-Za-z0-9_.=-]*"
_S3 = re.compile(rf"s3://({_BUCKET}(?:/{_KEY})*)/?")

_T = TypeVar("_T")
R = TypeVar("R")


@dataclass(frozen=True, order=True)
class ObjectPath:
    """An object in an S3 bucket, or what begins with its name and a slash.

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

    def read_bytes(self) -> bytes:
        """Its content, whole: Arrow asks for the size first, and reads that much of what may be another object by then.

        Raises:
            FileNotFoundError: there is no such object.
        """
        for attempt in range(READS):
            try:
                with _client().open_input_file(self.key) as stream:
                    tag = (stream.metadata() or {}).get("ETag", b"").decode().strip('"')
                    content = bytes(stream.read())
            except FileNotFoundError:
                raise
            except OSError:
                if attempt == READS - 1:
                    raise
            else:  # the tag is the MD5, unless the object was uploaded in parts or is encrypted with a key of KMS
                whole = hashlib.md5(content, usedforsecurity=False).hexdigest() == tag
                if whole or self._info().size == len(content):
                    return content
            time.sleep(READ_PAUSE_S * (attempt + 1))
        raise OSError(f"{self} changes faster than it can be read")

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """One PUT; from 10 MB on an upload in parts, which is there once all of it is."""
        with _client().open_output_stream(self.key) as stream:
            stream.write(content)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            _client().delete_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: ObjectPath) -> None:
        """A copy, then the end of the original: a kill between leaves both."""
        _client().copy_file(self.key, target.key)
        self.unlink()

    def exists(self) -> bool:
        from pyarrow.fs import FileType

        return bool(self._info().type != FileType.NotFound)

    def is_file(self) -> bool:
        return bool(self._info().is_file)

    def is_dir(self) -> bool:
        from pyarrow.fs import FileType

        return bool(self._info().type == FileType.Directory)

    def _info(self) -> Any:
        return _client().get_file_info(self.key)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: there are no folders to make."""

    def rmdir(self) -> None:
        """The marker that an emptied folder leaves, and whatever lies below."""
        _client().delete_dir(self.key)

    def iterdir(self) -> Iterator[ObjectPath]:
        """What lies directly below, the markers of folders that were emptied left out; nothing where nothing is."""
        return (ObjectPath(info.path) for info in self._listed(recursive=False))

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Time of change in ns (whole seconds) and size of every object below, by its name from here on."""
        found = self._listed(recursive=True)
        return {info.path[len(self.key) + 1 :]: (info.mtime_ns, info.size) for info in found if info.is_file}

    def _listed(self, *, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        return list(_client().get_file_info(FileSelector(self.key, allow_not_found=True, recursive=recursive)))


Place = Path | ObjectPath


def place(where: str | Place) -> Place:
    """A place by its name: a path (made absolute), or ``s3://bucket/prefix``.

    Raises:
        UserError: it is a URI, but not one of these.
    """
    if isinstance(where, ObjectPath):
        return where
    text = str(where)
    if isinstance(where, str) and "://" in text:
        match = _S3.fullmatch(text)
        if match is None:
            raise UserError(
                f"{text!r} is no place for a storage: give a path, or s3://BUCKET/PREFIX of letters, digits, "
                "'_', '-', '=', '.' and '/'"
            )
        return ObjectPath(match[1])
    return Path(where).expanduser().absolute()


def environment(where: Place) -> dict[str, str]:
    """What of this process's environment others need to reach a place."""
    return {n: os.environ[n] for n in ENVIRONMENT if n in os.environ} if isinstance(where, ObjectPath) else {}


def each(function: Callable[[_T], R], items: Iterable[_T], where: Place) -> list[R]:
    """``function`` of every item, in their order; many at once where the place they lie in answers late."""
    if isinstance(where, Path):
        return list(map(function, items))
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(function, items))


def _client() -> Any:
    return _client_of(os.getpid(), tuple(os.environ.get(name) for name in ENVIRONMENT))


@functools.lru_cache(maxsize=4)
def _client_of(process: int, settings: tuple[str | None, ...]) -> Any:
    """The connection of a process: it does not survive a fork. Arrow reads the keys itself, but not the endpoint."""
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
        allow_delayed_open=True,  # what is small is then one PUT
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=5),
        connect_timeout=10,
        request_timeout=60,
        **{name: value for name, value in options.items() if value},
    )
