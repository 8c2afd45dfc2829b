"""``same_rows.py SWEEP SWEEP``: exits with 1 if two sweeps' rows differ in anything but where and how long they ran."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import sweeper

ELSEWHERE = ["seconds", "stage_id", "attempt", "attempts", "host", "device", "failures", "status"]


def rows(path: str, table: str) -> pd.DataFrame:
    frame: pd.DataFrame = getattr(sweeper.load(Path(path)), table)
    frame = frame.drop(columns=[name for name in ELSEWHERE if name in frame])
    keys = [name for name in ("trial", "stage", "level", "epoch", "layer", "number") if name in frame]
    return frame.sort_values(keys).reset_index(drop=True)


def main(one: str, other: str) -> None:
    for table in ("epochs", "layers"):
        a, b = rows(one, table), rows(other, table)
        pd.testing.assert_frame_equal(a, b, check_exact=True)
        print(f"{table}: {len(a)} rows are the same")


if __name__ == "__main__":
    main(*sys.argv[1:])
