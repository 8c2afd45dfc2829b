"""Change stored documents as this project would have written them: with the checksum of the new content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trials.storage.place import Place
from trials.storage.sealed import seal


def document(path: Place) -> dict[str, Any]:
    """The content of a JSON file, without its checksum."""
    content: dict[str, Any] = json.loads(path.read_bytes())
    content.pop("checksum", None)
    return content


def write_document(path: Place, content: Mapping[str, Any]) -> None:
    """Write a JSON file with its checksum."""
    path.write_bytes(seal(content))


def change_document(path: Place, **fields: Any) -> None:
    """Give some fields of a JSON file other values."""
    write_document(path, {**document(path), **fields})


def without_checksum(path: Path) -> None:
    """Make a JSON file what an older version would have written, which knew neither checksums nor owners."""
    content = {key: value for key, value in document(path).items() if key != "trial"}
    path.write_text(json.dumps(content, indent=1))


def text_of(path: Path) -> str:
    """The text of a sweep.yaml, without its checksum."""
    lines = path.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("# "))
