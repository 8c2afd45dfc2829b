"""Counts the operators that torch dispatches: on a GPU each of them is at least one kernel, but for views.

An operator on lists of tensors (``_foreach_``) counts once if corresponding tensors have equal shapes and strides, as
CUDA's fast path asks for, and otherwise once per tensor, which is what CUDA then launches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.found[str(func)] += _one_by_one(args) if "_foreach_" in str(func) else 1
        return func(*args, **(kwargs or {}))


def _one_by_one(args: Any) -> int:
    lists = [arg for arg in args if isinstance(arg, (list, tuple)) and arg and isinstance(arg[0], Tensor)]
    alike = all(len({(t.shape, t.stride()) for t in tensors}) == 1 for tensors in zip(*lists, strict=True))
    return 1 if alike else len(lists[0])


@contextmanager
def operators() -> Iterator[Counter[str]]:
    """Count operators within it by name, such as ``aten.add_.Tensor``; views do not count."""
    with _Counting() as counting:
        yield counting.found
