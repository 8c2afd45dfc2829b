"""Trace a model's forward pass symbolically, and guess shapes of an input that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from torch import fx, nn

from trials.compact.attention import FewerHeads
from trials.errors import UserError

Shape = tuple[int, ...]

_takes: WeakKeyDictionary[nn.Module, Shape] = WeakKeyDictionary()


class NoInput(UserError):
    """No shape of an input was found for which a model's channels can be followed."""


def takes(model: nn.Module, shape: Shape) -> None:
    """Say what one input of a model looks like, without the batch, so that it need not be guessed."""
    _takes[model] = shape


def given_shape(model: nn.Module) -> Shape | None:
    """Return what :func:`takes` was told."""
    return _takes.get(model)


class Tracer(fx.Tracer):
    """Traces into everything but torch's own modules and attention that has lost heads."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, FewerHeads) or super().is_leaf_module(m, module_qualified_name)


def traced(model: nn.Module) -> list[fx.Graph]:
    """Return the forward pass in evaluation mode, and in training mode if that is another one.

    Raises:
        UserError: the model's forward pass cannot be traced, for example because it branches on its input.
    """
    before = {module: module.training for module in model.modules()}
    graphs: list[fx.Graph] = []
    try:
        for mode in (False, True):
            model.train(mode)
            graphs.append(Tracer().trace(model))
    except Exception as error:  # noqa: BLE001  whatever the model's own code raises for a symbol
        line = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{type(model).__name__} cannot be made smaller, because its forward pass cannot be traced ({line}): "
            "write it without branches on its input"
        ) from None
    finally:
        for module, mode in before.items():
            module.training = mode
    one, other = ([(node.op, str(node.target)) for node in graph.nodes] for graph in graphs)
    return graphs[:1] if one == other else graphs


def traced_for_evaluation(model: nn.Module) -> fx.Graph:
    """Return the forward pass in evaluation mode of a model that can be traced."""
    before = {module: module.training for module in model.modules()}
    try:
        return Tracer().trace(model.eval())
    finally:
        for module, mode in before.items():
            module.training = mode


def shapes_to_try(model: nn.Module) -> Iterator[Shape]:
    """Yield shapes of one input that may fit: what the model says of itself, usual sizes, all others up to 320."""
    modules = list(model.modules())
    first: Any = next((module for module in modules if isinstance(module, (nn.Conv2d, nn.Linear))), None)
    said = [getattr(module, name, None) for module in modules for name in ("image_size", "img_size", "input_size")]
    given = [size[-1] if isinstance(size, (tuple, list)) and size else size for size in said]
    usual = [*(size for size in given if isinstance(size, int)), 32, 64, 8, 16, 28, 96, 128, 224, 299, 384]
    sizes = list(dict.fromkeys([*usual, *range(1, 320)]))
    if isinstance(first, nn.Conv2d):
        yield from ((first.in_channels, size, size) for size in sizes)
    elif isinstance(first, nn.Linear):
        yield (first.in_features,)
        yield (4, first.in_features)
        yield from ((channels, size, size) for size in sizes for channels in (3, 1, 2, 4))
