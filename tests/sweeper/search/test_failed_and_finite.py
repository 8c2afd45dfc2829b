"""What a failed trial leaves behind in a pruner, and cells whose searches have few points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from sweeper.folder.sweep_folder import SweepFolder, is_stopped
from sweeper.search.outcomes import Outcome
from sweeper.search.plan import Plan
from sweeper.search.pruning.cell_pruner import CellPruner
from sweeper.search.pruning.positions import Position
from sweeper.space.check_ends import few_points
from sweeper.space.options.cma_state import to_json
from sweeper.space.space import Space
from tests.sweeper.judged import BOUND, judged_space
from tests.sweeper.pruned import KINDS
from tests.sweeper.sweeps import begun, make_space, run_out
from trials.errors import UserError
from trials.storage.trial_folder import TrialFolder

RATE: dict[str, Any] = {"loguniform": [1e-3, 1.0]}
LEVELS = (0.9, 0.5, 0.6, 0.55, 0.7, 0.4)


def ran(space: Space, path: Path, how: str, *, killed: bool) -> list[tuple[str, int]]:
    """Run trials one after the other. The first, the best, ends at its fifth epoch, before its rows are committed."""
    SweepFolder(path).append({"space": space.document()})
    plan, found = begun(space, path), []
    for number, level in enumerate(LEVELS):
        assignment = plan.next()
        assert assignment is not None
        found.append(end(plan, assignment.trial_id, level, how if number == 0 else "complete"))
        plan.ended(assignment.trial_id)
        if killed and number == 0:
            plan = begun(space, path)
    return found


def end(plan: Plan, trial_id: str, level: float, how: str) -> tuple[str, int]:
    folder = TrialFolder(plan.folder.trial_folder(trial_id))
    attempt, _ = folder.begin()
    rows: list[dict[str, Any]] = []
    figures = {"density": 0.3, "prunable": 1000}
    status = "complete"
    for epoch in range(1, 13):
        row = {"stage": "finetune", "level": 0, "epoch": epoch, "stage_id": None, "val_accuracy": level, **figures}
        rows.append(row)
        if epoch < 12:
            plan.judge(trial_id, epoch, level, row)
            if is_stopped(folder.path, epoch):
                status = "pruned"
                break
        if how != "complete" and epoch == 5:
            status = how
            break
    result = {"val_accuracy": level, "density": 0.3, "epochs": len(rows)}
    result |= {"pruned_at": len(rows)} if status == "pruned" else {}
    if status == "failed":
        attempt.end("failed", error={"type": "NonFiniteLoss", "message": "nan", "traceback": ""}, failures=1)
    elif status == "without its objective":
        attempt.end("complete", result={**result, "val_accuracy": None})
    else:
        attempt.commit(checkpoint={}, rows={"epochs": rows}, progress={}, seconds=0.0, status=status, result=result)
    return status, len(rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["failed", "without its objective"])
def test_values_of_a_failed_trial_stop_nobody_before_or_after_a_restart(tmp_path: Path, kind: str, how: str) -> None:
    space = judged_space("one_shot", {"finetune.lr": RATE}, KINDS[kind], samples=len(LEVELS), retries=0)
    lived = ran(space, tmp_path / "lived", how, killed=False)
    assert lived == ran(space, tmp_path / "resumed", how, killed=True)
    assert lived[0][1] <= 5
    assert any(status == "complete" for status, _ in lived)


def test_a_stopped_trial_without_a_row_is_not_known_to_keep_its_bounds() -> None:
    space = judged_space("bip", {"prune.lr": RATE}, {"name": "patient", "patience": 1}, constraints=BOUND)
    pruner = CellPruner(space, space.cells()[0])
    pruner.replay(0, Outcome(TrialState.RUNNING), {}, stopped=Position("prune", 0, 3, 0.4, 1000, True))
    better = [(Position("prune", 0, epoch, 0.4, 1000, True), 0.1 * epoch) for epoch in range(1, 6)]
    assert not any(pruner.judge(1, *row)[0] for row in better)


SIZES = [{"choice": [0.1, 0.2], "when": {"density": 0.5}}, {"choice": [0.01, 0.02, 0.03], "when": {"density": 0.2}}]


@pytest.mark.parametrize(
    "enqueue",
    [[], [{"finetune.lr": 0.1, "finetune.momentum": 0.1}], [{"finetune.lr": 0.02, "finetune.momentum": 0.2}]],
)
def test_a_grid_over_ranges_of_several_sizes_has_every_combination(tmp_path: Path, enqueue: Any) -> None:
    search = {"finetune.lr": SIZES, "finetune.momentum": {"choice": [0.1, 0.2]}}
    space = make_space(search=search, sampler="grid", enqueue=enqueue)
    SweepFolder(tmp_path / "s").append({"space": space.document()})
    run_out(begun(space, tmp_path / "s"))
    points: dict[str, list[tuple[Any, ...]]] = {}
    for record in SweepFolder(tmp_path / "s").records():
        for sample in record.samples:
            points.setdefault(sample.cell, []).append(tuple(sample.params.values()))
    assert {cell: (len(found), len(set(found))) for cell, found in points.items()} == {
        "density=0.5": (4, 4),
        "density=0.2": (6, 6),
    }


def test_a_condition_that_the_ranges_of_a_cell_never_meet_leaves_few_points(tmp_path: Path) -> None:
    epochs = [{"int": [1, 3], "when": {"density": 0.5}}, {"int": [10, 12], "when": {"density": 0.2}}]
    search = {"finetune.epochs": epochs, "finetune.lr": {**RATE, "when": {"finetune.epochs": {"above": 5}}}}
    space = make_space(search=search, samples=8, sampler="random")
    said = few_points(space)
    assert said is not None
    assert "3 points" in said
    assert len(run_out(begun(space, tmp_path / "s"))) == 3 + 8


@pytest.mark.parametrize(
    ("search", "grid"),
    [
        (
            {
                "score": {"choice": ["magnitude", "random"]},
                "finetune.epochs": {"choice": [1, 2], "when": {"score": "magnitude"}},
                "finetune.lr": {**RATE, "when": {"score": "random", "finetune.epochs": 2}},
            },
            {"density": [0.5, 0.2]},
        ),
        (
            {
                "finetune.lr": {**RATE, "when": {"density": 0.2, "pattern": "weight"}},
                "finetune.epochs": {"int": [1, 2]},
            },
            {"density": [0.5, 0.2], "pattern": {"values": ["weight"], "when": {"density": 0.5}}},
        ),
    ],
)
def test_conditions_that_never_hold_together_are_refused(search: Any, grid: Any) -> None:
    with pytest.raises(UserError, match=r"search\.finetune\.lr\.when never holds in any cell"):
        make_space(search=search, grid=grid, samples=4, sampler="random")


def test_the_state_of_cmaes_holds_only_what_was_computed() -> None:
    cmaes = pytest.importorskip("cmaes")
    np = pytest.importorskip("numpy")
    import pickle

    def state(left: float, generations: int) -> Any:
        optimizer = cmaes.CMA(mean=np.zeros(2), sigma=1.0, seed=3)
        optimizer._funhist_values[:] = left  # what np.empty has found there
        for _ in range(generations):
            asked = [optimizer.ask() for _ in range(optimizer.population_size)]
            optimizer.tell([(x, float((x**2).sum())) for x in asked])
        text = pickle.dumps(optimizer).hex()
        found = to_json({"cma:optimizer:0": text})["cma:optimizer"]
        return found["_funhist_values"], optimizer

    for generations in (0, 1, 5, 19, 20, 21, 30):
        one, optimizer = state(1e300, generations)
        other, _ = state(-7.0, generations)
        assert one == other
        if generations > optimizer._funhist_term:
            assert np.isfinite(optimizer._funhist_values).all()
