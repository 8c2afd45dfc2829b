"""A run's ``--runtime-env``: what of Ray's runtime environments the workers of a sweep take, read and checked.

It is no part of a space: no trial's name depends on it. Only what a cluster has can refuse the rest, when it is joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trials.errors import UserError, shown, unknown_name
from trials.yaml_text import as_yaml, parse_yaml

OPTION = "--runtime-env"

INSTALLERS = ("pip", "uv", "conda")
"""Fields of which one may be given: what makes an environment of packages."""

_OURS = {
    "working_dir": "the sweep sends its own; list your code under plugins, and name files by absolute paths",
    "py_modules": "the sweep sends its own; list your code under plugins",
    "excludes": "it belongs to py_modules, which the sweep sends",
    "image_uri": "Ray takes nothing beside it, and the sweep must send its code: start Ray itself in the image",
    "container": "Ray takes nothing beside it, and the sweep must send its code: start Ray itself in the image",
    "java_jars": "trials are Python",
}
"""Fields of Ray's that are refused, and why."""

_FIELDS = (
    "conda",
    "config",
    "env_vars",
    "nsight",
    "pip",
    "py_executable",
    "rocprof_sys",
    "uv",
    "worker_process_setup_hook",
)
_OF_PACKAGES = {
    "pip": {"packages", "pip_check", "pip_version", "pip_install_options"},
    "uv": {"packages", "uv_check", "uv_version", "uv_pip_install_options"},
}
_CONFIG = {"setup_timeout_seconds": int, "eager_install": bool, "log_files": list}

_SET = {
    "PYTHONPATH": "the sweep sets it, so that workers find its code: list your own under plugins",
    "CUDA_VISIBLE_DEVICES": "Ray sets it for each trial: resources.gpu says how much of a card a trial gets",
}
"""Environment variables of workers that are not the user's to set."""


def read_runtime_env(given: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a runtime environment as a mapping for Ray; empty if None is given.

    Args:
        given: a YAML or JSON file, or its content. Files that it names are read: requirements, and conda's YAML file.
            Their paths are relative to the file's folder, or to the working folder.

    Raises:
        UserError: it cannot be read, has a field that Ray or the sweep does not take, or a value of a wrong type.
    """
    if given is None:
        return {}
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        content, where, folder = _content(path), f"{OPTION} {given}", path.parent
    else:
        content, where, folder = as_yaml(given), OPTION, Path()
    if not isinstance(content, Mapping):
        raise UserError(f"{where} is {shown(content)}, but must be a mapping, such as env_vars: {{NAME: text}}")
    for name in content:
        _refuse(where, name)
    found = {name: value for name, value in content.items() if value is not None}
    made = [name for name in INSTALLERS if name in found]
    if len(made) > 1:
        raise UserError(f"{where} has {' and '.join(made)}, but Ray takes one of them: put all packages under one")
    return {name: _checked(name, value, f"{where}: {name}", folder) for name, value in found.items()}


def _content(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(f"{OPTION} is {str(path)!r}, but must be a file that can be read ({said})") from None
    return parse_yaml(text, f"{OPTION} {path}")  # JSON is YAML


def _refuse(where: str, name: object) -> None:
    if name in _OURS:
        raise UserError(f"{where} has {name}, which is refused: {_OURS[str(name)]}")
    if name not in _FIELDS:
        raise UserError(unknown_name(f"a field of {where}", name, _FIELDS))


def _checked(name: str, value: Any, where: str, folder: Path) -> Any:
    if name == "env_vars":
        return _variables(value, where)
    if name in _OF_PACKAGES:
        return _packages(name, value, where, folder)
    if name == "config":
        return _config(value, where)
    if name == "conda":
        return _conda(value, where, folder)
    kinds: tuple[type, ...] = (str, Mapping) if name in ("nsight", "rocprof_sys") else (str,)
    _require(value, kinds, where, "text" if len(kinds) == 1 else "text or a mapping")
    return value


def _require(value: object, kinds: tuple[type, ...], where: str, called: str) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds) or value == "":
        raise UserError(f"{where} is {shown(value)}, but must be {called}")


def _variables(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is {shown(value)}, but must be a mapping of names to texts")
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise UserError(f"{where} has the name {shown(name)}, but must be names of environment variables")
        if name in _SET or name.startswith("RAY_"):
            raise UserError(f"{where} sets {name}, which is refused: {_SET.get(name, 'it belongs to Ray itself')}")
        if not isinstance(text, str):
            raise UserError(f"{where}: {name} is {shown(text)}, but must be text: {_as_text(name, text)}")
        if "\0" in text:
            raise UserError(f"{where}: {name} is {shown(text)}, but must not contain a null character")
    return dict(value)


def _as_text(name: str, value: object) -> str:
    """What to write in place of a variable's value that is no text."""
    if value is None:
        return f"write {name}: '', or remove it"
    if isinstance(value, Mapping | list):
        return "put it into quotation marks"
    return f"write {name}: '{str(value).lower() if isinstance(value, bool) else value}'"


def _packages(name: str, value: Any, where: str, folder: Path) -> dict[str, Any]:
    """``pip`` or ``uv`` as Ray's mapping, with the lines of a requirements file in place of its name."""
    fields = dict(value) if isinstance(value, Mapping) else {"packages": value}
    for field in fields:
        if field not in _OF_PACKAGES[name]:
            raise UserError(unknown_name(f"a field of {where}", field, _OF_PACKAGES[name]))
    packages = fields.get("packages")
    if isinstance(packages, str):
        fields["packages"] = [line for line in _text(folder, packages, where).splitlines() if line.strip()]
    elif not _are_texts(packages):
        raise UserError(f"{where} is {shown(value)}, but must be a list of packages, or a requirements file")
    for field, said in fields.items():
        if field.endswith("_check"):
            _require(said, (bool,), f"{where}.{field}", "true or false")
        elif field.endswith("_version"):
            _require(said, (str,), f"{where}.{field}", "text, such as '==24.0'")
        elif field.endswith("_options") and not _are_texts(said):
            raise UserError(f"{where}.{field} is {shown(said)}, but must be a list of texts")
    return fields


def _conda(value: Any, where: str, folder: Path) -> Any:
    """``conda``: the name or the folder of an environment, or what its YAML file holds."""
    _require(value, (str, Mapping), where, "the name of an environment, its YAML file, or the content of one")
    if not isinstance(value, str) or not value.endswith((".yaml", ".yml")):
        return value
    content = parse_yaml(_text(folder, value, where), f"{where}: {value}")
    _require(content, (Mapping,), f"{where}: {value}", "a mapping")
    return content


def _config(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is {shown(value)}, but must be a mapping of {', '.join(_CONFIG)}")
    for field, said in value.items():
        if field not in _CONFIG:
            raise UserError(unknown_name(f"a field of {where}", field, _CONFIG))
        called = {int: "a whole number", bool: "true or false", list: "a list of texts"}[_CONFIG[field]]
        _require(said, (_CONFIG[field],), f"{where}.{field}", called)
        if field == "log_files" and not _are_texts(said):
            raise UserError(f"{where}.{field} is {shown(said)}, but must be {called}")
        if field == "setup_timeout_seconds" and isinstance(said, int) and said < 1 and said != -1:
            raise UserError(f"{where}.{field} is {said}, but must be at least 1, or -1 for no limit")
    return dict(value)


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(entry, str) and entry.strip() for entry in value)


def _text(folder: Path, name: str, where: str) -> str:
    try:
        return (folder / Path(name).expanduser()).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where} is {shown(name)}, which cannot be read as a file ({error})") from None
