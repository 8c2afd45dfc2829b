"""Rows of ``lineage``: the parents of a population's members, and the hyperparameters of every segment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def lineage_rows(samples: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of ``lineage`` for the samples that a trial serves; samples outside a population have none."""
    ends = [0, *(segment["until_epoch"] for segment in config.get("lineage") or ())]
    return [
        {
            "cell": sample["cell"],
            **{name: value for name, value in sample["attrs"]["pbt"].items() if name != "changes"},
            "from_epoch": ends[-1],
            "until_epoch": config["until_epoch"],
            "changes": json.dumps(sample["attrs"]["pbt"]["changes"]),
            **sample["params"],
        }
        for sample in samples
        if "pbt" in (sample.get("attrs") or {})
    ]


def history(lineage: pd.DataFrame, cell: str, member: int) -> pd.DataFrame:
    """The ancestry of a member of the last generation: one row of ``lineage`` per generation, the first one first.

    It begins later where the record of an ancestor is lost, such as one whose config is damaged.
    """
    mine = lineage[lineage["cell"] == cell].reset_index(drop=True)
    generations, members, parents = (mine[name].tolist() for name in ("generation", "member", "parent"))
    at = {place: i for i, place in enumerate(zip(generations, members, strict=True))}
    found: list[int] = []
    for generation in range(max(generations, default=-1), -1, -1):
        if (generation, member) not in at:
            break
        found.append(at[generation, member])
        member = parents[found[-1]]
    through: pd.DataFrame = mine.iloc[found[::-1]].reset_index(drop=True)
    return through
