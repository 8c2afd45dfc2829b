"""Two sweeps, cell by cell: means, differences over the seeds that both have, and whether these differ from 0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from sweeper.columns import config_column
from sweeper.paired.comparable import fields_that_differ, protocol_lines, require_same_objective, why_not
from sweeper.paired.matched_cells import MatchedCell, OneCell, Side, matched_cells, space_of_cells
from sweeper.paired.paired_tests import holm, paired_test
from sweeper.results.frames import SweepTables
from sweeper.results.summary import ACCURACIES, mean, std
from trials.errors import UserError, listed
from trials.storage.rows import Row

_OF_SIDE = ("mean", "std", "n", "density")


@dataclass(frozen=True)
class SweepComparison:
    """Two sweeps compared; :meth:`sweeper.sweep.Sweep.compare` documents the columns of ``table``.

    Attributes:
        table: a row per figure and cell.
        paths: the fields by which cells are matched.
        notes: a line per difference in how the figures came about.
        fields: a line per field of trials or spaces that differs.
    """

    table: pd.DataFrame
    paths: tuple[str, ...]
    notes: tuple[str, ...]
    fields: tuple[str, ...]


def compare_sweeps(a: SweepTables, b: SweepTables) -> SweepComparison:
    """Compare two sweeps.

    Raises:
        UserError: a sweep has no space; their objectives differ; or no cell that both have is comparable.
    """
    spaces = [space_of_cells(sweep) for sweep in (a, b)]
    require_same_objective(*spaces)
    objective = spaces[0].objectives[0].column
    figures = list(dict.fromkeys((objective, *ACCURACIES)))
    wanted = [path for path in dict.fromkeys((*spaces[0].paths, *spaces[1].paths)) if path != "seed"]
    sides = (Side.of(a, figures, wanted), Side.of(b, figures, wanted))
    paths, cells = matched_cells(*sides, wanted)
    refused = {id(cell): reason for cell in cells if (reason := why_not(cell))}
    _require_comparable(sides, paths, cells, refused)
    rows = [row for figure in figures for row in _rows(cells, refused, figure)]
    columns = ["figure", *map(config_column, paths), "found_in"]
    columns += [f"{side}_{what}" for side in "ab" for what in _OF_SIDE]
    columns += ["n", "difference", "difference_std", "low", "high", "p", "p_holm", "p_wilcoxon", "note"]
    table = pd.DataFrame(rows, columns=columns).astype({"a_n": "Int64", "b_n": "Int64", "n": "Int64"})
    there = table.groupby("figure")[["a_n", "b_n"]].sum().sum(axis="columns")
    table = table[table["figure"].isin([f for f in figures if f == objective or there[f] > 0])].reset_index(drop=True)
    compared = [cell for cell in cells if id(cell) not in refused]
    damaged = [
        f"left out of {name}: {line}" for name, side in zip("AB", sides, strict=True) for line in side.tables.damaged
    ]
    notes = (*protocol_lines(compared), *_not_begun(sides), *damaged)
    return SweepComparison(table, tuple(paths), notes, tuple(fields_that_differ(*sides, paths)))


def _require_comparable(
    sides: Sequence[Side], paths: Sequence[str], cells: Sequence[MatchedCell], refused: dict[int, str]
) -> None:
    a, b = (side.tables.path.name for side in sides)
    for side in sides:
        if not side.cells:
            raise UserError(f"{side.tables.path.name} has no trial yet: there is nothing to compare")
    both = [cell for cell in cells if cell.a and cell.b]
    if not both:
        texts = [[cell_text(cell) for cell in cells if (cell.a if name == "a" else cell.b)] for name in "ab"]
        raise UserError(
            f"no cell of {a} is one of {b}: A has {listed(texts[0], most=4)}; B has {listed(texts[1], most=4)} (cells "
            f"are matched by {listed(paths)})"
        )
    if all(id(cell) in refused for cell in both):
        raise UserError(f"{a} and {b} are not comparable: {listed(dict.fromkeys(refused.values()), most=4)}")


def _not_begun(sides: Sequence[Side]) -> Iterator[str]:
    for name, side in zip("AB", sides, strict=True):
        if (left := side.space.cells - len(side.cells)) > 0:
            yield f"{name} has no trial yet in {left} of its {side.space.cells} cells"


def cell_text(cell: MatchedCell) -> str:
    """A cell's values as text, of the kind ``density=0.2, method=imp``."""
    return ", ".join(f"{path}={value}" for path, value in cell.values.items() if value is not None) or "the one cell"


def _rows(cells: Sequence[MatchedCell], refused: dict[int, str], figure: str) -> Iterator[Row]:
    rows = [_row(cell, figure, refused.get(id(cell), "")) for cell in cells]
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        yield {**row, "p_holm": corrected}


def _row(cell: MatchedCell, figure: str, refused: str) -> Row:
    where = "both" if cell.a and cell.b else "a" if cell.a else "b"
    row: Row = {
        "figure": figure,
        **{config_column(path): value for path, value in cell.values.items()},
        "found_in": where,
    }
    row |= _side("a", cell.a, figure) | _side("b", cell.b, figure)
    if refused or not (cell.a and cell.b):
        unknown = dict.fromkeys(("difference", "difference_std", "low", "high", "p", "p_wilcoxon"), math.nan)
        note = f"not compared: {refused}" if refused else f"only in {where.upper()}"
        return {**row, **unknown, "n": 0, "note": _joined(note, *_lacks(cell, figure))}
    found = [one.by_identity(figure) for one in (cell.a, cell.b)]
    common = sorted(found[0].keys() & found[1].keys(), key=str)
    test = paired_test(*([mean(side[key]) for key in common] for side in found))
    note = test.note
    if all(found) and not common:
        seeds = [", ".join(sorted(str(key[0]) for key in side)) for side in found]
        note = f"no seed in common (A: {seeds[0]}; B: {seeds[1]})"
    row |= {"n": test.n, "difference": test.difference, "difference_std": test.std, "low": test.low, "high": test.high}
    return {**row, "p": test.p, "p_wilcoxon": test.p_wilcoxon, "note": _joined(note, *_lacks(cell, figure))}


def _side(name: str, one: OneCell | None, figure: str) -> Row:
    found = one.by_identity(figure) if one else {}
    values = [mean(of_seed) for of_seed in found.values()]
    density = mean([row.get("density") for row in one.rows]) if one else math.nan
    return {
        f"{name}_mean": mean(values),
        f"{name}_std": std(values),
        f"{name}_n": len(values),
        f"{name}_density": density,
    }


def _lacks(cell: MatchedCell, figure: str) -> Iterator[str]:
    """What the cell has no figure of, in either sweep."""
    for name, one in (("A", cell.a), ("B", cell.b)):
        if one is None:
            continue
        if one.waiting:
            yield f"{name} waits: {'; '.join(one.waiting)}"
        elif not one.rows:
            yield f"{name} has no trial within its constraints"
        elif unknown := sum(row.get(figure) is None for row in one.rows):
            yield f"{name} lacks {figure} in {unknown} of {len(one.rows)} trials"


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)
