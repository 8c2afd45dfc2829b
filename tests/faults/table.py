"""The table of docs/faults.md, from the faults of cases.py and the tests that are marked with their keys.

    python -m tests.faults.table

writes it. Tests are found by reading their source, so that nothing is imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.faults.cases import FAULTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- python -m tests.faults.table writes this table: begin -->", "<!-- end -->"

_IN_SHELL = re.compile(r"^\s*# fault: ([a-z0-9-]+)", re.MULTILINE)


class Marked(NamedTuple):
    """A test that causes a fault.

    Attributes:
        key: of the fault.
        name: file of the test, and its function where not the whole file is marked.
        slow: whether only ``make test-faults`` runs it.
        parts: whether that is so for some of its parameters.
    """

    key: str
    name: str
    slow: bool = False
    parts: bool = False


def marked_tests() -> list[Marked]:
    """Every test below ``tests`` that is marked with a fault, by file and place."""
    found: list[Marked] = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text()
        if "mark.fault(" in text:
            found += _in_module(ast.parse(text), str(path.relative_to(ROOT)))
    for path in sorted((ROOT / "tests").rglob("*.sh")):
        found += (Marked(key, str(path.relative_to(ROOT))) for key in _IN_SHELL.findall(path.read_text()))
    return found


def _in_module(tree: ast.Module, name: str) -> Iterator[Marked]:
    whole = [node.value for node in tree.body if isinstance(node, ast.Assign) and _targets(node) == ["pytestmark"]]
    slow = any(_is_slow(mark) for mark in whole)
    for mark in whole:
        yield from (Marked(key, name, slow) for key in _keys(mark))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            by_itself = any(ast.unparse(one) in ("pytest.mark.slow_faults", "SLOW") for one in node.decorator_list)
            parts = not by_itself and any(map(_is_slow, node.decorator_list))
            for mark in node.decorator_list:
                for key in _keys(mark):
                    yield Marked(key, f"{name}::{node.name}", slow or by_itself, parts and not slow)


def _targets(node: ast.Assign) -> list[str]:
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def _is_slow(mark: ast.expr) -> bool:
    named = {node.attr for node in ast.walk(mark) if isinstance(node, ast.Attribute)}
    return "slow_faults" in named or any(
        isinstance(node, ast.Name) and node.id in ("SLOW", "EACH") for node in ast.walk(mark)
    )


def _keys(mark: ast.expr) -> Iterator[str]:
    for node in ast.walk(mark):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fault":
            yield from (str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))


def table() -> str:
    """The table in Markdown: one row for each fault, in the order of cases.py."""
    tests = marked_tests()
    rows = ["| fault | what happens | test |", "|---|---|---|"]
    for key, fault in FAULTS.items():
        named = ", ".join(dict.fromkeys(_shown(test) for test in tests if test.key == key))
        rows.append(f"| {fault.what} | {fault.then} | {named} |")
    return "\n".join(rows)


def _shown(test: Marked) -> str:
    name = test.name.removeprefix("tests/faults/")
    return f"`{name}`{' (*slow*)' if test.slow else ' (some *slow*)' if test.parts else ''}"


def page_with(text: str) -> str:
    """A page with the table between its two marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(table()))
