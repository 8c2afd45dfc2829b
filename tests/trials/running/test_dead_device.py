"""A device that no longer answers after an error: what is committed, and what is still tried on it. No card needed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.folders import state_of, the_stage
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.__main__ import main
from trials.errors import DEAD_DEVICE, OUT_OF_MEMORY, DeadDevice, UserError
from trials.running import trial
from trials.training import device, network_copy
from trials.training.net import Net

pytestmark = [pytest.mark.fault("device-dead"), pytest.mark.usefixtures("few_digits")]


class Card:
    """A device on which every call fails from the first failing step on. With ``heals``, that step alone fails."""

    def __init__(self) -> None:
        self.dead, self.heals, self.fails_in = False, False, ""

    def use(self) -> None:
        if self.dead:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def step(self, stage: str) -> None:
        self.use()
        if stage == self.fails_in:
            self.dead = not self.heals
            raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    card, touch, step = Card(), device.touch, trial.StageRun.train_epoch

    def train_epoch(self: Any, *arguments: Any) -> Any:
        card.step(self.stage.name)
        return step(self, *arguments)

    def answer(asked: torch.device) -> None:
        card.use()
        touch(asked)

    monkeypatch.setattr(device, "touch", answer)
    monkeypatch.setattr(trial.StageRun, "train_epoch", train_epoch)
    return card


def test_the_failure_is_committed_with_what_it_was_and_counts_for_nobody(card: Card, tmp_path: Path) -> None:
    config = config_of("one_shot")
    card.fails_in = "finetune"
    state = run_in(tmp_path, config)
    assert (state.status, state.failures) == ("failed", 0)
    assert state_of(folder_of(config, tmp_path)) == state
    assert state.error is not None
    assert state.error["type"] == DEAD_DEVICE
    assert (
        "can no longer use cpu after RuntimeError: CUDA error: device-side assert triggered" in state.error["message"]
    )
    assert "train_epoch" in state.error["traceback"]
    card.dead, card.fails_in = False, ""  # another process
    again = run_in(tmp_path, config)
    assert (again.status, again.attempt, again.error) == ("complete", 2, None)


def test_an_error_after_which_the_device_answers_is_the_trials_own(card: Card, tmp_path: Path) -> None:
    card.fails_in, card.heals = "finetune", True
    state = run_in(tmp_path, config_of("one_shot"))
    assert (state.status, state.failures) == ("failed", 1)
    assert state.error is not None
    assert state.error["type"] == "RuntimeError"


def test_a_shared_trial_in_which_the_device_dies_is_named_and_not_given_up(card: Card, tmp_path: Path) -> None:
    config = config_of("one_shot")
    card.fails_in = "pretrain"
    for _ in range(5):  # more than the failures after which a shared trial is not tried again
        card.dead = False
        state = run_in(tmp_path, config)
        assert state.error is not None
        assert state.error["type"] == DEAD_DEVICE
        assert state.error["culprit"] == the_stage(tmp_path).name
        assert state.error["message"].count("CUDA error") == 1
        assert (state.failures, state_of(the_stage(tmp_path)).failures) == (0, 0)
    card.dead, card.fails_in = False, ""
    assert run_in(tmp_path, config).status == "complete"


def test_a_piece_whose_device_died_elsewhere_says_where(tmp_path: Path) -> None:
    where = {"node": "0a", "machine": "worker7", "card": "3"}

    def lost(function: Any, shared: Any, items: Any) -> list[Any]:
        raise DeadDevice("a piece lost its device", where=where)

    state = run_in(tmp_path, config_of("regrow"), map=lost)
    assert (state.status, state.failures) == ("failed", 0)
    assert state.error is not None
    assert state.error.items() >= {"type": DEAD_DEVICE, "culprit": "", **where}.items()


def test_what_frees_memory_hides_no_error(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", card.use)
    card.dead = True
    device.release_memory(torch.device("cuda"), failed=True)


def test_one_trial_without_ray_ends_with_a_line(card: Card, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("{method: dense, dataset: few_digits, model: tiny, train: {epochs: 1}}")
    card.fails_in = "pretrain"
    assert main([str(path), "--storage", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"failed: {DEAD_DEVICE}: shared trial dense-" in line
    assert "can no longer use cpu after RuntimeError: CUDA error" in line


def out_of_memory(asked: torch.device) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def no_room_for_a_process(asked: torch.device) -> None:
    """A card that other processes have filled: not even CUDA's context fits."""
    error = torch.AcceleratorError("CUDA error: out of memory")
    error.error_code = 2  # type: ignore[attr-defined]
    raise error


def full_host(asked: torch.device) -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:113] DefaultCPUAllocator: can't allocate memory: you tried")


def broken(asked: torch.device) -> None:
    raise RuntimeError("CUDA error: unspecified launch failure")


@pytest.mark.parametrize(
    ("answer", "dead"), [(out_of_memory, False), (no_room_for_a_process, False), (full_host, False), (broken, True)]
)
def test_a_full_device_is_not_dead(
    answer: Callable[[torch.device], None], dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "touch", answer)
    assert device.is_dead(torch.device("cpu")) is device.is_dead() is dead
    assert device.is_lost("auto", 0) is dead


def test_a_device_that_no_machine_has_is_not_lost() -> None:
    assert not device.is_lost("cuda:99", 0)
    assert not device.is_lost("nonsense", 0)
    assert not device.is_lost("cpu", 1.0)
    assert not device.is_dead()


@pytest.mark.parametrize("name", ["mps", "xpu", "hpu", "xla"])
def test_a_kind_of_device_that_torch_lacks_here_is_wrong_and_not_lost(name: str) -> None:
    """Else the machine would be accused, and the trial would never fail."""
    assert not device.is_lost(name, 0)
    with pytest.raises(UserError, match=f"device is '{name}', but must be auto or a device of this machine"):
        device.resolve_device(name)


def test_a_card_that_has_vanished_is_lost_and_no_trial_falls_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.is_lost("auto", 0.5)
    assert device.is_lost("cuda", 1)
    assert not device.is_lost("cpu", 1)
    assert not device.is_lost("auto", 0)  # a sweep on CPUs


def fill(stage: Any) -> None:
    """A stage runs one step, and has no memory left in the next."""
    step, steps = stage.step, 0

    def full(*batches: Any) -> Any:
        nonlocal steps
        result = step(*batches)
        steps += 1
        if steps == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return result

    stage.step = full


@pytest.mark.parametrize("name", ["dense", "one_shot", "bip", "hydra-nm", "adaptive_sparsity", "bip-backward", "greg1"])
def test_after_a_failure_nothing_keeps_the_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next trial of the process would not fit beside it."""
    kept: list[weakref.ref[Any]] = []
    build, train_epoch = trial.build_net, trial.StageRun.train_epoch

    def built(*arguments: Any) -> Net:
        net = build(*arguments)
        kept.extend(weakref.ref(one) for one in (net, net.model, *net.model.parameters()))
        return net

    def train(self: Any, *arguments: Any) -> Any:
        if name == "dense" or self.stage.name != "pretrain":
            fill(self.stage)
        return train_epoch(self, *arguments)

    monkeypatch.setattr(trial, "build_net", built)
    monkeypatch.setattr(trial.StageRun, "train_epoch", train)
    gc.disable()  # what only a later collection would free is not free when the next trial begins
    try:
        state = run_in(tmp_path, config_of(name))
        assert state.error is not None
        assert state.error["type"] == OUT_OF_MEMORY
        assert kept
        assert [what for what in (known() for known in kept) if what is not None] == []
    finally:
        gc.enable()


def test_after_a_failure_no_copy_for_pieces_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("regrow")

    def fail(self: Any, *arguments: Any, **options: Any) -> None:
        assert network_copy._restored
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("trials.methods.regrow.episodes.Episode.grow", fail)
    state = run_in(tmp_path, config)
    assert state.error is not None
    assert state.error["type"] == OUT_OF_MEMORY
    assert not network_copy._restored
