"""Which trials have warnings (codes and their texts: trials/storage/rows.py), for tables, pictures and the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sweeper.results.frames import Sweep
from trials.storage.rows import OF_DATA, WARNINGS, Row


def codes_of(rows: Iterable[Row]) -> str:
    """The codes of all these rows, each once, as one text; empty if there are none."""
    found = {code for row in rows for code in row.get("warnings") or ()}
    return ", ".join([*(code for code in WARNINGS if code in found), *sorted(found - WARNINGS.keys())])


def of_data(trial: Row) -> list[str]:
    """The codes of a trial that describe its data, and so all networks trained on them."""
    return [code for code in trial.get("warnings") or () if code in OF_DATA]


def codes_by_trial(sweep: Sweep) -> dict[str, str]:
    """The codes of each trial that has warnings, as one text, by trial."""
    if "warnings" not in sweep.trials:
        return {}
    found = zip(sweep.trials["trial"].tolist(), sweep.trials["warnings"].tolist(), strict=True)
    return {trial: codes_of([{"warnings": codes}]) for trial, codes in found if isinstance(codes, list) and codes}


def marks(sweep: Sweep, trials: Sequence[str]) -> dict[str, list[str]]:
    """A column ``warnings`` for a table with a row per trial; empty if none of the trials has any."""
    codes = codes_by_trial(sweep)
    texts = [codes.get(trial, "") for trial in trials]
    return {"warnings": texts} if any(texts) else {}


def warnings_line(sweep: Sweep) -> str:
    """One line that counts the trials by code and says what each code means; empty if no trial has warnings."""
    counts: dict[str, int] = {}
    for text in codes_by_trial(sweep).values():
        for code in text.split(", "):
            counts[code] = counts.get(code, 0) + 1
    if not counts:
        return ""
    each = [
        f"{code} in {count} trial{'s' * (count > 1)} ({WARNINGS.get(code, 'a code of another version')})"
        for code, count in counts.items()
    ]
    return f"warnings: {'; '.join(each)}: see the column warnings of the table trials"
