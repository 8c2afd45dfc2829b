"""Which trials have warnings (codes and their texts: trials/storage/rows.py), for tables, pictures and the report."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sweeper.results.frames import SweepTables
from trials.storage.rows import OF_DATA, WARNINGS, Row


def codes_of(rows: Iterable[Row]) -> str:
    """The codes of all these rows, each once, as one text; empty if there are none."""
    found = {code for row in rows for code in row.get("warnings") or ()}
    return ", ".join([*(code for code in WARNINGS if code in found), *sorted(found - WARNINGS.keys())])


def of_data(trial: Row) -> list[str]:
    """The codes of a trial that describe its data, and so all networks trained on them."""
    return [code for code in trial.get("warnings") or () if code in OF_DATA]


def codes_by_trial(sweep: SweepTables) -> dict[str, str]:
    """The codes of each trial that has warnings, as one text, by trial."""
    if "warnings" not in sweep.trials:
        return {}
    found = zip(sweep.trials["trial"].tolist(), sweep.trials["warnings"].tolist(), strict=True)
    return {trial: codes_of([{"warnings": codes}]) for trial, codes in found if isinstance(codes, list) and codes}


def marks(sweep: SweepTables, trials: Sequence[str]) -> dict[str, list[str]]:
    """A column ``warnings`` for a table with a row per trial; empty if none of the trials has any."""
    codes = codes_by_trial(sweep)
    texts = [codes.get(trial, "") for trial in trials]
    return {"warnings": texts} if any(texts) else {}


def warnings_line(sweep: SweepTables, above: Collection[str]) -> str:
    """One line that counts the trials by code and says what each code means; empty if no trial has warnings.

    ``above``: the trials behind the rows above it, where the codes are shown. If there are others, such as samples of a
    search that were not the best, the line says how many of the counted ones are above.
    """
    trials: dict[str, list[str]] = {}
    for trial, text in codes_by_trial(sweep).items():
        for code in text.split(", "):
            trials.setdefault(code, []).append(trial)
    if not trials:
        return ""
    each = [
        f"{code} in {len(found)} trial{'s' * (len(found) > 1)}{_elsewhere(found, above)} "
        f"({WARNINGS.get(code, 'a code of another version')})"
        for code, found in trials.items()
    ]
    return f"warnings: {'; '.join(each)}: see the column warnings of the table trials"


def _elsewhere(trials: Sequence[str], above: Collection[str]) -> str:
    here = sum(trial in above for trial in trials)
    if here == len(trials):
        return ""
    return f", {here or 'none'} of them in a row above" if len(trials) > 1 else ", in no row above"
