"""Build a model without drawing the values of its parameters, where every one of them is overwritten afterwards.

Drawing takes most of the time of building a large model. Only the draws are left out: everything else that a
constructor makes (buffers, constants, what it derives from shapes) is as always, which the meta device would not give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = frozenset({
    *("normal_", "uniform_", "log_normal_", "cauchy_", "exponential_", "geometric_", "random_", "bernoulli_"),
    *("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"),
})  # fmt: skip
"""Functions that fill a tensor with random values, whatever it held: of tensors, and of torch.nn.init."""

_GETTERS = frozenset(
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "layout", "requires_grad", "is_leaf", "ndim", "is_meta", "grad", "grad_fn")
)
_FACTS = frozenset({
    *("size", "dim", "numel", "nelement", "element_size", "stride", "is_contiguous", "is_floating_point", "is_complex"),
    *("__len__", "__hash__"),
})  # fmt: skip
"""What may be asked of a parameter without a look at its values."""


def built_without_draws(builder: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module | None:
    """Return the model that ``builder`` makes, its parameters NaN where it would have drawn them.

    None if that may be another model than with values: the builder reads a parameter's values, draws other values (they
    would be others, too) or draws a parameter that the model does not have. NaN, so that a parameter that is not
    overwritten shows in every result.

    Args:
        generator: the random state that the builder draws from.
    """
    before = generator.get_state()
    with _NaNInPlaceOfDraws() as seen:
        model = builder()
    own = {id(parameter) for parameter in model.parameters()}
    same = not seen.values_used and torch.equal(before, generator.get_state())
    return model if same and own >= seen.filled.keys() else None


class _NaNInPlaceOfDraws(TorchFunctionMode):
    """Fills parameters with NaN where they are drawn.

    Attributes:
        filled: these parameters, by identity.
        values_used: whether something other than a parameter may depend on a parameter's values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.filled: dict[int, nn.Parameter] = {}
        self.values_used = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _FACTS or func in _GETTERS:
            return func(*args, **given)
        target = args[0] if args else given.get("tensor")  # as torch.nn.init passes it on
        if isinstance(target, nn.Parameter) and name[-1:] == "_" and name[-2:] != "__":  # writes into it
            if name in _DRAWS and given.get("generator") is None:
                self.filled[id(target)] = target
                with torch.no_grad():
                    return target.fill_(torch.nan)
        elif not self.values_used:
            self.values_used = _has_parameter(args) or _has_parameter(given.values())
        return func(*args, **given)


def _has_parameter(arguments: Iterable[Any]) -> bool:
    for argument in arguments:
        if isinstance(argument, nn.Parameter):
            return True
        if isinstance(argument, (list, tuple)) and _has_parameter(argument):
            return True
    return False
