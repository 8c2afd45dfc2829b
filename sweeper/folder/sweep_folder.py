"""A sweep's folder: which trials there are, what they serve, and how they stand. The driver's view of the rows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import yaml

from trials.errors import DamagedFile, UserError
from trials.frozen import SCHEMA
from trials.storage import files
from trials.storage.place import ObjectPath, Place, each
from trials.storage.trial_folder import State, TrialFolder

if TYPE_CHECKING:
    from trials.config.trial_config import TrialConfig

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader, in C where it was built so: a space may have ten thousand cells."""


@dataclass(frozen=True)
class Sample:
    """One point that a cell's study asked for: the ``number``-th of its cell.

    Attributes:
        cell: the cell's key.
        grid: the cell's grid values, by dotted path.
        params: the searched hyperparameters, by dotted path.
        attrs: what sampler and pruner left on the study's trial, and the sampler on the study, as JSON.
        stopped: the step at which the pruner stopped it; the decision stands, whatever dies before it is carried out.
    """

    cell: str
    number: int
    grid: dict[str, Any]
    params: dict[str, Any]
    attrs: dict[str, Any]
    stopped: int | None = None


@dataclass(frozen=True)
class StoredConfig:
    """A trial's config as JSON holds it (``content``), parsed when it is first asked for, and once."""

    content: dict[str, Any]

    @classmethod
    def of(cls, config: TrialConfig) -> StoredConfig:
        """What :meth:`TrialConfig.model_dump` gives, beside the config itself."""
        stored = cls(config.model_dump(mode="json"))
        stored.__dict__["typed"] = config
        return stored

    @cached_property
    def typed(self) -> TrialConfig:
        from trials.methods.parsing import parse  # imports torch: not for reports

        return parse(self.content)


@dataclass(frozen=True)
class Record:
    """One trial of a sweep. Several samples may ask for the same config: it runs once and serves them all.

    Attributes:
        stored: its config.
        state: how it stands by its last commit; None before its first.
    """

    id: str
    stored: StoredConfig
    samples: tuple[Sample, ...]
    folder: TrialFolder
    state: State | None

    @property
    def config(self) -> TrialConfig:
        """The typed config. Raises UserError where another version wrote one that this version does not know."""
        return self.stored.typed

    @property
    def content(self) -> dict[str, Any]:
        """The config as its folder holds it."""
        return self.stored.content

    @property
    def finished(self) -> bool:
        return self.state is not None and self.state.finished


class SweepFolder:
    """``<storage>/<sweep>/``."""

    def __init__(self, path: Place) -> None:
        self.path = path
        self.trials = path / "trials"
        self.tables = path / "tables"
        self.stages = path.parent / "stages"
        self.stop = path / "stop"

    def trial_folder(self, trial_id: str) -> Place:
        return self.trials / trial_id

    def schedule(self, trial_id: str, config: Mapping[str, Any], samples: tuple[Sample, ...]) -> None:
        """Commit that a trial is wanted, before it is handed out."""
        content = {"schema": SCHEMA, "id": trial_id, "config": config, "samples": [asdict(s) for s in samples]}
        folder = self.trial_folder(trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "config.json", json.dumps(content, indent=1).encode())

    def drop_checkpoints(self, trial_id: str) -> None:
        """Delete a finished trial's checkpoints, when nobody will continue from them. What is committed of it stays;
        should a row file be damaged later, the trial is computed again."""
        folder = self.trial_folder(trial_id) / "checkpoint"
        for name in files.names(folder):
            if name.endswith(".pt"):
                (folder / name).unlink(missing_ok=True)

    def records(self) -> list[Record]:
        """Every trial that was ever scheduled, by name; damaged configs and states are left out or None."""
        found = each(self._record, files.names(self.trials), self.path)
        return [record for record in found if record is not None]

    def _record(self, name: str) -> Record | None:
        folder = TrialFolder(self.trials / name)
        try:
            trial_id, config, samples = _read_config(folder.path / "config.json")
        except (OSError, ValueError, KeyError, TypeError):
            return None
        try:
            state = folder.state()
        except DamagedFile:
            state = None
        return Record(trial_id, StoredConfig(config), samples, folder, state)

    def repair(self, *, checkpoints: bool = False) -> list[str]:
        """Set damaged files of trials that nobody runs aside, repair what can be; a line for each.

        Checkpoints, which are large, are verified when they are used, or if asked for.

        For the one driver of the sweep, before it hands anything out.
        """
        found = each(lambda name: self._repair(name, checkpoints), files.names(self.trials), self.path)
        return [line for lines in found for line in lines]

    def _repair(self, name: str, checkpoints: bool) -> list[str]:
        config = self.trials / name / "config.json"
        try:
            _read_config(config)
        except OSError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            return [f"{config} is damaged ({error}); set aside as {files.set_aside(config).name}"]
        return TrialFolder(self.trials / name).verify(checkpoint=checkpoints)

    def forgive(self) -> int:
        """Trials that were given up, and shared stages, may fail again as often as if they never had; how many trials.

        For the one driver of the sweep, before it hands anything out.
        """
        for name in files.names(self.stages):
            _forgive(TrialFolder(self.stages / name))
        return sum(_forgive(TrialFolder(self.trials / name)) for name in files.names(self.trials))

    def stamps(self) -> dict[str, Stamp]:
        """By trial, what changes whenever its config or state is committed."""
        if isinstance(self.trials, ObjectPath):
            found = self.trials.stamps()
            names = sorted({name.partition("/")[0] for name in found})
            return {name: [x for file in _STAMPED for x in found.get(f"{name}/{file}", (0, 0))] for name in names}
        return {name: _stamp(f"{self.trials}/{name}") for name in files.names(self.trials)}

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
            return [document for document in yaml.load_all(text, _LOADER) if document]
        except yaml.YAMLError as error:
            raise UserError(
                f"{self.path / 'sweep.yaml'} is damaged ({' '.join(str(error).split())}): restore it, or move it away; "
                "the trials are kept and the next run writes it anew"
            ) from None

    def space_document(self) -> dict[str, Any] | None:
        """The space as its last change left it, which ``sweep.yaml`` holds; None where there is no such file.

        Raises:
            UserError: the file is damaged, or holds no space.
        """
        documents = self.documents()
        if not documents:
            return None
        space = documents[-1].get("space") if isinstance(documents[-1], dict) else None
        if not isinstance(space, dict):
            raise UserError(f"{self.path / 'sweep.yaml'} has no space: it was changed by hand; restore it")
        return space

    def append(self, document: Mapping[str, Any]) -> None:
        """Add a document to ``sweep.yaml``."""
        path = self.path / "sweep.yaml"
        before = path.read_text() if path.exists() else ""
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(document), sort_keys=False, explicit_start=True, width=120)
        files.write(path, (before + text).encode())


def is_stopped(folder: Place, step: int) -> bool:
    """Whether the driver has decided that the trial in ``folder`` ends at this step. For the trial's process."""
    try:
        _, _, samples = _read_config(folder / "config.json")
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return any(sample.stopped is not None and step >= sample.stopped for sample in samples)


def _forgive(folder: TrialFolder) -> bool:
    try:
        state = folder.state()
    except DamagedFile:
        return False
    if state is None or state.status != "failed":
        return False
    folder.write_state(replace(state, status="preempted", failures=0, error=None))
    return True


Stamp = list[int]

_STAMPED = ("config.json", "state.json")


def _stamp(folder: str) -> Stamp:
    stamp = []
    for name in _STAMPED:
        try:
            found = os.stat(f"{folder}/{name}")  # noqa: PTH116  # of ten thousand folders: a Path costs more than this
            stamp += [found.st_mtime_ns, found.st_size]
        except OSError:
            stamp += [0, 0]
    return stamp


def _read_config(path: Place) -> tuple[str, dict[str, Any], tuple[Sample, ...]]:
    content = json.loads(path.read_bytes())
    samples = tuple(Sample(**sample) for sample in content["samples"])
    return str(content["id"]), dict(content["config"]), samples
