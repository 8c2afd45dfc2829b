"""Section ``counts``: operators, floating-point operations and bytes of a step, counted on the CPU.

No device computes anything here, so the figures are the same on every machine. Operators do not depend on the size of
a batch; operations and bytes grow with it along a straight line, which two small batches determine. Where the project
has few large operators on a GPU and many small ones on a CPU, those of a GPU are counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.kinds import kind_of_operator
from benchmarks.gpu.product import launches
from benchmarks.gpu.steps import KINDS, Shape, new_step

CPU = torch.device("cpu")
BATCH = 128
SMALL = (2, 4)
"""Sizes of the batches that are counted."""

MODELS = {"resnet20s": KINDS, "resnet18": ("dense",), "vgg16": ("dense",)}

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
"""Operators that need a value on the host, and so wait for a GPU."""

UNMOVED = ("empty", "_unsafe_view", "_reshape_alias", "detach", "lift_fresh", "_local_scalar_dense")
"""Operators that move nothing."""

SEPARATE = ("convolution", "convolution, gradients", "matrix product", "optimiser")
"""Kinds of operators that stay kernels of their own even if everything between them is fused into them."""


class Operators(TorchDispatchMode):
    """Counts operators below autograd and autocast, without views.

    Attributes:
        calls: number of calls, by operator.
        moved: bytes of inputs read and outputs written, each tensor once per operator, by operator.
        reads: number of times that a value is read on the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.reads = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        named = named or {}
        results = function(*arguments, **named)
        name = function._schema.name.partition("::")[2]
        self.reads += function in READS
        if not function.is_view and not name.startswith(UNMOVED):
            self.calls[name] += 1
            self.moved[name] += _moved(function, arguments, named, results)
        return results


def _moved(function: Any, arguments: Any, named: Any, results: Any) -> int:
    """Return the bytes that an operator reads and writes; arguments that it changes are read and written."""
    given = {id(tensor): tensor for tensor in tree_leaves((arguments, named)) if isinstance(tensor, Tensor)}
    made = [tensor for tensor in tree_leaves(results) if isinstance(tensor, Tensor) and id(tensor) not in given]
    changed = []
    for place, parameter in enumerate(function._schema.arguments):
        if parameter.alias_info is not None and parameter.alias_info.is_write:
            value = arguments[place] if place < len(arguments) else named.get(parameter.name)
            changed += [tensor for tensor in tree_leaves(value) if isinstance(tensor, Tensor)]
    return sum(map(_bytes, (*given.values(), *made, *changed)))


def _bytes(tensor: Tensor) -> int:
    """Return the bytes of the elements that a tensor has in memory: an expanded dimension counts once."""
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return math.prod(sizes) * tensor.element_size() if tensor.numel() else 0


def counted(step: Callable[[], object]) -> tuple[Operators, int]:
    """Count the operators of a call, and its floating-point operations in convolutions and matrix products."""
    with FlopCounterMode(display=False) as flops, Operators() as operators:
        step()
    return operators, flops.get_total_flops()


def by_kind(counter: Counter[str]) -> dict[str, int]:
    """Return the sums of a counter by operators' kind, the largest first."""
    kinds: Counter[str] = Counter()
    for name, count in counter.items():
        kinds[kind_of_operator(name)] += count
    return dict(kinds.most_common())


def step_counts(kind: str, model: str, batch: int = BATCH) -> dict[str, Any]:
    """Count a step with bfloat16 autocast in channels last, as trials run it on a GPU.

    Returns:
        ``waits`` (reads of values on the host), ``operators`` (calls), ``operators_by_kind``, ``GFLOP``, ``MB`` (each
        operator reads its inputs and writes its outputs once), ``MB_by_kind``, ``fused_MB`` (the same of convolutions,
        matrix products and the optimiser alone).
    """
    found = []
    with patch.object(launches, "few_launches", lambda device: True):
        for size in SMALL:
            step = new_step(kind, model, CPU, shape=Shape(size, autocast=True, channels_last=True))
            step()  # the first step makes the optimiser's state
            found.append(counted(step))
    (few, few_flops), (many, many_flops) = found
    kinds_few, kinds_many = by_kind(few.moved), by_kind(many.moved)
    megabytes = {kind: _at(batch, kinds_few.get(kind, 0), moved) / 1e6 for kind, moved in kinds_many.items()}
    return {
        "waits": many.reads,
        "operators": sum(many.calls.values()),
        "operators_by_kind": by_kind(many.calls),
        "GFLOP": round(_at(batch, few_flops, many_flops) / 1e9, 3),
        "MB": round(sum(megabytes.values()), 2),
        "MB_by_kind": {kind: round(moved, 2) for kind, moved in megabytes.items()},
        "fused_MB": round(sum(megabytes.get(kind, 0.0) for kind in SEPARATE), 2),
    }


def _at(batch: int, few: int, many: int) -> float:
    """Return the value at ``batch`` of the line through those at the sizes ``SMALL``."""
    return few + (many - few) * (batch - SMALL[0]) / (SMALL[1] - SMALL[0])


def counts(check: Check, result: Result) -> None:
    """Count a step of every kind; ``result`` is keyed by model and kind. A check of a CPU counts one model."""
    for model, kinds in MODELS.items() if check.card.is_cuda else list(MODELS.items())[:1]:
        into = result[model] = {}
        for kind in kinds:
            if check.has(3.0, into, kind):
                check.attempt(into, kind, lambda model=model, kind=kind: step_counts(kind, model))
