"""The examples of docs/pieces.md run as they stand."""

from __future__ import annotations

import doctest
from pathlib import Path

import trials.sparsity

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pieces.md"


def test_the_examples_run() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.failed == 0
    assert found.attempted > 20


def test_the_page_names_every_function() -> None:
    functions = ("prune", "density", "compact", "make_permanent", "sparsify_adaptive", "adaptive_loss")
    assert all(f"sp.{name}(" in PAGE.read_text() and name in trials.sparsity.__all__ for name in functions)
