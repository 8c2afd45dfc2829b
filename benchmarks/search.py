"""Regret of TPE against random search, and the time to rebuild a long study. The objective is a formula, no network.

TPE and random draws get equal samples in each of 12 cells whose best point depends on the density. Goal: TPE has the
smaller regret, averaged over cells, in the median over seeds. Then 5,000 finished trials with their curves are
replayed into a study, as a resumed driver does. Goal: less than 10 s.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

from optuna.trial import TrialState

from sweeper.search.cells.study import CellStudy
from sweeper.search.outcomes import Outcome
from sweeper.space.grid.grid import LADDERS
from sweeper.space.load import from_document
from sweeper.space.space import Space

DENSITIES = LADDERS["lth"][:12]
SAMPLES, SEEDS = 30, 9
REPLAYED, EPOCHS = 5_000, 10


def space(**fields: Any) -> Space:
    """Return a space of 12 densities and four searched hyperparameters, with ``fields`` added."""
    trial = {"method": "bip", "dataset": "digits", "model": "tiny", "prune": {"epochs": EPOCHS}}
    search = {
        "implicit_step": {"loguniform": [1e-6, 1e-2]},
        "mask_lr": {"loguniform": [1e-3, 1.0]},
        "prune.lr": {"loguniform": [1e-3, 1.0]},
        "score_init": {"choice": ["copy", "random"]},
    }
    content = {"name": "formula", "trial": trial, "grid": {"density": list(DENSITIES)}, "search": search}
    return from_document({**content, **fields})


def regret(params: dict[str, Any], density: float) -> float:
    """Return the regret of a point, 0 at best. The best mask learning rate is proportional to the density."""
    best = {"implicit_step": 1e-4, "mask_lr": 0.3 * density, "prune.lr": 0.1}
    decades = sum((math.log10(params[path] / value)) ** 2 for path, value in best.items())
    return 1 - math.exp(-decades / 2) + 0.1 * (params["score_init"] == "random")


def mean_regret(sampler: str, seed: int) -> float:
    """Search every cell; return the regret of a cell's best trial, averaged over cells."""
    one = space(sampler=sampler, samples=SAMPLES, seed=seed)
    reached = []
    for cell in one.cells():
        study, found = CellStudy(one, cell), []
        for _ in range(SAMPLES):
            sample = study.ask()
            found.append(regret(sample.params, cell.values["density"]))  # type: ignore[arg-type]  # a number
            study.tell(sample, Outcome(TrialState.COMPLETE, (-found[-1],)))
        reached.append(min(found))
    return statistics.mean(reached)


def replay() -> float:
    """Return the CPU seconds to rebuild a study of ``REPLAYED`` trials until it can suggest."""
    one = space(sampler="random", samples=REPLAYED, pruner="median")
    asked = CellStudy(one, one.cells()[0])
    samples = [asked.ask() for _ in range(REPLAYED)]
    curve = {step: 0.1 * step for step in range(1, EPOCHS + 1)}
    began = time.process_time()
    study = CellStudy(one, one.cells()[0])
    for sample in samples:
        study.replay(sample, Outcome(TrialState.COMPLETE, (0.5,), {}, curve))
    return time.process_time() - began


def main() -> None:
    regrets = {name: [mean_regret(name, seed) for seed in range(SEEDS)] for name in ("random", "tpe")}
    random, tpe = (statistics.median(regrets[name]) for name in ("random", "tpe"))
    wins = sum(t < r for r, t in zip(regrets["random"], regrets["tpe"], strict=True))
    print(
        f"search, {len(DENSITIES)} cells x {SAMPLES} samples, median over {SEEDS} seeds of the mean regret: "
        f"random {random:.4f}, tpe {tpe:.4f}, {random / tpe:.2f} times less; better with {wins} of {SEEDS} seeds "
        "(goal: > 1)"
    )
    print(f"search, replay of {REPLAYED} trials of {EPOCHS} epochs: {replay():.2f} s of CPU (goal: < 10)")
