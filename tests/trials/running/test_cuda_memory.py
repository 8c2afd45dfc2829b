"""CUDA memory that runs out, on a card. Not yet run on one: where there is none, these tests are skipped."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.small_trials import config_of, run_in
from trials.errors import OUT_OF_MEMORY
from trials.running.stage_run import StageRun
from trials.training.device import is_dead

pytestmark = [
    pytest.mark.fault("out-of-memory"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card"),
    pytest.mark.usefixtures("few_digits"),
]

MIB = 2**20


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of the card, this process may use what it uses now and 512 MiB more."""
    torch.cuda.init()
    gc.collect()
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 512 * MIB) / whole)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each epoch of a trial's training needs 1 GiB besides, in pieces that are kept until the last does not fit."""
    train_epoch = StageRun.train_epoch

    def train(self: Any, *arguments: Any) -> Any:
        found = train_epoch(self, *arguments)
        kept = [torch.zeros(64 * MIB, dtype=torch.uint8, device=self.progress.device) for _ in range(16)]
        assert not kept, "more memory than the process may use"
        return found

    monkeypatch.setattr(StageRun, "train_epoch", train)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("name", ["dense", "one_shot", "bip"])
def test_memory_that_ran_out_is_free_for_the_next_trial(
    name: str, alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(name, device="cuda")
    before = torch.cuda.memory_reserved()
    with monkeypatch.context() as patch:
        greedy(patch)
        state = run_in(tmp_path, config, alone=alone)
    assert (state.status, state.failures) == ("failed", int(alone))
    assert state.error is not None
    assert state.error["type"] == OUT_OF_MEMORY
    assert not is_dead(torch.device("cuda"))
    assert torch.cuda.memory_allocated() <= before + MIB  # workspaces of libraries aside, nothing is kept
    assert torch.cuda.memory_reserved() <= before + 64 * MIB
    again = run_in(tmp_path, config, alone=alone)  # in the same process
    assert (again.status, again.error) == ("complete", None)
