"""Facts of a built model that decide whether a method can prune it: its layers' shapes, and what passes through them.

They are measured once per model and image size, with zeros as weights or on the meta device, so a check of a config is
integer arithmetic.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from trials.compact import Channels, dependencies
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.sparsity.masks import prunable

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)


@dataclass(frozen=True)
class LayerFacts:
    """One convolution or linear layer.

    Attributes:
        name: name of its module.
        shape: shape of its weight, [O, I / groups, kh, kw] or [O, I].
        groups: of a convolution; 1 for linear layers.
        applied: how often a forward pass calls it.
        tied: whether another layer has the same weight.
        map_size: (H, W) of its last output; None if that has no height and width.
    """

    name: str
    shape: tuple[int, ...]
    groups: int
    applied: int
    tied: bool
    map_size: tuple[int, int] | None

    @property
    def weights(self) -> int:
        """Number of entries of its weight."""
        return torch.Size(self.shape).numel()

    @property
    def linear(self) -> bool:
        return len(self.shape) == 2


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """A model on images of one shape. Compared by identity: there is one object per model and image shape.

    Attributes:
        layers: convolutions and linear layers in module order.
        outputs: shape of its output for two images.
        alone: why it cannot train on a batch of one image; empty if it can.
    """

    layers: tuple[LayerFacts, ...]
    outputs: tuple[int, ...]
    alone: str

    def prunable(self, *, linear: bool = True) -> tuple[LayerFacts, ...]:
        """The layers in the order of :func:`trials.sparsity.masks.prunable`, or only the convolutions."""
        return self.layers if linear else tuple(layer for layer in self.layers if not layer.linear)


_facts: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], ModelFacts]] = WeakKeyDictionary()
_graphs: WeakKeyDictionary[nn.Module, Mapping[str, Channels]] = WeakKeyDictionary()


def facts_of(model: nn.Module, data: DataHeader) -> ModelFacts:
    """Return the facts of a model without values for images of ``data``'s shape; measured once.

    Raises:
        UserError: the model cannot compute with such images.
    """
    shape = (data.in_channels, *data.image_size)
    known = _facts.setdefault(model, {})
    if shape not in known:
        known[shape] = _measured(model, shape)
    return known[shape]


def graph_of(model: nn.Module) -> Mapping[str, Channels]:
    """Return the model's channel dependencies, by weight name (:func:`trials.compact.dependencies`); traced once.

    Raises:
        UserError: the model cannot be traced.
    """
    if model not in _graphs:
        _graphs[model] = dependencies(model)
    return _graphs[model]


_SMALL_PARAMETERS, _SMALL_PIXELS = 20_000_000, 64 * 64


def _is_small(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether computing takes less time than importing torch's compiler, which operations on the meta device do."""
    small = sum(parameter.numel() for parameter in model.parameters()) <= _SMALL_PARAMETERS
    return small and shape[1] * shape[2] <= _SMALL_PIXELS


def _zeros(tensor: Tensor) -> Tensor:
    """Zeros on the CPU. Not ``empty_like``, which also imports torch's compiler."""
    return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")


def _measured(model: nn.Module, shape: tuple[int, ...]) -> ModelFacts:
    tied = _tied(_layers(model))  # a copy with values has a tensor of its own for each
    if not _is_small(model, shape):
        with contextlib.suppress(Exception):  # an operation may lack the meta device
            return _observed(model, shape, tied)
    real: nn.Module = copy.deepcopy(model)._apply(_zeros)  # type: ignore[no-untyped-call]
    try:
        return _observed(real, shape, tied)
    except Exception as error:  # noqa: BLE001  whatever the model's own code raises
        size = "x".join(map(str, shape))
        raise UserError(
            f"the model cannot compute with images of {size} (channels x height x width): {_reason(error)}: "
            "give another model, or images of another size"
        ) from None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def _layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def _observed(model: nn.Module, shape: tuple[int, ...], tied: Collection[str]) -> ModelFacts:
    """The facts, from forward passes of two images and of one, in training and evaluation mode."""
    layers = _layers(model)
    with _calls(layers) as (counts, sizes):
        outputs = _forward(model, 2, shape, training=True)
    _forward(model, 1, shape, training=False)
    found = tuple(
        LayerFacts(
            name,
            tuple(module.weight.shape),
            getattr(module, "groups", 1),
            counts.get(name, 0),
            name in tied,
            sizes.get(name),
        )
        for name, module in layers.items()
    )
    assert [f"{layer.name}.weight" for layer in found] == list(prunable(model))
    return ModelFacts(found, outputs, _alone(model, shape))


def _tied(layers: Mapping[str, nn.Module]) -> set[str]:
    by_weight: dict[int, list[str]] = {}
    for name, module in layers.items():
        by_weight.setdefault(id(module.weight), []).append(name)
    return {name for names in by_weight.values() if len(names) > 1 for name in names}


def _alone(model: nn.Module, shape: tuple[int, ...]) -> str:
    """Why the model cannot train on one image: the norms that then have one value per channel, or torch's reason."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _NORMS)}
    lonely: list[str] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].numel() == inputs[0].shape[1]:
                lonely.append(name)

        return hook

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in norms.items()]
    try:
        _forward(model, 1, shape, training=True)
    except Exception as error:  # noqa: BLE001  BN raises ValueError, a model's own code anything
        first = f"{lonely[0]} has one value per channel then" if lonely else _reason(error)
        return f"{first}, and has no statistics" if lonely else first
    finally:
        for hook in hooks:
            hook.remove()
    return ""


def _forward(model: nn.Module, images: int, shape: tuple[int, ...], *, training: bool) -> tuple[int, ...]:
    """Shape of the model's output for blank images; leaves the model in the mode it had."""
    before = {module: module.training for module in model.modules()}
    example = next(iter(model.parameters()))
    model.train(training)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            outputs = model(torch.zeros(images, *shape, device=example.device, dtype=example.dtype))
    finally:
        for module, mode in before.items():
            module.training = mode
    return tuple(outputs.shape)


@contextmanager
def _calls(layers: Mapping[str, nn.Module]) -> Iterator[tuple[dict[str, int], dict[str, tuple[int, int]]]]:
    """Count the calls of each layer, and note (H, W) of its last output."""
    counts: dict[str, int] = {}
    sizes: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            counts[name] = counts.get(name, 0) + 1
            if output.dim() == 4:
                sizes[name] = (output.shape[2], output.shape[3])

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in layers.items()]
    try:
        yield counts, sizes
    finally:
        for hook in hooks:
            hook.remove()
