"""Methods whose stages are watched: what a stage may do in each call, asked while a trial runs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from trials.methods import Method, Stage
from trials.testing.requiring import copied_state, demand, equal_bits
from trials.training.net import Net


def watched(method: type[Method]) -> type[Method]:
    """Return a method that does the same, and raises AssertionError where one of its stages breaks the contract."""

    def stages(self: Method) -> Iterator[Stage]:
        return map(watch, method.stages(self))

    return type(method.__name__, (method,), {"stages": stages, "__module__": method.__module__})


def recorded(method: type[Method], states: list[Any]) -> type[Method]:
    """Return a method that does the same, and adds the first stage's state after each of its epochs to ``states``."""

    def stages(self: Method) -> Iterator[Stage]:
        for position, stage in enumerate(method.stages(self)):
            if position == 0:
                _record(stage, states)
            yield stage

    return type(method.__name__, (method,), {"stages": stages, "__module__": method.__module__})


def _record(stage: Stage, states: list[Any]) -> None:
    end_epoch = stage.end_epoch

    def recording(net: Net, epoch: int) -> None:
        end_epoch(net, epoch)
        states.append(copied_state(stage.state_dict()))

    setattr(stage, "end_epoch", recording)  # noqa: B010  of this stage alone


def watch(stage: Stage) -> Stage:
    """Let a stage check its own calls."""
    for name, around in (
        ("observe", _observe),
        ("enter", _enter),
        ("begin_epoch", _begin_epoch),
        ("prepare", _prepare),
        ("step", _step),
        ("end_epoch", _end_epoch),
    ):
        setattr(stage, name, _wrapped(around, stage, getattr(stage, name)))
    return stage


def _wrapped(around: Callable[..., Any], stage: Stage, call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: around(stage, call, *arguments)


def _named(stage: Stage) -> str:
    return f"{type(stage).__name__} (stage {stage.name})"


def _observe(stage: Stage, observe: Callable[[Net], None], net: Net) -> None:
    before = copied_state(net.state_dict())
    observe(net)
    demand(
        equal_bits(before, net.state_dict()),
        f"{_named(stage)}.observe must not change the network, its statistics included: work on net.clone()",
    )


def _outputs(stage: Stage, net: Net) -> Tensor:
    """What the network computes of validation images, in evaluation mode."""
    images, _ = next(iter(stage.context.data.eval_batches("val", 16)))
    modes = {module: module.training for module in net.model.modules()}
    net.model.eval()
    with torch.no_grad():
        found = net.logits(images).clone()
    for module, mode in modes.items():
        module.training = mode
    return found


def _enter(stage: Stage, enter: Callable[[Net], None], net: Net) -> None:
    before = _outputs(stage, net)
    enter(net)
    demand(
        stage.changes_network or torch.equal(before, _outputs(stage, net)),
        f"{_named(stage)}.enter changes what the network computes: set changes_network = True, so that a row of epoch "
        "0 reports it",
    )


def _begin_epoch(stage: Stage, begin_epoch: Callable[[int], None], epoch: int) -> None:
    begin_epoch(epoch)
    once = copied_state(stage.state_dict())
    begin_epoch(epoch)
    demand(
        equal_bits(once, copied_state(stage.state_dict())),
        f"{_named(stage)}.begin_epoch is called several times for one epoch, so it must set values and never count",
    )


def _prepare(stage: Stage, prepare: Callable[[], bool]) -> bool:
    same = prepare()
    demand(
        isinstance(same, bool),
        f"{_named(stage)}.prepare must return whether the coming step is the same program as the last, but returned "
        f"{same!r}",
    )
    return same


def _step(stage: Stage, step: Callable[..., Any], *batches: Any) -> Any:
    found = step(*batches)
    right = isinstance(found, tuple) and len(found) == 2 and all(isinstance(f, Tensor) and not f.dim() for f in found)
    demand(
        right,
        f"{_named(stage)}.step must return the loss and the number of correct images as two scalar tensors, but "
        f"returned {found!r}",
    )
    return found


def _end_epoch(stage: Stage, end_epoch: Callable[[Net, int], None], net: Net, epoch: int) -> None:
    end_epoch(net, epoch)
    _require_masked(stage, net)
    memory = io.BytesIO()
    torch.save(stage.state_dict(), memory)
    memory.seek(0)
    try:
        torch.load(memory, weights_only=True)
    except Exception as error:
        raise AssertionError(
            f"{_named(stage)}.state_dict must hold tensors, numbers, strings, lists and dicts only, which "
            f"torch.load(weights_only=True) reads: {error}"
        ) from error


def _require_masked(stage: Stage, net: Net) -> None:
    for name, mask in net.masks.items():
        weight = net.model.get_parameter(name)
        demand(
            not bool(weight.detach()[~mask].any()),
            f"{_named(stage)} trains masked weights of {name} away from zero: call net.mask_gradients() before the "
            "optimiser's step, and clear its moments where a mask drops weights during training",
        )
