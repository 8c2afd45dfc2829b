"""No step waits for the device: on the device ``meta``, whose tensors have no values, reading one on the host raises.

All stages of all methods and variants (tests/trials/small_trials.py) take a step there, with the branches that a GPU
takes. Captured steps of whole trials are checked as well (test_captured.py): their graph refuses operators that wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trials.on_meta import attached, batches_for, take_gpu_branches
from tests.trials.recorded_graph import refuse_waiting
from tests.trials.small_trials import CONFIGS, config_of
from trials.methods.base import Stage
from trials.methods.registry import METHODS
from trials.sparsity.backward import BackwardPruner

LOOP_ON_THE_HOST = {
    "allocate_stage.Regrow": "a step is an episode: it trains a network of its own and decides by its accuracy",
    "oracle.Choose": "a step removes every candidate in turn and compares their losses",
    "regrow_iterative.RegrowDeciding": "a step is an episode, as of Regrow",
    "single_layer.TryLayers": "a step trains a network per layer",
}
"""Stages whose steps are not steps of training, with the reason why they wait."""

WITHOUT_STEPS = {"dwp.Transfer"}
"""Its work is done by another process before it begins."""


class NoCopies(TorchDispatchMode):
    """Refuses operators that wait for a GPU though they need no value, such as copies from the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        refuse_waiting(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    take_gpu_branches(monkeypatch)


def name_of(stage: Stage) -> str:
    return f"{type(stage).__module__.rpartition('.')[2]}.{type(stage).__name__}"


def every_stage() -> Iterator[tuple[str, int, str]]:
    for name in CONFIGS:
        config = config_of(name, dataset="digits")
        for place, stage in enumerate(METHODS[config.method](config).stages()):
            yield name, place, name_of(stage)


ALL = list(every_stage())
TRAINING = [(name, place) for name, place, kind in ALL if kind not in LOOP_ON_THE_HOST and kind not in WITHOUT_STEPS]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "last"])
@pytest.mark.parametrize(("name", "place"), TRAINING, ids=[f"{name}-{place}" for name, place in TRAINING])
def test_a_step_does_not_wait(name: str, place: int, memory_format: torch.memory_format) -> None:
    config = config_of(name, dataset="digits")
    stage = list(METHODS[config.method](config).stages())[place]
    net = attached(stage, config.model, 1, memory_format)
    pruner = BackwardPruner(net.model, stage.recipe.backward, lambda layer: torch.Generator("cpu"))
    if stage.recipe.backward is not None and stage.recipe.backward.p_bern < 1:
        pytest.skip("its draws need generators of a device")
    with pruner:
        pruner.prepare()
        stage.prepare()
        with NoCopies():
            loss, correct = stage.step(*batches_for(stage, 1, 8, 8))
    assert isinstance(loss, Tensor)
    assert loss.is_meta
    assert correct.is_meta


def test_who_waits_is_found() -> None:
    for waits in (
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.tensor([1.0, 2.0]) + x,
        lambda x: torch.ones(3)[torch.ones(3) > 0],
    ):
        with NoCopies(), pytest.raises(RuntimeError):
            waits(torch.empty(2, device="meta"))


def test_every_stage_that_captures_is_tried() -> None:
    tried = {kind for name, place, kind in ALL if (name, place) in TRAINING}
    capturing, others = set(), set()
    for name in CONFIGS:
        config = config_of(name, dataset="digits")
        for stage in METHODS[config.method](config).stages():
            (capturing if stage.captures else others).add(name_of(stage))
    assert capturing - WITHOUT_STEPS <= tried
    assert LOOP_ON_THE_HOST.keys() <= others


def test_a_step_without_thresholds_does_not_wait() -> None:
    """With starget 0, pthres may leave no layer."""
    config = config_of("adaptive_sparsity", dataset="digits", starget=0, pthres=10**6)
    (stage,) = METHODS[config.method](config).stages()
    with pytest.warns(UserWarning, match="no layer has as many weights"):
        attached(stage, config.model, 1, torch.contiguous_format, masked=False)
    with NoCopies():
        stage.step(*batches_for(stage, 1, 8, 8))
