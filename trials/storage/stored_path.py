"""Paths of a storage: as ``pathlib.Path``, but their calls wait while the storage errs (:mod:`.outages`)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from trials.storage.outages import patiently

_T = TypeVar("_T")

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EBADF})


class StoredPath(type(Path())):  # type: ignore[misc]  # PosixPath, which mypy cannot see
    """A path whose calls are repeated, for a while, if the storage errs. It equals the plain path.

    A call that had taken effect before it was reported as failed is no error when it is repeated: the file is gone, or
    has its new name.
    """

    __slots__ = ()

    def open(self, *arguments: Any, **options: Any) -> Any:
        return patiently(lambda: super(StoredPath, self).open(*arguments, **options), self.parent)

    def read_bytes(self) -> bytes:
        return patiently(lambda: Path(self).read_bytes(), self.parent)

    def read_text(self, *arguments: Any, **options: Any) -> str:
        return patiently(lambda: Path(self).read_text(*arguments, **options), self.parent)

    def write_bytes(self, content: Any) -> int:
        return patiently(lambda: Path(self).write_bytes(content), self.parent)

    def write_text(self, *arguments: Any, **options: Any) -> int:
        return patiently(lambda: Path(self).write_text(*arguments, **options), self.parent)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return patiently(lambda: Path(self).stat(follow_symlinks=follow_symlinks), self.parent)

    def lstat(self) -> os.stat_result:
        return self.stat(follow_symlinks=False)

    def exists(self, **options: Any) -> bool:
        return self._mode() is not None

    def is_file(self, **options: Any) -> bool:
        return stat.S_ISREG(self._mode() or 0)

    def is_dir(self, **options: Any) -> bool:
        return stat.S_ISDIR(self._mode() or 0)

    def _mode(self) -> int | None:
        """The mode of what is there; None if nothing is."""
        try:
            return self.stat().st_mode
        except ValueError:  # a NUL in it
            return None
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise

    def iterdir(self) -> Iterator[Any]:
        return (self / path.name for path in patiently(lambda: list(Path(self).iterdir()), self))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        patiently(lambda: Path(self).mkdir(mode, parents, exist_ok), self.parent)

    def rmdir(self) -> None:
        self._once(lambda: Path(self).rmdir(), lambda: None)

    def unlink(self, missing_ok: bool = False) -> None:
        self._once(lambda: Path(self).unlink(missing_ok), lambda: None)

    def rename(self, target: Any) -> Any:
        return self._once(lambda: self._moved(Path(self).rename, target), lambda: self._arrived(target))

    def replace(self, target: Any) -> Any:
        return self._once(lambda: self._moved(Path(self).replace, target), lambda: self._arrived(target))

    def _moved(self, move: Callable[[Any], object], target: Any) -> Any:
        move(target)
        return type(self)(target)

    def _arrived(self, target: Any) -> Any:
        Path(target).lstat()
        return type(self)(target)

    def _once(self, act: Callable[[], _T], done: Callable[[], _T]) -> _T:
        """Act patiently; if a repetition finds that nothing is there any more, return what ``done`` returns."""
        failures = 0

        def fail() -> None:
            nonlocal failures
            failures += 1

        def act_again() -> _T:
            try:
                return act()
            except FileNotFoundError:
                if not failures:
                    raise
                return done()

        return patiently(act_again, self.parent, fail)
