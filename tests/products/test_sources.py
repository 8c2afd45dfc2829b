"""No method changes what a process keeps of its source, and every model is itself once it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trials.kept_sources import assert_changes_nothing_kept
from tests.trials.models.test_without_draws import LARGE, assert_is_itself_once_loaded
from tests.trials.small_trials import CONFIGS
from trials.storage.read_once import SOURCES

pytestmark = [pytest.mark.products, pytest.mark.usefixtures("few_digits")]


@pytest.mark.parametrize("name", CONFIGS)
def test_no_method_changes_what_is_kept(name: str, tmp_path: Path) -> None:
    SOURCES.clear()
    assert_changes_nothing_kept(name, tmp_path)


@pytest.mark.parametrize("name", LARGE)
def test_large_models_are_themselves_once_they_are_loaded(name: str) -> None:
    assert_is_itself_once_loaded(name)
