"""Configs of methods that start from another network: a file's, or one that a shared trial trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from trials.config.recipes import PretrainRecipe
from trials.config.trial_config import TrialConfig
from trials.errors import unknown_name
from trials.frozen import Frozen
from trials.models import MODELS
from trials.models.imagenet_resnet import TORCHVISION

PRETRAINED = "pretrained"
"""The ``source_net`` that means the weights of a model's own library."""


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


class HasSource(TrialConfig):
    """Config of methods that can start from existing weights.

    Attributes:
        source_net: start from existing weights instead of training: a file (a state dict alone or in a checkpoint, or
            what ``python -m trials export`` wrote), ``pretrained`` for the weights that torchvision or timm have for
            their own model (``torchvision:NAME``, ``timm:NAME``), or ``torchvision`` for the ImageNet weights of
            ResNet18, ResNet34 or ResNet50.
        source_mask: the mask of a ``source_net`` that holds scores (``popup_scores``).
    """

    named_files: ClassVar[Mapping[str, Literal["weights", "trial"]]] = {"source_net": "weights"}

    source_net: str | None = None
    source_mask: SourceMask | None = None

    def files_given(self) -> dict[str, str]:
        given = super().files_given()
        return {name: path for name, path in given.items() if (name, path) != ("source_net", "torchvision")}

    @property
    def file_starts(self) -> bool:
        """Whether a file of the user's gives the network that the trial starts from, and not a library."""
        return "source_net" in self.files_given() and not self.from_library

    @property
    def from_library(self) -> bool:
        """Whether the trial starts from the weights that torchvision or timm have for its model."""
        return self.source_net == PRETRAINED

    @property
    def masks_zeros(self) -> bool:
        """Whether weights that are exactly 0 in a ``source_net`` without a mask are its mask."""
        return False

    @model_validator(mode="after")
    def _source_can_be_had(self) -> HasSource:
        if self.source_net == "torchvision" and self.model not in TORCHVISION:
            raise ValueError(f"source_net is 'torchvision', but {unknown_name('model', self.model, TORCHVISION)}")
        if self.from_library and self.model.partition(":")[0] not in MODELS.prefixes:
            raise ValueError(
                f"source_net is {PRETRAINED!r}, but model is {self.model!r}, for which no library has weights: give "
                "torchvision:NAME or timm:NAME as model, or a file of weights"
            )
        if self.source_mask is not None and not self.file_starts:
            raise ValueError("source_mask is given, but source_net names no file that it could be of: leave it out")
        return self


class StartsDense(HasSource):
    """Config of methods that start from a dense network.

    Attributes:
        pretrain: recipe of its training, a shared trial: all trials that need the same dense training share one.
    """

    pretrain: PretrainRecipe = PretrainRecipe()
