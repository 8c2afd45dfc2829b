"""What a trial runs through, read from its method's stages: epochs, what an epoch costs, and what comes before."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trials.config.trial_config import TrialConfig
from trials.methods import Stage
from trials.methods.registry import METHODS


@dataclass(frozen=True)
class StageLine:
    """Stages of the same kind.

    Attributes:
        name: as in the rows; of another trial that is needed first, with its method.
        count: how many of them a trial runs.
        epochs: of each of them; None if they decide themselves when to end.
        cost: gradient evaluations per training image of each, from their batches; None where it is not known before.
        note: what else is to be said.
    """

    name: str
    count: int
    epochs: int | None
    cost: int | None
    note: str = ""


def lines_of(config: TrialConfig) -> list[StageLine]:
    """Return the stages of a trial, and before them those of the shared trials that it needs."""
    method = METHODS[config.method](config)
    found: list[StageLine] = []
    for name, other in (("", method.source()), *method.references().items()):
        if other is not None:
            shared = [line for line in lines_of(other) if line.note != _SHARED]
            found += [line for line in lines_of(other) if line.note == _SHARED and not name]
            found += [StageLine(line.name, line.count, line.epochs, line.cost, _SHARED) for line in shared]
    alike: dict[StageLine, int] = {}
    for stage in method.stages():
        line = _line_of(stage)
        alike[line] = alike.get(line, 0) + 1
    own = [StageLine(line.name, count, line.epochs, line.cost, line.note) for line, count in alike.items()]
    return [*found, *own]


_SHARED = "shared: trained once for all trials that need it"


def _line_of(stage: Stage) -> StageLine:
    most = getattr(stage, "most_steps", None)
    episodes = getattr(stage, "most_epochs", None)
    if episodes is not None:
        return StageLine(stage.name, 1, None, None, f"a search of networks: at most {episodes:g} epochs in all")
    if not stage.streams:
        return StageLine(stage.name, 1, None, None, "a search that trains networks of its own")
    if most is not None:
        return StageLine(stage.name, 1, None, None, f"ends by itself, after at most {most:,} steps")
    if math.isinf(stage.epochs):
        return StageLine(stage.name, 1, None, None, "ends by itself")
    epochs, several = stage.planned_epochs, len(stage.streams)
    patience = getattr(stage.recipe, "patience", None)
    notes = [f"each step takes {several} batches: {', '.join(stage.streams)}"] if several > 1 else []
    notes += [f"may stop earlier (patience {patience})"] if patience is not None else []
    return StageLine(stage.name, 1, epochs, epochs * several, "; ".join(notes))
