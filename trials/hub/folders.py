"""Write a model folder so that it appears whole, and only where it replaces nothing of anybody else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from trials.errors import UserError, listed
from trials.hub.layout import CARD_FILE, CONFIG_FILE, FOLDER_FILES, StoredFile, read_model_config
from trials.networks.formats import printable
from trials.storage import files
from trials.storage.leases.owner import new_token


def require_ours(to: Path) -> None:
    """Check that a model folder may be written: nothing is there, an empty folder, or one that we wrote.

    Raises:
        UserError: it holds other files, or a model card that was edited since.
    """
    must = f"--to is {str(to)!r}, but must be a folder that is new or empty"
    if re.match(r"(hf:|[A-Za-z][\w+-]+:/)", str(to)):  # Path makes s3:/ of s3://
        raise UserError(f"{must}, on this machine: write it, then upload it (hf upload OWNER/NAME FOLDER, docs/hub.md)")
    if not to.exists() and not to.is_symlink():
        return
    if not to.is_dir():
        raise UserError(f"{must}, and there is a file: give another name")
    there = sorted(path.name for path in to.iterdir())
    others = [printable(name) for name in there if name not in FOLDER_FILES]
    if others:
        raise UserError(f"{must}, and it has {listed(others, 3)}: give another one")
    if not there:
        return
    if CONFIG_FILE not in there:
        raise UserError(f"{must}, and it has {listed(there, 3)} without a {CONFIG_FILE} of ours: give another one")
    try:
        described = read_model_config((to / CONFIG_FILE).read_bytes(), CONFIG_FILE, "give another one")
    except (UserError, OSError) as error:
        raise UserError(f"{must}, and {error}") from None
    written = described.files.get(CARD_FILE)
    if CARD_FILE in there and written is not None and StoredFile.of((to / CARD_FILE).read_bytes()) != written:
        raise UserError(f"{must}, and its {CARD_FILE} was edited since it was written: move it, or give another folder")


def write_folder(to: Path, contents: Mapping[str, bytes], check: Callable[[Path], None]) -> None:
    """Write files into a folder beside ``to``, check it, and rename it to ``to``.

    A process that is killed leaves ``to`` as it was, or, between two renames, the old folder beside it.

    Args:
        check: called with the folder before it is renamed; what it raises stops the writing.

    Raises:
        UserError: ``to`` holds files of somebody else by now.
        OSError: it cannot be written.
    """
    files.make_folder(to.absolute().parent)
    to = to.resolve() if to.is_symlink() else to.absolute()
    files.remove_leftovers(to.parent, to.name)
    staged = files.temporary_of(to, new_token())
    try:
        files.make_folder(staged)
        for name, content in contents.items():
            files.write(staged / name, content)
        check(staged)
        require_ours(to)  # again: others may have written there meanwhile
        _replace(to, staged)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _replace(to: Path, staged: Path) -> None:
    """Rename a folder to ``to``; what is there, ours or empty, goes."""
    try:
        staged.rename(to)  # also onto an empty folder
    except OSError:
        if not to.is_dir() or not any(to.iterdir()):
            raise
        aside = to.with_name(f".{to.name}.{new_token()}.old")
        to.rename(aside)
        try:
            staged.rename(to)
        except OSError:
            aside.rename(to)
            raise
        shutil.rmtree(aside, ignore_errors=True)
