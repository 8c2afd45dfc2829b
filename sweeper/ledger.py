"""A sweep's folder: which trials there are, what they serve, and how they stand. The driver's view of the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from trials import files
from trials.config import SCHEMA
from trials.errors import DamagedFile, UserError
from trials.ledger import State, TrialFolder


@dataclass(frozen=True)
class Sample:
    """One point that a cell's study asked for: the ``number``-th of its cell.

    Attributes:
        cell: the cell's key.
        grid: the cell's grid values, by dotted path.
        params: the searched hyperparameters, by dotted path.
        attrs: what the sampler left on the study's trial, as JSON.
    """

    cell: str
    number: int
    grid: dict[str, Any]
    params: dict[str, Any]
    attrs: dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One trial of a sweep. Several samples may ask for the same config: it runs once and serves them all."""

    id: str
    config: dict[str, Any]
    samples: tuple[Sample, ...]
    folder: TrialFolder
    state: State | None

    @property
    def finished(self) -> bool:
        return self.state is not None and self.state.finished


class SweepFolder:
    """``<storage>/<sweep>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials = path / "trials"
        self.tables = path / "tables"
        self.stages = path.parent / "stages"

    def trial_folder(self, trial_id: str) -> Path:
        return self.trials / trial_id

    def schedule(self, trial_id: str, config: Mapping[str, Any], samples: tuple[Sample, ...]) -> None:
        """Commit that a trial is wanted, before it is handed out."""
        content = {"schema": SCHEMA, "id": trial_id, "config": config, "samples": [asdict(s) for s in samples]}
        folder = self.trial_folder(trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "config.json", json.dumps(content, indent=1).encode())

    def records(self) -> list[Record]:
        """Every trial that was ever scheduled, by name; damaged configs and states are left out or None."""
        return list(self._records())

    def _records(self) -> Iterator[Record]:
        for path in sorted(self.trials.glob("*/config.json")):
            try:
                trial_id, config, samples = _read_config(path)
            except (OSError, ValueError, KeyError, TypeError):
                continue
            folder = TrialFolder(path.parent)
            try:
                state = folder.state()
            except DamagedFile:
                state = None
            yield Record(trial_id, config, samples, folder, state)

    def repair(self) -> list[str]:
        """Set damaged files of trials that nobody runs aside, repair what can be; a line for each.

        For the one driver of the sweep, before it hands anything out.
        """
        lines: list[str] = []
        for path in sorted(self.trials.glob("*")):
            config = path / "config.json"
            try:
                _read_config(config)
            except OSError:
                continue
            except (ValueError, KeyError, TypeError) as error:
                lines.append(f"{config} is damaged ({error}); set aside as {files.set_aside(config).name}")
                continue
            lines += TrialFolder(path).verify()
        return lines

    def documents(self) -> list[dict[str, Any]]:
        """What ``sweep.yaml`` holds: one document per change of the sweep, oldest first; empty for a new sweep."""
        try:
            text = (self.path / "sweep.yaml").read_text()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.path / 'sweep.yaml'} cannot be read ({error}): give another --storage") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path / 'sweep.yaml'} is damaged ({error}): restore it, or move it away") from None
        try:
            return [document for document in yaml.safe_load_all(text) if document]
        except yaml.YAMLError as error:
            raise UserError(
                f"{self.path / 'sweep.yaml'} is damaged ({' '.join(str(error).split())}): restore it, or move it away; "
                "the trials are kept and the next run writes it anew"
            ) from None

    def append(self, document: Mapping[str, Any]) -> None:
        """Add a document to ``sweep.yaml``."""
        path = self.path / "sweep.yaml"
        before = path.read_text() if path.exists() else ""
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(document), sort_keys=False, explicit_start=True, width=120)
        files.write(path, (before + text).encode())


def _read_config(path: Path) -> tuple[str, dict[str, Any], tuple[Sample, ...]]:
    content = json.loads(path.read_bytes())
    samples = tuple(Sample(**sample) for sample in content["samples"])
    return str(content["id"]), dict(content["config"]), samples
