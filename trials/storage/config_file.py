"""``config.json``: the config of a trial or a shared trial, and the samples that asked for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trials.errors import DamagedFile, shown
from trials.frozen import SCHEMA
from trials.storage import files
from trials.storage.packed.reading import packed_config
from trials.storage.place import Place
from trials.storage.safe_read import read_plain, require_own_folder
from trials.storage.sealed import seal, unseal
from trials.storage.sweep_path import STAGES, has_fixed_name

CONFIG = "config.json"

_OLDER = frozenset({"schema", "id", "config", "samples", "revisions"})

_ID = r"(?!\.)[\w.=+-]+-[0-9a-f]{12}"
TRIAL_NAME = re.compile(_ID)
"""Names of trials, which are names of folders: the method's, and a hash of the content."""

_SHARED_SUFFIX = re.compile(r"-[\w.]{1,6}(-[a-z]+[0-9]*)?")
"""What follows the id in the name of a shared trial's folder (see trials/running/shared_trials.py)."""


class OtherTrial(DamagedFile):
    """A trial's folder lies under a name that is not the trial's, as a copy does."""


@dataclass(frozen=True)
class ConfigFile:
    """What ``config.json`` holds, as JSON.

    Attributes:
        id: name of the trial.
        config: its fields.
        samples: what asked for it, each a mapping; of a shared trial, and of one that no sweep has asked for, none.
        revisions: revisions other than 1 of what computes it, by part (:mod:`trials.config.revisions`).
    """

    id: str
    config: dict[str, Any]
    samples: list[dict[str, Any]]
    revisions: dict[str, int] = field(default_factory=dict)


def read_config(folder: Place) -> ConfigFile:
    """Read the ``config.json`` in the folder of a trial, or the packed one, without parsing the config.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        OtherTrial: it is of a trial that does not belong into a folder of this name.
        DamagedFile: it is damaged.
        OSError: the storage does not give it.
    """
    require_own_folder(folder)
    try:
        text = read_plain(folder / CONFIG)
    except (FileNotFoundError, NotADirectoryError):
        packed = packed_config(folder)
        if packed is None:
            raise
        text = packed
    return config_in(text, folder)


def config_in(text: bytes, folder: Place) -> ConfigFile:
    """What the ``config.json`` of a folder says. Raises OtherTrial or DamagedFile as :func:`read_config` does."""
    path = folder / CONFIG
    content, sealed = unseal(text, path, _OLDER)
    if not sealed:
        content = {"id": folder.name, "samples": [], **content}
    try:
        found = _checked(content)
    except (ValueError, TypeError) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from None
    if not may_be_of(found.id, folder):
        raise OtherTrial(f"{folder} holds a copy of the trial {shown(found.id)}, whose folder has another name")
    return found


def _checked(content: Mapping[str, Any]) -> ConfigFile:
    config, samples, revisions = content.get("config"), content.get("samples"), content.get("revisions", {})
    if not isinstance(content.get("id"), str):
        raise TypeError(f"id is {shown(content.get('id'))}")
    if not isinstance(config, dict):
        raise TypeError(f"config is {shown(config)}, but must be a mapping")
    if not isinstance(config.get("file_hashes") or {}, dict):
        raise TypeError(f"config.file_hashes is {shown(config['file_hashes'])}, but must be a mapping")
    _require_segments(config)
    if not isinstance(samples, list) or not all(isinstance(sample, dict) for sample in samples):
        raise ValueError(f"samples is {shown(samples)}, but must be a list of mappings")
    if not isinstance(revisions, dict) or not all(type(number) is int for number in revisions.values()):
        raise ValueError(f"revisions is {shown(revisions)}, but must be a mapping of numbers")
    return ConfigFile(content["id"], config, samples, revisions)


def _require_segments(config: Mapping[str, Any]) -> None:
    lineage = config.get("lineage") or []
    if not isinstance(lineage, list) or not all(isinstance(segment, dict) for segment in lineage):
        raise ValueError(f"config.lineage is {shown(lineage)}, but must be a list of mappings")
    for part in lineage:
        if not _is_epoch(part.get("until_epoch")):
            raise ValueError(f"until_epoch in config.lineage is {shown(part.get('until_epoch'))}, but must be an epoch")
    if (end := config.get("until_epoch")) is not None and not _is_epoch(end):
        raise ValueError(f"config.until_epoch is {shown(end)}, but must be an epoch")


def _is_epoch(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**63


def may_be_of(trial_id: str, folder: Place) -> bool:
    """Whether a trial may lie in a folder: of its own name or, of a shared trial, of its name and what follows it."""
    if not has_fixed_name(folder):
        return True
    if folder.parent.name == STAGES and folder.name.startswith(trial_id):
        return _SHARED_SUFFIX.fullmatch(folder.name, len(trial_id)) is not None
    return folder.name == trial_id


def write_config(
    folder: Place,
    trial_id: str,
    config: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]] = (),
    revisions: Mapping[str, int] | None = None,
) -> None:
    """Write the ``config.json`` of a trial into its folder, which is made. ``revisions`` are those other than 1."""
    content = {"schema": SCHEMA, "id": trial_id, "config": config, "samples": list(samples)}
    if revisions:
        content["revisions"] = dict(revisions)
    require_own_folder(folder)
    files.make_folder(folder)
    files.write(folder / CONFIG, seal(content))
