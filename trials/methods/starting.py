"""The network that a trial starts from if a file gives it: read, checked before anything starts, and loaded."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import nn

from trials.compact import Kept, shrink
from trials.config.source_mask import SourceMask
from trials.config.trial_config import HasSource, TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.base import Method
from trials.methods.budgets import LeftLayer
from trials.methods.registry import METHODS
from trials.models import without_values
from trials.networks.fitting import Fitted, fitted
from trials.networks.load import load_into
from trials.networks.named_files import read_weights_file
from trials.networks.torchvision_weights import require_usable, source_path
from trials.sparsity import DISTRIBUTIONS, PATTERNS, Masks, build_masks, density_of, keep_count, prunable
from trials.training.net import Net

FIELD = "source_net"


@dataclass(frozen=True)
class _Source:
    """What of a config decides the network that its file gives."""

    path: str
    digest: str | None
    model: str
    mask: SourceMask | None
    masks_zeros: bool


@dataclass(frozen=True)
class _Start:
    """What matters to methods and checks of a network that a file gives.

    Attributes:
        density: of its mask; None without one.
        compact: whether it is smaller than the model.
        scored: whether its mask is made from scores.
        layers: its convolutions and linear layers, in the model's order.
        kept: rows of the whole model that it has, of layers that have fewer.
    """

    density: float | None
    compact: bool
    scored: bool
    layers: tuple[LeftLayer, ...]
    kept: Kept

    @classmethod
    def of(cls, found: Fitted, model: nn.Module) -> _Start:
        shapes = {name: tuple(found.state[name].shape) for name in prunable(model)}
        layers = tuple(
            LeftLayer(
                name.removesuffix(".weight"),
                shape,
                getattr(model.get_submodule(name.removesuffix(".weight")), "groups", 1),
                int(found.masks[name].sum()) if name in found.masks else math.prod(shape),
            )
            for name, shape in shapes.items()
        )
        density = density_of(found.masks) if found.masks else None
        return cls(density, bool(found.kept), bool(found.scores), layers, found.kept)


def load_source(net: Net, method: Method) -> None:
    """Load what the config's ``source_net`` names, with its mask and its rows; nothing if it is not given.

    Raises:
        UserError: the file is missing, has another content than when the trial was named, or does not fit.
    """
    config = method.config
    if not isinstance(config, HasSource) or config.source_net is None:
        return
    source = _source(config)
    if source is None:
        load_into(net.model, source_path(config.source_net, config.model))
        return
    found = _read(source, net.model)
    start = _Start.of(found, net.model)
    method.check_start(start.density, compact=start.compact)
    net.keep(found.kept)
    state = {**net.model.state_dict(), **found.state}
    net.load_state_dict({"model": state, "masks": found.masks, "snapshots": {}})
    net.start_density = 1.0 if start.density is None else start.density


def require_fitting(config: TrialConfig, data: DataHeader) -> tuple[LeftLayer, ...]:
    """Check that the files and trials that a config names fit its model on data of these classes and channels.

    Reads each of them once per model, number of classes and number of channels. Returns the layers of the network that
    a file gives, with their own shapes and the numbers of weights that its mask keeps; none if no file gives one.

    Raises:
        UserError: the file cannot be read, its weights do not fit the model, or the method would drop their mask.
    """
    _require_trials(config, data.num_classes, data.in_channels)
    if not isinstance(config, HasSource) or config.source_net is None:
        return ()
    source = _source(config)
    if source is None:
        require_usable(config.model, data.num_classes, data.in_channels)
        return ()
    start = _known_start(source, data)
    if start.scored and source.mask is not None and source.mask.leaves_open():
        raise UserError(
            f"source_mask has no distribution, but source_net is {config.source_net!r}, whose scores keep other "
            "weights with each: give distribution: global (one ranking of the whole network, as in BiP's code) or "
            "uniform (one of each layer, as in HYDRA's)"
        )
    METHODS[config.method](config).check_start(start.density, compact=start.compact)
    return start.layers


def starting_network(config: HasSource, data: DataHeader) -> nn.Module:
    """Return the network that a config's file gives, without values (meta device). Callers must not change it.

    Raises:
        UserError: the file cannot be read, or its weights do not fit the model.
    """
    model = without_values(config.model, num_classes=data.num_classes, in_channels=data.in_channels)
    source = _source(config)
    kept = None if source is None else _known_start(source, data).kept
    if not kept:
        return model
    smaller = copy.deepcopy(model)
    shrink(smaller, kept)
    return smaller


def _known_start(source: _Source, data: DataHeader) -> _Start:
    """What matters of a source's network; read once per content."""
    # without a hash nobody knows whether the file is still the same
    read = _start if source.digest is not None else _start.__wrapped__
    return read(source, data.num_classes, data.in_channels)


def _require_trials(config: TrialConfig, num_classes: int, in_channels: int) -> None:
    given = config.files_given()
    trials = tuple((name, given[name], config.file_hashes.get(name)) for name in given if name != FIELD)
    pattern = getattr(config, "pattern", getattr(config, "unit", None))
    key = (config.method, config.model, pattern, num_classes, in_channels, *trials)
    if trials and key not in _TRIALS_THAT_FIT:
        METHODS[config.method](config).check_trials(
            without_values(config.model, num_classes=num_classes, in_channels=in_channels)
        )
        if all(digest is not None for _, _, digest in trials):
            _TRIALS_THAT_FIT.add(key)


_TRIALS_THAT_FIT: set[tuple[object, ...]] = set()


def _source(config: HasSource) -> _Source | None:
    """The file that the config names; None if it names torchvision's weights."""
    path = config.files_given().get(FIELD)
    if path is None:
        return None
    return _Source(path, config.file_hashes.get(FIELD), config.model, config.source_mask, config.masks_zeros)


@lru_cache(maxsize=64)
def _start(source: _Source, num_classes: int, in_channels: int) -> _Start:
    model = without_values(source.model, num_classes=num_classes, in_channels=in_channels)
    return _Start.of(_read(source, model), model)


def _read(source: _Source, model: nn.Module) -> Fitted:
    weights, what = read_weights_file(FIELD, source.path, source.digest)
    found = fitted(weights, model, what, source.model)
    masks = _scored(found, source.mask, model, what) or found.masks
    if not masks and source.masks_zeros:
        masks = _of_zeros(found, model)
    if not masks:
        return found
    complete = {  # a layer without a mask keeps all its weights
        name: masks[name] if name in masks else torch.ones(found.state[name].shape, dtype=torch.bool)
        for name in prunable(model)
    }
    if not any(mask.any() for mask in complete.values()):
        raise UserError(
            f"{what}, but its mask keeps no weight, so there is nothing to go on from: give one that keeps some"
        )
    state = {name: found.state[name] * mask.to(found.state[name].dtype) for name, mask in complete.items()}
    return replace(found, state={**found.state, **state}, masks=complete)


def _of_zeros(found: Fitted, model: nn.Module) -> Masks:
    """Masks that keep what is not exactly 0; empty if nothing is."""
    masks = {name: found.state[name] != 0 for name in prunable(model)}
    return {} if all(bool(mask.all()) for mask in masks.values()) else masks


def _scored(found: Fitted, mask: SourceMask | None, model: nn.Module, what: str) -> Masks:
    """The mask that the file's scores keep at the density of ``source_mask``; empty for dense weights."""
    if not found.scores:
        if mask is not None and mask.density < 1:
            raise UserError(f"source_mask is given, but {what}, which holds no scores that rank weights: leave it out")
        return {}
    if mask is None:
        raise UserError(
            f"{what}, but holds scores (popup_scores) and not the density that they were trained for: give it as "
            "source_mask: {density: K, distribution: global} for BiP's (one ranking of the whole network) or "
            "{density: K, distribution: uniform} for HYDRA's (one of each layer), with pattern: filter or channel in "
            "place of the distribution if these were pruned, or as {density: 1} for the dense weights"
        )
    if mask.density == 1:
        return {}
    pattern = PATTERNS[mask.pattern]
    names = prunable(model, linear=pattern.linear)
    scores = {name: found.scores[name] for name in names if name in found.scores}
    if len(scores) < len(found.scores):
        raise UserError(
            f"source_mask has pattern {mask.pattern!r}, but {what}, which has scores of linear layers too: "
            "give pattern weight"
        )
    whole = mask.pattern == "weight" and mask.distribution == "global"
    masks = build_masks(
        {**scores, **found.rivals} if whole else scores,
        density=mask.density,
        pattern=pattern,
        distribution=DISTRIBUTIONS["global" if whole else "uniform"],
        absolute=True,
        count=keep_count,  # as the code counts that trained the scores
    )
    return {name: masks[name] for name in scores}
