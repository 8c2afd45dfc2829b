"""Tune forgets trials that have ended: a sweep of very many trials would otherwise fill the driver's memory."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from sweeper.cli import COMPLETE, main
from sweeper.results.tables import load

pytestmark = pytest.mark.usefixtures("ray")

SPACE = """
about: trivial ones
trial: {method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 1}, finetune: null}
grid: {density: [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1]}
"""


@pytest.mark.fault("many-trials")
def test_no_more_trials_than_a_few_stay_in_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.execution.on_ray import ended_trials, placement

    there: list[int] = []
    alive: list[int] = []
    all_of_them: dict[str, weakref.ref[Any]] = {}
    forget = placement.forget_ended

    def counting(controller: Any) -> None:
        all_of_them.update((trial.trial_id, weakref.ref(trial)) for trial in controller.get_trials())
        forget(controller)
        there.append(len(controller.get_trials()))
        gc.collect()
        alive.append(sum(trial() is not None for trial in all_of_them.values()))

    monkeypatch.setattr(placement, "forget_ended", counting)
    monkeypatch.setattr(ended_trials, "ENDED_KEPT", 2)
    (tmp_path / "trivial.yaml").write_text(SPACE)
    assert main(["--space", str(tmp_path / "trivial.yaml"), "--storage", str(tmp_path)]) == COMPLETE
    assert set(load(tmp_path / "trivial").trials["status"]) == {"complete"}
    assert len(there) == len(all_of_them) == 10
    assert max(there) <= 7  # the last two that ended, those that run and those that wait
    assert alive[-1] <= 7
