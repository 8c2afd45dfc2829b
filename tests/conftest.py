"""For all tests: one thread of torch, the same examples in every run, and the folder of the reference vectors."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

VECTORS = Path(os.environ.get("SWEEPER_VECTORS") or Path(__file__).parent / "vectors")
"""Reference vectors, a folder per source. SWEEPER_VECTORS names another set of the same form."""
