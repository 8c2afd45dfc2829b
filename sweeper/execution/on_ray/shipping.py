"""The code that Ray's workers import: the driver's own, wherever its packages lie.

A Ray that is started here has workers on this machine alone: they find the packages as the driver does. The workers of
a cluster that is joined get a copy of them (``py_modules``), so that every machine runs the driver's code.

Without a ``working_dir``, Ray puts the driver's script folder and working folder in front of everything else on its
workers' ``sys.path``, also on machines where other code lies there. So a shipment always has one: the job's own, or an
empty one.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any

from sweeper.runtime_env import INSTALLERS, OPTION
from trials.errors import UserError
from trials.plugins.source import PlugIn
from trials.storage.scratch import scratch_folder

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray's jobs API says with which runtime environment a job was submitted."""

MOST_CODE_B = 100_000_000
"""Bytes of a plug-in that is sent to every machine; Ray refuses packages beyond 500 MiB."""

NOT_SHIPPED = ["**/__pycache__"]
"""Left out of the packages that are sent. The syntax is .gitignore's."""


def packages() -> list[str]:
    """Folders of the packages that a worker imports; each is sent by itself, without what lies beside it."""
    return [str(resources.files(name)) for name in ("sweeper", "trials")]


def extend_python_path() -> None:
    """Let processes that are started here find the packages: add their parents to ``PYTHONPATH``.

    Every process of this interpreter searches the folders into which pip installs: these are not added.
    """
    installed = {Path(folder).resolve() for folder in (*site.getsitepackages(), site.getusersitepackages())}
    parents = dict.fromkeys(Path(package).parent for package in packages())
    added = [str(parent) for parent in parents if parent.resolve() not in installed]
    before = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if path := [*added, *(folder for folder in before if folder not in added)]:
        os.environ["PYTHONPATH"] = os.pathsep.join(path)


def are_hidden() -> bool:
    """Whether the driver's script folder or working folder holds other code by the name of a package.

    Without a ``working_dir``, workers would import that.
    """
    for folder in (Path.cwd(), Path(sys.argv[0]).resolve().parent):
        for package in map(Path, packages()):
            other = folder / package.name
            found = (other / "__init__.py").exists() or other.with_suffix(".py").exists()
            if found and other.resolve() != package.resolve():
                return True
    return False


def code_copies(plug_ins: Sequence[PlugIn], folder: Path) -> dict[str, str]:
    """Copy the plug-ins that are listed by path into a folder, and return by entry where the copies lie.

    No edit reaches a copy while a sweep runs. Of a folder that is sent, Ray leaves out what a .gitignore of it names.
    """
    made = {}
    for plug_in in plug_ins:
        if plug_in.installed:
            continue
        to = folder / plug_in.source.name
        _require_small(plug_in)
        if plug_in.source.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copytree(plug_in.source, to, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(plug_in.source, to)
        made[plug_in.listed] = str(to)
    return made


_LEFT_OUT = ("__pycache__", ".*")
"""Patterns of names in a plug-in's folder that are not copied."""


def _require_small(plug_in: PlugIn) -> None:
    """Refuse users' code that is too large to be sent to every machine: data or results lie beside it."""
    largest, total = Path(), 0
    for folder, inner, files in os.walk(plug_in.source) if plug_in.source.is_dir() else ():
        inner[:] = [name for name in inner if not _is_left_out(name)]
        for file in (Path(folder, name) for name in files if not _is_left_out(name)):
            with suppress(OSError):
                total += (size := file.stat().st_size)
                if not largest.name or size > largest.stat().st_size:
                    largest = file
    if total > MOST_CODE_B:
        raise UserError(
            f"plugins has {plug_in.listed}, whose folder holds {total / 1e6:.0f} MB ({largest.name} is the largest "
            f"file), but code that is sent to every machine must be at most {MOST_CODE_B / 1e6:.0f} MB: move data and "
            "results elsewhere"
        )


def _is_left_out(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _LEFT_OUT)


@contextmanager
def shipment(
    variables: Mapping[str, str], plug_ins: Sequence[PlugIn] = (), runtime_env: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the runtime environment for ``ray.init`` that sends the packages; it can be used within the block only.

    ``ray job submit`` has set one in advance. What that says of modules and of the working folder is kept; Ray keeps
    the rest, if ``RAY_OVERRIDE_JOB_RUNTIME_ENV`` is 1.

    Args:
        variables: environment variables of the workers.
        plug_ins: users' code. What is listed by path is sent too; modules by name must be installed on every machine.
        runtime_env: what else the workers get; it comes before what the job has of the same field or variable.

    Raises:
        UserError: ``runtime_env`` contradicts ``variables``, or the job's way to install packages.
    """
    job = json.loads(os.environ.get(JOB_CONFIG, "{}")).get("runtime_env") or {}
    given = dict(runtime_env or {})
    _refuse_contradictions(given, variables, job)
    with scratch_folder() as scratch:
        (empty := scratch / "empty").mkdir()
        yield {
            **given,
            "working_dir": job.get("working_dir", str(empty)),
            "py_modules": [*packages(), *code_copies(plug_ins, scratch / "code").values(), *job.get("py_modules", [])],
            "excludes": NOT_SHIPPED,
            "env_vars": {**given.get("env_vars", {}), **variables},
        }


def _refuse_contradictions(given: Mapping[str, Any], variables: Mapping[str, str], job: Mapping[str, Any]) -> None:
    for name, text in given.get("env_vars", {}).items():
        if variables.get(name, text) != text:
            raise UserError(
                f"{OPTION} sets {name}, but the driver has another, by which it reaches the storage: set it there"
            )
    for name in INSTALLERS:
        for other in INSTALLERS:
            if name in given and other in job and other != name:
                raise UserError(
                    f"{OPTION} has {name}, but the job was submitted with {other}, and Ray takes one of them: put all "
                    f"packages under {other}"
                )
