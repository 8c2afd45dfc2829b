"""Examples in docstrings and in docs/python.md run as they stand; sweeps run in this process instead of on Ray."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.sweeper.conftest import ran

__all__ = ["ran"]

DOCS = Path(__file__).resolve().parents[1] / "docs"

MODULES = ("sweeper.api", "trials.dotted_paths", "trials.errors", "trials.single", "trials.yaml_text")
OPTIONS = doctest.ELLIPSIS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.usefixtures("ran")
def test_the_examples_of_the_page_run() -> None:
    found = doctest.testfile(str(DOCS / "python.md"), module_relative=False, optionflags=OPTIONS)
    assert found.attempted > 20
    assert found.failed == 0
