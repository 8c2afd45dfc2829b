"""Markdown in which text from outside stays text: names of layers, classes, data sets and the like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from trials.errors import one_line

_PLAIN_CODE = re.compile(r"[^`|\\<>&]*[^`|\\<>&\s]")


def code(text: object) -> str:
    """Text as code, in a paragraph or a cell of a table.

    A backtick, a bar or a backslash cannot stand in a code span of every table, so such text is written by entities,
    which no reader of Markdown takes for markup. Line breaks and control characters become escapes.

    >>> code("layer1.conv"), code("a|b")
    ('`layer1.conv`', '<code>a&#124;b</code>')
    """
    line = one_line(str(text))
    if _PLAIN_CODE.fullmatch(line) and not line.startswith(" "):
        return f"`{line}`"
    return f"<code>{_entities(line)}</code>" if line else "<code></code>"


def prose(text: object) -> str:
    """Text as a part of a sentence: characters that Markdown may read as markup become entities.

    >>> prose("2 * 3 < 7")
    '2 &#42; 3 &#60; 7'
    """
    line = _entities(one_line(str(text)))
    return re.sub(r"^(\d*)([-+=.)])", lambda found: f"{found[1]}&#{ord(found[2])};", line)  # no list, no underline


def _entities(line: str) -> str:
    return re.sub(r"[^\w\s.,;:()/=+%'\"-]|(?<!\w)_|_(?!\w)", lambda found: f"&#{ord(found[0])};", line)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown; columns whose head begins with ``>`` are aligned to the right."""
    rule = ["---:" if head.startswith(">") else "---" for head in heads]
    lines = [[head.removeprefix(">") for head in heads], rule, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fenced(text: str, language: str = "") -> str:
    """A block of code, whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
