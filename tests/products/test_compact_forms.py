"""Every model under random masks of every pattern: masked, profiled, exported and counted are one network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trials.compact import test_compact_form as product
from tests.trials.stored_networks import MASKS
from trials.models import MODELS

pytestmark = pytest.mark.products


@pytest.mark.parametrize("pattern", MASKS)
@pytest.mark.parametrize("name", MODELS)
def test_masked_profiled_exported_and_counted_agree(name: str, pattern: str, tmp_path: Path) -> None:
    product.assert_agreement(name, MODELS[name], pattern, tmp_path)
