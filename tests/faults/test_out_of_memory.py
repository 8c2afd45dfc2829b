"""Out of memory: a trial that shared its device is retried alone; a trial that was alone has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.sweeper.sweeps import begun, make_space
from tests.trials.small_trials import config_of, run_in
from trials.errors import OUT_OF_MEMORY
from trials.running.trial import TrialHost, run

pytestmark = pytest.mark.fault("out-of-memory")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Sets whether the device has enough memory."""
    enough = True
    original = torch.nn.functional.cross_entropy

    def cross_entropy(*arguments: Any, **options: Any) -> Any:
        if not enough:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(*arguments, **options)

    def set_to(now: bool) -> None:
        nonlocal enough
        enough = now

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", cross_entropy)
    return set_to


def test_out_of_memory_beside_others_is_retried_alone_before_it_counts(
    memory: Callable[[bool], None], tmp_path: Path
) -> None:
    space = make_space(retries=0, grid={"density": [0.5]})
    plan = begun(space, tmp_path / "sweep")
    assignment = plan.next()
    assert assignment is not None
    assert not assignment.alone
    config = space.config(plan.cells[0])
    memory(False)

    path = plan.folder.trial_folder(assignment.trial_id)
    crowded = run(config, path, TrialHost(tmp_path / "stages", alone=False))
    assert (crowded.status, crowded.failures) == ("failed", 0)
    (ending,) = plan.ended(assignment.trial_id)
    assert ending.again
    again = begun(space, tmp_path / "sweep")  # the next driver knows it too
    for plan_of_one in (plan, again):
        second = plan_of_one.next()
        assert second is not None
        assert (second.trial_id, second.alone) == (assignment.trial_id, True)
    memory(True)
    assert run(config, path, TrialHost(tmp_path / "stages")).status == "complete"


def test_out_of_memory_alone_is_a_failure(memory: Callable[[bool], None], tmp_path: Path) -> None:
    memory(False)
    state = run_in(tmp_path, config_of("dense", dataset="digits"), alone=True)
    assert state.failures >= 1
    assert state.error is not None
    assert OUT_OF_MEMORY in state.error["type"] + state.error["message"]
