"""A folder of users' code, and a process that has admitted none before and after."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trials.plugins.canary import CANARY
from tests.trials.plugins.code import write_code
from trials.plugins import importing


@pytest.fixture
def nothing_admitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Admits no plug-in; modules that the test imports are dropped after it."""
    before = set(sys.modules)
    monkeypatch.setattr(importing, "_admitted", {})
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mynets", "bare", "one_file", "canary"):
            del sys.modules[name]
    importing._loads += 1


@pytest.fixture
def code(tmp_path: Path, nothing_admitted: None) -> Path:
    """A folder with a package ``mynets``, a module ``one_file`` and a folder without ``__init__.py``, ``bare``."""
    return write_code(tmp_path / "code")


@pytest.fixture
def canary(tmp_path: Path, nothing_admitted: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on Python's path that leaves a file if it is imported."""
    (tmp_path / "canary.py").write_text(CANARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "canary.ran"
