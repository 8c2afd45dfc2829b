"""What replicates do for the chosen setting: two designs of a search with equal numbers of trials, and a race.

Each design searches the learning rate, momentum and weight decay of one_shot's finetuning on the digits at two
densities, with TPE and three seeds:

- ``grid``: seeds in the grid, as before replicates. Each seed searches 12 settings of its own and chooses one.
- ``replicates``: 12 points, each with the three seeds, judged by the mean; one setting is chosen.
- ``race``: the same, raced, with fewer trials.

Every chosen setting is retrained with five seeds that no search has used; a design's figure is the mean over these (and
over the three settings of ``grid``). The whole is repeated with other seeds of the search and of its trials. Printed
are, per density, the designs' test accuracies, and the paired differences to ``grid`` with a 95 % interval of
Student's t over the repetitions. ``python -m benchmarks.replicates --repetitions 5`` takes about two minutes on a core.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from scipy.special import stdtrit

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.space.load import from_document
from sweeper.space.space import Space
from sweeper.sweep import read_sweep
from trials.running.trial import TrialHost, run

DENSITIES = (0.1, 0.03)
POINTS, SEEDS, FRESH = 12, 3, 5
SEARCH = {
    "finetune.lr": {"loguniform": [1e-3, 1.0]},
    "finetune.momentum": {"uniform": [0.0, 0.95]},
    "finetune.weight_decay": {"loguniform": [1e-5, 1e-1]},
}
TRIAL: dict[str, Any] = {
    "method": "one_shot",
    "dataset": "digits",
    "model": "tiny",
    "pretrain": {"epochs": 10, "lr": 0.05},
    "finetune": {"epochs": 3},
}


def space_of(design: str, repetition: int) -> Space:
    """The space of a design; each repetition has other seeds."""
    seeds = [100 * repetition + i for i in range(SEEDS)]
    content: dict[str, Any] = {
        "name": design,
        "trial": TRIAL,
        "grid": {"density": list(DENSITIES)},
        "search": SEARCH,
        "sampler": "tpe",
        "samples": POINTS,
        "objective": "val_accuracy",
        "seed": repetition,
    }
    if design == "grid":
        content["grid"]["seed"] = seeds
    else:
        content["replicates"] = {"values": {"seed": seeds}, "race": design == "race"}
    return from_document(content)


def searched(space: Space, storage: Path, host: TrialHost) -> tuple[int, dict[float, list[dict[str, Any]]]]:
    """Run a search, one trial after the other; return its number of trials, and the chosen settings by density."""
    folder = SweepFolder(storage / space.name)
    folder.append({"space": space.document()})
    plan = Plan(space, folder)
    trials = 0
    while (assignment := plan.next()) is not None:
        run(assignment.config, folder.trial_folder(assignment.trial_id), host)
        plan.ended(assignment.trial_id)
        trials += 1
    chosen: dict[float, list[dict[str, Any]]] = {density: [] for density in DENSITIES}
    for row in read_sweep(folder.path).best().to_dict("records"):
        chosen[row["config.density"]].append({path: row[path] for path in SEARCH})
    return trials, chosen


def retrained(settings: list[dict[str, Any]], density: float, repetition: int, storage: Path, host: TrialHost) -> float:
    """Mean test accuracy of settings over the fresh seeds."""
    seeds = [100 * repetition + 50 + i for i in range(FRESH)]
    accuracies = []
    for setting in settings:
        space = from_document(
            {"name": "fresh", "trial": TRIAL, "grid": {"density": [density], "seed": seeds}, "samples": 1}
        )
        for cell in space.cells():
            config = space.config(cell, setting)
            state = run(config, storage / "fresh" / config.id, host)
            accuracies.append(float(state.result["test_accuracy"]))
    return statistics.fmean(accuracies)


def interval(differences: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % interval of Student's t."""
    count = len(differences)
    half = (
        float(stdtrit(count - 1, 0.975)) * statistics.stdev(differences) / math.sqrt(count) if count > 1 else math.nan
    )
    return statistics.fmean(differences), half


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison and print it; ``--out FILE`` keeps each repetition as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicates", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for repetition in range(options.repetitions):
        for design in ("grid", "replicates", "race"):
            with tempfile.TemporaryDirectory() as folder:
                storage = Path(folder)
                host = TrialHost(storage / "stages")
                trials, chosen = searched(space_of(design, repetition), storage, host)
                for density, settings in chosen.items():
                    accuracy = retrained(settings, density, repetition, storage, host)
                    row = {"repetition": repetition, "design": design, "density": density, "trials": trials}
                    found.append({**row, "settings": len(settings), "test_accuracy": accuracy})
                    print(json.dumps(found[-1]), flush=True)
    if options.out is not None:
        options.out.write_text("".join(f"{json.dumps(row)}\n" for row in found))
    report(found)


def report(found: list[dict[str, Any]]) -> None:
    """Print the designs' accuracies and the paired differences."""
    value = {(row["repetition"], row["design"], row["density"]): row["test_accuracy"] for row in found}
    repetitions = sorted({row["repetition"] for row in found})
    for density in DENSITIES:
        for design in ("grid", "replicates", "race"):
            mine = [100 * value[r, design, density] for r in repetitions]
            trials = statistics.fmean(row["trials"] for row in found if row["design"] == design)
            line = f"density {density:g}  {design:10}  {trials:5.1f} trials  test {statistics.fmean(mine):.2f} %"
            if design != "grid":
                paired = [a - 100 * value[r, "grid", density] for a, r in zip(mine, repetitions, strict=True)]
                mean, half = interval(paired)
                line += f"  to grid {mean:+.2f} ± {half:.2f} points (95 %, n = {len(paired)})"
            print(line)


if __name__ == "__main__":
    main()
