"""The field ``source_mask``: what the scores of a file keep."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trials.frozen import Frozen


class SourceMask(Frozen):
    """The mask of a file that holds scores, as BiP's checkpoints do, but not the density that they were trained for.

    Attributes:
        density: share that the scores keep, the released code's k. 1 takes the file's dense weights.
        pattern: what they keep: single weights, or filters or input channels of each convolution.
        distribution: which single weights compete: ``global``, those of the whole network, as in BiP's code;
            ``uniform``, those of each layer, as in HYDRA's. The file does not show which, so :meth:`leaves_open` says
            whether it was given. The default is for the names of trials only: a config without it has the name of one
            with ``global``.
    """

    density: float = Field(gt=0, le=1)
    pattern: Literal["weight", "filter", "channel"] = "weight"
    distribution: Literal["global", "uniform"] = "global"

    @model_validator(mode="after")
    def _distribution_is_of_weights(self) -> SourceMask:
        if self.pattern != "weight" and self.distribution == "uniform":
            raise ValueError(
                f"distribution is 'uniform', but is for single weights, and pattern is {self.pattern!r}, which is kept "
                "in each convolution by itself: leave it out"
            )
        return self

    def leaves_open(self) -> bool:
        """Whether the mask depends on a distribution that was not given."""
        return self.pattern == "weight" and self.density < 1 and "distribution" not in self.model_fields_set
