"""Resources per trial (``resources:``)."""

from __future__ import annotations

from pydantic import Field, field_validator

from trials.errors import UserError
from trials.frozen import Frozen


class Resources(Frozen):
    """CPUs and GPUs per trial. ``gpu: 0.25`` runs four trials on one GPU.

    Attributes:
        cpu: CPU cores of a trial.
        gpu: GPUs of a trial; a fraction shares one card.
    """

    cpu: float = Field(default=1, gt=0)
    gpu: float = Field(default=0, ge=0)

    @field_validator("gpu")
    @classmethod
    def _whole_cards(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise UserError(f"resources.gpu is {value:g}, but must be a whole number, or a fraction up to 1")
        return value
