"""Models of the Hugging Face Hub by their addresses, ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trials.errors import UserError, one_line
from trials.hub.layout import FOLDER_FILES
from trials.optional import DISTRIBUTION, require
from trials.version import __version__

HUB_PREFIX = "hf:"
_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@(.+))?", re.ASCII)


def downloaded(address: str) -> Path:
    """Return the folder of a model of the Hub, from the cache of ``huggingface_hub`` or by a download.

    Only the four files that ``export --form hub`` writes are fetched.

    Raises:
        UserError: the address is none, ``huggingface_hub`` is not installed, or the model cannot be had.
    """
    found = _NAME.fullmatch(address.removeprefix(HUB_PREFIX))
    if found is None or ".." in found[1] or not (found[2] or "x").isprintable():
        raise UserError(f"{one_line(repr(address))} must be hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    repository, revision = found[1], found[2]
    needs = f"load_pretrained({address!r})"
    hub, errors = (require(name, "hub", needs) for name in ("huggingface_hub", "huggingface_hub.errors"))
    try:
        where: str = hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(FOLDER_FILES),
            library_name=DISTRIBUTION,
            library_version=__version__,
        )
    except Exception as error:  # noqa: BLE001  of requests, of the file system and of the Hub; none may be a traceback
        raise UserError(f"{address} {_why(errors, error, revision)}") from None
    return Path(where)


def _why(errors: Any, error: Exception, revision: str | None) -> str:
    """The rest of the message: the rule that was broken, and the way out."""
    if isinstance(error, errors.GatedRepoError):
        return "is gated, and you have no access: ask for it on its page, then log in (hf auth login)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "is not on the Hub, or not public: check the name, or log in (hf auth login)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision}: give a branch, a tag or a commit of it, or none for the newest"
    said = one_line(" ".join(str(error).split())[:200]) or type(error).__name__
    if isinstance(error, errors.HFValidationError):
        return f"is no name of the Hub ({said}): give hf:OWNER/NAME"
    return (
        f"is not in the cache of huggingface_hub and cannot be downloaded ({said}): load it once where there is a "
        "network, or give a folder that holds the model"
    )
