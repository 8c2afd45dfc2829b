"""Build a config's network and data loader on a device, in the config's precision and memory format."""

from __future__ import annotations

import torch

from trials import models
from trials.compact import Architecture
from trials.config.trial_config import TrialConfig
from trials.data import Loader, Source, normalised, to_loader
from trials.training.device import resolve_memory_format, resolve_precision
from trials.training.net import Net

_DTYPES = {"float32": torch.float32, "bf16": torch.float32, "float64": torch.float64}


def build_net(config: TrialConfig, raw: Source, device: torch.device, values: bool = True) -> Net:
    """Build the config's model, initialised from its seed, on the device, in its precision and memory format.

    ``values``: whether its initial values are needed; False if all parameters will be overwritten.
    """
    precision = resolve_precision(config, device)
    shape = {"num_classes": raw.num_classes, "in_channels": raw.in_channels}
    model = models.build(config.model, **shape, seed=config.seed, values=values)
    model = model.to(device=device, dtype=_DTYPES[precision])
    model = model.to(memory_format=resolve_memory_format(config, device))
    return Net(model, autocast=precision == "bf16", compile_forward=config.compile)


def architecture_of(config: TrialConfig, raw: Source, device: torch.device) -> Architecture:
    """Describe what :func:`build_net` builds, to be stored in checkpoints."""
    precision = resolve_precision(config, device)
    return Architecture(config.model, raw.num_classes, raw.in_channels, raw.image_size, precision)


def build_loader(config: TrialConfig, raw: Source, device: torch.device) -> Loader:
    """Build the loader of the config's data set, with its validation split."""
    return to_loader(
        normalised(raw, config.normalise),
        device=device,
        dtype=_DTYPES[resolve_precision(config, device)],
        val_fraction=config.val_fraction,
        split_seed=config.split_seed,
        stratify_split=config.stratify_split,
        channels_last=resolve_memory_format(config, device) is torch.channels_last,
    )
