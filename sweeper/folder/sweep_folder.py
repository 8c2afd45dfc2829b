"""A sweep's folder: its trials with their samples and committed states, and its space in ``sweep.yaml``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sweeper.folder.forgiving import followed_failures, forgive_trial, member
from sweeper.folder.sample_types import require_types
from sweeper.folder.stamps import Stamp, stamps_in
from sweeper.folder.sweep_file import SWEEP_FILE, append_document, read_documents
from trials.errors import DamagedFile, UserError
from trials.storage import files
from trials.storage.config_file import CONFIG, TRIAL_NAME, OtherTrial, read_config, write_config
from trials.storage.data_used import DataUsed, read_used
from trials.storage.outages import errs
from trials.storage.packed.reading import part_by_part, trial_names
from trials.storage.place import ObjectPath, Place, R, as_stored, each
from trials.storage.safe_read import require_own_folder
from trials.storage.sweep_path import STAGES
from trials.storage.trial_folder import State, TrialFolder
from trials.storage.trial_state import CHECKPOINT_NAME

if TYPE_CHECKING:
    from trials.config.trial_config import TrialConfig


@dataclass(frozen=True)
class Sample:
    """One point that a cell's search asked for.

    Attributes:
        cell: the cell's key.
        number: number of the sample in its cell, from 0.
        grid: the cell's grid values, by dotted path.
        params: the searched hyperparameters, by dotted path.
        attrs: attributes that sampler and pruner left on Optuna's trial and study, as JSON.
        stopped: step at which the pruner stopped the trial; committed here before it is carried out.
    """

    cell: str
    number: int
    grid: dict[str, Any]
    params: dict[str, Any]
    attrs: dict[str, Any]
    stopped: int | None = None

    def __post_init__(self) -> None:
        mappings = {"grid": self.grid, "params": self.params, "attrs": self.attrs}
        require_types(self.cell, self.number, self.stopped, mappings)


@dataclass(frozen=True)
class StoredConfig:
    """A trial's config as JSON (``content``), parsed on first use, and the revisions that it was made with.

    Attributes:
        revisions: revisions other than 1 of what computes it, by part (:mod:`trials.config.revisions`).
    """

    content: dict[str, Any]
    revisions: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, config: TrialConfig) -> StoredConfig:
        """Store ``config`` as JSON, keeping the parsed config too."""
        stored = cls(config.model_dump(mode="json"), config.revisions)
        stored.__dict__["typed"] = config
        return stored

    def share(self, config: TrialConfig) -> None:
        """Take ``config``, parsed elsewhere in this process, instead of parsing ``content``, if it says the same.

        Configs of equal ids need not: where a trial runs is no part of its id, and its folder decides that.
        """
        if config.model_dump(mode="json") == self.content:
            self.__dict__["typed"] = config

    @cached_property
    def typed(self) -> TrialConfig:
        """The parsed config."""
        from trials.methods.parsing import parse_stored  # imports torch: not for reports

        return parse_stored(self.content)


@dataclass(frozen=True)
class Record:
    """A sweep's entry for one trial. Samples that ask for the same config share one trial, which runs once.

    Attributes:
        id: name of the trial, derived from its config.
        stored: config of the trial.
        samples: the samples that asked for it.
        state: state as of the last commit; None before the first, or if the file is damaged.
    """

    id: str
    stored: StoredConfig
    samples: tuple[Sample, ...]
    folder: TrialFolder
    state: State | None

    @property
    def config(self) -> TrialConfig:
        """The parsed config.

        Raises:
            UserError: another version wrote it and this version cannot read it.
        """
        return self.stored.typed

    @property
    def content(self) -> dict[str, Any]:
        """The config as JSON."""
        return self.stored.content

    @property
    def finished(self) -> bool:
        """Whether the last committed state is final."""
        return self.state is not None and self.state.finished


class SweepFolder:
    """The folder ``<storage>/<sweep>/``.

    Attributes:
        trials: folder of the trials, one folder each.
        tables: folder of the merged tables.
        stages: folder of the storage's shared trials.
        stop: file that asks the sweep to stop.
    """

    def __init__(self, path: Place) -> None:
        self.path = path = as_stored(path)
        self.trials = path / "trials"
        self.tables = path / "tables"
        self.stages = path.parent / STAGES
        self.stop = path / "stop"

    def trial_folder(self, trial_id: str) -> Place:
        """Return the path of a trial's folder."""
        return self.trials / trial_id

    def schedule(
        self,
        trial_id: str,
        config: Mapping[str, Any],
        samples: tuple[Sample, ...],
        revisions: Mapping[str, int] | None = None,
    ) -> None:
        """Write a trial's config and samples, before the trial is assigned to a worker.

        ``revisions`` are those other than 1.
        """
        write_config(self.trial_folder(trial_id), trial_id, config, [asdict(sample) for sample in samples], revisions)

    def drop_checkpoints(self, trial_id: str) -> None:
        """Delete a finished trial's checkpoints, which none will continue; if its rows get damaged, it runs again."""
        folder = self.trial_folder(trial_id) / "checkpoint"
        require_own_folder(folder)
        for name in filter(CHECKPOINT_NAME.fullmatch, files.names(folder)):  # others are somebody's
            (folder / name).unlink(missing_ok=True)

    def records(self, damaged: Callable[[str], object] = lambda line: None) -> list[Record]:
        """Return the records of all scheduled trials by name, without damaged configs and copies under other names.

        Args:
            damaged: is given a line for each damaged config or state, and each such copy.

        Raises:
            OSError: the storage errs (:mod:`trials.storage.outages`).
        """
        return self.each_record(lambda record: record, damaged)

    def each_record(self, use: Callable[[Record], R], damaged: Callable[[str], object] = lambda line: None) -> list[R]:
        """What ``use`` makes of each of :meth:`records`, in several threads if these lie in an object store."""

        def used(name: str) -> list[tuple[str, R]]:
            record = self._record(name, damaged)
            return [] if record is None else [(name, use(record))]

        self._names()
        found = chain.from_iterable(each(used, part_by_part(self.trials, trial_names(self.trials)), self.path))
        return [made for _, made in sorted(found, key=itemgetter(0))]

    def _names(self) -> list[str]:
        """Names in the folder of the trials.

        Raises:
            UserError: it is a link, or no folder.
        """
        try:
            require_own_folder(self.trials)
        except DamagedFile as damage:
            raise UserError(f"{damage}: move it away, or give another --name") from None
        return files.names(self.trials)

    def _record(self, name: str, damaged: Callable[[str], object]) -> Record | None:
        folder = TrialFolder(self.trials / name)
        try:
            trial_id, stored, samples = _read(folder.path)
        except (OSError, DamagedFile) as error:
            if errs(error):
                raise
            if isinstance(error, DamagedFile) and TRIAL_NAME.fullmatch(name):
                damaged(str(error))
            return None
        try:
            state = folder.state()
        except DamagedFile as damage:
            damaged(str(damage))
            state = None
        return Record(trial_id, stored, samples, folder, state)

    def repair(self, *, checkpoints: bool = False) -> list[str]:
        """Set damaged files aside and repair those that can be repaired; return a line for each.

        For the sweep's driver only, before it assigns trials, while no trial runs.

        Args:
            checkpoints: verify checkpoints too. They are large, and are always verified when they are used.
        """
        found = each(lambda name: self._repair(name, checkpoints), self._names(), self.path)
        return list(chain.from_iterable(found))

    def _repair(self, name: str, checkpoints: bool) -> list[str]:
        path = self.trials / name
        folder = TrialFolder(path)
        try:
            require_own_folder(path)
        except DamagedFile as damage:
            return [folder.put_away(damage, path)] if TRIAL_NAME.fullmatch(name) else []
        strange = folder.put_away_strangers()
        try:
            _, stored, _ = _read(path)
        except OtherTrial as copy:
            return [*strange, f"{copy}: left out"]
        except DamagedFile as damage:
            return [*strange, folder.put_away(damage, path / CONFIG)]
        except OSError as error:
            if errs(error):
                raise
            return strange
        dropped = stored.content.get("until_epoch") is not None and not files.names(path / "checkpoint")
        return [*strange, *folder.verify(checkpoint=checkpoints and not dropped)]

    def forgive(self) -> int:
        """Reset failed trials and failed shared trials, so that they run again with a full number of retries.

        Members of a population that goes on without them stay failed (:func:`.forgiving.followed_failures`). For the
        sweep's driver only, before it assigns trials. Returns the number of trials reset, without shared trials.
        """
        for name in files.names(self.stages):
            forgive_trial(TrialFolder(self.stages / name))
        kept = followed_failures(chain.from_iterable(self.each_record(member)))
        return sum(forgive_trial(TrialFolder(self.trials / n)) for n in self._names() if n not in kept)

    def stamps(self) -> dict[str, Stamp]:
        """Return a stamp per trial that changes whenever its config or state is written."""
        if not isinstance(self.trials, ObjectPath):
            self._names()
        return stamps_in(self.trials)

    def documents(self) -> list[dict[str, Any]]:
        """Return the documents of ``sweep.yaml``, one per change of the sweep, oldest first; empty for a new sweep.

        Raises:
            UserError: the file cannot be read or is damaged.
        """
        return read_documents(self.path / SWEEP_FILE)

    def space_document(self) -> dict[str, Any] | None:
        """Return the space as of its last change in ``sweep.yaml``; None if there is no such file.

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

    def data(self) -> list[DataUsed]:
        """The data that the sweep was run on, as of its last change; empty if an older version wrote it. Raises
        UserError if ``sweep.yaml`` is damaged."""
        last = next(reversed(self.documents()), None)
        found = (last.get("data") if isinstance(last, dict) else None) or []
        return read_used(found, str(self.path / "sweep.yaml"))

    def append(self, document: Mapping[str, Any]) -> None:
        """Add a document to ``sweep.yaml``; raises UserError if the file is damaged."""
        files.make_folder(self.path)
        append_document(self.path / SWEEP_FILE, document)


def is_stopped(folder: Place, step: int) -> bool:
    """Whether the driver has stopped the trial in ``folder`` at this step or earlier. For the trial's process."""
    try:
        _, _, samples = _read(folder)
    except (OSError, DamagedFile):
        return False
    return any(sample.stopped is not None and step >= sample.stopped for sample in samples)


def _read(folder: Place) -> tuple[str, StoredConfig, tuple[Sample, ...]]:
    content = read_config(folder)
    return content.id, StoredConfig(content.config, content.revisions), read_samples(content.samples, folder)


def read_samples(samples: Iterable[Mapping[str, Any]], folder: Place) -> tuple[Sample, ...]:
    """Return the samples in the ``config.json`` of a folder; raises DamagedFile if they are none."""
    try:
        return tuple(Sample(**sample) for sample in samples)
    except (TypeError, ValueError, AttributeError) as error:
        raise DamagedFile(f"{folder / CONFIG} is damaged: {error}") from None
