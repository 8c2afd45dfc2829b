"""Files and folders that a config names: made absolute, read and hashed before a trial, and compared when it runs.

A trial's name holds the hash of a file's content in place of its path, so that another content is another trial and an
equal content elsewhere is the same one.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TypeVar

from trials.config.source_config import HasSource
from trials.config.trial_config import TrialConfig
from trials.errors import DamagedFile, UserError
from trials.networks.content import content_digest, digest_of_file, read_file, reason_of
from trials.networks.formats import Weights, printable, read_weights
from trials.networks.library_weights import weights_file
from trials.storage.place import Place
from trials.storage.read_once import SOURCES
from trials.storage.sweep_path import trial_place
from trials.storage.trial_folder import TrialFolder
from trials.storage.trial_state import DROPPED

__all__ = [
    "Known",
    "Place",
    "digest_of_file",
    "library_file",
    "named",
    "place_named",
    "read_file",
    "read_weights_file",
    "relocated",
    "require_unchanged",
    "resolved",
    "weights_and_digest",
]

_Config = TypeVar("_Config", bound=TrialConfig)

Known = MutableMapping[tuple[str, str], tuple[str, str]]
"""Absolute path and hash, by kind of file and path as given: what a space has found, so that it reads a file once."""


def resolved(config: _Config, known: Known | None = None) -> _Config:
    """Return the config with absolute paths of the files that it names, and the hashes of their content.

    Args:
        known: what has been found before; new files are added. A file in it is not read again.

    Raises:
        UserError: a file cannot be read, a folder holds no finished trial, or the content is not the one that the
            config's ``file_hashes`` say.
    """
    known = {} if known is None else known
    paths, hashes = {}, {}
    for field, given in config.files_given().items():
        if _of_library(config, field):
            key = (given, config.model)
            if key not in known:
                known[key] = (given, digest_of_file(weights_file(config.model), f"{field} is {given!r}"))
        elif (key := (config.named_files[field], given)) not in known:
            where = place_named(field, given)
            known[key] = (str(where), _digest(config, field, where))
        paths[field], hashes[field] = known[key]
        _compare(field, given, config.file_hashes.get(field), hashes[field])
    return config.model_copy(update={**paths, "file_hashes": hashes}) if paths else config


def _of_library(config: TrialConfig, field: str) -> bool:
    return field == "source_net" and isinstance(config, HasSource) and config.from_library


def library_file(config: HasSource) -> Path:
    """Return the file of the weights that a library has for a config's model, downloaded where it is missing.

    Raises:
        UserError: it cannot be had, or has another content than when the trial was named.
    """
    file = weights_file(config.model)
    what = f"source_net is {config.source_net!r}"
    _compare("source_net", str(config.source_net), config.file_hashes.get("source_net"), digest_of_file(file, what))
    return file


def relocated(config: _Config, now: TrialConfig) -> _Config:
    """Return the config with the paths that ``now`` has for files of the same content.

    Files of a config that was stored before files were hashed count as the same.
    """
    paths = {
        field: getattr(now, field)
        for field in config.files_given()
        if field in now.file_hashes and config.file_hashes.get(field) in (None, now.file_hashes[field])
    }
    return config.model_copy(update=paths) if paths else config


def require_unchanged(config: TrialConfig, field: str) -> Place:
    """Return the place that a field names, after comparing its content with the config's hash, if it has one.

    Raises:
        UserError: the content is another one, or cannot be read.
    """
    given = getattr(config, field)
    where = place_named(field, given)
    _compare(field, given, config.file_hashes.get(field), _digest(config, field, where))
    return where


def read_weights_file(field: str, given: str, digest: str | None) -> tuple[Weights, str]:
    """Return what the file of weights that a field names holds, and how messages on it begin.

    A file that does not change is read once per process.

    Raises:
        UserError: the content has another hash than ``digest``, cannot be read, or is no checkpoint of tensors.
    """
    where = place_named(field, given)
    what = named(field, given, where)
    weights, _ = weights_and_digest(where, what, lambda found: _compare(field, given, digest, found))
    return weights, what


def weights_and_digest(
    where: Place, what: str, check: Callable[[str], None] = lambda digest: None
) -> tuple[Weights, str]:
    """Return what a file of weights holds, and the first 16 hex digits of its SHA-256.

    ``check`` is called with the hash before a content is interpreted. A file that does not change is read once per
    process, unless ``check`` refuses the content that is kept. Raises UserError as ``check``, :func:`read_file` and
    :func:`trials.networks.formats.read_weights` do.
    """

    def read() -> tuple[Weights, str]:
        content = read_file(where, what)
        digest = content_digest(content)
        check(digest)
        return read_weights(content, what), digest

    def fits(kept: tuple[Weights, str]) -> bool:
        try:
            check(kept[1])
        except UserError:
            return False
        return True

    return SOURCES.get("weights", [where], read, fits)


def named(field: str, given: str, where: Place) -> str:
    """The beginning of a message on a file: the field, the path as given and, if it is another text, as absolute."""
    return f"{field} is {given!r}{'' if str(where) == given else f' ({printable(where)})'}"


def place_named(field: str, given: str) -> Place:
    """Return the absolute place of a path in a config; raises UserError if it is no path."""
    if "\0" in given:
        raise UserError(f"{field} is {given!r}, but must be a path, which has no null character")
    try:
        return trial_place(given)
    except (UserError, RuntimeError) as error:  # RuntimeError: there is no such user as in ~user
        raise UserError(f"{field} is {given!r}, but must be a path or s3://BUCKET/NAME ({error})") from None


def _digest(config: TrialConfig, field: str, where: Place) -> str:
    what = named(field, getattr(config, field), where)
    return _digest_of_trial(where, what) if config.named_files[field] == "trial" else digest_of_file(where, what)


def _digest_of_trial(folder: Place, what: str) -> str:
    """Hash of a finished trial's last checkpoint."""
    must = f"{what}, but must be the folder of a finished trial"
    try:
        trial = TrialFolder(folder)
        state = trial.state()
        if state is None or state.status != "complete":
            there = "none" if state is None else f"one that is {state.status}"
            raise UserError(f"{must}, and there is {there}: give STORAGE/SWEEP/trials/ID of a complete one")
        last = state.commits[-1].checkpoint if state.commits else None
        if last is None:
            reason = DROPPED if state.is_without_checkpoint else "that one has no checkpoint: run it again"
            raise UserError(f"{must} with its network, and {reason}")
        return SOURCES.get(
            "hash", [folder / "checkpoint" / last], lambda: content_digest(trial.read("checkpoint", last))
        )
    except DamagedFile as damage:
        raise UserError(f"{what}, but cannot be read: {damage}; run that trial again, it repairs what it can") from None
    except OSError as error:
        raise UserError(f"{must}, and cannot be read ({reason_of(error)}): give the path of one") from None


def _compare(field: str, given: str, then: str | None, now: str) -> None:
    if then is not None and then != now:
        raise UserError(
            f"{field} is {given!r}, whose content has hash {now}, but the trial is of content with hash {then}: "
            "restore that file, or start again under another --name, as a trial of the new content"
        )
