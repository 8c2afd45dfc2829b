"""The entries of a grid and of a search: dotted paths of trial fields."""

from __future__ import annotations

import re
from typing import Any

from trials.config.trial_config import WHERE
from trials.errors import UserError, shown

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def read_entries(content: object, where: str, kind: str) -> dict[str, Any]:
    """Check the paths of a grid or search: dotted names of trial fields that affect what a trial computes.

    Raises:
        UserError: it is no mapping, or a path is invalid.
    """
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{where} is {shown(content)}, but must be a mapping of dotted paths to {kind}")
    for path in content:
        if not _PATH.fullmatch(path):
            raise UserError(f"{where} has the path {path!r}, but paths are names joined by dots, as pretrain.epochs")
        if path in WHERE:
            raise UserError(f"{where} has {path}, which does not change what a trial computes: set it in trial")
    return content
