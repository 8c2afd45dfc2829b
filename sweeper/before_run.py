"""What a run needs and what this machine has of it: data, devices; and whether every trial can run on that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.space.space import Space
from trials import data
from trials.config.trial_config import TrialConfig
from trials.data import DataKey
from trials.data_header import DataHeader
from trials.errors import DataError, UserError
from trials.methods.preconditions import require_runnable
from trials.storage.data_used import DataUsed, data_used, refuse_other_data


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


def look_here(space: Space) -> Here:
    """Load every data set of the space and say what this machine lacks."""
    headers: dict[DataKey, DataHeader] = {}
    missing: list[str] = []
    for key in sorted({config.data_key for config in configs_of(space)}, key=str):
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
            header = headers.get(config.data_key)
            if header is None:
                continue
            try:
                require_runnable(config, header)
            except UserError as error:
                at = ", ".join([*filter(None, [cell.key]), *(f"{path}={value}" for path, value in params.items())])
                raise UserError(f"{error} (the trial at {at})" if at else str(error)) from None


def require_same_data(folder: SweepFolder, now: Sequence[DataUsed]) -> None:
    """Check that the data are those that the sweep, and each of its trials, began on.

    Raises:
        UserError: they are not; the message names the fingerprints, the folders and the way out.
    """
    trials = (data_used(record.content, record.state) for record in folder.records())
    before = [*folder.data(), *filter(None, trials)]
    refuse_other_data(
        folder.path.name, before, now, "set trial.data_dir to the data it began on, or give another --name"
    )
