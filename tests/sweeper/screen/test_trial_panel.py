"""The panel of a running sweep at several sizes of its terminal, and the spinner before its first trial."""

from __future__ import annotations

import io
import os
import time

import pytest
from rich.console import Console

from sweeper.execution.live_view import LiveView
from sweeper.screen.activity import doing

CELL = "density=0.05,prune.batch_size=128,distribution=erdos_renyi_kernel,seed={}"


def terminal(width: int, height: int = 50) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, height=height, force_terminal=True, color_system=None), out


def panel(width: int, height: int, cells: int) -> list[str]:
    """The panel's lines with as many running trials as cells, each of which has a best value."""
    console, out = terminal(width, height)
    view = LiveView({CELL.format(i): 4 for i in range(cells)}, console, "val_accuracy", "maximize")
    for i in range(cells):
        view.started(f"bip-{i:012}", CELL.format(i))
        view.ended(f"bip-{i:012}", CELL.format(i), "complete", 0.9, already=False)
        view.started(f"bip-{cells + i:012}", CELL.format(i))
        row = {"stage": "finetune", "level": 12, "epoch": 100, "val_accuracy": 0.9444}
        view.row(f"bip-{cells + i:012}", row)
    out.truncate(out.seek(0))  # without a panel, endings are lines
    console.print(view._render())
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_nothing_is_cut(width: int) -> None:
    lines = panel(width, 50, 2)
    assert all(len(line) <= width for line in lines)
    whole = "".join(line.strip() for line in lines)
    assert "…" not in whole
    for i in range(2):
        assert whole.count(CELL.format(i)) == 2
        assert f"bip-{2 + i:012}" in whole
    squeezed = "".join(whole.split())
    assert squeezed.count("finetune,level12,epoch100,val_accuracy0.9444") == 2
    assert squeezed.count("val_accuracy0.9000") == 2


def test_the_headline_is_broken_between_its_parts() -> None:
    lines = panel(60, 50, 2)
    assert lines[0] == "cells 0 done, 2 running, 0 left"
    assert lines[1].startswith("trials 2/8, 2 running, 0 failed")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 10), (200, 12), (60, 40), (100, 8)])
def test_the_panel_is_no_higher_than_its_terminal(width: int, height: int) -> None:
    lines = panel(width, height, 30)
    assert len(lines) <= height
    text = "\n".join(lines)
    assert "more cells" in text
    assert "more running" in text
    assert "finetune, level 12" in text


def test_a_spinner_says_what_is_done_before_the_first_trial() -> None:
    console, out = terminal(80)
    view = LiveView({"x": 2}, console, "val_accuracy", "maximize")
    seen = []

    def look() -> str:
        out.truncate(out.seek(0))
        console.print(view._render())
        seen.append(out.getvalue())
        return seen[-1]

    view.doing("starting Ray")
    assert "starting Ray (0:00)" in look()
    view.ended("known", "x", "complete", 0.5, already=True)
    assert "starting Ray" in look()  # what was committed before is no trial of this run
    view.started("bip-a", "x")
    assert "waiting for the first worker" in look()
    view.answered("bip-a")
    assert "bip-a has started" in look()
    view.started("bip-b", "x")
    view.row("bip-a", {"stage": "prune", "level": 0, "epoch": 1})
    assert "has started" not in look()
    view.answered("bip-b")
    view.started("bip-c", "x")
    assert "waiting for" not in look()
    assert len(look().splitlines()) == len(seen[-1].splitlines())


def test_what_a_command_does_is_shown_on_a_terminal_only() -> None:
    console, out = terminal(80)
    with doing(console, "importing [Ray]") as now:
        now("checking the data")
        console.print("a note")
        time.sleep(0.2)
    assert "checking the data" in out.getvalue()
    assert "a note" in out.getvalue()
    plain = io.StringIO()
    with doing(Console(file=plain), "importing Ray") as now:
        now("checking the data")
    assert plain.getvalue() == ""


def test_an_interrupt_leaves_the_terminal_as_it_was() -> None:
    console, out = terminal(80)
    with pytest.raises(KeyboardInterrupt), doing(console, "importing Ray"):
        raise KeyboardInterrupt
    assert out.getvalue().rpartition("\x1b[?25l")[2].count("\x1b[?25h") == 1  # the cursor is back


def test_the_cursor_is_back_where_a_process_ends_at_once() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as told, os.fdopen(write, "w") as terminal_file:
        console = Console(file=terminal_file, width=80, height=24, force_terminal=True, color_system=None)
        with LiveView({"x": 2}, console, "val_accuracy", "maximize") as view:
            view.abandon()
            assert b"\x1b[?25h\r\n" in told.read1(100_000)
        LiveView({"x": 2}, Console(file=terminal_file), "val_accuracy", "maximize").abandon()  # no terminal: nothing
    LiveView({"x": 2}, console, "val_accuracy", "maximize").abandon()
