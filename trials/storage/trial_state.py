"""What ``state.json`` says of a trial."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from trials.errors import shown
from trials.frozen import SCHEMA
from trials.storage.rows import FINISHED
from trials.storage.state_values import require_environment_values, require_result

STATUSES = frozenset({"running", "complete", "failed", "pruned", "preempted"})
"""What a state's ``status`` may be."""

CHECKPOINT_NAME = re.compile(r"(?P<commit>\d{6,})-a(?P<attempt>\d+)-(?P<hash>[0-9a-f]{12})\.pt", re.ASCII)
"""Names of checkpoints: the commit's number, the attempt's, and the start of the content's SHA-256."""

ROWS_NAME = re.compile(
    r"(?P<table>[A-Za-z][A-Za-z0-9_]*)-(?P<commit>\d{6,})-a(?P<attempt>\d+)-(?P<hash>[0-9a-f]{12})\.parquet", re.ASCII
)
"""Names of row files: the table's before those of a checkpoint's name."""


DROPPED = (
    "its sweep has dropped its checkpoint (keep_checkpoints, or a population that has gone on; docs/storage.md): to "
    "have its network, run its config again, alone or in a sweep with another --name"
)
"""What messages say of a trial that is :attr:`State.is_without_checkpoint`."""


@dataclass(frozen=True)
class Commit:
    """One commit: its number and its file names in ``checkpoint/`` and ``rows/`` (by table)."""

    number: int
    checkpoint: str | None
    rows: dict[str, str]


@dataclass(frozen=True)
class State:
    """The committed state of a trial, as in ``state.json``.

    Attributes:
        started, ended: when the first attempt began, and when the last one ended (UTC, as 2026-11-27T08:30:00Z).
        environments: the different environments in which its network was computed (see trials/running/environment.py):
            those of the trials that it builds on, then of its attempts, the last one's last; ``{}`` stands for one that
            an older version did not write down.
    """

    status: str = "running"
    attempt: int = 0
    failures: int = 0
    commits: tuple[Commit, ...] = ()
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, str] | None = None
    seconds: float = 0.0
    host: str = ""
    device: str = ""
    started: str = ""
    ended: str = ""
    environments: tuple[dict[str, Any], ...] = ()

    @property
    def computed_in(self) -> tuple[dict[str, Any], ...]:
        """The environments, with those of an older version's attempts as unknown."""
        return self.environments or (({},) if self.attempt else ())

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def standing(self) -> tuple[int, int, bool]:
        """Attempt, last commit, and whether it is finished: of two states of a trial, the later one has more."""
        return self.attempt, max((commit.number for commit in self.commits), default=0), self.finished

    @property
    def is_without_checkpoint(self) -> bool:
        """Whether it is finished, and its sweep has dropped its checkpoint ."""
        return self.finished and bool(self.commits) and self.commits[-1].checkpoint is None


OLDER_STATE = frozenset({"schema", *(f.name for f in fields(State))})
"""Keys of a ``state.json`` of versions that wrote no checksum."""


def state_document(state: State, trial: str) -> dict[str, Any]:
    """Return what ``state.json`` holds, as :func:`state_in` reads it; ``trial`` names the trial's folder."""
    return {"schema": SCHEMA, "trial": trial, **asdict(state)}


def state_in(document: Mapping[str, Any], trial: str | None) -> State:
    """Return the state in a document that :func:`state_document` made.

    The document of an older version does not name its trial. ``trial``: the name that it must give; None for any.

    Raises:
        ValueError, TypeError: it is another trial's, or a field is not what a trial writes; no name of a file leads
            elsewhere.
    """
    if trial is not None and document.get("trial", trial) != trial:
        raise ValueError(f"it belongs to {shown(document['trial'])}")
    commits = document.get("commits")
    if not isinstance(commits, list):
        raise TypeError(f"commits is {shown(commits)}, but must be a list")
    found = {f.name: document[f.name] for f in fields(State) if f.name in document}
    found["commits"] = tuple(_commit(commit) for commit in commits)
    if not isinstance(environments := document.get("environments", []), list):
        raise TypeError(f"environments is {shown(environments)}, but must be a list")
    found["environments"] = tuple(environments)
    for name, value in found.items():
        if not _is_valid(name, value):
            raise ValueError(f"{name} is {shown(value)}")
    require_result(found.get("result", {}))
    for environment in environments:
        require_environment_values(environment)
    return State(**found)


def _is_valid(name: str, value: Any) -> bool:
    if name == "status":
        return isinstance(value, str) and value in STATUSES
    if name in ("attempt", "failures"):
        return type(value) is int and 0 <= value < 2**31
    if name in ("progress", "result"):
        return isinstance(value, dict)
    if name == "environments":
        return all(isinstance(one, dict) for one in value)
    if name == "error":
        return value is None or (
            isinstance(value, dict)
            and {"type", "message"} <= value.keys()
            and all(isinstance(text, str) for text in value.values())
        )
    if name == "seconds":
        return type(value) in (int, float) and 0 <= value < 1e12
    return name == "commits" or isinstance(value, str)


def _commit(content: Any) -> Commit:
    if not isinstance(content, dict) or content.keys() != {"number", "checkpoint", "rows"}:
        raise ValueError(f"a commit is {shown(content)}")
    number, checkpoint, rows = content["number"], content["checkpoint"], content["rows"]
    if type(number) is not int or not 1 <= number < 2**31:
        raise ValueError(f"a commit has the number {shown(number)}")
    if checkpoint is not None and not (isinstance(checkpoint, str) and CHECKPOINT_NAME.fullmatch(checkpoint)):
        raise TypeError(f"a checkpoint has the name {shown(checkpoint)}")
    if not isinstance(rows, dict):
        raise TypeError(f"a commit has the rows {shown(rows)}")
    for table, name in rows.items():
        match = ROWS_NAME.fullmatch(name) if isinstance(name, str) else None
        if match is None or (match["table"] != table and rows.get(match["table"]) != name):
            raise ValueError(f"rows of the table {shown(table)} have the name {shown(name)}")
    return Commit(number, checkpoint, dict(rows))
