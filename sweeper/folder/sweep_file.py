"""``sweep.yaml``: the space of a sweep and what it was run with, one document for each change, oldest first.

Its last line is a checksum of all lines before. A file of an older version has none until the next change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from trials.errors import DamagedFile, UserError, one_line, shown
from trials.storage import files
from trials.storage.outages import errs, in_a_run
from trials.storage.place import Place
from trials.storage.safe_read import read_plain
from trials.storage.sealed import seal_lines, unseal_lines
from trials.yaml_text import require_modest

SWEEP_FILE = "sweep.yaml"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""YAML's safe loader, in C if available, because a space may have ten thousand cells."""

_RESTORE = "restore it, or move it away; the trials are kept and the next run writes it anew"


def read_documents(path: Place) -> list[dict[str, Any]]:
    """Return the documents of a ``sweep.yaml``; none if there is no such file.

    Raises:
        UserError: the file cannot be read, is damaged, or is no sweep's.
    """
    content = sweep_file_content(path)
    if content is None:
        return []
    try:
        text = content.decode()
        require_modest(text)
        found = [document for document in yaml.load_all(text, _LOADER) if document]
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({one_line(' '.join(str(error).split()))[:300]}): {_RESTORE}") from None
    if not found:
        raise UserError(f"{path} is damaged (it holds no document): {_RESTORE}")
    for document in found:
        _require_form(document, path)
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _holds_text(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, (*value, *value.values())))


def _is_data(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(used, dict) for used in value)


_FORMS: dict[str, tuple[Callable[[object], bool], str]] = {
    "schema": (lambda value: type(value) is int, "a whole number"),
    "data": (_is_data, "a list of data sets"),
    "versions": (_holds_text, "a version for each library"),
    "commit": (_is_text, "text"),
    "command": (_is_text, "text"),
    "plugins": (_holds_text, "a digest for each plug-in"),
}
"""What a document has beside its space, which its readers check; older versions wrote less of it."""


def _require_form(document: object, path: Place) -> None:
    if not isinstance(document, dict) or not all(map(_is_text, document)):
        raise UserError(f"{path} is damaged (it holds {shown(document)}, which is no mapping by name): {_RESTORE}")
    for name, (fits, form) in _FORMS.items():
        value = document.get(name)
        if value is not None and not fits(value):
            raise UserError(f"{path} is damaged ({name} is {shown(value)}, but must be {form}): {_RESTORE}")


def append_document(path: Place, document: Mapping[str, Any]) -> None:
    """Add a document to a ``sweep.yaml``, whose folder must exist.

    Raises:
        UserError: the file is damaged; nothing is written, so that none of its documents is lost.
    """
    read_documents(path)
    before = sweep_file_content(path) or b""
    text = yaml.safe_dump(dict(document), sort_keys=False, explicit_start=True, width=120)
    files.write(path, seal_lines(before, text.encode()))


def sweep_file_content(path: Place) -> bytes | None:
    """Return the text of a ``sweep.yaml``, checked; None if there is no such file.

    Raises:
        UserError: the file cannot be read, or is damaged.
        OSError: the storage errs in a run, which may go on.
    """
    try:
        return unseal_lines(read_plain(path), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if errs(error) and in_a_run():
            raise
        raise UserError(f"{path} cannot be read ({error}): give another --storage") from None
    except DamagedFile as damage:
        raise UserError(f"{damage}: {_RESTORE}") from None
