"""A single trial's folder, made ready: what it needs is checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from trials.called import sweep_command
from trials.config.stored_content import ABSENT, differing_fields
from trials.config.trial_config import TrialConfig
from trials.data import require_data
from trials.errors import DamagedFile, UserError, shown
from trials.methods.preconditions import require_runnable
from trials.running.environment import other_code
from trials.running.shared_trials import refuse_other_content, shared_by
from trials.storage import files
from trials.storage.config_file import CONFIG, read_config, write_config
from trials.storage.data_used import DataUsed, data_used_in, refuse_other_data
from trials.storage.leases.lease_store import require_locks
from trials.storage.outages import errs, refused_at_start
from trials.storage.place import Place
from trials.storage.safe_read import require_own_folder
from trials.storage.sweep_path import STAGES
from trials.storage.trial_folder import TrialFolder
from trials.training.device import require_known, resolve_device


def prepare(config: TrialConfig, sweep: Place, note: Callable[[str], None], other: str = "another --name") -> Place:
    """Check that a trial can run here, write its ``config.json`` and return its folder.

    Args:
        sweep: the folder ``STORAGE/NAME`` to put it in.
        note: called with what a user should know of the data.
        other: what a message asks for if this folder cannot be used.

    Raises:
        UserError: the trial cannot run, its data are absent or others than those that the trials in ``sweep`` have
            used, a shared trial that it needs has another content, or the folder is a sweep's or cannot be written.
    """
    with refused_at_start(sweep.parent):
        if (sweep / "sweep.yaml").exists():
            raise UserError(f"{sweep} is the folder of a sweep, which {sweep_command()} runs: give {other}")
        _check_before(config, sweep, note, other)
    folder = sweep / "trials" / config.id
    try:
        for inside in (folder.parent, folder):
            require_own_folder(inside)
    except DamagedFile as damage:
        raise UserError(f"{damage}: remove it, or give {other}") from None
    try:
        files.require_writable(folder)
        if shared_by(config):
            require_locks(sweep.parent / STAGES)
        _write_config(folder, config, other, note)
    except OSError as error:
        there = str(sweep.parent)
        raise UserError(f"storage is {there!r}, but must be writable ({error}): give another --storage") from None
    with suppress(DamagedFile):  # which the run repairs
        state = TrialFolder(folder).state()
        for changed in other_code(config, state.computed_in if state else ()):
            note(f"{config.id} goes on with other code: {changed}")
    return folder


def _check_before(config: TrialConfig, sweep: Place, note: Callable[[str], None], other: str) -> None:
    resolve_device(config.device)
    require_known(config.device)
    header = require_data(*config.data_key)
    for line in header.notes:
        note(line)
    require_runnable(config, header)
    now = [DataUsed.of(config.model_dump(mode="json"), str(header.fingerprint))]
    way_out = f"set data_dir to the data that it used, or give {other}"
    refuse_other_data(sweep.name, data_used_in(sweep / "trials"), now, way_out)
    refuse_other_content(sweep.parent / STAGES, shared_by(config).values(), str(header.fingerprint))


def _write_config(folder: Place, config: TrialConfig, other: str, note: Callable[[str], None]) -> None:
    """Write the trial's ``config.json``.

    Raises:
        UserError: there is one of this name that a sweep asked for, or with another content, since a default has
            changed.
    """
    try:
        content = read_config(folder)
        differing, samples = differing_fields(content.config, config), content.samples
        found = next((field for field in differing if field[0] not in config.file_hashes), None)  # its hash is named
    except FileNotFoundError:
        found, samples = None, []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DamagedFile) as error:
        if errs(error):
            raise
        found, samples = None, []
        note(f"{folder / CONFIG} is written anew ({error})")
    if samples:
        raise UserError(f"{folder} holds a trial that a sweep asked for, which {sweep_command()} runs: give {other}")
    if found is not None:
        path, before, now = found
        raise UserError(
            f"{path} is {shown(now)}, but {config.id} was made with {'none' if before is ABSENT else shown(before)}: "
            f"the default has changed, or {folder / 'config.json'} was changed by hand: give {other}"
        )
    write_config(folder, config.id, config.model_dump(mode="json"), revisions=config.revisions)
