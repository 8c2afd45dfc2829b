"""A single trial, run in this process without Ray, and what a trial has left in its folder.

``python -m trials CONFIG.yaml`` and :func:`trials.run` are the same run, by this module.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trials.config.trial_config import TrialConfig
from trials.dotted_paths import override, settings_of
from trials.errors import DamagedFile, TrialFailed, UserError, shown
from trials.methods.parsing import parse, parse_stored
from trials.networks.named_files import resolved
from trials.networks.stored import checkpoint, network, whole_masks
from trials.plugins.importing import admit_listed, holding
from trials.preparing import prepare
from trials.running.environment import other_code
from trials.running.stop_requests import stop_requests
from trials.running.trial import TrialHost
from trials.running.trial import run as run_trial
from trials.storage.config_file import read_config
from trials.storage.outages import STORAGE_PATIENCE_S, StoragePatience
from trials.storage.place import Place, place
from trials.storage.rows import TABLES, Row, Rows
from trials.storage.sweep_path import STAGES, sweep_path, trial_place
from trials.storage.trial_folder import State, TrialFolder
from trials.system.machine import usable_threads
from trials.system.user_path import user_path
from trials.yaml_text import as_yaml, read_yaml

_SHOWN = ("val_accuracy", "test_accuracy", "density", "cost", "epochs", "warnings")


@dataclass(frozen=True, eq=False)
class Trial:
    """What a trial had committed when it was run or loaded.

    Attributes:
        folder: where it lies, ``STORAGE/NAME/trials/ID``.
        config: its config, with every default.
        state: its ``state.json``.
        rows: by table (``epochs``, ``layers``, ``allocations``), its rows as dictionaries, in the order in which the
            trial wrote them; docs/tables.md documents the columns.
    """

    folder: Place
    config: TrialConfig
    state: State
    rows: Rows

    @property
    def id(self) -> str:
        """The trial's name: its method and a hash of its config."""
        return self.folder.name

    @property
    def status(self) -> str:
        """``complete``, ``pruned``, ``failed``, ``preempted`` or ``running``; ``scheduled`` before its first commit."""
        return self.state.status if self.state.attempt else "scheduled"

    @property
    def result(self) -> dict[str, Any]:
        """Accuracies in 0..1, density, FLOPs and more (``trials`` in docs/tables.md); empty until the trial ends."""
        return dict(self.state.result)

    @property
    def error(self) -> dict[str, str] | None:
        """``type``, ``message`` and ``traceback`` of the last attempt if it has failed, else None."""
        return None if self.state.error is None else dict(self.state.error)

    def network(self) -> nn.Module:
        """Return the network of the last commit, on the CPU, in evaluation mode.

        Its parameters are the effective weights: pruned ones are zero. It has the dense model's shapes unless the
        method cuts the network itself, as GReg does. ``python -m trials export`` writes other forms.

        Raises:
            UserError: the trial has committed no network.
        """
        for changed in other_code(self.config, self.state.computed_in):
            _warn(f"{self.id} was computed with other code than its network is built with now: {changed}")
        return network(self.folder)[1].model.eval()

    def masks(self) -> dict[str, Tensor]:
        """Return which weights are kept: bool, by parameter name, in the shapes of the dense model.

        Raises:
            UserError: the trial has committed no network.
        """
        return {name: mask.bool() for name, mask in whole_masks(self.folder, checkpoint(self.folder)).items()}

    def __repr__(self) -> str:
        return f"<Trial {self.id}: {self.status}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the trial and its main figures."""
        cells = {"trial": self.id, "status": self.status, **{key: self.result.get(key) for key in _SHOWN}}
        if self.error:
            cells["error"] = f"{self.error['type']}: {self.error['message']}"
        texts = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in cells.items()}
        lines = "".join(
            f"<tr><th>{key}</th><td>{escape(texts[key])}</td></tr>" for key, value in cells.items() if value is not None
        )
        return f"<table>{lines}</table>"


def load(folder: str | Place, *, plugins: Iterable[str] = ()) -> Trial:
    """Return what a trial has committed in its folder, ``STORAGE/SWEEP/trials/ID``; it may still be running.

    ``plugins``: your own code that its config names, which is imported only if it is listed here or was before.

    Raises:
        UserError: the folder holds no trial, or its files are damaged.
    """
    admit_listed({}, Path.cwd(), list(plugins))
    where = trial_place(folder)
    must = f"{str(folder)!r} must be the folder of a trial, as results/single/trials/bip-0123456789abcdef"
    try:
        config = parse_stored(read_config(where).config)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{must}, but has no config.json") from None
    except DamagedFile as damage:
        raise UserError(f"{must}, but {damage}") from None
    except OSError as error:
        raise UserError(f"{must}, but its config.json cannot be read ({error})") from None
    trial = TrialFolder(where)
    while True:
        state = _state_of(trial)
        try:
            rows: Rows = {table: [] for table in TABLES}
            if state is not None and state.commits:
                rows |= trial.rows(state.commits[-1])
            return Trial(where, config, State() if state is None else state, rows)
        except DamagedFile as damage:
            if _state_of(trial) == state:
                raise UserError(f"{damage}: run the trial again, it repairs what can be repaired") from None
            # the trial has committed meanwhile, and removed what was its last commit


def _state_of(trial: TrialFolder) -> State | None:
    try:
        return trial.state()
    except DamagedFile as damage:
        raise UserError(f"{damage}: run the trial again, it repairs what can be repaired") from None


def run(
    config: Mapping[str, Any] | TrialConfig | str | Path,
    folder: str | Place = "results/single",
    *,
    set: Mapping[str, Any] | Iterable[str] = (),
    plugins: Iterable[str] = (),
    threads: int | None = None,
    report: Callable[[Row], None] | None = None,
    storage_patience_s: float = STORAGE_PATIENCE_S,
) -> Trial:
    """Run one trial in this process, without Ray, and return it once it is complete: the run of ``python -m trials``.

    A complete trial is not run again; one that was stopped, was killed or has failed goes on from its last commit.
    >>> import trials
    >>> recipe = {"method": "one_shot", "density": 0.2, "dataset": "digits", "model": "tiny"}
    >>> trial = trials.run({**recipe, "pretrain": {"epochs": 2}, "finetune": {"epochs": 1}}, "runs/first")
    >>> trial.status, round(trial.result["density"], 2), trial.rows["epochs"][-1]["stage"]
    ('complete', 0.2, 'finetune')
    >>> trial.network().conv2.weight.shape
    torch.Size([32, 16, 3, 3])

    Args:
        config: the fields of one trial as YAML would give them, a YAML file, or a config.
        folder: STORAGE/NAME, no sweep's: the trial lies in ``folder/trials/ID``, the dense network that it starts from
            in ``STORAGE/stages``. :func:`sweeper.load` reads it too.
        set: changes of the config, ``{"prune.lr": 0.01}`` or ``["prune.lr=0.01"]``.
        plugins: your own code beside what the config lists.
        threads: CPU threads, by default torch's, at most the usable cores. Equal numbers give the same bits.
        report: called with every new row of the table ``epochs``, before it is committed.
        storage_patience_s: seconds for which the trial waits for a storage that errs.

    Raises:
        UserError: the trial cannot be run; nothing has been written.
        StorageError: the storage has erred for too long; what is committed is kept, and the same call continues it.
        TrialFailed: it has failed. The failure is committed.
        Superseded: another process has taken the trial over.
        KeyboardInterrupt: a signal such as Ctrl-C, SIGTERM or SIGUSR1, in the main thread. The trial commits before,
            and the same call continues it; a second signal does not wait for the step that runs.
    """
    where, threads = place(folder), _threads(threads)
    sweep = sweep_path(str(where.parent), where.name, "folder")
    found = config_of(config, settings_of(set), plugins)
    return _run_in(sweep, found, threads, report or (lambda _: None), require_patience(storage_patience_s))


def _run_in(
    sweep: Place, config: TrialConfig, threads: int, report: Callable[[Row], None], storage_patience_s: float
) -> Trial:
    with waiting(_warn, storage_patience_s):
        path = prepare(config, sweep, _warn, "another folder")
    waits: dict[str, Any] = {"warn": _warn, "storage_patience_s": storage_patience_s}
    with stop_requests(impatient=True) as asked, holding(config.plugins):
        host = TrialHost(sweep.parent / STAGES, report, lambda: bool(asked), threads, **waits)
        state = run_trial(config, path, host)
    _require_ended(config.id, state)
    return load(path)


def require_patience(seconds: object) -> float:
    """Return seconds to wait for a storage, checked.

    Raises:
        UserError: they are not.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise UserError(f"storage_patience_s is {shown(seconds)}, but must be seconds, at least 0: 600 is the default")
    return seconds


def waiting(note: Callable[[str], None], seconds: float) -> AbstractContextManager[None]:
    """Let checks before a trial wait for its storage, but not for what a person must mend; ``note`` gets a line."""
    return StoragePatience(lambda text, errs: note(text), limit_s=seconds, starting=True).active()


def _require_ended(trial_id: str, state: State) -> None:
    if state.status == "preempted":
        raise KeyboardInterrupt(f"{trial_id} was stopped; it is committed, and the same call continues it")
    if state.error:
        raise TrialFailed(f"{trial_id} failed: {state.error['type']}: {state.error['message']}", state.error)


def _threads(given: int | None) -> int:
    found = usable_threads() if given is None else given
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise UserError(f"threads is {shown(found)}, but must be a whole number of at least 1")
    return found


def config_of(
    config: Mapping[str, Any] | TrialConfig | str | Path, settings: Iterable[str] = (), plugins: Iterable[str] = ()
) -> TrialConfig:
    """Return the config of a trial from its fields, a YAML file, or another config; the files it names are hashed.

    Its plug-ins are admitted (:func:`trials.plugins.importing.admit_listed`), as are ``plugins`` beside them.

    Raises:
        UserError: it is no valid config; the message names the field.
    """
    folder = Path.cwd()
    if isinstance(config, TrialConfig):
        content: Any = config.model_dump(mode="json")
    elif isinstance(config, (str, Path)):
        path = user_path(config, "the config")
        content, folder = read_yaml(path), path.parent
    else:
        content = as_yaml(config)
    content = override(content, settings)
    return resolved(parse(admit_listed(content, folder, list(plugins)) if isinstance(content, dict) else content))


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)
