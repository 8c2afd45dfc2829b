"""What ``state.json`` says of a trial."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trials.storage.rows import FINISHED


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
