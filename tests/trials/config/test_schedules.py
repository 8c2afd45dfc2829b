"""Learning rates over epochs. (As released: methods/test_bip_vectors.py.)"""

from __future__ import annotations

import pytest

from trials.config.schedules import SCHEDULES, Schedule


def rates(name: str, epochs: int, warmup: int = 0) -> list[float]:
    schedule = Schedule(name, 0.4, epochs, warmup, 0.02)
    return [schedule(epoch) for epoch in range(epochs + warmup)]


def test_cosine_starts_at_its_rate_and_falls_towards_zero() -> None:
    assert rates("cosine", 4) == pytest.approx([0.4, 0.2 + 0.2 * 0.5**0.5, 0.2, 0.2 - 0.2 * 0.5**0.5], rel=1e-12)


def test_warm_up_comes_first_and_then_the_whole_schedule() -> None:
    assert rates("cosine", 4, warmup=2) == [0.02, 0.02, *rates("cosine", 4)]
    assert rates("constant", 2, warmup=1) == [0.02, 0.4, 0.4]


def test_cosine_restarts_once_whether_epochs_are_even_or_odd() -> None:
    assert rates("cosine_restart", 8) == rates("cosine", 4) * 2 == rates("cosine_restart_released", 8)
    assert rates("cosine_restart", 7) == [*rates("cosine", 4), *rates("cosine", 4)[:3]]
    assert rates("cosine_restart_released", 7) == [*rates("cosine", 3) * 2, 0.4]  # the last epoch at full rate


def test_step_falls_at_half_and_three_quarters() -> None:
    assert rates("step", 8) == pytest.approx([0.4] * 4 + [0.04] * 2 + [0.004] * 2, rel=1e-12)
    assert rates("step", 3) == pytest.approx([0.4, 0.4, 0.04], rel=1e-12)


@pytest.mark.parametrize("name", sorted(SCHEDULES.keys() - {"cosine_released"}))  # one epoch late, so 0 in its first
@pytest.mark.parametrize("epochs", [0, 1])
def test_no_epochs_and_one_epoch_have_a_rate(name: str, epochs: int) -> None:
    assert 0 < Schedule(name, 0.4, epochs)(0) <= 0.4
