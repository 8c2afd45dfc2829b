"""Counts the operators that torch dispatches: on a GPU each of them is at least one kernel, but for views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.found[str(func)] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def operators() -> Iterator[Counter[str]]:
    """Count operators within it by name, such as ``aten.add_.Tensor``; views do not count."""
    with _Counting() as counting:
        yield counting.found
