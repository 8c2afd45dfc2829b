"""Kinds of files in a storage, and damage to one of them that depends on a seed alone."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TRIAL = r"trials/[^/]+"
_PART = r"\d{6}-[0-9a-f]{12}"
_COMMIT = r"\d{6}-a\d+-[0-9a-f]{12}"

KINDS: dict[str, str] = {
    "space": r"[^/]+/sweep\.yaml",
    "config": rf"[^/]+/{_TRIAL}/config\.json",
    "state": rf"[^/]+/{_TRIAL}/state\.json",
    "rows": rf"[^/]+/{_TRIAL}/rows/(epochs|layers|allocations)-{_COMMIT}\.parquet",
    "checkpoint": rf"[^/]+/{_TRIAL}/checkpoint/{_COMMIT}\.pt",
    "warm start": r"[^/]+/warm\.json",
    "searches": r"[^/]+/searches\.json",
    "stop file": r"[^/]+/stop",
    "told rows": r"[^/]+/logs/[^/]+/told-[0-9a-f]{8}\.jsonl",
    "table": r"[^/]+/tables/(trials|epochs|layers|allocations|lineage)\.parquet",
    "manifest": r"[^/]+/tables/manifest\.json",
    "report": r"[^/]+/report\.html",
    "packed manifest": r"[^/]+/packed/manifest\.json",
    "packed index": rf"[^/]+/packed/trials-{_PART}\.parquet",
    "packed copy": rf"[^/]+/packed/copy-{_PART}\.parquet",
    "packed rows": rf"[^/]+/packed/rows-(epochs|layers|allocations)-{_PART}\.parquet",
    "packed checkpoints": rf"[^/]+/packed/checkpoints-{_PART}\.zip",
    "driver's lease": r"[^/]+/lock/lease\.json",
    "driver's lock": r"[^/]+/lock/lease\.guard",
    "shared config": r"stages/[^/]+/config\.json",
    "shared state": r"stages/[^/]+/state\.json",
    "shared rows": rf"stages/[^/]+/rows/(epochs|layers)-{_COMMIT}\.parquet",
    "shared checkpoint": rf"stages/[^/]+/checkpoint/{_COMMIT}\.pt",
    "shared lease": r"stages/[^/]+/lease\.json",
    "shared lock": r"stages/[^/]+/lease\.guard",
}
"""Every kind of file that a storage holds, as a pattern of its path in the storage. The first that fits counts."""

FOLDERS: dict[str, str] = {
    "trial's folder": rf"[^/]+/{_TRIAL}",
    "folder of rows": rf"[^/]+/{_TRIAL}/rows",
    "folder of checkpoints": rf"[^/]+/{_TRIAL}/checkpoint",
    "tables": r"[^/]+/tables",
    "packed trials": r"[^/]+/packed",
    "lock": r"[^/]+/lock",
    "shared trial's folder": r"stages/[^/]+",
}
"""Kinds of folders, which can be duplicated, or replaced by something else."""

Rolled = random.Random


def kind_of(path: str) -> str | None:
    """The kind of the file with this path in a storage."""
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, path)), None)


def files_of(storage: Path) -> dict[str, list[str]]:
    """The files of a storage by kind, as paths in it; ``None`` counts those of no kind."""
    found: dict[str, list[str]] = {kind: [] for kind in (*KINDS, "")}
    for path in sorted(storage.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(storage))
            found[kind_of(name) or ""].append(name)
    return found


def folders_of(storage: Path) -> dict[str, list[str]]:
    """The folders of a storage by kind."""
    found: dict[str, list[str]] = {kind: [] for kind in FOLDERS}
    for path in sorted(storage.rglob("*")):
        name = str(path.relative_to(storage))
        if path.is_dir() and (kind := next((k for k, p in FOLDERS.items() if re.fullmatch(p, name)), None)):
            found[kind].append(name)
    return found


@dataclass(frozen=True)
class Case:
    """Damage to one file or folder of a storage.

    Attributes:
        kind: of what is damaged.
        path: of what is damaged, in the storage.
        how: name of the damage, in ``DAMAGES`` or ``FOLDER_DAMAGES``.
        other: of two that are swapped, the other one; or the file whose content takes its place.
        seed: of the damage's details.
        keeps_time: whether the file keeps its time of change, as it does where a disk lost a bit.
        uncached: whether the sweep's cached tables are deleted, so that its trials are read.
    """

    kind: str
    path: str
    how: str
    other: str | None
    seed: int
    keeps_time: bool
    uncached: bool

    @property
    def sweep(self) -> str:
        return self.path.partition("/")[0]

    def __str__(self) -> str:
        return f"{self.how} {self.path}" + (f" and {self.other}" if self.other else "")


def case_of(seed: int, files: dict[str, list[str]], folders: dict[str, list[str]], kind: str = "") -> Case:
    """The case of a seed; ``kind``: of its file, by default any."""
    rolled = random.Random(seed)
    kind = kind or rolled.choice([k for k in (*KINDS, *FOLDERS) if files.get(k) or folders.get(k)])
    there = files.get(kind) or folders[kind]
    path = rolled.choice(there)
    damages = list(DAMAGES if kind in KINDS else FOLDER_DAMAGES)
    if not path.endswith((".json", ".jsonl")):
        damages = [name for name in damages if not name.endswith("in JSON")]
    others = {
        "swap": [one for one in there if one != path and _alike(one, path)],
        "another one's content for": [one for one in there if one != path],
    }
    how = rolled.choice([name for name in damages if others.get(name, there)])
    other = rolled.choice(others[how]) if how in others else None
    return Case(kind, path, how, other, seed, rolled.random() < 0.5, rolled.random() < 0.7)


def _alike(one: str, other: str) -> bool:
    """Whether two files lie in the same sweep, or both outside of sweeps."""
    return one.partition("/")[0] == other.partition("/")[0]


def damage(storage: Path, whole: Path, outside: Path, case: Case) -> None:
    """Damage a storage, a copy of ``whole`` in part. ``outside``: a folder with files that must never change."""
    path, rolled = storage / case.path, random.Random(case.seed)
    before = path.stat()
    if case.uncached and case.kind not in ("table", "manifest", "tables"):
        shutil.rmtree(storage / case.sweep / "tables", ignore_errors=True)
    if case.how == "swap":
        _swap(path, storage / str(case.other))
    elif case.other is not None:
        _rewrite(path, (whole / case.other).read_bytes())
    else:
        {**DAMAGES, **FOLDER_DAMAGES}[case.how](path, outside, rolled)
    if case.keeps_time and path.is_file() and not path.is_symlink():
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _rewrite(path: Path, content: bytes) -> None:
    path.unlink()  # the storage that was copied shares the file
    path.write_bytes(content)


def _flip(path: Path, _: Path, rolled: Rolled) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[rolled.randrange(len(content))] ^= 1 << rolled.randrange(8)
    _rewrite(path, bytes(content))


def _truncate(path: Path, _: Path, rolled: Rolled) -> None:
    content = path.read_bytes()
    _rewrite(path, content[: rolled.randrange(len(content) or 1)])


def _append(path: Path, _: Path, rolled: Rolled) -> None:
    _rewrite(path, path.read_bytes() + rolled.randbytes(rolled.randrange(1, 100)))


def _garbage(path: Path, _: Path, rolled: Rolled) -> None:
    _rewrite(path, rolled.randbytes(rolled.randrange(1, 4000)))


def _delete(path: Path, _: Path, __: Rolled) -> None:
    path.unlink()


def _empty(path: Path, _: Path, __: Rolled) -> None:
    _rewrite(path, b"")


def _duplicate(path: Path, _: Path, rolled: Rolled) -> None:
    name = rolled.choice([f"{path.stem}-copy{path.suffix}", f"{path.stem} (1){path.suffix}", f"{path.name}~"])
    shutil.copy2(path, path.with_name(name))


def _swap(path: Path, other: Path) -> None:
    if path.is_dir():
        between = path.with_name(".between")
        path.rename(between)
        other.rename(path)
        between.rename(other)
        return
    here, there = path.read_bytes(), other.read_bytes()
    _rewrite(path, there)
    _rewrite(other, here)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _folder(path: Path, _: Path, rolled: Rolled) -> None:
    _remove(path)
    path.mkdir()
    if rolled.random() < 0.5:
        (path / "something").write_text("else")


def _fifo(path: Path, _: Path, __: Rolled) -> None:
    _remove(path)
    os.mkfifo(path)


def _link(path: Path, outside: Path, rolled: Rolled) -> None:
    """A link to what lies outside: the same content, or something else."""
    there = outside / path.name
    if rolled.random() < 0.5:
        shutil.move(path, there)
    else:
        _remove(path)
        there.write_text("not yours")
    path.symlink_to(there)


def _zero(path: Path, _: Path, __: Rolled) -> None:
    _remove(path)
    path.symlink_to("/dev/zero")


def _dangling(path: Path, outside: Path, _: Rolled) -> None:
    _remove(path)
    path.symlink_to(outside / "nothing-here")


def _loop(path: Path, _: Path, __: Rolled) -> None:
    _remove(path)
    path.symlink_to(path.name)


def _other_json(path: Path, _: Path, rolled: Rolled) -> None:
    """JSON of another form."""
    texts = ["[]", "null", "{}", "3", '"text"', "[" * 5000 + "]" * 5000, '{"cells": 3}', "NaN", "[[]]"]
    _rewrite(path, rolled.choice(texts).encode())


def _places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values of nested JSON stand."""
    items: list[tuple[Any, Any]] = (
        list(content.items())
        if isinstance(content, dict)
        else list(enumerate(content))
        if isinstance(content, list)
        else []
    )
    return [place for key, value in items for place in ((*at, key), *_places(value, (*at, key)))]


def _changed_value(path: Path, _: Path, rolled: Rolled) -> None:
    """One value is another one: a digit more, another word, another type, an outside path."""
    first, *lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    content = json.loads(first)
    place = rolled.choice(_places(content))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    was = inner[place[-1]]
    other: list[Any] = [None, "../../../outside", 7, [], {}, True, "x", -1, 1e300]
    if isinstance(was, (int, float)) and not isinstance(was, bool):
        other += [was + 1, was * 2, was + 0.001] * 3
    inner[place[-1]] = rolled.choice([value for value in other if value != was or type(value) is not type(was)])
    _rewrite(path, "\n".join([json.dumps(content, indent=1 if path.suffix == ".json" else None), *lines]).encode())


def _copied_folder(path: Path, _: Path, rolled: Rolled) -> None:
    shutil.copytree(
        path, path.with_name(rolled.choice([f"{path.name}-copy", f"{path.name[:-1]}0", "backup", f"{path.name}.old"]))
    )


def _linked_folder(path: Path, outside: Path, _: Rolled) -> None:
    """The folder lies outside, and a link to it in its place."""
    shutil.move(path, outside / path.name)
    path.symlink_to(outside / path.name)


def _linked_copy(path: Path, outside: Path, _: Rolled) -> None:
    path.with_name(f"{path.name}-link").symlink_to(path.name)


def _file(path: Path, _: Path, __: Rolled) -> None:
    _remove(path)
    path.write_text("a file")


DAMAGES: dict[str, Callable[[Path, Path, Rolled], None]] = {
    "flip": _flip,
    "truncate": _truncate,
    "append to": _append,
    "delete": _delete,
    "duplicate": _duplicate,
    "swap": _flip,
    "another one's content for": _flip,
    "folder for": _folder,
    "FIFO for": _fifo,
    "link for": _link,
    "/dev/zero for": _zero,
    "dangling link for": _dangling,
    "loop for": _loop,
    "empty": _empty,
    "garbage for": _garbage,
    "another form in JSON": _other_json,
    "another value in JSON": _changed_value,
}
"""Damage to a file. What takes two files stands in :func:`damage`."""

FOLDER_DAMAGES: dict[str, Callable[[Path, Path, Rolled], None]] = {
    "copy": _copied_folder,
    "link beside": _linked_copy,
    "outside link for": _linked_folder,
    "file for": _file,
    "FIFO for folder": _fifo,
    "swap": _flip,
}
"""Damage to a folder."""
