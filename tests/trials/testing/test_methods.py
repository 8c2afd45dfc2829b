"""check_method lets a sound method pass, and catches each way to break the contract."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trials.testing.small_method import FIELDS, Small, SmallConfig, SmallStage
from trials.extend import AskedShare, DataHeader, Net, Stage, TrialConfig, prunable, share_of
from trials.methods.registry import METHODS
from trials.testing import check_method


def test_a_sound_method_passes_and_leaves_nothing_behind() -> None:
    before, drawn = dict(METHODS), torch.get_rng_state()
    check_method(Small, FIELDS)
    assert dict(METHODS) == before
    assert torch.equal(torch.get_rng_state(), drawn)


class Scaled(SmallStage):
    """Steps whose size depends on how many there were."""

    captures = False

    def attach(self, net: Net) -> None:
        super().attach(net)
        self.count = 0

    def step(self, *batches: Any) -> tuple[Tensor, Tensor]:
        self.count += 1
        found = self.net.backward(*batches[0])
        self.net.mask_gradients()
        for parameter in self.net.model.parameters():
            assert parameter.grad is not None
            parameter.grad /= self.count
        self.sgd.step()
        return found


class Counted(Scaled):
    captures = True

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.count = state["count"]


class KeepsMore(SmallStage):
    def kept(self) -> float:
        return float(self.config.density) + 0.1


class OffByFew(SmallStage):
    def kept(self) -> float:
        return float(self.config.density) + 0.0002


class Unseeded(SmallStage):
    def enter(self, net: Net) -> None:
        super().enter(net)
        with torch.no_grad():
            list(net.model.parameters())[-1].add_(torch.rand(()))


class Remembers(SmallStage):
    trials = itertools.count()

    def enter(self, net: Net) -> None:
        super().enter(net)
        with torch.no_grad():
            list(net.model.parameters())[-1].add_(next(self.trials))


class OldRate(SmallStage):
    def begin_epoch(self, epoch: int) -> None:
        self.sgd.set_lr(getattr(self, "rate", self.recipe.lr))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "rate": getattr(self, "rate", self.recipe.lr)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.rate = state["rate"]


class Observes(SmallStage):
    def observe(self, net: Net) -> None:
        net.model.train()
        net.logits(next(iter(self.context.look("train", 16)))[0])


class CountsEpochs(SmallStage):
    epochs_begun = 0

    def begin_epoch(self, epoch: int) -> None:
        super().begin_epoch(epoch)
        self.epochs_begun += 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "begun": self.epochs_begun}


class Unmasked(SmallStage):
    def step(self, *batches: Any) -> tuple[Tensor, Tensor]:
        found = self.net.backward(*batches[0])
        self.sgd.step()
        return found


class Silent(SmallStage):
    changes_network = False


class StoresAnything(SmallStage):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "config": self.config}


class ReturnsNumbers(SmallStage):
    captures = False

    def step(self, *batches: Any) -> Any:
        loss, correct = super().step(*batches)
        return float(loss), int(correct)


class SinglePrecision(SmallStage):
    def step(self, *batches: Any) -> tuple[Tensor, Tensor]:
        images, labels = batches[0]
        return super().step((images.to(torch.float32), labels))


class OtherStrides(SmallStage):
    def step(self, *batches: Any) -> tuple[Tensor, Tensor]:
        found = self.net.backward(*batches[0])
        for weight in self.net.model.parameters():
            assert weight.grad is not None
            weight.grad = weight.grad.contiguous()
        self.net.mask_gradients()
        self.sgd.step()
        return found


class Fails(SmallStage):
    def enter(self, net: Net) -> None:
        raise ValueError("no such layer")


STAGES: dict[type[SmallStage], str] = {
    Scaled: "state_dict and load_state_dict of its stages must hold all",
    Counted: "differs when its steps are replayed",
    KeepsMore: "must keep exactly what asked",
    OffByFew: "must keep exactly what asked",
    Unseeded: "must compute the same bits in every process",
    Remembers: "must compute the same bits in every process",
    OldRate: "calls train.lr mutable",
    Observes: "observe must not change the network",
    CountsEpochs: "must set values and never count",
    Unmasked: "away from zero: call net.mask_gradients",
    Silent: "set changes_network = True",
    StoresAnything: "state_dict must hold tensors, numbers, strings",
    ReturnsNumbers: "must return the loss and the number of correct images",
    SinglePrecision: "with precision float64 must complete",
    OtherStrides: "with memory_format channels_last must complete",
    Fails: "must complete, but failed: ValueError: no such layer",
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_broken_stage_is_caught(stage: type[SmallStage]) -> None:
    broken = type("Broken", (Small,), {"Stages": (stage,)})
    with pytest.raises(AssertionError, match=STAGES[stage]):
        check_method(broken, FIELDS)


class NoBounds(SmallConfig):
    density: float


class LosesAField(SmallConfig):
    def model_dump(self, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        return {**super().model_dump(**options), "density": 0.5}


class TakesAnything(SmallConfig):
    model_config = {**TrialConfig.model_config, "extra": "ignore"}  # noqa: RUF012


def _changing() -> Callable[[Small], Iterator[Stage]]:
    calls = itertools.count()

    def stages(self: Small) -> Iterator[Stage]:
        stage = SmallStage(self.config)
        stage.level = next(calls)
        yield stage

    return stages


def _reads(self: Small, model: nn.Module, data: DataHeader) -> None:
    if float(model.get_parameter("linear.weight").sum()) > 1e6:
        raise ValueError


def _raises(self: Small, model: nn.Module, data: DataHeader) -> None:
    Small.check(self, model, data)
    if len(prunable(model)) != 4:
        raise ValueError("other than four layers")


def _agrees(self: Small, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
    return (share_of(prunable(model), self.config.density + 0.1),)


METHOD_PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "without bounds": ({"Config": NoBounds}, "must refuse density 0: declare Field"),
    "does not read back": ({"Config": LosesAField}, "must read back as itself"),
    "takes unknown fields": ({"Config": TakesAnything}, "must refuse unknown fields"),
    "changing stages": ({"stages": _changing()}, "must yield the same stages at every call"),
    "one key twice": ({"Stages": (SmallStage, SmallStage)}, "must give stages of one name different levels"),
    "check reads values": ({"check": _reads}, "which has shapes and no values"),
    "check raises something else": ({"check": _raises}, "must be refused by a UserError"),
    "asks for nothing": ({"asked": lambda self, model, stage: ()}, "asked.. must say how much that keeps"),
    "asks for what it keeps": ({"asked": _agrees, "Stages": (KeepsMore,)}, "asked must ask for density 0.3"),
    "unknown mutable": ({"mutable": frozenset({"train.rate"})}, "mutable has train.rate, but its config has no"),
    "reports a field": ({"reports": ("density_of_all", "model")}, "reports must name columns .* field of its config"),
    "reports a column": ({"reports": ("status",)}, "reports must name columns .* the tables have that column already"),
    "no checks": ({"check": lambda self, model, data: None}, "must keep exactly what asked|must complete"),
}


@pytest.mark.parametrize("part", METHOD_PARTS)
def test_a_broken_method_is_caught(part: str) -> None:
    attributes, sentence = METHOD_PARTS[part]
    with pytest.raises(AssertionError, match=sentence):
        check_method(type("Broken", (Small,), attributes), FIELDS)


def test_a_mutable_value_that_cannot_be_derived_is_asked_for() -> None:
    class WithNote(SmallConfig):
        note: str = "a"

    kind = type("Noted", (Small,), {"Config": WithNote, "mutable": frozenset({"note"})})
    with pytest.raises(AssertionError, match="give check_method values="):
        check_method(kind, FIELDS)


def test_a_first_stage_of_one_epoch_cannot_show_what_is_mutable() -> None:
    with pytest.raises(AssertionError, match="two epochs in its first stage"):
        check_method(Small, {**FIELDS, "train": {"epochs": 1, "batch_size": 16}})
