"""Simulated trials of the stoppable methods: their stages and levels, with the densities that these reach."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.folder.sweep_folder import SweepFolder, is_stopped
from sweeper.search.plan import Plan
from sweeper.space.load import from_document
from sweeper.space.pruner_steps import epoch_spans
from sweeper.space.space import Space
from tests.sweeper.sweeps import begun
from trials.methods.parsing import parse
from trials.storage.trial_folder import TrialFolder

WEIGHTS = 100_000
SMALL = {"dataset": "digits", "model": "tiny"}
TRIALS: dict[str, dict[str, Any]] = {
    "imp": {"method": "imp", **SMALL, "levels": 3, "prune_fraction": 0.4, "pretrain": {"epochs": 4}},
    "one_shot": {"method": "one_shot", **SMALL, "density": 0.3, "finetune": {"epochs": 12}},
    "bip": {"method": "bip", **SMALL, "density": 0.3, "prune": {"epochs": 6}, "finetune": {"epochs": 6}},
    "hydra": {"method": "hydra", **SMALL, "density": 0.3, "prune": {"epochs": 6}, "finetune": {"epochs": 6}},
}
RATES = {"imp": "pretrain.lr", "one_shot": "finetune.lr", "bip": "prune.lr", "hydra": "prune.lr"}
DENSITIES = {"imp": "prune_fraction", "one_shot": "density", "bip": "density", "hydra": "density"}
BOUND = [{"column": "density", "at_most": 0.35}]


def judged_space(method: str, search: dict[str, Any], pruner: Any, samples: int = 10, **fields: Any) -> Space:
    """A space that is not checked."""
    content = {"name": "judged", "trial": TRIALS[method], "search": search, "samples": samples, "pruner": pruner}
    return from_document({**content, "sampler": "random", **fields})


def density_at(config: dict[str, Any], level: int) -> float:
    """The density of a stage, in whole weights."""
    share = (1 - config["prune_fraction"]) ** level if config["method"] == "imp" else config["density"]
    return round(share * WEIGHTS) / WEIGHTS


@dataclass(frozen=True)
class Judged:
    """What became of one trial: where it was stopped, if it was, and whether it keeps the bounds in the end."""

    number: int
    stopped: tuple[str, int, int] | None
    feasible: bool
    asked: tuple[tuple[str, int, int], ...]


Value = Callable[[dict[str, Any], dict[str, Any]], float]


def run_trial(plan: Plan, trial_id: str, value: Value, most: float) -> Judged:
    """Run a trial to its end or to where it is stopped, as its worker would; ``most``: the density that is allowed."""
    folder = TrialFolder(plan.folder.trial_folder(trial_id))
    stored = json.loads((folder.path / "config.json").read_text())
    config, number = stored["config"], stored["samples"][0]["number"]
    attempt, _ = folder.begin()
    spans = epoch_spans(parse(config))
    total, rows, asked = sum(span.count for span in spans.values()), [], []
    final = density_at(config, max(level for _, level in spans))
    for (stage, level), span in spans.items():
        for epoch in range(span.first + 1, span.first + span.count + 1):
            figures = {"density": density_at(config, level), "prunable": WEIGHTS}
            row = {"stage": stage, "level": level, "epoch": epoch, "stage_id": None, **figures}
            row["val_accuracy"] = value(config, row)
            rows.append(row)
            asked.append((stage, level, epoch))
            if len(rows) == total:
                break
            plan.judge(trial_id, len(rows), row["val_accuracy"], row)
            if is_stopped(folder.path, len(rows)):
                result = {"val_accuracy": row["val_accuracy"], **figures, "epochs": len(rows), "pruned_at": len(rows)}
                attempt.commit(
                    checkpoint={}, rows={"epochs": rows}, progress={}, seconds=0.0, status="pruned", result=result
                )
                return Judged(number, asked[-1], final <= most, tuple(asked))
    result = {"val_accuracy": rows[-1]["val_accuracy"], "density": final, "epochs": len(rows)}
    attempt.commit(checkpoint={}, rows={"epochs": rows}, progress={}, seconds=0.0, status="complete", result=result)
    return Judged(number, None, final <= most, tuple(asked))


def run_judged(space: Space, path: Path, value: Value, most: float = 1.0, anew: bool = False) -> list[Judged]:
    """Run a space. With ``anew``, a new driver takes over after every trial."""
    plan, found = begun(space, path), []
    while (assignment := plan.next()) is not None:
        found.append(run_trial(plan, assignment.trial_id, value, most))
        plan.ended(assignment.trial_id)
        plan = begun(space, path) if anew else plan
    assert len(SweepFolder(path).records()) == len(found)
    return found
