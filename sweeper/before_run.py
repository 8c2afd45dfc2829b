"""What a run needs and what this machine has of it: data, devices; and whether every trial can run on that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sweeper.space.space import Space
from trials import data
from trials.config.trial_config import TrialConfig
from trials.data import DataOptions
from trials.data_header import DataHeader
from trials.errors import DataError, UserError
from trials.methods.preconditions import require_runnable

DataKey = tuple[str, str | None, DataOptions]
"""Data set, folder and options: what configs that read the same data agree in."""


@dataclass(frozen=True)
class Here:
    """What was found on this machine.

    Attributes:
        headers: by what reads them, the headers of the data; the published sizes where the data are not here, and
            nothing where these are not known.
        missing: one line for each thing that a run needs and this machine lacks.
    """

    headers: Mapping[DataKey, DataHeader]
    missing: tuple[str, ...]


def data_key(config: TrialConfig) -> DataKey:
    """What decides which data a trial reads."""
    return config.dataset, config.data_dir, config.data_options


def configs_of(space: Space) -> Iterator[TrialConfig]:
    """Yield the trial configs at the corners of every cell's search."""
    return (config for cell in space.cells() for config in space.corner_configs(cell))


def look_here(space: Space) -> Here:
    """Load every data set of the space and say what this machine lacks."""
    headers: dict[DataKey, DataHeader] = {}
    missing: list[str] = []
    for key in sorted({data_key(config) for config in configs_of(space)}, key=str):
        try:
            headers[key] = data.require_data(*key)
        except DataError as error:
            missing.append(str(error))
            if (published := data.published_header(key[0])) is not None:
                headers[key] = published
    return Here(headers, tuple(missing))


def check_preconditions(space: Space, headers: Mapping[DataKey, DataHeader]) -> None:
    """Check every cell's trials, at the corners of its search, against their models and data.

    Raises:
        UserError: one of them can run nowhere; the message names the trial.
    """
    for cell in space.cells():
        for params in space.corners(cell):
            config = space.config(cell, params)
            header = headers.get(data_key(config))
            if header is None:
                continue
            try:
                require_runnable(config, header)
            except UserError as error:
                at = ", ".join([*filter(None, [cell.key]), *(f"{path}={value}" for path, value in params.items())])
                raise UserError(f"{error} (the trial at {at})" if at else str(error)) from None
