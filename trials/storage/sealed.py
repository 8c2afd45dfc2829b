"""Documents that carry a checksum of their content, so that no damaged or changed one is taken for what was written.

A JSON document ends with the key ``checksum``, of all bytes before it; it stays JSON. The last line of a YAML file is a
checksum of all bytes before it; a comment further up says so, so that a file that is cut off is noticed. Files of older
versions have neither and are read as they are, if they hold only what those versions wrote.

A checksum shows damage, not malice: who can write the file can write the checksum, too. So readers check names and
types besides.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from trials.errors import DamagedFile, one_line, shown
from trials.storage.place import Place
from trials.storage.safe_read import read_plain

MOST_JSON_LEVELS = 100
"""How deeply a document may be nested."""

_KEY = "checksum"
_TAIL = re.compile(rb',\n "checksum": "sha256:([0-9a-f]{64})"\n\}\Z')
_TAIL_BYTES = len(b',\n "checksum": "sha256:"\n}') + 64

_MARK = b"# The last line is the checksum of all lines before it.\n"
_LINE = re.compile(rb"# checksum: sha256:([0-9a-f]{64})\n\Z")
_COMMENT = re.compile(rb"^#", re.MULTILINE)
_LINE_BYTES = len(b"# checksum: sha256:\n") + 64


def seal(document: Mapping[str, Any]) -> bytes:
    """Return a document, which must not be empty, as JSON with its checksum.

    >>> seal({"a": 1})[:35]
    b'{\\n "a": 1,\\n "checksum": "sha256:37'
    """
    head = json.dumps(document, indent=1).removesuffix("\n}").encode()
    return head + f',\n "{_KEY}": "sha256:{hashlib.sha256(head).hexdigest()}"\n}}'.encode()


def unseal(content: bytes, path: Place, older: Collection[str]) -> tuple[dict[str, Any], bool]:
    """Return what :func:`seal` was given, and whether it carries a checksum.

    Args:
        path: the file, for messages.
        older: the keys that versions without checksums wrote.

    Raises:
        DamagedFile: it is no JSON object, does not match its checksum, or has none and holds other keys.
    """
    match = _TAIL.search(content, max(len(content) - _TAIL_BYTES, 0))
    sealed = match is not None and hashlib.sha256(content[: match.start()]).hexdigest().encode() == match[1]
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged: it is no JSON ({one_line(str(error))[:100]})") from None
    if not isinstance(document, dict):
        raise DamagedFile(f"{path} is damaged: it holds a {type(document).__name__}, but must hold a mapping")
    _require_shallow(document, content, path)
    if sealed:
        del document[_KEY]
    elif _KEY in document:
        raise DamagedFile(f"{path} is damaged: its content does not match its checksum")
    elif unknown := next((key for key in document if key not in older), None):
        raise DamagedFile(f"{path} is damaged: it has no checksum, and the key {shown(unknown)}")
    return document, sealed


def _require_shallow(document: dict[str, Any], content: bytes, path: Place) -> None:
    """Refuse a document that is nested so deeply that functions which call themselves cannot go through it."""
    if content.count(b"{") + content.count(b"[") <= MOST_JSON_LEVELS:
        return
    level: list[Any] = [document]
    for _ in range(MOST_JSON_LEVELS):
        parts = (value for one in level for value in (one.values() if isinstance(one, dict) else one))
        level = [value for value in parts if isinstance(value, (dict, list))]
        if not level:
            return
    raise DamagedFile(f"{path} is damaged: it is nested more than {MOST_JSON_LEVELS} levels deep")


def read_sealed(path: Place, older: Collection[str]) -> tuple[dict[str, Any], bool]:
    """Read a document that :func:`seal` made; see :func:`unseal`.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it is damaged, or no file.
        OSError: the storage does not give it.
    """
    return unseal(read_plain(path), path, older)


def seal_lines(before: bytes, added: bytes) -> bytes:
    """Return the text of a YAML file and what is added to it, which both end with a line break, with the checksum.

    ``before``: what :func:`unseal_lines` returned; empty for a new file.
    """
    body = before + (b"" if _MARK in before else _MARK) + added
    return body + f"# checksum: sha256:{hashlib.sha256(body).hexdigest()}\n".encode()


def unseal_lines(content: bytes, path: Place) -> bytes:
    """Return the text that :func:`seal_lines` was given, with its comment; that of an older version as it is.

    Raises:
        DamagedFile: it does not match its checksum, or should have one and does not.
    """
    match = _LINE.search(content, max(len(content) - _LINE_BYTES, 0))
    if match is not None and hashlib.sha256(content[: match.start()]).hexdigest().encode() == match[1]:
        return content[: match.start()]
    if match is not None or _COMMENT.search(content):  # older versions wrote no comments
        raise DamagedFile(f"{path} is damaged: its content does not match its checksum")
    return content
