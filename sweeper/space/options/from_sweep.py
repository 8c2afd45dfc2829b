"""An earlier sweep that a search starts from (``from_sweep:``)."""

from __future__ import annotations

from pydantic import Field

from trials.frozen import Frozen


class FromSweep(Frozen):
    """An earlier sweep that a search starts from, see :mod:`sweeper.search.warm_start`.

    Attributes:
        sweep: its name in the same storage, or its path.
        points: number of its best points to try first in cells whose trials differ from the earlier ones in more than
            the seed and the searched fields.
    """

    sweep: str = Field(min_length=1)
    points: int = Field(default=3, ge=1)
