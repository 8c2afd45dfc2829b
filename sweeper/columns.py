"""The documented columns of a sweep's tables, and the column names of config fields."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

TEXT, WHOLE, REAL, TEXTS = pa.string(), pa.int64(), pa.float64(), pa.list_(pa.string())


def _columns(types: str) -> dict[str, Any]:
    kinds = {"text": TEXT, "whole": WHOLE, "real": REAL, "texts": TEXTS}
    return {name: kinds[kind] for name, kind in (column.split(":") for column in types.split())}


_FIGURES = """
    train_loss:real train_accuracy:real val_loss:real val_accuracy:real test_loss:real test_accuracy:real
    density:real sparsity:real kept:whole prunable:whole empty_layers:whole warnings:texts"""

_COST = "gradient_evaluations:whole cost:real cost_flops:whole"
"""Up to a row: images times forward-backward passes; the same per training image; FLOPs of these passes."""

_COMPACT = "compact_macs:whole compact_flops:whole compact_parameters:whole"

COLUMNS: dict[str, dict[str, Any]] = {
    "trials": _columns(
        f"""
        trial:text cell:text number:whole samples:whole confirms:text dropped:text
        status:text attempts:whole failures:whole error_type:text error_message:text {_FIGURES}
        compression:real macs:whole flops:whole dense_flops:whole speedup:real parameters:whole dense_parameters:whole
        {_COMPACT} compact_speedup:real
        latency_ms_1:real latency_ms_128:real epochs:whole pruned_at:whole report:text {_COST} dense_cost:real
        data:text data_source:text seconds:real host:text device:text started:text ended:text
        threads:whole torch:text cuda:text precision:text memory_format:text commit:text schema:whole
        environments:whole"""
    ),
    "epochs": _columns(
        f"""
        trial:text stage:text level:whole epoch:whole {_FIGURES} macs:whole flops:whole parameters:whole
        {_COMPACT}
        report:text {_COST} variant:text seconds:real stage_id:text"""
    ),
    "layers": _columns(
        "trial:text stage:text level:whole layer:text total:whole kept:whole density:real flops:whole stage_id:text"
    ),
    "allocations": _columns(
        "trial:text step:whole episode:whole layer:text capacity:whole count:whole reward:real",
    ),
    "lineage": _columns(
        """
        trial:text cell:text generation:whole member:whole parent:whole parent_trial:text
        from_epoch:whole until_epoch:whole changes:text"""
    ),
}
"""By table, the columns that are always present, in order; columns that a method or a config adds follow by name."""


def config_column(path: str) -> str:
    """The column of ``trials`` that holds a config field: its dotted path, prefixed by ``config.`` if that is taken.

    ``density`` is the measured density, ``config.density`` the requested one; ``precision`` the one that ``auto`` was
    resolved to.
    """
    return f"config.{path}" if path in COLUMNS["trials"] else path
