"""What README.md says of the methods is what the code does."""

from __future__ import annotations

import runpy
from pathlib import Path

from trials.methods.registry import METHODS

ROOT = Path(__file__).resolve().parents[1]


def test_the_table_of_patterns_is_generated_from_the_code() -> None:
    page = (ROOT / "README.md").read_text()
    assert runpy.run_path(str(ROOT / "docs" / "patterns.py"))["written"](page) == page, "run: python docs/patterns.py"


def test_the_table_of_methods_names_every_method() -> None:
    page = (ROOT / "README.md").read_text()
    table = page[page.index("| method |") : page.index("<!-- patterns")]
    assert [name for name in METHODS if f"`{name}`" not in table] == []
