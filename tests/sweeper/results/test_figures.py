"""A figure has one form in all tables: ``trials``, which reads results, and ``epochs``, which reads row files."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.results.column_types import described_column, together
from sweeper.results.table_cache import gather
from sweeper.results.tables import compact_tables, load
from tests.sweeper.results.test_column_types import fabricate, of_plugin

NAMES = ["own", "lr", "iteration"]
"""An unknown figure, a documented real one of ``epochs``, and a documented whole one of ``epochs``."""


def forms(folder: Path, name: str, values: list[Any], table: str) -> dict[str, list[Any]]:
    """The columns of a figure of which each trial has one value, by name."""
    trials = [of_plugin({}, {name: value}, {name: value}) for value in values]
    found = gather(fabricate(folder, trials)).tables[table]
    assert found["trial"].to_pylist() == [f"Method-{number:012d}" for number in range(len(values))]
    return {column: found[column].to_pylist() for column in found.column_names if column.partition(":")[0] == name}


@pytest.mark.parametrize("table", ["trials", "epochs"])
@pytest.mark.parametrize("other", [None, 1.0, 0.5, 3, 2**53 + 1])
def test_true_and_false_stand_in_json_whatever_stands_beside(tmp_path: Path, table: str, other: Any) -> None:
    found = forms(tmp_path, "own", [True, other, False], table)
    assert found["own:json"] == ["true", str(2**53 + 1) if other == 2**53 + 1 else None, "false"]
    assert found.get("own", [None] * 3) == [None, None if other == 2**53 + 1 else other, None]
    assert found.keys() <= {"own", "own:json"}


@pytest.mark.parametrize("table", ["trials", "epochs"])
@pytest.mark.parametrize("value", [2**53 + 1, 2**63 + 1, -(2**64) - 1, 10**400])
def test_whole_numbers_that_float64_cannot_hold_stand_in_json(tmp_path: Path, table: str, value: int) -> None:
    assert forms(tmp_path, "own", [value, 1], table) == {"own": [None, 1.0], "own:json": [str(value), None]}


FIGURES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text()),
    st.lists(st.one_of(st.text(max_size=2), st.integers()), max_size=2),
    st.dictionaries(st.text(max_size=2), st.booleans(), max_size=2),
)


@pytest.mark.parametrize("name", NAMES)
@given(values=st.lists(FIGURES, min_size=1, max_size=4))
@settings(max_examples=12)
def test_both_tables_hold_a_figure_alike(name: str, values: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        both = [forms(Path(folder) / table, name, values, table) for table in ("trials", "epochs")]
    if described_column("trials", name).type == described_column("epochs", name).type:
        of_trials, of_epochs = (
            {column: found for column, found in one.items() if set(map(type, found)) != {type(None)}} for one in both
        )
        assert of_trials == of_epochs
    for columns in both:
        if values == [None] * len(values):
            columns = {name: values}
        assert together(columns, name) == [json.dumps(x) if isinstance(x, (list, dict)) else x for x in values]


def test_a_trial_whose_epochs_differ_in_type_reads_as_it_was_written(tmp_path: Path) -> None:
    values = [True, None, 1, 0.5, 2**53 + 1, 2**70 + 1, "text", ["a"], [1], {"a": False}, math.inf]
    sweep = fabricate(
        tmp_path, [of_plugin({}, {}, *({"own": x} for x in values)), of_plugin({}, {}, {"own": {"b": 1}})]
    )
    stored = gather(sweep).tables["epochs"]
    columns = {name: stored[name].to_pylist() for name in stored.column_names}
    written = [*values, {"b": 1}]
    assert together(columns, "own") == [json.dumps(x) if isinstance(x, (list, dict)) else x for x in written]
    before = load(tmp_path).epochs["own"]
    compact_tables(sweep)
    after = load(tmp_path).epochs["own"]
    assert (
        before.astype(object).where(before.notna(), None).tolist()
        == after.astype(object).where(after.notna(), None).tolist()
    )
