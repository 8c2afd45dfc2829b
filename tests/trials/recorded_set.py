"""A set of recorded vectors: arrays and manifests, a folder per source, and a note of all that tests read of it.

What a set lacks is skipped by name. The set in tests/vectors lacks nothing, so with it a missing case is an error.
docs: tests/vectors/README.md.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from zipfile import BadZipFile

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import VECTORS

OWN = Path(__file__).resolve().parents[1] / "vectors"
COMPLETE = VECTORS.resolve() == OWN
"""Whether the set is the project's own, of which every case must be there."""

NOTED: dict[str, set[str]] = {}
"""What was read: keys of arrays, and paths in manifests, by file relative to the set."""

NOTES = "SWEEPER_VECTORS_NOTES"


def pytest_sessionfinish() -> None:
    """As a plugin (``-p tests.trials.recorded_set``): write the notes to the file that the environment names."""
    if path := os.environ.get(NOTES):
        Path(path).write_text(json.dumps({file: sorted(keys) for file, keys in NOTED.items()}))


def absent(what: str) -> NoReturn:
    """Skip because the set lacks ``what``; fail if it is the project's own set."""
    message = f"the set {VECTORS} has no {what}"
    if COMPLETE:
        raise LookupError(message)
    pytest.skip(message, allow_module_level=True)


def cases(found: Iterable[Any], what: str, ids: Callable[[Any], str] = str) -> list[Any]:
    """The parameters of a test. If there are none, one that is skipped and says what the set lacks."""
    listed = [pytest.param(case, id=ids(case)) for case in found]
    if listed:
        return listed
    if COMPLETE:
        raise LookupError(f"the set {VECTORS} has no {what}")
    reason = f"the set {VECTORS} has no {what}"
    return [pytest.param(None, id=f"no {what}", marks=pytest.mark.skip(reason=reason))]


def covers(found: Iterable[Any], wanted: Iterable[Any], what: str) -> None:
    """Check that no case is unknown to the tests; skip by name if the set lacks some of those that they know."""
    have, known = set(found), set(wanted)
    assert have <= known, f"{what}: tests know {sorted(known, key=str)}, not {sorted(have - known, key=str)}"
    if have < known:
        absent(f"{what}: {', '.join(map(str, sorted(known - have, key=str)))}")


def note(file: str, key: str) -> None:
    NOTED.setdefault(file, set()).add(key)


class Entry(dict[str, Any]):
    """A mapping of a manifest. A value counts as read when it is looked up, or compared with the whole mapping."""

    def __init__(self, content: Mapping[str, Any], file: str, path: str = "") -> None:
        self.file, self.path = file, path
        super().__init__({key: _entry(value, file, f"{path}/{key}") for key, value in content.items()})

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            absent(f"{key!r} in {self.file}, {self.path or 'top level'}")
        value = super().__getitem__(key)
        _note_leaf(value, self.file, f"{self.path}/{key}")
        return value

    def get(self, key: str, default: Any = None) -> Any:
        return self.__getitem__(key) if key in self else default

    def __iter__(self) -> Iterator[str]:  # so that copies look values up, too
        return super().__iter__()

    def items(self) -> Any:
        return [(key, self[key]) for key in self]

    def values(self) -> Any:
        return [self[key] for key in self]

    def __eq__(self, other: object) -> bool:
        _note_all(self)
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]


class Entries(list[Any]):
    """A list of mappings in a manifest."""

    def __init__(self, content: Iterable[Any], file: str, path: str) -> None:
        super().__init__(_entry(value, file, f"{path}/{i}") for i, value in enumerate(content))


def _entry(value: Any, file: str, path: str) -> Any:
    if isinstance(value, dict):
        return Entry(value, file, path)
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return Entries(value, file, path)
    return value


def _note_leaf(value: Any, file: str, path: str) -> None:
    if isinstance(value, Entries):
        for position, item in enumerate(value):
            _note_leaf(item, file, f"{path}/{position}")
    elif not isinstance(value, Entry) or not value:
        note(file, path)


def _note_all(value: Any) -> None:
    for item in value.values() if isinstance(value, Entry) else value if isinstance(value, Entries) else ():
        _note_all(item)


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all values of a manifest; a list without mappings is one value."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}/{key}")
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            yield from leaves(item, f"{path}/{position}")
    else:
        yield path


class Part(Mapping[str, Tensor]):
    """Arrays of a file whose keys begin with a prefix, by the rest of the key."""

    def __init__(self, whole: Arrays, prefix: str) -> None:
        self.whole, self.prefix = whole, prefix
        self.names = [key.removeprefix(prefix) for key in whole if key.startswith(prefix)]

    def __getitem__(self, key: str) -> Tensor:
        return self.whole[self.prefix + key]

    def __contains__(self, key: object) -> bool:
        return key in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self.names else default


class Arrays(Mapping[str, Tensor]):
    """A file's arrays as tensors (texts as numpy arrays), loaded when first asked for; empty if there is no file."""

    def __init__(self, source: str, name: str, dtype: torch.dtype | None = None) -> None:
        self.file, self.path, self.dtype = f"{source}/{name}", VECTORS / source / name, dtype
        self._content: dict[str, Any] | None = None

    @property
    def content(self) -> dict[str, Any]:
        if self._content is None:
            try:
                with np.load(self.path, allow_pickle=False) as file:
                    self._content = {key: np.array(file[key]) for key in file.files}
            except FileNotFoundError:
                self._content = {}
            except (BadZipFile, ValueError, EOFError) as error:
                raise ValueError(f"{self.path} is damaged: {error}") from error
        return self._content

    def __getitem__(self, key: str) -> Any:
        if key not in self.content:
            absent(f"array {key!r} in {self.file}" if self.content else f"file {self.file}")
        note(self.file, key)
        array = self.content[key]
        if array.dtype.kind in "US":
            return array
        tensor = torch.from_numpy(array.copy())
        return tensor.to(self.dtype) if self.dtype is not None and tensor.is_floating_point() else tensor

    def __contains__(self, key: object) -> bool:
        return key in self.content

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self.content else default

    def required(self) -> Arrays:
        """Itself; skips if there is no such file."""
        return self if self.content else absent(f"file {self.file}")

    def part(self, prefix: str) -> Part:
        """The arrays whose key begins with ``prefix``, without it; possibly none."""
        return Part(self, prefix)

    def under(self, prefix: str) -> Part:
        """As :meth:`part`; skips if there are none."""
        return self.part(prefix) or absent(f"array {prefix}... in {self.file}")

    def numbered(self, pattern: str) -> list[Tensor]:
        """The arrays whose keys are ``pattern`` with 0, 1, ... for ``{}``; skips if there are none."""
        found = []
        while (key := pattern.format(len(found))) in self.content:
            found.append(self[key])
        return found or absent(f"array {pattern.format(0)!r} in {self.file}")

    def numbers(self, pattern: str) -> list[int]:
        """The numbers from 0 for which some key begins with ``pattern`` with the number for ``{}``."""
        count = 0
        while any(key.startswith(pattern.format(count)) for key in self.content):
            count += 1
        return list(range(count)) or absent(f"array {pattern.format(0)}... in {self.file}")


def manifest(source: str, name: str = "manifest.json") -> Entry:
    """A source's manifest, or another of its JSON files; empty if the set lacks it."""
    path = VECTORS / source / name
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        content = {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return Entry(content, f"{source}/{name}")


def table(source: str, name: str) -> list[Any]:
    """The rows of a CSV file; none if the set lacks it. A column counts as read once a row was asked for it."""
    path = VECTORS / source / name
    if not path.is_file():
        return []
    return [Row(row, f"{source}/{name}") for row in csv.DictReader(path.read_text().splitlines())]


class Row(Entry):
    """A row of a table; absent columns are skipped by name as in a manifest."""

    def __init__(self, content: Mapping[str, Any], file: str) -> None:
        super().__init__(content, file)


def inventory() -> dict[str, set[str]]:
    """All that there is to read: keys of arrays, and paths in manifests, by file relative to the set."""
    found: dict[str, set[str]] = {}
    for path in sorted(VECTORS.rglob("*")):
        name = path.relative_to(VECTORS).as_posix()
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                found[name] = set(file.files)
        elif path.suffix == ".json":
            found[name] = set(leaves(json.loads(path.read_text())))
        elif path.suffix == ".csv":
            found[name] = {f"/{column}" for column in path.read_text().partition("\n")[0].strip().split(",")}
        elif path.is_file() and path.suffix != ".md":
            found[name] = {""}
    return found
