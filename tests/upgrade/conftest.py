"""Fixtures of the stored sweeps: a copy of their storage for every test, and the Ray of the sweeper's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.sweeper.conftest import no_stray_handlers, ran, ray
from tests.upgrade.stored import STORAGE

__all__ = ["no_stray_handlers", "ran", "ray"]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stored sweeps that a test may continue, in its own working folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(STORAGE, tmp_path / "storage")
