"""Rows of values of any kind come back equal from a row file, in columns of one type each."""

from __future__ import annotations

import io
import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trials.storage.row_schema import rows_as_table, table_as_rows
from trials.storage.rows import Row

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-(2**70), 2**70), st.floats(), st.text())
JSON = st.recursive(
    SCALARS, lambda own: st.one_of(st.lists(own, max_size=3), st.dictionaries(st.text(max_size=3), own, max_size=3))
)


def read_back(rows: list[Row]) -> list[Row]:
    buffer = io.BytesIO()
    pq.write_table(rows_as_table(rows), buffer)
    return table_as_rows(pq.read_table(buffer))


def same(one: Any, other: Any) -> bool:
    """Equal, with NaN equal to itself, and bools only to bools."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@given(values=st.lists(JSON, min_size=1, max_size=6))
def test_no_value_is_lost(values: list[Any]) -> None:
    rows = [{"epoch": epoch, "own": value} for epoch, value in enumerate(values)]
    again = read_back(rows)
    assert same(again, rows), (again, rows)


@pytest.mark.parametrize(
    ("values", "columns"),
    [
        ([1, 2, None], {"own": pa.int64()}),
        ([1, 0.5], {"own": pa.float64()}),
        ([True, None], {"own": pa.bool_()}),
        (["a", None], {"own": pa.string()}),
        ([[], ["a"]], {"own": pa.list_(pa.string())}),
        ([[], []], {"own": pa.list_(pa.string())}),
        ([None, None], {"own": pa.null()}),
        ([True, 1], {"own": pa.int64(), "own:json": pa.string()}),
        ([1, 2**64 + 1], {"own": pa.int64(), "own:json": pa.string()}),
        ([2**53 + 1, 0.5], {"own": pa.float64(), "own:json": pa.string()}),
        ([2**70, 1], {"own": pa.float64()}),
        ([2**70 + 1], {"own": pa.null(), "own:json": pa.string()}),
        (["a", 1], {"own": pa.int64(), "own:text": pa.string()}),
        ([["a"], [1]], {"own": pa.null(), "own:json": pa.string()}),
        ([{"a": 1}, {"b": 2}], {"own": pa.null(), "own:json": pa.string()}),
    ],
    ids=repr,
)
def test_a_column_has_one_type(values: list[Any], columns: dict[str, pa.DataType]) -> None:
    """Values of one type have that; others stand beside."""
    schema = rows_as_table([{"own": value} for value in values]).schema
    assert dict(zip(schema.names, schema.types, strict=True)) == columns


def test_a_column_that_some_rows_lack_is_null_there() -> None:
    assert read_back([{"a": 1}, {"b": {"c": True}}]) == [{"a": 1, "b": None}, {"a": None, "b": {"c": True}}]
