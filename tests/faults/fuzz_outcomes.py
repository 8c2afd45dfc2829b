"""What readers and a resumed run make of a damaged storage, compared with what they make of a whole one."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import resource
import shutil
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import trials
from sweeper.cli import WRONG_INPUT, main
from sweeper.folder import driving
from sweeper.results.frames import SweepTables
from sweeper.results.tables import read
from tests.faults.damage import Case, damage
from tests.faults.fuzzed_sweeps import ENDS, LEARNING, OPEN, Run, in_place_of_ray
from trials.errors import UserError
from trials.running import shared_trials
from trials.storage.leases.lease import Lease
from trials.storage.packed.reading import trial_names
from trials.storage.read_once import SOURCES

TABLES = ("trials", "epochs", "layers", "allocations", "lineage")

NOT_RESULTS = ("attempts", "seconds", "started", "ended", "host", "failures", "environments", "commit")
"""Columns that say how a trial was computed, which a repair may change."""

PATIENCE_S, MEMORY = 30, 1 << 30
"""A case may take so many seconds, and so many bytes more than the process has."""


class Wrong(AssertionError):
    """A case ended in none of the ways that are allowed."""


class Hang(BaseException):
    """A case has taken too long."""


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Bound the time and the memory of a case."""

    def hang(*_: object) -> None:
        raise Hang(f"it takes more than {PATIENCE_S} s")

    mine = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(PATIENCE_S)
    resource.setrlimit(resource.RLIMIT_AS, (mine + MEMORY, hard))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@dataclass(frozen=True)
class Said:
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def said(*words: str) -> Said:
    """Run a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    return Said(code, out.getvalue(), err.getvalue())


def resumed(run: Run, storage: Path, name: str, *words: str, whole: bool) -> Said:
    """Resume a sweep to its end. Unless ``whole``, no report is drawn, and no summary printed."""
    with in_place_of_ray(run, shows=whole):
        return said("--resume", name, "--storage", str(storage), *words)


def results(sweep: SweepTables) -> dict[str, Any]:
    """What a sweep has come to, to compare."""
    found: dict[str, Any] = {}
    for name in TABLES:
        frame = getattr(sweep, name)
        kept = frame[sorted(column for column in frame.columns if column not in NOT_RESULTS)]
        found[name] = (list(kept.columns), [str(row) for row in kept.itertuples(index=False, name=None)])
    return found


def differs(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Where results differ first, in words; empty if they do not."""
    for name in TABLES:
        if found[name] != expected[name]:
            (columns, rows), (as_columns, as_rows) = found[name], expected[name]
            if columns != as_columns:
                return f"{name} has other columns: {sorted(set(columns) ^ set(as_columns))}"
            if len(rows) != len(as_rows):
                return f"{name} has {len(rows)} rows, not {len(as_rows)}"
            return next(f"{name}: {a} is not {b}" for a, b in zip(rows, as_rows, strict=True) if a != b)[:1500]
    return ""


@dataclass
class Whole:
    """What readers make of each sweep as it is, and what it comes to in the end."""

    storage: Path
    run: Run
    now: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, storage: Path, folder: Path, run: Run) -> Whole:
        """Read every sweep, and run a copy of each that is left unfinished to its end, with ``run``."""
        found = cls(storage, run)
        for name, code in ENDS.items():
            found.now[name] = results(read(storage / name))
            found.shown[name] = said("--show", name, "--storage", str(storage)).out
            found.shown[name] = _comparable(found.shown[name], storage)
            found.end[name] = found.now[name]
            if name in OPEN:
                copied = copy(storage, folder / f"whole-{name}", name)
                if (ended := resumed(run, copied, name, whole=False)).code != code:
                    raise Wrong(f"{name} ended with {ended}")
                found.end[name] = results(read(copied / name))
        return found


def copy(storage: Path, to: Path, name: str) -> Path:
    """A storage with one sweep and what it needs; equal files are shared with ``storage``."""
    for one in ("stages", name, *(("searched",) if name == "warm" else ())):
        shutil.copytree(storage / one, to / one, copy_function=os.link)
    return to


def everything(folder: Path, *without: str) -> dict[str, Any]:
    """What tells every file of a folder from another one, by path."""
    found: dict[str, Any] = {}
    for around, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(around, name)
            there = path.lstat()
            key = str(path.relative_to(folder))
            if not any(re.fullmatch(pattern, key) for pattern in without):
                found[key] = (there.st_mode, 0 if name in folders else (there.st_ino, there.st_size, there.st_mtime_ns))
    return found


class Fuzz:
    """Runs cases: damages a copy of the storage, reads it, and resumes it.

    Args:
        folder: for copies, and for what lies outside of the storage.
        commands: whether every command runs as a user runs it; otherwise only what the cheapest ones share.
    """

    def __init__(self, whole: Whole, folder: Path, *, commands: bool) -> None:
        self.whole, self.folder, self.commands = whole, folder, commands

    def run(self, case: Case) -> str:
        """Run a case; return how it ended, in a word.

        Raises:
            Wrong: in a way that is not allowed.
        """
        here = self.folder / f"case-{case.seed}"
        name = "open" if case.sweep == "stages" else case.sweep
        storage = copy(self.whole.storage, here / "storage", name)
        outside = here / "outside"
        outside.mkdir()
        (outside / "kept").write_text("kept")
        damage(storage, self.whole.storage, outside, case)
        around = everything(outside)
        SOURCES.clear()
        try:
            with limits():
                how = self._read(storage, name, case)
                how += f", {self._resume(storage, name, case)}"
            if everything(outside) != around:
                raise Wrong("something outside of the storage was changed")
        except Wrong as wrong:
            raise Wrong(f"seed {case.seed}: {case}: {wrong}") from None
        except (Exception, Hang) as error:
            raise Wrong(f"seed {case.seed}: {case}: {type(error).__name__}: {error}") from error
        shutil.rmtree(here)
        return how

    def _read(self, storage: Path, name: str, case: Case) -> str:
        before = everything(storage)
        how = self._load(storage, name, case)
        if self.commands:
            for words in (["--show", name], ["--list"], ["--report", name, "--to", str(storage.parent / "page.html")]):
                found = said(*words, "--storage", str(storage))
                self._judge(words[0], found, storage, name, case, how)
            self._network(storage, case)
        if everything(storage) != before:
            raise Wrong(f"a reader has written: {_changes(before, everything(storage))}")
        return how

    def _load(self, storage: Path, name: str, case: Case) -> str:
        try:
            sweep = read(storage / name)
        except UserError as error:
            _require_named("load", str(error), case)
            return "refused"
        if sweep.damaged:
            _require_named("load", "; ".join(sweep.damaged), case)
            return "left out"
        if difference := differs(results(sweep), self.whole.now[name]):
            if _is_as_before(storage, case):
                return "as before"
            raise Wrong(f"load differs silently: {difference}")
        return "same"

    def _judge(self, what: str, found: Said, storage: Path, name: str, case: Case, loaded: str) -> None:
        text = _comparable(found.out, storage)
        if found.code == WRONG_INPUT:
            _require_line(what, found, case)
        elif found.code:
            raise Wrong(f"{what} ends with {found}")
        elif what == "--report":
            page = (storage.parent / "page.html").read_text()
            if loaded == "left out" and not _is_named(page, case):
                raise Wrong("the report does not name the damaged file")
        elif case.kind == "searches" and case.how == "delete":
            return  # as a sweep of an older version, which wrote none
        elif what == "--show" and text != self.whole.shown[name] and not _is_named(text, case):
            raise Wrong(f"--show differs silently: {_first_other(text, self.whole.shown[name])}")
        elif what == "--list" and self.whole.shown[name].splitlines()[0] not in text and "left out" not in text:
            _require_named("--list", text, case)

    def _network(self, storage: Path, case: Case) -> None:
        """Read the trials that may be damaged, with their networks."""
        if "/packed" in case.path:
            for name in trial_names(self.whole.storage / case.sweep / "trials"):
                self._network_of(storage, f"{case.sweep}/trials/{name}", case)
        elif re.match(r"[^/]+/trials/[^/]+", case.path):
            self._network_of(storage, "/".join(case.path.split("/")[:3]), case)

    def _network_of(self, storage: Path, trial: str, case: Case) -> None:
        folder, whole = storage / trial, trials.load(self.whole.storage / trial)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = trials.load(folder)
                rows = found.rows
                network = _digest(found.network())
        except UserError as error:
            if folder.name not in str(error) and not _is_named(str(error), case):
                raise Wrong(f"trials.load says {error}") from None
            return
        if (found.status, found.result, rows) != (whole.status, whole.result, whole.rows):
            raise Wrong("trials.load differs silently")
        if network != _digest(whole.network()):
            raise Wrong("the network differs silently")

    def _resume(self, storage: Path, name: str, case: Case) -> str:
        without = (r"[^/]+/lock(/.*)?", r"[^/]+/stop")
        before = everything(storage, *without)
        verify = ["--verify"] if self.commands and case.seed % 3 == 0 else []
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(Lease.__init__.__kwdefaults__, "patience_s", 0.05)  # a driver that cannot be read may live
            patch.setattr(driving, "HEARTBEAT_S", 0.1)
            patch.setattr(shared_trials, "SHARED_POLL_S", 0.02)
            found = resumed(self.whole.run, storage, name, *verify, whole=self.commands and case.seed % 10 == 0)
        if found.code == WRONG_INPUT:
            _require_line("--resume", found, case)
            if changes := _changes(before, everything(storage, *without)):
                raise Wrong(f"--resume is refused ({found.err}) but has changed {changes}")
            return "refused"
        if found.code != ENDS[name]:
            raise Wrong(f"--resume ends with {found}")
        after = read(storage / name)
        if difference := differs(results(after), self.whole.end[name]):
            if case.kind == "config" and name in LEARNING and _is_named(found.out, case):
                return "another point"  # what was drawn stood in this file alone
            raise Wrong(f"after {found.out}: {difference}; left out: {after.damaged}")
        return "repaired" if _is_named(found.out, case) else "same"


def _digest(network: Any) -> str:
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def _comparable(text: str, storage: Path) -> str:
    return "\n".join(line for line in text.replace(str(storage), "").splitlines() if not line.startswith("tables: "))


def _is_as_before(storage: Path, case: Case) -> bool:
    """Whether a storage looks as it did before the damaged trial was begun for the first time."""
    return case.kind == "state" and case.how == "delete" and not any((storage / case.path).parent.glob("rows/*"))


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _is_named(text: str, case: Case) -> bool:
    """Whether a text names what is damaged: its file, or its trial."""
    names = []
    for path in filter(None, (case.path, case.other)):
        parts = path.split("/")
        names += [parts[-1], *parts[2:3]] if parts[1] == "trials" else [parts[-1], *parts[1:2] * (parts[0] == "stages")]
    return any(name in text for name in names)


def _require_named(what: str, text: str, case: Case) -> None:
    if not _is_named(text, case):
        raise Wrong(f"{what} does not name the file: {text}")


def _require_line(what: str, found: Said, case: Case) -> None:
    if not re.fullmatch(r"error: [^\n]+\n", found.err):
        raise Wrong(f"{what} is refused in other than one line: {found.err}")
    _require_named(what, found.err, case)


def _first_other(text: str, expected: str) -> str:
    lines = set(expected.splitlines())
    return next((line for line in text.splitlines() if line not in lines), "lines are missing")
