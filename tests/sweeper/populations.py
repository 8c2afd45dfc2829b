"""Small populations, and the objective that they maximise."""

from __future__ import annotations

import math
from typing import Any

from sweeper.search.plan import Plan
from sweeper.space.space import Space
from tests.sweeper.sweeps import ONE_SHOT, make_space

PBT = {"population": 4, "interval": 2, "generations": 3}
SEARCH: dict[str, Any] = {"finetune.lr": {"loguniform": [1e-3, 1.0]}, "finetune.momentum": {"uniform": [0.0, 0.95]}}
TRIAL = {**ONE_SHOT, "finetune": {"epochs": 6}}


def population(**fields: Any) -> Space:
    fields = {"trial": TRIAL, "search": SEARCH, "pbt": PBT, **fields}
    return make_space(**{**fields, "pbt": {**PBT, **fields["pbt"]}})


def landscape(config: dict[str, Any]) -> float:
    return 1.0 - abs(math.log10(config["finetune"]["lr"] / 0.1)) - abs(config["finetune"]["momentum"] - 0.5)


def places(plan: Plan, cell: str = "density=0.5") -> dict[tuple[int, int], Any]:
    """The samples of a cell by generation and member."""
    samples = [sample for record in plan.folder.records() for sample in record.samples if sample.cell == cell]
    return {(s.attrs["pbt"]["generation"], s.attrs["pbt"]["member"]): s for s in samples}
