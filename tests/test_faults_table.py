"""docs/faults.md shows every fault of tests/faults/cases.py with the tests that cause it."""

from __future__ import annotations

import re

from tests.faults.cases import FAULTS
from tests.faults.table import END, PAGE, ROOT, marked_tests, page_with, table


def test_the_page_shows_what_the_marks_say() -> None:
    assert PAGE.read_text() == page_with(table()), "write it anew: python -m tests.faults.table"


def test_every_mark_names_a_fault_and_every_fault_has_a_test() -> None:
    marked = {test.key for test in marked_tests()}
    assert marked == set(FAULTS)


def test_cells_do_not_break_the_table() -> None:
    for key, fault in FAULTS.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key)
        assert not set("|\n") & set(fault.what + fault.then), key
    assert len(table().splitlines()) == len(FAULTS) + 2
    assert END not in table()


def test_named_tests_exist() -> None:
    for test in marked_tests():
        path, _, function = test.name.partition("::")
        assert f"def {function}" in (ROOT / path).read_text() if function else (ROOT / path).is_file()
