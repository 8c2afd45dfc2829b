"""Fixtures of the tests that kill processes: no Ray token file in the home folder, no process left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.drivers import Drivers

os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture
def drivers(tmp_path: Path) -> Iterator[Drivers]:
    """Starts drivers; at the end none of the processes that they started may be left."""
    started = Drivers(tmp_path)
    try:
        yield started
    finally:
        left = started.end()
    assert not left, f"left behind: {left}"
