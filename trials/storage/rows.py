"""The vocabulary of a trial's rows: the tables they belong to and the columns of a trial's result."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


Rows = dict[str, list[Row]]


TABLES = ("epochs", "layers", "allocations")


RESULT = (
    *(f"{split}_{figure}" for split in ("train", "val", "test") for figure in ("loss", "accuracy")),
    *("density", "sparsity", "kept", "prunable", "empty_layers", "macs", "flops", "parameters"),
)
"""Columns of a trial's last row that are its result: what an objective may name, with dense_flops."""


BATCH_SIZES = (1, 128)


LATENCY = tuple(f"latency_ms_{size}" for size in BATCH_SIZES)
"""Of the result too, where the trial measures it (see trials/training/latency.py)."""


FINISHED = frozenset({"complete", "pruned"})
