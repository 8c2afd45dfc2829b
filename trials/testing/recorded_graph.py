"""A CUDA graph's effect on a step, simulated on the CPU: operators are recorded and repeated on the same memory.

As with a CUDA graph, a step reads the old tensor where the host has replaced it since, and a step that reads a number
from the device raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.lift_fresh.default,  # of torch.tensor(), which copies from the host
    torch.ops.aten.scatter_.src,  # copies strides from the host where algorithms must be deterministic
    torch.ops.aten.scatter.src,
}
_INDEXING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default}


def refuse_waiting(func: Any, args: Any, kwargs: Any) -> None:
    """Raise RuntimeError if an operator would wait for a GPU."""
    indices = tree_leaves((args[1:2], kwargs.get("indices"))) if func in _INDEXING else []
    if func in WAITS or any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices):
        raise RuntimeError(f"{func} waits for the device")


class RecordedGraph:
    """The operators of one step. Capturing a step does not execute it: memory and random state are put back."""

    def __init__(self, generators: tuple[torch.Generator, ...] = ()) -> None:
        self.generators = generators
        self.log: list[tuple[Any, Any, Any, Any]] = []
        self.warmed_up = self.captures = self.replays = self.resets = 0

    def warm_up(self, function: Callable[[], None]) -> None:
        self.warmed_up += 1
        function()

    def capture(self, function: Callable[[], None]) -> None:
        self.captures += 1
        recorder = Recorder(self.log)
        drawn = [generator.get_state() for generator in self.generators]
        with torch.random.fork_rng(devices=[]), recorder:
            function()
        recorder.put_back()
        for generator, state in zip(self.generators, drawn, strict=True):
            generator.set_state(state)

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for operator, arguments, options, results in self.log:
                again = operator(*arguments, **options)
                for result, value in zip(tree_leaves(results), tree_leaves(again), strict=True):
                    if isinstance(result, Tensor) and result.data_ptr() != value.data_ptr():
                        result.copy_(value)

    def reset(self) -> None:
        self.resets += 1
        self.log.clear()


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Executes and records operators; keeps the previous content of the memory that they were given."""

    def __init__(self, log: list[tuple[Any, Any, Any, Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.log = log
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self.own: dict[int, torch.UntypedStorage] = {}  # allocated while recording, and kept alive

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        refuse_waiting(func, args, kwargs or {})
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._keep(tensor.untyped_storage())
        results = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.before:
                self.own[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        if not func.is_view:
            self.log.append((func, args, kwargs or {}, results))
        return results

    def _keep(self, storage: torch.UntypedStorage) -> None:
        key = storage.data_ptr()
        if key not in self.before and key not in self.own:
            self.before[key] = (storage, storage.clone())  # type: ignore[no-untyped-call]

    def put_back(self) -> None:
        for storage, content in self.before.values():
            storage.copy_(content)
