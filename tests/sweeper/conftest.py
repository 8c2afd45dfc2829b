"""For the tests of the sweeper: no token file of Ray's in anybody's home."""

from __future__ import annotations

import os

from tests.trials.conftest import few_digits

__all__ = ["few_digits"]

os.environ["RAY_AUTH_MODE"] = "disabled"
