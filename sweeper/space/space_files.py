"""Finds and reads space files, with their descriptions and profiles."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

from sweeper.space.values import mapping, plain
from trials.errors import UserError, unknown_name
from trials.system.user_path import MOST_NAME_B, user_path
from trials.yaml_text import read_yaml

SPACES = Path(str(resources.files("sweeper"))) / "spaces"
"""Folder of the spaces that have a name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def list_spaces() -> list[tuple[str, str, list[str]]]:
    """Return the name, description and profile names of every space that comes with the package."""
    contents = ((path, read_space(path)) for path in sorted(SPACES.glob("*.yaml")))
    return [(path.stem, str(content.get("about", "")), list(take_profiles(content))) for path, content in contents]


def find_space(name_or_file: str) -> Path:
    """Return the path of a space, given the name of one that comes with the package, or a YAML file.

    Raises:
        UserError: there is no space of that name.
    """
    if "/" in name_or_file or name_or_file.endswith((".yaml", ".yml")):
        return user_path(name_or_file, "--space")
    path = SPACES / f"{name_or_file}.yaml"
    if len(os.fsencode(path.name)) > MOST_NAME_B or not path.exists():
        names = [path.stem for path in SPACES.glob("*.yaml")]
        raise UserError(f"{unknown_name('space', name_or_file, names)}; or give the path of a YAML file")
    return path


def read_space(path: Path) -> dict[str, Any]:
    """Read a space file into plain values.

    Raises:
        UserError: it cannot be read, holds other values than a space may, or its name is invalid.
    """
    content = mapping(plain(read_yaml(path), ""), str(path))
    if not _NAME.fullmatch(path.stem):
        raise UserError(f"{path} is named {path.stem!r}, but names must consist of letters, digits, '.', '_' and '-'")
    return content


def take_profiles(content: dict[str, Any]) -> dict[str, Any]:
    """Remove the profiles from ``content`` and return them by name."""
    profiles = content.pop("profiles", None)
    return {} if profiles is None else mapping(profiles, "profiles")
