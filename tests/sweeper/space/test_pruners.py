"""Pruners compare trials within their cell only, stop them for good, and stop the same ones after any kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.pruners import SuccessiveHalvingPruner
from optuna.study import create_study
from optuna.trial import TrialState

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.tables import load
from sweeper.space.load import from_document
from sweeper.space.options.pruners import PRUNERS, read_pruner, stoppable_epochs
from tests.sweeper.pruned import EPOCHS, KINDS, TRIAL, Drivers, accuracy, space_of
from tests.sweeper.sweeps import begun, trials_of
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.running.trial import TrialHost, run
from trials.storage.trial_folder import TrialFolder


def stopped_at(folder: SweepFolder, cell: str = "") -> list[int | None]:
    """The step at which each sample of a cell was pruned, or None, in the order of their numbers."""
    records = [(s, r) for r in folder.records() for s in r.samples if s.cell.startswith(cell)]
    records.sort(key=lambda found: (found[0].cell, found[0].number))
    return [record.state.result.get("pruned_at") if record.state else None for _, record in records]


@pytest.mark.parametrize("pruner", KINDS.values(), ids=KINDS)
def test_a_rebuilt_study_with_pruned_trials_equals_the_original(tmp_path: Path, pruner: Any) -> None:
    drivers = Drivers(space_of(pruner), tmp_path).go()
    rebuilt = begun(drivers.space, tmp_path)
    found = [step for step in stopped_at(drivers.plan.folder) if step is not None]
    assert 0 < len(found) < 16
    for cell, study in drivers.plan._searches.items():
        assert trials_of(rebuilt._searches[cell]) == trials_of(study)
        states = [trial.state.name for trial in study.study.trials]
        assert states.count("PRUNED") == sum(step is not None for step in stopped_at(drivers.plan.folder, cell))
        assert all(len(trial.intermediate_values) in {*found, EPOCHS} for trial in study.study.trials)
        ours, theirs = study.ask(), rebuilt._searches[cell].ask()
        assert theirs == ours
    trials = load(tmp_path).trials
    assert sorted(trials["pruned_at"].dropna()) == sorted(found)
    assert trials.query("status == 'pruned'")["pruned_at"].equals(trials.query("status == 'pruned'")["epochs"])


@pytest.mark.parametrize("pruner", ["halving", "hyperband", "median"])
def test_killed_at_any_moment_the_same_trials_are_stopped_at_the_same_epochs(tmp_path: Path, pruner: str) -> None:
    space = space_of(KINDS[pruner], samples=6, grid={"density": [0.5]}, seed=1)
    undisturbed = Drivers(space, tmp_path / "undisturbed").go()
    expected = undisturbed.came_to()
    assert {status for status, *_ in expected.values()} == {"complete", "pruned"}
    once = range(1, undisturbed.steps + 1, 5 if pruner == "halving" else 30)
    for killed_after in (*(range(step, step + 1) for step in once), range(3, 10_000, 7), range(2, 10_000, 5)):
        drivers = Drivers(space, tmp_path / str(killed_after)).go(killed_after)
        assert drivers.came_to() == expected, killed_after


def test_a_plain_scheduler_kills_the_sparse_cell_and_ours_does_not(tmp_path: Path) -> None:
    """A density of 0.5 always beats 0.01, so a scheduler that compares across cells stops every sparse trial."""
    halving = {"name": "halving", "reduction_factor": 2}
    space = space_of(halving, grid={"density": [0.5, 0.01]}, sampler="random")
    drivers = Drivers(space, tmp_path).go()
    curves = {}
    for sample, record in sorted(
        ((s, r) for r in drivers.plan.folder.records() for s in r.samples), key=lambda found: found[0].number
    ):
        curves[sample.cell, sample.number] = [accuracy(record.content, step) for step in range(1, EPOCHS + 1)]

    plain = create_study(direction="maximize", pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=2))
    by_optuna = [survives_study(plain, curve) for curve in curves.values()]
    for lived in (by_optuna, survives_ray(list(curves.values()))):
        assert {cell for (cell, _), alive in zip(curves, lived, strict=True) if alive} == {"density=0.5"}
    for cell in ("density=0.5", "density=0.01"):
        assert None in stopped_at(drivers.plan.folder, cell)
        assert any(stopped_at(drivers.plan.folder, cell))


def survives_study(study: Any, curve: list[float]) -> bool:
    trial = study.ask()
    for step, value in enumerate(curve, start=1):
        trial.report(value, step)
        if step < len(curve) and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return False
    study.tell(trial, curve[-1])
    return True


def survives_ray(curves: list[list[float]]) -> list[bool]:
    """Which curves survive Ray's own scheduler."""
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

    scheduler = AsyncHyperBandScheduler(
        time_attr="step", metric="value", mode="max", grace_period=1, reduction_factor=2, max_t=EPOCHS
    )
    lived = []
    for curve in curves:
        trial = Trial("nothing", stub=True)
        scheduler.on_trial_add(None, trial)
        decisions = (
            scheduler.on_trial_result(None, trial, {"step": step, "value": value, "training_iteration": step})
            for step, value in enumerate(curve[:-1], start=1)
        )
        lived.append(all(decision == TrialScheduler.CONTINUE for decision in decisions))
    return lived


def test_a_stopped_trial_ends_as_pruned_with_its_rows(tmp_path: Path) -> None:
    config = parse({**TRIAL, "density": 0.5, "pretrain": {"epochs": 1}, "finetune": {"epochs": 4}})
    asked: list[int] = []

    def is_over(step: int, row: dict[str, Any]) -> bool:
        asked.append(step)
        assert (row["stage"], row["epoch"]) == ("finetune", step)
        return step == 2

    trial_host = TrialHost(tmp_path / "stages", is_over=is_over)
    state = run(config, tmp_path / "trial", trial_host)
    assert (state.status, asked) == ("pruned", [1, 2])
    assert (state.result["pruned_at"], state.result["epochs"], state.result["test_accuracy"]) == (2, 2, None)
    rows = TrialFolder(tmp_path / "trial").rows(state.commits[-1])
    assert [(row["stage"], row["epoch"]) for row in rows["epochs"]] == [
        ("pretrain", 1), ("finetune", 0), ("finetune", 1), ("finetune", 2),
    ]  # fmt: skip
    assert {row["density"] for row in rows["layers"] if row["stage"] == "finetune"} != {1.0}
    assert run(config, tmp_path / "trial", trial_host) == state
    assert asked == [1, 2]

    whole = run(config, tmp_path / "whole", TrialHost(tmp_path / "stages", is_over=lambda step, row: False))
    assert (whole.status, whole.result["epochs"], "pruned_at" in whole.result) == ("complete", 4, False)
    last = TrialFolder(tmp_path / "whole").rows(whole.commits[-1])["epochs"]
    assert [row["val_loss"] for row in last[:4]] == [row["val_loss"] for row in rows["epochs"]]


def test_the_last_epoch_is_not_asked_about_and_levels_count_on(tmp_path: Path) -> None:
    content = {"method": "imp", "dataset": "digits", "model": "tiny", "levels": 3, "pretrain": {"epochs": 2}}
    config = parse(content)
    asked: list[tuple[int, int]] = []

    def is_over(step: int, row: dict[str, Any]) -> bool:
        asked.append((step, row["level"]))
        return False

    assert run(config, tmp_path / "trial", TrialHost(tmp_path / "stages", is_over=is_over)).status == "complete"
    assert asked == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)]
    assert stoppable_epochs(config) == 6


@pytest.mark.parametrize("name", sorted(set(PRUNERS) - {"patient", "percentile"}))
def test_a_name_is_the_pruner_with_its_defaults(name: str) -> None:
    found = read_pruner(name)
    assert found == PRUNERS[name]()
    assert found is not None
    assert found.document() == name


@pytest.mark.parametrize("pruner", KINDS.values(), ids=KINDS)
def test_options_survive_the_document(pruner: Any) -> None:
    space = space_of(pruner)
    document = json.loads(json.dumps(space.document()))
    assert document["pruner"] == pruner
    assert from_document(document) == space


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"pruner": 3}, "pruner is 3, but must be a name or {name: NAME, ...}: halving, hyperband, median, "),
        ({"pruner": "asha"}, "pruner is 'asha', but must be one of: halving, hyperband, median, patient, percentile"),
        ({"pruner": {"name": "halving", "eta": 3}}, "pruner: key is 'eta', but must be one of: bootstrap_count, "),
        ({"pruner": {"name": "halving", "reduction_factor": 1}}, "pruner.reduction_factor is 1, but must be greater"),
        ({"pruner": "percentile"}, "pruner.percentile is missing: add it"),
        ({"pruner": {"name": "patient", "patience": 1, "wrapped": "asha"}}, "pruner.wrapped is 'asha', but must be on"),
        (
            {"pruner": {"name": "halving", "min_resource": 9}},
            "pruner.min_resource: the epoch of the first rung is 9, but must be less than the 9 epochs in which",
        ),
        (
            {"pruner": {"name": "halving", "min_resource": 2, "min_early_stopping_rate": 2}},
            "pruner.min_resource: the epoch of the first rung is 32",
        ),
        ({"pruner": {"name": "hyperband", "min_resource": 20}}, "pruner.min_resource is 20, but must be less than the"),
        (
            {"pruner": {"name": "hyperband", "max_resource": 81}},
            "pruner.max_resource is 81, but must lie between min_resource, 1, and the 9 epochs",
        ),
        ({"pruner": {"name": "median", "n_warmup_steps": 9}}, "pruner.n_warmup_steps is 9, but must be less than the"),
        (
            {"pruner": {"name": "median", "n_startup_trials": 8}},
            "pruner.n_startup_trials is 8, but must be less than samples, which is 8",
        ),
        ({"pruner": {"name": "patient", "patience": 8}}, "pruner.patience is 8, but must be less than 7: this"),
        ({"pruner": {"name": "patient", "patience": 7}}, "pruner.patience is 7, but must be less than 7: this"),
        (
            {"pruner": {"name": "patient", "patience": 1, "wrapped": {"name": "median", "n_warmup_steps": 100}}},
            "pruner.wrapped.n_warmup_steps is 100, but must be less than the 9 epochs",
        ),
        ({"search": {}, "samples": 1}, "pruner is 'halving', but search is empty, so a cell has no trials"),
        (
            {"objectives": [{"column": c, "direction": "minimize"} for c in ("flops", "val_loss")]},
            "pruner is 'halving', but there are 2 objectives: have one, or no pruner",
        ),
        ({"objective": "seconds"}, "pruner is 'halving', but seconds is not known after every epoch: use one of "),
        (
            {"search": {"finetune.epochs": {"int": [1, 9]}}},
            "pruner.min_resource: the epoch of the first rung is 1, but must be less than the 1 epochs",
        ),
        (
            {"trial": {"method": "dense", "dataset": "digits", "model": "tiny"}, "grid": {}},
            "pruner is 'halving', but dense has no stage that may be stopped: remove it",
        ),
    ],
)  # fmt: skip
def test_pruners_that_could_stop_nothing_are_refused(fields: dict[str, Any], says: str) -> None:
    if fields.get("trial", {}).get("method") == "dense":
        fields = {**fields, "search": {"train.lr": {"uniform": [0.1, 0.2]}}}
    with pytest.raises(UserError) as caught:
        space_of(**{"pruner": "halving", **fields})
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
