"""Small trials for the checks: random images, names that are known for a while, runs with interruptions, outcomes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import torch

from trials.config.trial_config import TrialConfig
from trials.data import DATASETS, RawData
from trials.data.raw import Arrays, raw_data
from trials.running import progress
from trials.running.progress import TrialHost
from trials.running.trial import run
from trials.seeding import generator
from trials.storage.rows import Row, Rows
from trials.storage.trial_folder import State, TrialFolder
from trials.testing.requiring import demand, disturb, equal_bits

CLASSES = 4
MOST_ATTEMPTS = 400
"""Attempts after which an interrupted trial is said to make no progress."""

_T = TypeVar("_T")


class _Killed(BaseException):
    """No Exception, so that no handler of failures catches it, as none can catch SIGKILL."""


def random_images(shape: tuple[int, int, int], count: int) -> RawData:
    """A data set of ``count`` training and 40 test images of ``shape`` [C, H, W], each its class's image and noise."""
    channels, height, width = shape
    drawn = generator("images of checks", channels, height, width)
    labels = torch.arange(count + 40) % CLASSES
    centres = torch.randint(60, 196, (CLASSES, *shape), generator=drawn)
    noise = torch.randint(-60, 60, (count + 40, *shape), generator=drawn)
    pixels = (centres[labels] + noise).to(torch.uint8)  # [N, C, H, W]
    arrays = Arrays(
        pixels[:count].numpy(), labels[:count].numpy(), pixels[count:].numpy(), labels[count:].numpy(), CLASSES
    )
    mean, std = (0.5,) * channels, (0.25,) * channels
    name = f"random_{channels}x{height}x{width}_{count}"
    return raw_data(name, arrays, num_classes=CLASSES, mean=mean, std=std, pad=1, flip=True, source="drawn")


@contextmanager
def known(registry: MutableMapping[str, _T], name: str, value: _T) -> Iterator[str]:
    """Within it, ``registry`` has ``value`` under ``name``."""
    with mock.patch.dict(registry, {name: value}):
        yield name


@contextmanager
def with_images(shape: tuple[int, int, int], count: int) -> Iterator[str]:
    """Within it, the yielded name is a data set of random images."""
    raw = random_images(shape, count)
    with known(DATASETS, raw.name, lambda _folder: raw):
        yield raw.name


@dataclass(frozen=True)
class TrialOutcome:
    """What must not depend on where and how often a trial was interrupted.

    Attributes:
        rows: by table, without what says how long they took.
        result: of the trial.
        net: state of the network that it ends with.
    """

    rows: Rows
    result: Mapping[str, Any]
    net: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path, state: State) -> TrialOutcome:
        """The outcome of a trial that has completed in ``folder``."""
        stored, commit = TrialFolder(folder), state.commits[-1]
        rows = {table: [_timeless(row) for row in content] for table, content in stored.rows(commit).items()}
        return cls(rows, state.result or {}, stored.checkpoint(commit)["net"])

    def differs_from(self, other: TrialOutcome) -> str:
        """In what it differs from another, for messages; empty if all bits are equal."""
        if not equal_bits(self.net, other.net):
            return "the network"
        for table, content in self.rows.items():
            for one, two in zip(content, other.rows[table], strict=False):
                if columns := [name for name in one if not equal_bits(one[name], two.get(name))]:
                    return f"{', '.join(columns)} in the table {table}, stage {one.get('stage')}"
            if len(content) != len(other.rows[table]):
                return f"the number of rows in the table {table}"
        return "" if equal_bits(dict(self.result), dict(other.result)) else "the result"


def _timeless(row: Row) -> Row:
    return {key: value for key, value in row.items() if not key.startswith("seconds")}


class Storage:
    """A folder of trials.

    Args:
        stages_of: another storage, whose shared trials are copied.
        dense: whether trials are dense ones, which run as shared trials: a sweep's own would only copy one.
    """

    def __init__(self, path: Path, stages_of: Storage | None = None, *, dense: bool = False) -> None:
        self.path, self.dense = path, dense
        if stages_of is not None and (stages_of.path / "stages").is_dir():
            shutil.copytree(stages_of.path / "stages", path / "stages")

    def folder(self, config: TrialConfig) -> Path:
        return self.path / ("stages" if self.dense else "sweep/trials") / config.id

    def attempt(self, config: TrialConfig, what: str, **host: Any) -> State:
        """Run a trial, in other global random states than ever before, until it ends or is told to stop.

        Raises:
            AssertionError: it failed; the message begins with ``what``.
        """
        disturb()
        state = run(config, self.folder(config), TrialHost(self.path / "stages", **host))
        error = state.error or {}
        if error.get("type") == "AssertionError":
            raise AssertionError(error["message"])
        trace = error.get("traceback", "")
        demand(not error, f"{what} must complete, but failed: {error.get('type')}: {error.get('message')}\n{trace}")
        return state

    def outcome(self, config: TrialConfig, what: str) -> TrialOutcome:
        """Run a trial in one go."""
        return TrialOutcome.of(self.folder(config), self.attempt(config, what))

    def preempted(self, config: TrialConfig, what: str) -> TrialOutcome:
        """Run a trial that is stopped at every commit point, after every step and every epoch."""
        with mock.patch.object(progress, "STOP_POLL_S", 0.0):
            for _ in range(MOST_ATTEMPTS):
                state = self.attempt(config, what, should_stop=lambda: True)
                if state.status == "complete":
                    return TrialOutcome.of(self.folder(config), state)
        raise AssertionError(f"{what} must get on, but {MOST_ATTEMPTS} attempts did not bring it to its end")

    def killed(self, config: TrialConfig, what: str) -> TrialOutcome:
        """Run a trial that is killed once before each of its rows counts; it commits at the ends of stages only."""
        rare = config.model_copy(update={"checkpoint_every_s": 1e9})
        died: set[tuple[Any, ...]] = set()

        def die(row: Row) -> None:
            key = (row["stage"], row["level"], row["epoch"])
            if key not in died:
                died.add(key)
                raise _Killed

        for _ in range(MOST_ATTEMPTS):
            try:
                state = self.attempt(rare, what, report=die)
            except _Killed:
                continue
            return TrialOutcome.of(self.folder(config), state)
        raise AssertionError(f"{what} must get on, but {MOST_ATTEMPTS} attempts did not bring it to its end")
