"""Which data a trial has used, as its folder says, and the refusal of other data under the same name.

``data_dir`` is no part of a trial's name, so that data may be moved. What holds their place is the fingerprint of
their content: a trial, and a sweep, keep to the data that they began on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trials.errors import DamagedFile, UserError
from trials.storage.config_file import read_config
from trials.storage.outages import errs
from trials.storage.packed.reading import part_by_part, trial_names
from trials.storage.place import Place, each
from trials.storage.trial_folder import State, TrialFolder

OPTIONS = ("image_column", "label_column", "image_size")
"""Fields of a config that, beside ``dataset``, name its data; they are part of a trial's name."""

DataName = tuple[Any, ...]
"""The data set and its options."""


@dataclass(frozen=True)
class DataUsed:
    """Data that a config reads.

    Attributes:
        name: the data set and the values of OPTIONS.
        folder: where they lay.
        fingerprint: of their content.
    """

    name: DataName
    folder: str | None
    fingerprint: str

    @classmethod
    def of(cls, config: Mapping[str, Any], fingerprint: str) -> DataUsed:
        """What a config (as JSON) reads, with this fingerprint."""
        return cls(name_of(config), config.get("data_dir"), fingerprint)

    def document(self) -> dict[str, Any]:
        """The values in the form that :meth:`read` reads; options that are not given are left out."""
        options = {option: value for option, value in zip(OPTIONS, self.name[1:], strict=True) if value is not None}
        return {"dataset": self.name[0], **options, "data_dir": self.folder, "fingerprint": self.fingerprint}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> DataUsed:
        """Rebuild from the result of :meth:`document`."""
        return cls.of(document, str(document.get("fingerprint")))


def read_used(documents: Iterable[Any], where: str) -> list[DataUsed]:
    """Read data as :meth:`DataUsed.document` wrote them; ``where`` is the file that holds them.

    Raises:
        UserError: they are no list of data sets.
    """
    try:
        used = [DataUsed.read(document) for document in documents]
        hash(tuple(data.name for data in used))  # names are looked up
    except (TypeError, AttributeError):
        raise UserError(f"{where} has data that are no list of data sets: it was changed by hand; restore it") from None
    return used


def name_of(config: Mapping[str, Any]) -> DataName:
    """The data set of a config (as JSON) and its options."""
    return (config.get("dataset"), *(config.get(option) for option in OPTIONS))


def data_used(config: Mapping[str, Any], state: State | None) -> DataUsed | None:
    """The data that a trial has computed with; None if it has committed nothing, or an older version did not say."""
    if state is None:
        return None
    fingerprint = state.result.get("data") or state.progress.get("data")
    return None if fingerprint is None else DataUsed.of(config, str(fingerprint))


def data_used_in(trials: Place) -> Iterator[DataUsed]:
    """Yield what each trial in a sweep's folder ``trials`` has used. Damaged trials are left out."""

    def read(name: str) -> DataUsed | None:
        try:
            return data_used(read_config(trials / name).config, TrialFolder(trials / name).state())
        except (OSError, DamagedFile) as error:
            if errs(error):
                raise
            return None

    yield from filter(None, each(read, part_by_part(trials, trial_names(trials)), trials))


def refuse_other_data(whose: str, before: Iterable[DataUsed], now: Iterable[DataUsed], way_out: str) -> None:
    """Check that data of the same name have the same content as when they were used before.

    ``whose`` names what used them, and ``way_out`` what to do, for the message.

    Raises:
        UserError: they do not, or ``now`` itself has two contents under one name; the message names the fingerprints
            and the folders.
    """
    there: dict[DataName, DataUsed] = {}
    for data in now:
        other = there.setdefault(data.name, data)
        if other.fingerprint != data.fingerprint:
            raise UserError(
                f"{_shown(other)} and {_shown(data)}, but a sweep has one content under one name: make two sweeps"
            )
    for used in before:
        data = there.get(used.name, used)
        if data.fingerprint != used.fingerprint:
            raise UserError(f"{_shown(data)}, but {whose} used {used.fingerprint}{_place(used)}: {way_out}")


def _shown(data: DataUsed) -> str:
    return f"{data.name[0]} has fingerprint {data.fingerprint}{_place(data)}"


def _place(data: DataUsed) -> str:
    return "" if data.folder is None else f" in {data.folder!r}"
