"""Deaths for lack of memory: who is to blame, and how many trials run at once afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.execution import short_memory
from sweeper.execution.short_memory import MEMORY_CALM_S, RECOVER_S, TOGETHER_S, ShortMemory

pytestmark = pytest.mark.fault("memory-monitor")

OF_RAY = (
    "Failure # 1\n1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 1.2.3.4, ID: "
    "ab) was 22.46GB used / 23.54GB limit (0.954)\nOOM kill reason: ..."
)
OF_OLDER = "Task was killed due to the node running low on memory. Memory on the node was 28GB / 30GB (0.95), which"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_fewer_run_at_once_after_the_monitor_has_killed_one_of_several() -> None:
    clock = Clock()
    memory = ShortMemory(clock)
    assert memory.most(None) is None
    assert not memory.refuses(5)
    assert memory.died("a", OF_RAY, here=True, beside=3, running=3)
    why = memory.why("a")
    assert why.startswith(
        "Ray's memory monitor killed its process, since memory ran short on its machine (22.46GB of 23.5"
    )
    assert why.endswith("at most 3 at once for now")
    assert memory.why("a") == "its process died"
    assert (memory.most(None), memory.most(2), memory.most(8)) == (3, 2, 3)
    assert memory.refuses(1)  # a pause
    assert not memory.refuses(0)
    clock.now += MEMORY_CALM_S
    assert not memory.refuses(2)
    assert memory.refuses(3)
    clock.now += RECOVER_S
    assert memory.most(None) == 4


def test_one_that_was_alone_is_to_blame_unless_another_has_just_died_too() -> None:
    clock = Clock()
    memory = ShortMemory(clock)
    assert not memory.died("a", OF_OLDER, here=False, beside=0, running=0)
    assert "28GB of 30GB were used" in memory.why("a")
    clock.now += TOGETHER_S / 2
    assert memory.died("b", OF_OLDER, here=False, beside=0, running=0)
    clock.now += TOGETHER_S
    assert not memory.died("b", OF_OLDER, here=False, beside=0, running=0)


def test_other_deaths_change_nothing_unless_linux_has_killed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_memory, "VMSTAT", tmp_path / "vmstat")
    (tmp_path / "vmstat").write_text("pgfault 7\noom_kill 3\n")
    memory = ShortMemory(Clock())
    assert not memory.died("a", "Worker unexpectedly exits", here=True, beside=2, running=2)
    assert memory.why("a") == "its process died"
    assert memory.most(None) is None
    (tmp_path / "vmstat").write_text("pgfault 9\noom_kill 4\n")
    assert not memory.died("a", "Worker unexpectedly exits", here=False, beside=2, running=2)
    (tmp_path / "vmstat").write_text("pgfault 9\noom_kill 5\n")
    assert memory.died("a", "Worker unexpectedly exits", here=True, beside=2, running=2)
    assert "Linux has killed a process of this machine for lack of memory; at most 2 at once" in memory.why("a")
