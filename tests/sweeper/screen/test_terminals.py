"""Terminals that have ASCII or Latin-1 only, one column, no features, or that vanish."""

from __future__ import annotations

import io
import os
import pty
from typing import Any

import pytest
from rich.console import Console

from sweeper.console import print_table
from sweeper.execution.live_view import LiveView
from sweeper.screen.activity import doing
from sweeper.screen.watched import Watched
from trials.system.streams import lasting


def shown_on(console: Console) -> None:
    """Show everything that a terminal gets: a spinner, the live view, tables, a text that is looked at again."""
    with doing(console, "reading größe"):
        console.print("±", markup=False)
    with LiveView({"größe=1": 2}, console, "val_accuracy", "maximize") as view:
        view.started("t-1", "größe=1")
        view.doing("waiting…")
        view.row("t-1", {"stage": "prune", "level": 0, "epoch": 1, "val_accuracy": 0.5})
        view._live.refresh()  # type: ignore[union-attr]
        view.ended("t-1", "größe=1", "complete", 0.5, False)
        view.note("fertig · größe")
        view.abandon()
    print_table({"größe": ["1", "2"], "± %": ["0.5 ± –", "…"]}, console)
    with Watched(console, 1.0) as watched:
        with watched.reading() as block:
            print_table({"größe": ["1 ±", "2"]}, block)
        watched.show()


def terminal(encoding: str, **options: Any) -> tuple[io.BytesIO, Console]:
    content = io.BytesIO()
    file = lasting(io.TextIOWrapper(content, encoding=encoding))
    return content, Console(file=file, force_terminal=True, highlight=False, **options)


@pytest.mark.fault("terminal-encoding")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_view_can_be_written(encoding: str) -> None:
    content, console = terminal(encoding, width=80, height=20)
    shown_on(console)
    text = content.getvalue().decode(encoding)
    if encoding == "utf-8":
        assert "größe" in text
        assert "┃" in text
    else:
        assert ("grosse" if encoding == "ascii" else "größe") in text.replace("gro\\xdfe", "grosse")
        assert "+-" in text
        assert "\\u2" not in text


@pytest.mark.parametrize("width", [1, 2, 7])
def test_a_terminal_of_one_column_is_enough(width: int) -> None:
    content, console = terminal("utf-8", width=width, height=5)
    shown_on(console)
    assert content.getvalue()


@pytest.mark.parametrize("kind", ["dumb", "unknown", ""])
def test_a_terminal_without_features_is_enough(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", kind)
    content, console = terminal("utf-8", width=80, height=20)
    shown_on(console)
    assert "größe" in content.getvalue().decode()


@pytest.mark.fault("output-gone")
def test_a_terminal_that_vanishes_ends_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8", closefd=False) as out:
        console = Console(file=lasting(out), force_terminal=True, width=80, height=20)
        with LiveView({"c": 2}, console, "val_accuracy", "maximize") as view:
            view.started("t-1", "c")
            os.close(ours)
            view._live.refresh()  # type: ignore[union-attr]
            view.ended("t-1", "c", "complete", 0.5, False)
            view.note("a line")
            assert view.done == 1
        console.print("the summary")
    os.close(theirs)
    assert capsys.readouterr().err.count("the run goes on without it") == 1
