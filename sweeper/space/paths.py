"""Dotted paths of config fields, as grid and search name them."""

from __future__ import annotations

import re
from typing import Any

from sweeper.space.values import shown
from trials.config.trial_config import WHERE
from trials.errors import UserError

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def read_entries(content: object, where: str, kind: str) -> dict[str, Any]:
    """A grid or a search: its paths, each a field of a trial that says what the trial computes."""
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{where} is {shown(content)}, but must be a mapping of dotted paths to {kind}")
    for path in content:
        if not _PATH.fullmatch(path):
            raise UserError(f"{where} has the path {path!r}, but paths are names with dots between, as pretrain.epochs")
        if path in WHERE:
            raise UserError(f"{where} has {path}, which does not change what a trial computes: set it in trial")
    return content


def set_at(content: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path into nested mappings."""
    *parents, last = path.split(".")
    for depth, key in enumerate(parents, start=1):
        if content.get(key) is None:
            content[key] = {}
        content = content[key]
        if not isinstance(content, dict):
            outer = ".".join(parents[:depth])
            raise UserError(f"{outer} is {shown(content)}, but must be a mapping: grid or search sets {path}")
    content[last] = value
