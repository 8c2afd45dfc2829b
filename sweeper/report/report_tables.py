"""The tables of a report's page: the summary that the terminal prints, and every trial."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from sweeper.columns import config_column
from sweeper.report.gathered import Gathered
from sweeper.report.packed import readable
from sweeper.results.texts.summary_texts import summary_texts

_TRIAL = ("trial", "cell", "number", "confirms", "status")
_FIGURES = (
    *("val_accuracy", "test_accuracy", "density", "flops", "compact_flops", "parameters"),
    *("latency_ms_1", "latency_ms_128", "cost", "report", "epochs", "seconds", "device", "host"),
    *("warnings", "failures", "error_type", "error_message"),
)
_LONGEST_MESSAGE = 500
"""Characters of an error's text in the table of trials."""

_LONG = ("best", "not complete", "warnings", "error_message")


@dataclass(frozen=True)
class ReportTable:
    """A table of the page.

    Attributes:
        name: of its section, and of its file as CSV.
        title: its heading. ``about``: a line below that.
        rows: what it shows.
        long: names of columns whose texts are wrapped.
    """

    name: str
    title: str
    about: str
    rows: pd.DataFrame
    long: tuple[str, ...] = _LONG


def report_tables(gathered: Gathered) -> list[ReportTable]:
    """The tables of a sweep, which may have no rows."""
    return [
        ReportTable(
            "cells",
            "Cells",
            "A row per group of cells that differ only in their seed, chosen by validation: mean ± standard deviation "
            "(ddof 1) over seeds, as --show prints them.",
            pd.DataFrame(summary_texts(gathered.sweep, gathered.space)),
        ),
        ReportTable(
            "trials",
            "Trials",
            "Every trial; columns and units as in docs/tables.md. Accuracies and densities are shares from 0 to 1. "
            "Long errors are cut here; sweeper.load(...).trials has all of their text.",
            trials_shown(gathered),
        ),
    ]


def trials_shown(gathered: Gathered) -> pd.DataFrame:
    """The columns of ``trials`` that a reader looks for, without those that are empty in all rows."""
    trials, space = gathered.sweep.trials, gathered.space
    asked = [column for path in (*space.paths, *space.search) if (column := config_column(path)) in trials]
    objectives = [one.column for one in space.objectives if one.column in trials]
    names = dict.fromkeys((*_TRIAL, *asked, *objectives, *(name for name in _FIGURES if name in trials)))
    shown: pd.DataFrame = trials[[name for name in names if name in trials]].copy()
    shown["warnings"] = [", ".join(codes) if isinstance(codes, list) else "" for codes in shown["warnings"]]
    if "error_message" in shown:
        texts = [readable(text, _LONGEST_MESSAGE) if isinstance(text, str) else None for text in shown["error_message"]]
        shown["error_message"] = texts
    empty = [name for name in shown if shown[name].isna().all() or (shown[name].astype(str) == "").all()]
    kept: pd.DataFrame = shown.drop(columns=[name for name in empty if name not in ("trial", "cell", "status")])
    return kept
