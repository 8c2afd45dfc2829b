"""Tables that fit a terminal's width without cutting a value: with a frame if there is room, else in other forms."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from rich.cells import cell_len, chop_cells
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

GAP = 2
"""Columns of space between two columns of a table without a frame."""

INDENT = 4
"""Columns of space before what stands below a row."""

_FRAME = 3
"""Columns of a frame beside each column of a table: a line and two spaces."""

_PARTS = re.compile(r"((?<=[;,]) |  +|(?<=,)(?=\S))")
"""Where a text that stands below a row is broken first: between fields, and after commas."""

_WORDS = re.compile(r"[^\s.]*\.? *")
"""What a line of a heading holds at least."""


def fitted_table(
    columns: Mapping[str, Sequence[str]],
    width: int,
    *,
    left: Collection[str] = (),
    keys: Collection[str] = (),
    below: Collection[str] = (),
) -> RenderableType:
    """Return a table of texts that is at most ``width`` columns wide, however narrow that is, with every value whole.

    The first of these forms that fits: a framed table; one without a frame, whose headings are broken into words and
    whose columns ``below`` stand under their rows where they must (the widest first); several such tables one after the
    other, each with the columns ``keys``; a paragraph of names and values for every row.

    Args:
        columns: texts by heading.
        width: of the terminal, in columns.
        left: headings of columns that are aligned to the left.
        keys: headings of the columns that say what a row is about; by default the first one.
        below: headings of columns of long texts; by default those in ``left`` that are no keys.
    """
    texts = {_one_line(name): [_one_line(text) for text in column] for name, column in columns.items()}
    if not texts:
        return Text()
    heads = [name for name in texts if name in keys] or list(texts)[:1]
    under = [name for name in texts if name in (below or left) and name not in heads]
    natural = {name: max(cell_len(text) for text in (name, *column)) for name, column in texts.items()}
    if sum(natural.values()) + _FRAME * len(texts) + 1 <= width:
        return _framed(texts, left)
    narrow = {name: _narrow(name, column) for name, column in texts.items()}
    beside = list(texts)
    for name in sorted(under, key=lambda name: -narrow[name]):
        if _total(narrow, beside) <= width:
            break
        beside.remove(name)
    under = [name for name in under if name not in beside]
    rest = [name for name in beside if name not in heads]
    if _total(narrow, beside) > width and _total(narrow, heads) + GAP + max(narrow[n] for n in rest or heads) > width:
        lines = _records(texts, [*heads, *rest], under, width)
    else:
        lines = _blocks(texts, _groups(narrow, heads, rest, width), under, narrow, left, width)
    return Text("\n").join(lines)


def print_fitted(console: Console, columns: Mapping[str, Sequence[str]], **options: Collection[str]) -> None:
    """Print :func:`fitted_table` with the width of the console."""
    shown = fitted_table(columns, console.width, **options)
    console.print(shown, no_wrap=True, crop=False, overflow="ignore")


def _framed(texts: Mapping[str, Sequence[str]], left: Collection[str]) -> Table:
    table = Table()
    for name in texts:
        table.add_column(escape(name), justify="left" if name in left else "right", no_wrap=True)
    for row in zip(*texts.values(), strict=True):
        table.add_row(*map(escape, row))
    return table


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)


def _narrow(name: str, column: Sequence[str]) -> int:
    """The width of a column whose heading is broken at spaces, and in dotted paths after dots."""
    return max([cell_len(word.strip()) for word in _WORDS.findall(name)] + [cell_len(text) for text in column])


def _total(widths: Mapping[str, int], names: Sequence[str]) -> int:
    return sum(widths[name] for name in names) + GAP * max(len(names) - 1, 0)


def _groups(widths: Mapping[str, int], heads: list[str], rest: Sequence[str], width: int) -> list[list[str]]:
    """The columns of each of the tables that stand one after the other."""
    groups = [list(heads)]
    for name in rest:
        if _total(widths, [*groups[-1], name]) > width:
            groups.append(list(heads))
        groups[-1].append(name)
    return groups


def _blocks(
    texts: Mapping[str, Sequence[str]],
    groups: Sequence[Sequence[str]],
    under: Sequence[str],
    widths: Mapping[str, int],
    left: Collection[str],
    width: int,
) -> Iterator[Text]:
    """Tables without a frame; what stands below the rows is in the last one."""
    for number, names in enumerate(groups):
        if number:
            yield Text()
        for words in _heading([_words(name, widths[name]) for name in names]):
            yield Text(_aligned(dict(zip(names, words, strict=True)), widths, left), style="bold")
        for row in range(len(texts[names[0]])):
            yield Text(_aligned({name: texts[name][row] for name in names}, widths, left))
            if number == len(groups) - 1:
                yield from _below(texts, under, row, width)


def _heading(columns: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The lines of the headings, which end at the same line."""
    most = max(map(len, columns))
    padded = [[*[""] * (most - len(words)), *words] for words in columns]
    yield from map(list, zip(*padded, strict=True))


def _words(name: str, width: int) -> list[str]:
    """A heading in lines of at most ``width``."""
    lines = [""]
    for word in _WORDS.findall(name):
        if lines[-1] and cell_len((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.strip() for line in lines]


def _aligned(row: Mapping[str, str], widths: Mapping[str, int], left: Collection[str]) -> str:
    parts = []
    for name, text in row.items():
        space = " " * (widths[name] - cell_len(text))
        parts.append(text + space if name in left else space + text)
    return (" " * GAP).join(parts).rstrip()


def _below(texts: Mapping[str, Sequence[str]], under: Sequence[str], row: int, width: int) -> Iterator[Text]:
    for name in under:
        if text := texts[name][row]:
            for line in filled_lines(f"{name}: {text}", width, INDENT):
                yield Text(line)


def _records(
    texts: Mapping[str, Sequence[str]], names: Sequence[str], under: Sequence[str], width: int
) -> Iterator[Text]:
    """Return each row as a paragraph of names and values, without empty values."""
    for row in range(len(texts[names[0]])):
        line = "  ".join(f"{name} {texts[name][row]}" for name in names if texts[name][row])
        for number, part in enumerate(filled_lines(line, width, 0)):
            yield Text(part, style="" if number else "bold")
        yield from _below(texts, under, row, width)


def filled_lines(text: str, width: int, indent: int) -> list[str]:
    """The lines of a text, which is broken between its parts, else at spaces, else anywhere."""
    first, further = " " * min(indent, width // 4), " " * min(indent + GAP, width // 3)
    found, line = re.split(_PARTS, text), ""
    lines: list[str] = []
    for separator, part in zip(["", *found[1::2]], found[::2], strict=True):
        if line and cell_len(f"{line}{separator}{part}") <= width:
            line += separator + part
            continue
        lines += [line] if line else []
        for piece in _pieces(part, width - len(further)):
            lines.append((further if lines else first) + piece)
        line = lines.pop()
    return [*lines, line]


def _pieces(part: str, room: int) -> Iterator[str]:
    """A part in pieces that fit: broken at spaces, and words that are longer than a line anywhere."""
    line = ""
    for word in part.split(" "):
        if cell_len(f"{line} {word}") <= room and line:
            line += f" {word}"
            continue
        if line:
            yield line
        *whole, line = chop_cells(word, max(room, 2)) or [""]
        yield from whole
    yield line
