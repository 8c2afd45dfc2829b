"""For the tests of the sweeper: no token file of Ray's in anybody's home."""

from __future__ import annotations

import os

os.environ["RAY_AUTH_MODE"] = "disabled"
