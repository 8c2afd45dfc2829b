"""What a run needs and what this machine has of it: data, devices; and whether every trial can run on that."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.run_options import RunOptions
from sweeper.runtime_env import require_startable
from sweeper.space.checks import naming_trial
from sweeper.space.grid.cells import Cell
from sweeper.space.options.resources import Resources, units_in
from sweeper.space.space import Space
from trials import data
from trials.config.trial_config import TrialConfig
from trials.data import DataKey
from trials.data_header import DataHeader
from trials.errors import AbsentData, UserError, exact
from trials.methods.preconditions import require_runnable
from trials.running.shared_trials import names_of, refuse_other_content, shared_by, shared_name
from trials.storage import files
from trials.storage.data_used import DataUsed, data_used, refuse_other_data
from trials.system.machine import usable_cores, usable_memory
from trials.training.device import cards, require_known, resolve_device

LEAST_RAY = (2, 59)
"""Version of Ray from which on one that is started here asks for a token by default. pyproject.toml says the same."""


@dataclass(frozen=True)
class Here:
    """What was found on this machine.

    Attributes:
        headers: by what reads them, the headers of the data; the published sizes where the data are not here, and
            nothing where these are not known.
        missing: one line for each thing that a run needs and this machine lacks.
        lacking: one line for each device and kind of resource that a trial needs and this machine lacks; the machines
            of a cluster may have them.
    """

    headers: Mapping[DataKey, DataHeader]
    missing: tuple[str, ...]
    lacking: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the data, such as files that are not read."""
        return tuple(dict.fromkeys(note for header in self.headers.values() for note in header.notes))

    def data(self) -> list[DataUsed]:
        """The data that are here, with their fingerprints."""
        known = ((key, header.fingerprint) for key, header in self.headers.items())
        return [DataUsed.of(_fields(key), fingerprint) for key, fingerprint in known if fingerprint is not None]


def _fields(key: DataKey) -> dict[str, Any]:
    """The fields of a config that say which data it reads."""
    dataset, data_dir, options = key
    return {"dataset": dataset, "data_dir": data_dir, **asdict(options)}


def configs_of(space: Space) -> Iterator[TrialConfig]:
    """Yield the trial configs at the corners of every cell's search."""
    return (config for cell in space.cells() for config in space.corner_configs(cell))


def look_here(space: Space, address: str | None = None, *, peek: bool = False) -> Here:
    """Load every data set of the space and say what this machine lacks.

    Args:
        address: the cluster to join, if any: then its machines need the devices and cores, and not this one.
        peek: download and unpack nothing, for a run that is only described.

    Raises:
        UserError: a config names a device or a data set's option that exists nowhere, or data that are here are wrong.
    """
    configs = list(configs_of(space))
    for device in sorted({config.device for config in configs}):
        require_known(device)
    headers: dict[DataKey, DataHeader] = {}
    missing: list[str] = []
    for key in sorted({config.data_key for config in configs}, key=str):
        name, _, options = key
        data.require_options(name, options)
        try:
            headers[key] = (data.peek_header if peek else data.require_data)(*key)
        except AbsentData as error:
            published = data.published_header(name)
            if published is not None:
                headers[key] = published
            unknown = "" if published else f" (the sizes of {name} are not known: its trials are not checked on them)"
            missing.append(f"{error}{unknown}")
    lacking = () if _named(address) else tuple(_lacking(space, {config.device for config in configs}))
    return Here(headers, tuple(missing), lacking)


def refuse_ray_client(address: str | None) -> None:
    """Refuse an address of Ray Client: Tune and its storage would run on the cluster's head, not here.

    Raises:
        UserError: ``--address``, or else RAY_ADDRESS, begins with ray://.
    """
    named = address not in (None, "auto")  # else Ray takes the variable
    given, said = (address, "--address") if named else (os.environ.get("RAY_ADDRESS"), "RAY_ADDRESS")
    if given is not None and given.startswith("ray://"):
        raise UserError(
            f"{said} is {given!r}, but a sweep cannot be driven through Ray Client: run the command on a machine of "
            "the cluster (--address HOST:6379), or submit it to the cluster (ray job submit, see docs/cluster.md)"
        )


def require_ray() -> None:
    """Check that the installed Ray is new enough.

    Raises:
        UserError: it is older than ``LEAST_RAY``.
    """
    found = version("ray")
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < LEAST_RAY:
        least = ".".join(map(str, LEAST_RAY))
        raise UserError(
            f"Ray is {found}, but must be at least {least}: older ones let anyone who reaches this machine run code "
            f"(no token by default; below 2.54 CVE-2026-27482): pip install 'ray[default,tune]>={least}'"
        )


def check_ray(options: RunOptions) -> None:
    """Check what a run asks of Ray, as far as that is known before one is joined or started.

    Raises:
        UserError: the address is one of Ray Client, Ray is too old, or workers of a Ray that is started here cannot
            begin.
    """
    refuse_ray_client(options.address)
    require_ray()
    if isinstance(options.runtime_env, Mapping) and not may_join(options.address):
        require_startable(options.runtime_env)


def may_join(address: str | None) -> bool:
    """Whether a run joins a cluster: a named one, the one that Ray has noted as this machine's, or the process's."""
    if "ray" in sys.modules:  # imported and joined by the program that runs the sweep
        from sweeper.execution.on_ray.kept import joined

        if joined():
            return True
    noted = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    asks = address is None and not os.environ.get("RAY_ADDRESS")
    there = os.path.exists(noted)  # noqa: PTH110  Path's raises where another user keeps the folder private
    return _named(address) or (asks and there)


def _named(address: str | None) -> bool:
    """Whether ``--address``, or else RAY_ADDRESS, names a cluster; ``local`` starts one on this machine."""
    return (os.environ.get("RAY_ADDRESS") if address is None else address) not in (None, "", "local")


def _lacking(space: Space, devices: set[str]) -> Iterator[str]:
    """Yield a line for each device, and for each kind of resource of a trial, that this machine does not have."""
    for device in sorted(devices):
        try:
            resolve_device(device)
        except UserError as error:
            yield str(error)
    pieces = space.most_pieces()
    for each, there, unit, name in _asked_of(space.resources):
        by_ray = "GPU" if name == "gpu" else name.removeprefix("custom.")
        fits = each <= there and (not each or units_in(by_ray, there, each) >= pieces)
        if not fits:
            asked = f"{exact(each)} GB" if unit == "GB" else exact(each)
            several = f" and a trial runs {pieces} pieces at once" if pieces > 1 and each <= there else ""
            yield (
                f"resources.{name} is {asked}{several}, but this machine has {there:.4g} {unit}: set it to less, or "
                "give --address of a cluster"
            )
    kind = space.resources.accelerator_type
    if kind is not None and not cards():
        yield f"resources.accelerator_type is {kind!r}, but this machine has no card: leave it out, or give --address"


def _asked_of(resources: Resources) -> Iterator[tuple[float, float, str, str]]:
    """Yield what a trial asks for: how much, how much this machine has of it, in which unit, and its field."""
    yield resources.cpu, usable_cores(), "cores", "cpu"
    yield resources.gpu, cards(), "cards", "gpu"
    memory = usable_memory()
    if resources.memory is not None and memory is not None:
        yield resources.memory / 1e9, memory / 1e9, "GB", "memory"
    offered = _offered()
    for name, amount in resources.custom.items():
        if not name.startswith("node:"):  # what each machine has of its own
            yield amount, offered.get(name, 0.0), "of it", f"custom.{name}"


def _offered() -> dict[str, float]:
    """Custom resources that a Ray would have that is started here: those of the variable that Ray reads."""
    with suppress(ValueError):
        found = json.loads(os.environ.get("RAY_OVERRIDE_RESOURCES") or "{}")
        if isinstance(found, dict):
            return {name: amount for name, amount in found.items() if isinstance(amount, int | float)}
    return {}


def check_preconditions(space: Space, headers: Mapping[DataKey, DataHeader]) -> None:
    """Check every cell's trials, at the corners of its search, against their models and data.

    Raises:
        UserError: one of them can run nowhere; the message names the trial.
    """
    for cell in space.cells():
        for params in space.corners(cell):
            config = space.corner_config(cell, params)
            header = headers.get(config.data_key)
            if header is not None:
                with naming_trial(cell, params):
                    require_runnable(config, header)


def require_same_data(folder: SweepFolder, now: Sequence[DataUsed]) -> None:
    """Check that the data are those that the sweep, and each of its trials, began on.

    Raises:
        UserError: they are not; the message names the fingerprints, the folders and the way out.
    """
    trials = folder.each_record(lambda record: data_used(record.content, record.state))
    before = [*folder.data(), *filter(None, trials)]
    refuse_other_data(
        folder.path.name, before, now, "set trial.data_dir to the data it began on, or give another --name"
    )


@dataclass(frozen=True)
class SharedTrials:
    """The shared trials that the trials of a space need, at the corners of every cell's search.

    Attributes:
        confirmations: those of the confirmations instead.
    """

    space: Space
    confirmations: bool = False

    @cached_property
    def by_cell(self) -> list[list[dict[str, TrialConfig]]]:
        """Their configs by id, for each corner of each cell; found when first asked for."""
        known: dict[str, TrialConfig] = {}  # one object for each id
        return [
            [
                {
                    name: known.setdefault(name, shared)
                    for config in self._configs(cell, params)
                    for name, shared in shared_by(config).items()
                }
                for params in self.space.corners(cell)
            ]
            for cell in self.space.cells()
        ]

    def _configs(self, cell: Cell, params: Mapping[str, Any]) -> list[TrialConfig]:
        """The configs of a corner: those of its replicates, or those that would confirm it."""
        config = self.space.corner_config(cell, params)
        confirming = self.space.confirm.points() if self.space.confirm else []
        each = confirming if self.confirmations else self.space.replicate_values()
        return [config.model_copy(update=values) for values in each]

    def require_same(self, folder: SweepFolder, headers: Mapping[DataKey, DataHeader]) -> None:
        """Check that those that the storage has already are what the trials would compute, each of them once.

        Raises:
            UserError: one was made with another default of the code; the message names it, the field and a trial.
        """
        there = set(files.names(folder.stages))
        if not there:
            return
        fingerprints = {key: header.fingerprint for key, header in headers.items() if header.fingerprint is not None}
        for cell, at_corners in zip(self.space.cells(), self.by_cell, strict=True):
            for params, needed in zip(self.space.corners(cell), at_corners, strict=True):
                if self.space.pbt is not None and self.space.corner_config(cell, params).method == "dense":
                    continue  # its segments copy no shared trial
                for trial_id, shared in needed.items():
                    fingerprint = fingerprints.get(shared.data_key)
                    names = () if fingerprint is None else names_of(shared_name(trial_id, fingerprint), shared)
                    if fingerprint is None or there.isdisjoint(names):
                        continue
                    with naming_trial(cell, params):
                        refuse_other_content(folder.stages, [shared], fingerprint, there)
                    there.difference_update(names)  # each is compared once
