"""Which cells have fewer samples than the space gives them: the driver writes it to ``searches.json``, reports read it.

It is derived from samples and outcomes, and never read by a driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from trials.errors import DamagedFile, one_line
from trials.storage import files
from trials.storage.place import Place
from trials.storage.sealed import read_sealed, seal


@dataclass(frozen=True)
class ShorterSearch:
    """A cell's search that has fewer samples than the space gives it.

    Attributes:
        samples: how many it has in the end, as far as that is known, without confirmations.
        why: the reason.
        over: whether it has ended; otherwise it will.
    """

    samples: int
    why: str
    over: bool = True

    def __str__(self) -> str:
        return f"after {self.samples} sample{'s' * (self.samples != 1)}: {one_line(str(self.why))}"


def write_shorter(folder: Place, found: Mapping[str, ShorterSearch]) -> None:
    """Write the searches of a sweep's folder that are shorter, by cell."""
    content = {"schema": 1, "cells": {key: asdict(one) for key, one in found.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / _NAME, seal(content))


def read_shorter(folder: Place) -> dict[str, ShorterSearch]:
    """Return what :func:`write_shorter` wrote; empty if nothing did, or if the file is damaged."""
    return _read(folder)[0]


def shorter_damage(folder: Place) -> str | None:
    """What is wrong with the file that :func:`read_shorter` reads, as a line; None if nothing is."""
    return _read(folder)[1]


def _read(folder: Place) -> tuple[dict[str, ShorterSearch], str | None]:
    path = folder / _NAME
    try:
        content, _ = read_sealed(path, ("schema", "cells"))
        found = {str(key): ShorterSearch(**one) for key, one in content["cells"].items()}
    except FileNotFoundError:
        return {}, None
    except DamagedFile as damage:
        return {}, str(damage)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"{path} cannot be read ({error})"
    return {key: one for key, one in found.items() if isinstance(one.samples, int) and one.samples >= 0}, None


_NAME = "searches.json"
