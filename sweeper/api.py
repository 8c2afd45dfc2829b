"""What Python programs call: :func:`run` runs a sweep as the command does, :class:`Space` describes one."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any

from sweeper import driver
from sweeper.before_run import check_preconditions, look_here
from sweeper.console import console_here
from sweeper.execution.signals import interruptible
from sweeper.options import COMPLETE, FAILURES
from sweeper.run_options import RunOptions
from sweeper.space import space as description
from sweeper.space.checks import check_space
from sweeper.space.load import load_space, space_of
from sweeper.sweep import Sweep, read_sweep
from trials.config.trial_config import TrialConfig
from trials.dotted_paths import settings_of
from trials.errors import UserError


class Space(description.Space):
    """The description of a sweep, resolved: profile and changes are applied, and every cell is a trial.

    >>> import sweeper
    >>> space = sweeper.Space.from_dict({
    ...     "trial": {"method": "one_shot", "dataset": "digits", "model": "tiny"},
    ...     "grid": {"density": [0.5, 0.2], "seed": range(3)},
    ... }, name="first")
    >>> len(space.cells()), space.cells()[0].key
    (6, 'density=0.5,seed=0')
    >>> space
    <Space first: 6 cells, 1 samples each>
    >>> space.configs()[0].density
    0.5
    >>> sweeper.Space.from_yaml("bip_unstructured", profile="demo").samples
    4
    """

    @classmethod
    def from_yaml(
        cls,
        space: str | Path,
        *,
        profile: str | None = None,
        set: Mapping[str, Any] | Iterable[str] = (),
        samples: int | None = None,
        plugins: Iterable[str] = (),
    ) -> Space:
        """Return the space of a YAML file, or a shipped one by its name.

        Args:
            profile: one of its profiles, such as ``demo``.
            set: changes, as ``{"trial.model": "tiny"}`` or ``["trial.model=tiny"]``.
            samples: samples per cell.
            plugins: your own code beside what the space lists.

        Raises:
            UserError: there is no such space or profile, or its content is invalid.
        """
        with _keywords():
            return cls._of(
                load_space(space, profile=profile, overrides=settings_of(set), samples=samples, plugins=[*plugins])
            )

    @classmethod
    def from_dict(
        cls,
        content: Mapping[str, Any],
        *,
        name: str | None = None,
        profile: str | None = None,
        set: Mapping[str, Any] | Iterable[str] = (),
        samples: int | None = None,
        plugins: Iterable[str] = (),
    ) -> Space:
        """Return the space of a mapping: what a YAML file would hold, so that its trials have the same names.

        Tuples, ranges and NumPy's arrays count as lists. Paths are relative to the working folder.

        Args:
            name: of the space, unless the mapping has a key ``name``. For the rest, see :meth:`from_yaml`.

        Raises:
            UserError: the content is invalid.
        """
        with _keywords():
            found = load_space(
                content, name=name, profile=profile, overrides=settings_of(set), samples=samples, plugins=[*plugins]
            )
            return cls._of(found)

    @classmethod
    def _of(cls, space: description.Space) -> Space:
        check_space(space)
        return space_of(space.document(), cls)

    def configs(self) -> list[TrialConfig]:
        """Return the configs of every cell's trials; of a search, those at its bounds and choices.

        Raises:
            UserError: a file that one of them names cannot be read.
        """
        return [config for cell in self.cells() for config in self.corner_configs(cell)]

    def check(self) -> None:
        """Check every trial against its built model and its data, as a run does before it starts anything.

        Raises:
            UserError: a trial can run nowhere, or not here, where data, cores or cards are missing.
        """
        with _keywords():
            found = look_here(self)
            check_preconditions(self, found.headers)
            if missing := (*found.missing, *found.lacking):
                raise UserError("; ".join(missing))

    def __repr__(self) -> str:
        return f"<Space {self.name}: {len(self.cells())} cells, {self.samples} samples each>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """What a notebook shows: cells, samples, grid and search."""
        lines = {"about": self.about, "cells": str(len(self.cells())), "samples": str(self.samples)}
        lines |= {f"grid {path}": ", ".join(map(str, axis.values)) for path, axis in self.grid.items()}
        lines |= {f"search {path}": str(distribution) for path, distribution in self.search.items()}
        rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(text)}</td></tr>" for key, text in lines.items() if text)
        return f"<p>space {escape(self.name)}</p><table>{rows}</table>"


def run(space: Mapping[str, Any] | str | Path | Space | None = None, *, quiet: bool = False, **options: Any) -> Sweep:
    """Run a sweep to its end, and return it. The same call again resumes it, and so does the command: they are one run.

    >>> import sweeper
    >>> trial = {"method": "one_shot", "dataset": "digits", "model": "tiny", "pretrain": {"epochs": 1}}
    >>> space = {"trial": trial, "grid": {"density": [0.5, 0.2]}}
    >>> sweep = sweeper.run(space, name="first", set={"trial.finetune.epochs": 1}, quiet=True)
    >>> sweep.best()[["config.density", "status"]].values.tolist()
    [[0.5, 'complete'], [0.2, 'complete']]

    Args:
        space: a mapping as a space file holds it (with ``name=``), a file, a shipped space's name, a :class:`Space`.
        quiet: print nothing; failed and unfinished trials are then a warning. Otherwise a terminal gets a live panel, a
            notebook one display that is updated in place, and everything else lines.
        options: the command's (:class:`sweeper.run_options.RunOptions`); ``set`` also as ``{"trial.prune.lr": 0.01}``.

    Returns:
        The sweep. Failed trials do not raise (``sweep.failed`` has their errors), nor does a run that ends early by
        ``max_hours``, ``max_epochs`` or ``--cancel`` (``sweep.standing().complete`` is then False).

    Raises:
        UserError: the sweep cannot be run; nothing has been started.
        TypeError: there is no such option.
        KeyboardInterrupt: Ctrl-C, SIGTERM, SIGHUP or a batch system's warning (SIGUSR1, SIGUSR2, SIGXCPU), in the main
            thread. Trials commit before, and the same call resumes; a second signal does not wait for them.

    Ray starts with the first call and stays until ``ray.shutdown()``. One that the process has joined itself is used.
    """
    with _keywords():
        given = space.document() if isinstance(space, description.Space) else space
        asked = RunOptions.of_keywords(given, options)
        console = console_here(quiet=quiet)
        with interruptible():
            found, folder = driver.asked_for(asked)
            code = driver.run_asked(found, folder, asked, console, from_python=True)
        sweep = Sweep.begun(folder.path) if asked.dry_run else read_sweep(folder.path)
    if quiet and code != COMPLETE:
        way = "sweep.failed names those that have failed" if code == FAILURES else "the same call resumes"
        warnings.warn(f"{sweep.standing()}: {way}", stacklevel=2)
    return sweep


_ALSO = {"set": "Mapping[str, Any] | Iterable[str] | None", "storage": "str | Path | None"}
"""Types of options that a call may give in more forms than a command line."""


def _signature() -> inspect.Signature:
    """The signature of :func:`run` with every option, for ``help`` and for completion in notebooks."""
    by_name, own = inspect.Parameter.KEYWORD_ONLY, inspect.signature(run)
    options = [
        inspect.Parameter(
            option.name,
            by_name,
            default=False if option.type == "bool" else None,
            annotation=_ALSO.get(option.name, option.type),
        )
        for option in fields(RunOptions)
        if option.name != "space"
    ]
    kept = [parameter for parameter in own.parameters.values() if parameter.kind != inspect.Parameter.VAR_KEYWORD]
    return own.replace(parameters=[*kept, *options])


run.__signature__ = _signature()  # type: ignore[attr-defined]

_OPTION = re.compile(rf"--({'|'.join(sorted(name.replace('_', '-') for name in RunOptions.names()))})\b(?!-)")


@contextmanager
def _keywords() -> Iterator[None]:
    """Let messages of UserErrors name options as Python does: ``--max-hours`` is ``max_hours``."""
    try:
        yield
    except UserError as error:
        error.args = (_OPTION.sub(lambda found: found[1].replace("-", "_"), str(error)),)
        raise
