from __future__ import annotations

from pathlib import Path

import pytest

from tests.trials.hub.exported import Exported


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def exported(few_digits: None, storage: Path) -> Exported:
    """The modules share a storage, in which a trial is run once."""
    pytest.importorskip("safetensors", reason="extra hub")
    return Exported(storage)
