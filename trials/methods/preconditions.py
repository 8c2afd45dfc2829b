"""Check that a trial can run, on the built model and the data's header, before anything is trained."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.methods.registry import METHODS
from trials.methods.starting import require_fitting
from trials.models import MODELS


def require_runnable(config: TrialConfig, data: DataHeader) -> None:
    """Check a trial, and the trials that it starts from, against its model and its data.

    Raises:
        UserError: the trial can run nowhere on such data; the message names the cause and the way out.
    """
    require_fitting(config, data)
    method = METHODS[config.method](config)
    method.check(model_of(config.model, data.num_classes, data.in_channels), data)
    for other in (method.source(), *method.references().values()):
        if other is not None:
            require_runnable(other, data)


@lru_cache(maxsize=32)
def model_of(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """The model ``name`` on the meta device: shapes without values. Callers must not change it."""
    with torch.device("meta"):
        return MODELS[name](num_classes=num_classes, in_channels=in_channels)
