"""The tables of columns in docs/tables.md and docs/config_columns.md, generated from :mod:`sweeper.columns`.

``python -m sweeper.describe.tables_page`` writes them anew, between the marks in docs/tables.md; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sweeper.columns import ALWAYS, SOME, TYPE_NAMES, Column, config_column, config_columns

DOCS = Path(__file__).parents[2] / "docs"

_BLOCK = re.compile(r"(<!-- (always|some): (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)

_CONFIG_HEAD = """# Columns of config fields

This page is generated: `python -m sweeper.describe.config_columns`, then `python -m sweeper.describe.tables_page`.

The table [`trials`](tables.md) has a column for each field of the trials' configs, and `lineage` one for each value
that a population changes. They have these types in every sweep; [tables](tables.md#types) says what the types are, and
where a value of another type stands. A name that ends in `.*` stands for the entries of a mapping. Where methods mean
different things by a name, all meanings are given.

"""


def page_text(page: str) -> str:
    """Return docs/tables.md with the tables between its marks written anew.

    Args:
        page: the text as it is.
    """

    def block(match: re.Match[str]) -> str:
        columns = {"always": ALWAYS, "some": SOME}[match[2]][match[3]]
        return f"{match[1]}{_rows(columns.values())}{match[4]}"

    return _BLOCK.sub(block, page)


def config_page_text() -> str:
    """Return docs/config_columns.md."""
    columns = [
        Column(config_column(path), one.type, one.meaning, one.unit) for path, one in sorted(config_columns().items())
    ]
    return _CONFIG_HEAD + _rows(columns)


def _rows(columns: Iterable[Column]) -> str:
    lines = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for one in columns:
        cells = (f"`{one.name}`", TYPE_NAMES[one.type], one.unit, one.meaning.replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name, text in (
        ("tables.md", page_text((DOCS / "tables.md").read_text())),
        ("config_columns.md", config_page_text()),
    ):
        (DOCS / name).write_text(text)
