"""An error that a signal brings about is no failure of the trial: it is preempted, and goes on from its last commit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trials.folders import state_of
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.running import trial
from trials.running.stop_requests import stop_requests
from trials.system import stop_signals
from trials.system.stop_signals import BATCH_WARNINGS, STOP_SIGNALS

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(autouse=True)
def _handlers_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stop_signals, "_warned", set())
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.fault("error-while-stopping")
@pytest.mark.parametrize(
    "error", [RuntimeError("DataLoader worker (pid 7) is killed by signal: Alarm clock"), EOFError()]
)
@pytest.mark.parametrize("asked", [True, False])
def test_an_error_after_a_request_to_stop_is_no_failure(
    asked: bool, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, stopping, said = config_of("one_shot"), [False], []
    step = trial.StageRun.train_epoch

    def train_epoch(self: Any, *arguments: Any) -> Any:
        if self.stage.name == "finetune" and not stopping[0]:
            stopping[0] = True
            raise error
        return step(self, *arguments)

    monkeypatch.setattr(trial.StageRun, "train_epoch", train_epoch)
    state = run_in(tmp_path, config, should_stop=lambda: asked and stopping[0], warn=said.append)
    assert (state.status, state.failures) == (("preempted", 0) if asked else ("failed", 1))
    assert (state.error is None) == asked
    assert any(f"{type(error).__name__} after it was asked to stop" in line for line in said) == asked
    assert run_in(tmp_path, config).status == "complete"
    assert state_of(folder_of(config, tmp_path)).failures == state.failures


@pytest.mark.usefixtures("not_under_nohup")
@pytest.mark.fault("batch-warning")
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_every_signal_that_asks_to_stop_is_collected(number: signal.Signals) -> None:
    with stop_requests(impatient=True) as asked:
        os.kill(os.getpid(), number)
        assert asked == [number]
        for warning in BATCH_WARNINGS:
            os.kill(os.getpid(), warning)  # no second request
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.fault("batch-warning")
def test_a_warning_that_comes_again_does_not_kill_a_process_that_ends() -> None:
    before = {number: signal.getsignal(number) for number in BATCH_WARNINGS}
    with stop_requests():
        pass
    assert {number: signal.getsignal(number) for number in BATCH_WARNINGS} == before
    with stop_requests():
        os.kill(os.getpid(), signal.SIGXCPU)
    for number in BATCH_WARNINGS:
        assert signal.getsignal(number) == signal.SIG_IGN
        os.kill(os.getpid(), number)
