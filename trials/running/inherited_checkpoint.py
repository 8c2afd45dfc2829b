"""Start a segment of a population from the checkpoint of its nearest ancestor."""

from __future__ import annotations

import json
from typing import Any

from trials.config.trial_config import TrialConfig
from trials.errors import DamagedFile
from trials.methods.segments import ancestors
from trials.storage.committed_files import rows_in
from trials.storage.place import Place
from trials.storage.rows import COMPACT, Rows
from trials.storage.trial_folder import State, TrialFolder


def inherited(config: TrialConfig, trials: Place) -> tuple[State, dict[str, Any]] | None:
    """Return state and checkpoint of the nearest ancestor that is complete in ``trials``; None if there is none."""
    for ancestor in ancestors(config):
        folder = TrialFolder(trials / ancestor.id)
        try:
            state = folder.state()
            if state is None or state.status != "complete" or not state.commits:
                continue
            checkpoint = folder.checkpoint(state.commits[-1])
        except DamagedFile:
            continue
        if checkpoint:
            return state, {**checkpoint, "rows": json.dumps(_unended(rows_in(checkpoint)))}
    return None


def _unended(rows: Rows) -> Rows:
    """Drop from an ancestor's rows what it reported only because it ended: test metrics, compact sizes, layer rows."""
    *before, last = rows["epochs"]
    layers = [row for row in rows.get("layers", []) if row["stage_id"] is not None]
    at_the_end = ("test_loss", "test_accuracy", *COMPACT)
    last = {name: None if name in at_the_end else value for name, value in last.items()}
    return {**rows, "epochs": [*before, last], "layers": layers}
