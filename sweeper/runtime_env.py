"""A run's ``--runtime-env``: what of Ray's runtime environments the workers of a sweep take, read and checked.

It is no part of a space: no trial's name depends on it. Only what a cluster has can refuse the rest, when it is joined.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from trials.errors import UserError, nearest_name, shown, unknown_name
from trials.system.user_path import user_path
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
_OF_RAY = {"_ray_commit": None, "_ray_release": None, "_inject_current_ray": None} | {
    f"_{name}": name for name in ("nsight", "rocprof_sys")
}
"""What ``ray.runtime_env.RuntimeEnv`` adds itself, and how it calls fields."""

_OWN_FOLDER = str(Path(__file__).parents[1])
_VARIABLE = re.compile(r"[^\s=\0]+")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_MOST_S = 2**31 - 1
_OF_CONDA = ("channels", "dependencies", "name", "prefix", "variables")
_CONFIG = {"setup_timeout_seconds": int, "eager_install": bool, "log_files": list}

_SET = {
    "PYTHONPATH": "the sweep sets it, so that workers find its code: list your own under plugins",
    "CUDA_VISIBLE_DEVICES": "Ray sets it for each trial: resources.gpu says how much of a card a trial gets",
}
"""Environment variables of workers that are not the user's to set."""


def read_runtime_env(given: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a runtime environment as a mapping for Ray; empty if None is given.

    Args:
        given: a YAML or JSON file, or its content, also as ``ray.runtime_env.RuntimeEnv``. Files that it names are
            read: requirements, and conda's YAML file. Their paths are relative to the file's folder, or to the working
            folder.

    Raises:
        UserError: it cannot be read, has a field that Ray or the sweep does not take, or a value of a wrong type.
    """
    if given is None:
        return {}
    if isinstance(given, str | Path):
        path = user_path(given, OPTION)
        content, where, folder = _content(path), f"{OPTION} {given}", path.parent
    else:
        content, where, folder = as_yaml(given), OPTION, Path()
    if content is None:
        raise UserError(f"{where} is empty, but must be a mapping, such as env_vars: {{NAME: text}}: or leave it out")
    if not isinstance(content, Mapping):
        raise UserError(f"{where} is {shown(content)}, but must be a mapping, such as env_vars: {{NAME: text}}")
    found = _given(content, where)
    made = [name for name in INSTALLERS if name in found]
    if len(made) > 1:
        raise UserError(f"{where} has {' and '.join(made)}, but Ray takes one of them: put all packages under one")
    return {name: _checked(name, value, f"{where}: {name}", folder) for name, value in found.items()}


def _given(content: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """The fields that are not null, by the names that users write."""
    found = {}
    for name, value in content.items():
        called = _OF_RAY.get(name, name)
        if called is not None and (value is not None or name not in _OURS):  # null is as good as nothing
            _refuse(where, called)
        if called is not None and value is not None:
            found[called] = value
    return found


def require_startable(runtime_env: Mapping[str, Any]) -> None:
    """Check for a Ray that is started on this machine that a worker's program and its set-up hook are here.

    Nothing is imported. A module that the environment itself installs is not looked for.

    Raises:
        UserError: one of them is not.
    """
    program, hook = runtime_env.get("py_executable"), runtime_env.get("worker_process_setup_hook")
    if program is not None and Path(program).is_absolute() and " " not in program and not _is_program(Path(program)):
        raise UserError(
            f"{OPTION}: py_executable is {shown(program)}, but must be a program of this machine that may be run"
        )
    if not isinstance(hook, str) or program is not None or any(name in runtime_env for name in INSTALLERS):
        return
    module = hook.rpartition(".")[0]
    if not _is_found(module):
        raise UserError(
            f"{OPTION}: worker_process_setup_hook is {shown(hook)}, but no module {module} is found: install it, or "
            "add its folder to PYTHONPATH"
        )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _is_found(module: str) -> bool:
    """Whether a module is found as Ray's workers look for it, when they do not know the folder of a script yet."""
    first, *inner = module.split(".")
    folders: Any = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path[1:], _OWN_FOLDER]
    try:
        found = PathFinder.find_spec(first, [folder for folder in folders if folder])
        for finder in sys.meta_path if found is None else ():  # as of packages that are installed for editing
            if finder is not PathFinder:
                found = found or finder.find_spec(first, None)
        for i in range(len(inner)):
            folders = None if found is None else found.submodule_search_locations
            found = None if folders is None else PathFinder.find_spec(f"{first}.{'.'.join(inner[: i + 1])}", folders)
    except (ImportError, ValueError):
        return False
    return found is not None


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
    if name in ("nsight", "rocprof_sys"):
        if value != "default":
            _require(value, (Mapping,), where, "default, or a mapping of the profiler's options")
        return value
    if name == "worker_process_setup_hook" and callable(value):  # from Python
        if not hasattr(value, "__name__"):
            raise UserError(f"{where} is {shown(value)}, but must be a function, or the text module.function")
        return value
    _require(value, (str,), where, "text")
    if name == "worker_process_setup_hook" and not _FUNCTION.fullmatch(value):
        raise UserError(f"{where} is {shown(value)}, but must be module.function, such as mylab.workers.prepare")
    return value


def _require(value: object, kinds: tuple[type, ...], where: str, called: str) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds) or value == "":
        raise UserError(f"{where} is {shown(value)}, but must be {called}")


def _variables(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is {shown(value)}, but must be a mapping of names to texts")
    for name, text in value.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise UserError(
                f"{where} has the name {shown(name)}, but must be names of environment variables: texts without =, "
                "spaces and null characters"
            )
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
        fields["packages"] = [line for line in _requirements(folder, packages, where).splitlines() if line.strip()]
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
    if isinstance(value, Mapping):
        _check_conda(value, where)
        return value
    if not value.endswith((".yaml", ".yml")):
        if Path(value).is_absolute() and not Path(value).is_dir():
            raise UserError(f"{where} is {shown(value)}, but must be the folder of an environment: there is none")
        return value
    content = parse_yaml(_text(folder, value, where), f"{where}: {value}")
    _require(content, (Mapping,), f"{where}: {value}", "a mapping")
    _check_conda(content, f"{where}: {value}")
    return content


def _check_conda(content: Mapping[Any, Any], where: str) -> None:
    """Check what a YAML file of conda's holds; conda also takes fields that it does not know."""
    if not content:
        raise UserError(f"{where} is empty, but must have dependencies: a list of texts and of {{pip: [PACKAGE, ...]}}")
    for field in content:
        if field not in _OF_CONDA and (not isinstance(field, str) or nearest_name(field, _OF_CONDA)):
            raise UserError(unknown_name(f"a field of {where}", field, _OF_CONDA))
    try:
        json.dumps(content)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} is {shown(content)}, but must hold what JSON can hold ({error})") from None
    given = content.get("dependencies")
    if given is not None and not (isinstance(given, list | tuple) and all(map(_is_dependency, given))):
        raise UserError(
            f"{where} dependencies is {shown(given)}, but must have a list of texts and of {{pip: [PACKAGE, ...]}}"
        )


def _is_dependency(entry: object) -> bool:
    if isinstance(entry, Mapping):
        return list(entry) == ["pip"] and _are_texts(entry["pip"])
    return _are_texts([entry])


def _config(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is {shown(value)}, but must be a mapping of {', '.join(_CONFIG)}")
    given = dict(value)
    if given.get("log_files", ()) is None:
        del given["log_files"]  # Ray takes null for none
    for field, said in given.items():
        if field not in _CONFIG:
            raise UserError(unknown_name(f"a field of {where}", field, _CONFIG))
        called = {int: "a whole number", bool: "true or false", list: "a list of texts"}[_CONFIG[field]]
        _require(said, (_CONFIG[field],), f"{where}.{field}", called)
        if field == "log_files" and not _are_texts(said):
            raise UserError(f"{where}.{field} is {shown(said)}, but must be {called}")
        if field == "setup_timeout_seconds" and said != -1 and not 1 <= said <= _MOST_S:
            raise UserError(f"{where}.{field} is {shown(said)}, but must be from 1 to {_MOST_S}, or -1 for no limit")
    return given


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(entry, str) and entry.strip() for entry in value)


def _requirements(folder: Path, name: str, where: str) -> str:
    """The content of a requirements file; what is no file may be meant as a package."""
    if not name.endswith(".txt") and "/" not in name and not (folder / name).exists():
        listed = name if re.fullmatch(r"[\w.-]+", name) else shown(name)
        raise UserError(f"{where} is {shown(name)}, but must be a list, or a requirements file: write [{listed}]")
    return _text(folder, name, where)


def _text(folder: Path, name: str, where: str) -> str:
    try:
        return (folder / user_path(name, where)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where} is {shown(name)}, which cannot be read as a file ({error})") from None
