"""The live view: what it counts and what it prints."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from sweeper.execution import live_view as module
from sweeper.execution.live_view import LiveView


def make(direction: str = "maximize", **options: Any) -> tuple[LiveView, io.StringIO]:
    """A view of cells with ``totals`` of samples, and what it prints; the other options are the console's."""
    out = io.StringIO()
    totals = options.pop("totals", {"x": 3, "y": 1})
    return LiveView(totals, Console(file=out, **options), "val_accuracy", direction), out


def drawn(view: LiveView) -> str:
    """The panel as a terminal would show it now."""
    out = io.StringIO()
    Console(file=out, width=200).print(view._render())
    return out.getvalue()


def test_a_line_when_a_trial_ends() -> None:
    view, out = make(totals={"density=0.2,seed=0": 12, "": 12})
    with view:
        view.started("bip-ab12cd34ef56", "density=0.2,seed=0")
        view.row("bip-ab12cd34ef56", {"stage": "prune", "level": 0, "epoch": 3, "val_accuracy": 0.9})
        view.ended("bip-ab12cd34ef56", "density=0.2,seed=0", "complete", 0.97222, already=False)
        view.started("bip-b", "")
        view.ended("bip-b", "", "failed", None, already=False)
    first, second = out.getvalue().splitlines()
    wanted = r"1/24 bip-ab12cd34ef56 density=0\.2,seed=0 complete val_accuracy 0\.9722 \(0\.0 s\)"
    assert re.fullmatch(wanted, first)
    assert re.fullmatch(r"2/24 bip-b failed \(0\.0 s\)", second)
    assert "\x1b" not in out.getvalue()


def test_counts() -> None:
    view, _ = make(totals={"x": 3, "y": 3})
    with view:
        view.ended("a", "x", "complete", 0.5, already=True)
        for name, cell in (("b", "x"), ("c", "x"), ("d", "y"), ("e", "y")):
            view.started(name, cell)
        view.row("e", {"stage": "prune", "level": 0, "epoch": 3, "val_accuracy": 0.75})
        view.ended("b", "x", "pruned", 0.9, already=False)
        view.ended("c", "x", "complete", 0.7, already=False)
        view.ended("d", "y", "preempted", None, already=False)
        assert (view.done, view.failed, view.already, set(view.running)) == (3, 0, 1, {"e"})
        text = drawn(view)
        assert "cells 1 done, 1 running, 0 left · trials 3/6, 1 running, 0 failed" in text
        assert re.search(r"best +x +val_accuracy 0\.7000", text)  # the pruned trial's value does not count
        assert re.search(r"e +y +prune, level 0, epoch 3, val_accuracy 0\.7500", text)


def test_a_failed_trial_that_is_tried_again_counts_once() -> None:
    view, _ = make(totals={"x": 1})
    with view:
        view.started("a", "x")
        view.ended("a", "x", "failed", None, already=False)
        assert (view.done, view.failed) == (0, 1)
        view.started("a", "x")
        assert (view.done, view.failed) == (0, 0)
        assert "cells 0 done, 1 running, 0 left" in drawn(view)
        view.ended("a", "x", "complete", 0.5, already=False)
        assert (view.done, view.failed) == (1, 0)
        assert "cells 1 done, 0 running, 0 left" in drawn(view)


def test_a_trial_that_serves_several_samples_counts_once_for_each() -> None:
    """Their cells differ, or are the same; the trial is started in the name of one of them."""
    view, out = make(totals={"x": 2, "y": 1})
    cells = ("x", "x", "y")
    with view:
        for _ in range(2):
            view.started("a", "x")
            assert (view.done, view.failed) == (0, 0)
            assert "cells 0 done, 1 running, 1 left · trials 0/3" in drawn(view)
            for cell in cells:
                view.ended("a", cell, "failed", None, already=False)
            assert (view.done, view.failed) == (0, 3)
            assert "cells 2 done, 0 running, 0 left · trials 3/3" in drawn(view)
        view.started("a", "x")
        for cell in cells:
            view.ended("a", cell, "complete", 0.5, already=False)
    assert (view.done, view.failed) == (3, 0)
    assert out.getvalue().splitlines()[-1].startswith("3/3 and 1 trials: 1 complete")
    assert "cells 2 done, 0 running, 0 left · trials 3/3, 0 running, 0 failed" in drawn(view)


def test_a_cell_whose_population_has_died_out_is_done() -> None:
    view, _ = make(totals={"x": 4, "y": 4})
    with view:
        for name in "ab":
            view.ended(name, "x", "failed", None, already=False)
        assert "cells 0 done, 0 running, 2 left · trials 2/8" in drawn(view)
        view.resize("x", 2)
        assert "cells 1 done, 0 running, 1 left · trials 2/6" in drawn(view)


def test_best_values_follow_the_direction() -> None:
    view, _ = make(direction="minimize")
    with view:
        for name, value in (("a", 0.5), ("b", 0.3), ("c", 0.4)):
            view.ended(name, "x", "complete", value, already=False)
    assert "val_accuracy 0.3000" in drawn(view)


def test_cells_keep_their_places_until_one_improves() -> None:
    view, _ = make(totals={"x": 3, "y": 3})
    with view:
        for name, cell, value in (("a", "x", 0.5), ("b", "y", 0.5), ("c", "x", 0.4)):
            view.ended(name, cell, "complete", value, already=False)
        assert re.search(r"best +x .*\n +y ", drawn(view))
        view.ended("d", "x", "complete", 0.6, already=False)
        assert re.search(r"best +y .*\n +x ", drawn(view))


def test_what_was_finished_before_is_one_line() -> None:
    view, out = make(totals={"x": 1001})
    with view:
        for number in range(1000):
            view.ended(f"t{number}", "x", "complete", 0.5, already=True)
        view.started("new", "x")
        view.ended("new", "x", "complete", 0.6, already=False)
    lines = out.getvalue().splitlines()
    assert lines[0] == "already finished: 1000 trials: 1000 complete"
    assert lines[1].startswith("1001/1001 new x complete")
    assert len(lines) == 2


def test_thousands_of_trials_give_few_lines_and_every_trial_is_counted() -> None:
    view, out = make(totals={"x": 3000})
    with view:
        for number in range(3000):
            view.started(f"t{number}", "x")
            view.ended(f"t{number}", "x", "failed" if number % 3 == 0 else "complete", 0.5, already=False)
    lines = out.getvalue().splitlines()
    assert len(lines) < 30
    own = [line for line in lines if " t" in line.split("trials")[0]]
    sums = [re.search(r"and (\d+) trials: (\d+) complete, (\d+) failed", line) for line in lines if line not in own]
    assert len(own) + sum(int(found[1]) for found in sums if found) == 3000
    assert lines[-1].startswith("3000/3000")


def test_a_summary_line_is_printed_after_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    view, out = make(totals={"x": 100})
    with view:
        for number in range(50):
            view.ended(f"t{number}", "x", "complete", 0.5, already=False)
        before = len(out.getvalue().splitlines())
        now[0] += 10
        view.row("t99", {})
        lines = out.getvalue().splitlines()
        assert before == module.LINES_AT_ONCE
        assert lines[before:] == [f"50/100 and {50 - before} trials: {50 - before} complete"]


def test_notes_are_printed_at_once_and_as_they_are() -> None:
    view, out = make(width=20)
    with view:
        view.note("[red]bip-a[/red] failed: " + "very " * 20 + "long")
        assert out.getvalue() == "[red]bip-a[/red] failed: " + "very " * 20 + "long\n"


def test_a_note_from_a_handler_that_interrupts_a_line_follows_it() -> None:
    class Interrupted(io.StringIO):
        """A signal comes while the first line is written."""

        came = False

        def write(self, text: str) -> int:
            if not self.came:
                self.came = True
                view.note("SIGTERM")
            return super().write(text)

    out = Interrupted()
    view = LiveView({"x": 1}, Console(file=out), "val_accuracy", "maximize")
    with view:
        view.note("a line")
        assert out.getvalue() == "a line\nSIGTERM\n"


def test_a_terminal_shows_one_panel_and_cleans_up() -> None:
    view, out = make(totals={"density=0.2": 2, "density=0.5": 2}, force_terminal=True, width=120)
    with view:
        view.started("bip-a", "density=0.2")
        view.note("a warning")
        view.ended("bip-a", "density=0.2", "complete", 0.5, already=False)
        time.sleep(0.4)
    assert "cells 0 done, 0 running, 2 left" in out.getvalue()
    assert "a warning" in out.getvalue()
    assert "1/4 bip-a" not in out.getvalue()
    assert "\x1b[?25h" in out.getvalue()[-40:]  # the cursor is back


def test_the_panel_stays_small() -> None:
    view, _ = make(totals={f"cell-{number}": 2 for number in range(500)})
    for number in range(500):
        view.started(f"t{number}", f"cell-{number}")
        if number < 400:
            view.ended(f"t{number}", f"cell-{number}", "complete", 0.5, already=False)
    text = drawn(view)
    assert len(text.splitlines()) < 40
    assert "cell-399" in text
    assert "cell-0 " not in text
    assert "and in 388 more cells" in text
    assert "and 84 more running" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_calls_cost_microseconds_however_many_there_were(terminal: bool) -> None:
    count = 20_000
    view, _ = make(totals={f"c{number}": count // 50 for number in range(100)}, force_terminal=terminal)
    with view:
        for turn in range(2):
            began = time.process_time()
            for number in range(count):
                name, cell = f"t{turn}-{number}", f"c{number % 100}"
                view.started(name, cell)
                view.row(name, {"stage": "prune", "level": 0, "epoch": 1})
                view.ended(name, cell, "complete", 0.5, already=False)
            per_call = (time.process_time() - began) / (3 * count)
            assert per_call < 20e-6
