"""The options of one run of a sweep, of the command line and of :func:`sweeper.run` alike."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sweeper.options import check_texts
from sweeper.runtime_env import read_runtime_env
from trials.called import sweep_command
from trials.dotted_paths import settings_of
from trials.errors import UserError, shown, unknown_name

_AS_BEGUN = "continues the sweep as its own sweep.yaml describes it"

_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("profile", "name", "resume", "address"), (str,)),
    "samples": (int,),
    "max_concurrent": (int,),
    "max_hours": (int, float),
    **dict.fromkeys(("serial", "dry_run", "estimate", "verify", "retry_failed"), (bool,)),
}
_CALLED = {str: "text", int: "a whole number", float: "a number", bool: "True or False"}


@dataclass(frozen=True)
class RunOptions:
    """What to run, where, and how much of it; ``sweep.py --help`` says the same.

    Attributes:
        space: a name, a YAML file, or the content of one.
        profile: a profile of the space, such as ``demo``.
        set: changes of the space, texts ``a.b=c``.
        plugins: your own code beside what the space lists: folders, .py files and installed modules.
        storage: a path, or ``s3://BUCKET/PREFIX``; by default ``$SWEEP_STORAGE``, else ``results``.
        name: the sweep's folder in the storage; by default the space's name.
        resume: the name of a sweep that goes on as its own ``sweep.yaml`` has it; takes no space.
        samples: samples per cell.
        max_concurrent: trials at once.
        max_hours: stop after as many hours; the same run resumes.
        address: a Ray cluster to join; ``local`` starts a new one on this machine.
        runtime_env: what Ray's workers get, as a YAML or JSON file or its content: ``env_vars``, ``pip``, ``uv``,
            ``conda``, ...; no part of the sweep.
        serial: run one trial at a time, in the order of the plan.
        dry_run: check everything and print what would run.
        estimate: measure here how long an epoch takes, by 20 steps of each stage.
        verify: first read every checkpoint, not only those that are needed.
        retry_failed: first allow trials that failed for good to run again.

    Raises:
        UserError: an option is wrong, or two of them contradict each other.
    """

    space: str | Path | Mapping[str, Any] | None = None
    profile: str | None = None
    set: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    storage: str = field(default_factory=lambda: os.environ.get("SWEEP_STORAGE", "results"))
    name: str | None = None
    resume: str | None = None
    samples: int | None = None
    max_concurrent: int | None = None
    max_hours: float | None = None
    address: str | None = None
    runtime_env: str | Path | Mapping[str, Any] | None = None
    serial: bool = False
    dry_run: bool = False
    estimate: bool = False
    verify: bool = False
    retry_failed: bool = False

    @classmethod
    def of_command(cls, options: argparse.Namespace) -> RunOptions:
        """Return the options of a parsed command line."""
        given = {name: value for name, value in vars(options).items() if name in cls.names()}
        return cls(**{**given, "set": tuple(options.set), "plugins": tuple(options.plugins)})

    @classmethod
    def of_keywords(cls, space: object, given: Mapping[str, Any]) -> RunOptions:
        """Return the options of a call; ``set`` may be a mapping of dotted paths to values.

        Raises:
            TypeError: there is no such option; the message names the nearest one.
            UserError: an option is wrong.
        """
        known = cls.names() - {"space"}
        for name in given:
            if name not in known:
                raise TypeError(unknown_name("option of sweeper.run", name, {*known, "quiet"}))
        said = {name: value for name, value in given.items() if value is not None}
        changed = {"space": space, **said, "set": settings_of(said.get("set", ())), "plugins": _texts(said)}
        if isinstance(said.get("storage"), Path):
            changed["storage"] = str(said["storage"])
        return cls(**changed)

    @classmethod
    def names(cls) -> frozenset[str]:
        """The names of all options, as Python writes them."""
        return frozenset(option.name for option in fields(cls))

    def command(self, *, from_python: bool = False) -> str:
        """The command line, or the call, that asks for this run; options that have their default are left out.

        A space that was given as a mapping is ``{...}``: sweep.yaml holds it. A runtime environment is left out, since
        it may hold keys.
        """
        default = RunOptions(space="{}")
        given = {
            option.name: value
            for option in fields(self)
            if (value := getattr(self, option.name)) != getattr(default, option.name) and option.name != "runtime_env"
        }
        if self.space is None:
            given.pop("space", None)
        if from_python:
            first = [_given_space(given.pop("space"))] if "space" in given else []
            return f"sweeper.run({', '.join([*first, *(f'{name}={value!r}' for name, value in given.items())])})"
        words = sweep_command().split() if sweep_command() != "sweep.py" else ["python", "sweep.py"]
        for name, value in given.items():
            option = f"--{name.replace('_', '-')}"
            for each in value if isinstance(value, tuple) else [value]:
                words += [option] if each is True else [option, str(each)]
        return shlex.join(words)

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
            if not fits and not (value is None and bool not in kinds):
                raise UserError(f"--{name.replace('_', '-')} is {shown(value)}, but must be {_CALLED[kinds[-1]]}")
        if not isinstance(self.storage, str):
            raise UserError(f"--storage is {shown(self.storage)}, but must be a path, or s3://BUCKET/PREFIX")
        if self.space is not None and not isinstance(self.space, (str, Path, Mapping)):
            raise UserError(
                f"--space is {shown(self.space)}, but must be a name, a YAML file or a mapping of its content"
            )
        if self.runtime_env is not None and not isinstance(self.runtime_env, (str, Path, Mapping)):
            raise UserError(
                f"--runtime-env is {shown(self.runtime_env)}, but must be a YAML or JSON file, or its content"
            )
        if self.runtime_env is not None:
            object.__setattr__(self, "runtime_env", read_runtime_env(self.runtime_env))
        check_texts(self.space, self.storage, self.profile, self.address)
        if self.resume is not None:
            self._refuse_beside_resume()
        elif self.space is None:
            raise UserError("--space is missing: name one (--list-spaces shows them) or give a YAML file")

    def _refuse_beside_resume(self) -> None:
        for option, given in (("--space", self.space), ("--profile", self.profile), ("--name", self.name)):
            if given is not None:
                raise UserError(
                    f"{option} is {shown(given)}, but --resume {self.resume} {_AS_BEGUN}: leave out one of them"
                )
        if self.set:
            raise UserError(
                f"--set is {self.set[0]!r}, but --resume {self.resume} {_AS_BEGUN}: leave it out, or give the "
                "--space that the sweep was begun with instead"
            )


def _given_space(space: object) -> str:
    return "{...}" if isinstance(space, Mapping) else repr(str(space))


def _texts(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The plug-ins of a call: a list of texts or paths."""
    listed = given.get("plugins", ())
    if isinstance(listed, (str, Path)) or not isinstance(listed, Iterable):
        raise UserError(f"plugins is {shown(listed)}, but must be a list: write [{listed!r}]")
    return tuple(str(entry) if isinstance(entry, Path) else entry for entry in listed)
