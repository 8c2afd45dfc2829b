"""``--show NAME --watch``: what is printed again, when it ends, and a storage that is away for a while."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeper import control
from sweeper.cli import COMPLETE, main
from sweeper.control import watch_sweep
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results import table_cache
from sweeper.results.tables import TablesReader
from sweeper.search.plan import Plan
from tests.sweeper.command_line import wrong
from tests.sweeper.sweeps import finish, make_space
from trials.errors import UserError
from trials.storage.leases.lease import Lease

Step = Callable[[], None]


def swept(path: Path, count: int = 0, values: Sequence[float] = (0.5, 0.4, 0.3, 0.2)) -> tuple[Plan, Iterator[str]]:
    """A sweep of as many trials as values, ``count`` of which have ended; and the ids of the others, as they end."""
    folder = SweepFolder(path)
    space = make_space(grid={"density": list(values)})
    folder.append({"space": space.document()})
    plan = Plan(space, folder)

    def go_on() -> Iterator[str]:
        while (assignment := plan.next()) is not None:
            finish(plan, assignment.trial_id, lambda config: config["density"])
            plan.ended(assignment.trial_id)
            yield assignment.trial_id

    ending = go_on()
    for _ in range(count):
        next(ending)
    return plan, ending


def watched(
    path: Path, monkeypatch: pytest.MonkeyPatch, steps: Sequence[Step], terminal: tuple[int, int] | None = None
) -> str:
    """What watching prints if each of its pauses is a step; after the last one, Ctrl-C."""
    left = list(steps)

    def pause(seconds: float) -> None:
        assert seconds == 7
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    out = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr(control.time, "sleep", pause)
        width, height = terminal or (200, 25)
        console = Console(file=out, width=width, height=height, force_terminal=terminal is not None, color_system=None)
        watch_sweep(path, console, 7)
    assert left == []
    return out.getvalue()


def nothing() -> None:
    """Nothing happens between two looks."""


def test_a_block_is_printed_when_something_has_changed_until_the_sweep_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ending = swept(tmp_path, 1)

    def step() -> None:
        next(ending)

    said = watched(tmp_path, monkeypatch, [nothing, step, nothing, nothing, step, step])
    blocks = said.split("\n\n")
    assert [block.partition("trials, ")[2].partition(",")[0] for block in blocks] == [f"{n} done" for n in (1, 2, 3, 4)]
    assert all("val_accuracy" in block for block in blocks)
    assert "\x1b" not in said


def test_a_sweep_that_has_ended_is_printed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(tmp_path, 4)
    assert watched(tmp_path, monkeypatch, []).count("trials, 4 done") == 1


def test_it_ends_when_the_driver_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(tmp_path, 1)
    driven = {"now": True}

    class Owner:
        surely_dead = is_this_process = False

        def __str__(self) -> str:
            return "process 7 on elsewhere"

    monkeypatch.setattr(Lease, "owner", lambda self: Owner() if driven["now"] else None)
    said = watched(tmp_path, monkeypatch, [nothing, lambda: driven.update(now=False)])
    assert "driven by process 7 on elsewhere" in said
    assert said.rpartition("\n\n")[2].startswith(f"{tmp_path.name}: 4 cells")
    assert "no driver is running" in said.rpartition("\n\n")[2]


def test_only_trials_that_have_changed_are_read_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ending = swept(tmp_path, 3)
    read: list[str] = []
    whole = table_cache._read_trial

    def noted(path: Path, *wanted: Any) -> Any:
        read.append(path.name)
        return whole(path, *wanted)

    monkeypatch.setattr(table_cache, "_read_trial", noted)
    following = TablesReader(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert len(following.read().trials) == 3
    assert len(read) == 3
    assert following.read().trials.equals(TablesReader(tmp_path).read().trials)
    assert len(read) == 6  # the other reader had to read them
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    last = next(ending)
    assert sorted(following.read().trials["val_accuracy"]) == [0.2, 0.3, 0.4, 0.5]
    assert read[6:] == [last]


@pytest.mark.parametrize("terminal", [None, (80, 20)])
def test_a_storage_that_is_away_is_said_once_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: tuple[int, int] | None
) -> None:
    _, ending = swept(tmp_path / "sweep", 1)
    away = tmp_path / "away"

    def back() -> None:
        away.rename(tmp_path / "sweep")
        next(ending)

    def leave() -> None:
        (tmp_path / "sweep").rename(away)

    said = watched(tmp_path / "sweep", monkeypatch, [leave, nothing, nothing, back], terminal)
    assert "Traceback" not in said
    if terminal is None:
        assert said.count("cannot be read since") == 1
        assert said.index("1 done") < said.index("cannot be read since") < said.index("2 done")
        assert said.count("the storage is back") == 1
    else:
        assert "cannot be read since" in said
        assert "2 done" in said.rpartition("\x1b[?1049l")[2]


@pytest.mark.parametrize("error", [PermissionError("denied"), OSError(5, "Input/output error"), UserError("damaged")])
def test_errors_of_reading_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    swept(tmp_path, 1)
    whole, wrong_now = TablesReader.read, {"now": False}

    def read(self: TablesReader) -> object:
        if wrong_now["now"]:
            raise error
        return whole(self)

    monkeypatch.setattr(TablesReader, "read", read)
    steps: list[Step] = [lambda: wrong_now.update(now=True), nothing, lambda: wrong_now.update(now=False)]
    said = watched(tmp_path, monkeypatch, steps)
    assert said.count("cannot be read since") == 1
    assert said.count("the storage is back") == 1
    assert said.count("trials, 1 done") == 1  # nothing has changed


def test_a_sweep_that_this_user_may_not_read_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(tmp_path / "sweep", 1)

    def read(self: TablesReader) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "sweep"))

    monkeypatch.setattr(TablesReader, "read", read)
    with pytest.raises(PermissionError):
        watched(tmp_path / "sweep", monkeypatch, [])


def test_a_terminal_shows_what_it_has_room_for_and_prints_the_whole_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [0.9 - i / 100 for i in range(40)]
    swept(tmp_path, 35, values)
    said = watched(tmp_path, monkeypatch, [nothing], (80, 20))
    screen, _, after = said.partition("\x1b[?1049l")
    assert "\x1b[?1049h" in screen
    assert "more lines, printed at the end" in screen
    assert "Ctrl-C ends" in screen
    assert "tables:" not in screen
    assert after.count("trials, 35 done") == 1
    assert after.rstrip().splitlines()[-1].startswith("tables:")
    assert all(f"{100 * value:.2f}" in after for value in values[:35])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    swept(tmp_path / "mine", 1)
    storage = ["--storage", str(tmp_path)]
    slept: list[float] = []

    def stop(seconds: float) -> None:
        slept.append(seconds)
        signal.raise_signal((signal.SIGINT, signal.SIGTERM)[len(slept) - 1])

    monkeypatch.setattr(control.time, "sleep", stop)
    assert main([*storage, "--show", "mine", "--watch"]) == COMPLETE
    assert main([*storage, "--show", "mine", "--watch", "30"]) == COMPLETE
    assert slept == [5, 30]
    assert capsys.readouterr().out.count("trials, 1 done") == 2
    wrong(capsys, [*storage, "--watch"], "--watch belongs to --show NAME")
    wrong(capsys, [*storage, "--list", "--watch", "3"], "--watch belongs to --show NAME")
    wrong(capsys, [*storage, "--show", "other", "--watch"], "is not a sweep's folder")
    for value in ("0", "-1", "nan", "inf"):
        wrong(capsys, [*storage, "--show", "mine", f"--watch={value}"], f"--watch is {value}")
    wrong(capsys, [*storage, "--show", "mine", "--watch", "soon"], "invalid float value: 'soon'")
