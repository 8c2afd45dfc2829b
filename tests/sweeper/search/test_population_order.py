"""Population based training gives the same samples in any order of endings and after the death of any driver."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeper.search.plan import Plan
from tests.sweeper.populations import landscape, places, population
from tests.sweeper.sweeps import asked, begun, finish, finished, run_out
from trials.storage.trial_folder import TrialFolder


def run_together(plan: Plan, draw: random.Random, value: Callable[[dict[str, Any]], float | None] = landscape) -> None:
    """Run up to three trials at once, which end in an order drawn at random."""
    while not plan.complete:
        while len(plan.running) < 3 and plan.next() is not None:
            pass
        trial_id = draw.choice(sorted(plan.running))
        finish(plan, trial_id, value)
        plan.ended(trial_id)


def test_the_order_in_which_trials_end_makes_no_difference(tmp_path: Path) -> None:
    outcomes = []
    for seed in range(4):
        plan = begun(population(), tmp_path / str(seed))
        run_together(plan, random.Random(seed))
        outcomes.append({record.id: record.samples for record in plan.folder.records()})
    serial = begun(population(), tmp_path / "serial")
    run_out(serial, landscape)
    outcomes.append({record.id: record.samples for record in serial.folder.records()})
    assert len(outcomes[0]) == 24
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_a_driver_may_die_after_every_step(tmp_path: Path) -> None:
    space, steps = population(), 0
    plan = begun(space, tmp_path / "killed")
    while not plan.complete:
        assignment = plan.next()
        plan = begun(space, tmp_path / "killed")  # the driver dies after handing it out
        assert assignment is not None
        again = plan.next()
        assert again is not None
        finish(plan, again.trial_id, landscape)
        plan = begun(space, tmp_path / "killed")  # the driver dies before it notices the end
        steps += 1
    whole = begun(space, tmp_path / "whole")
    run_out(whole, landscape)
    assert steps == 24
    assert asked(plan.folder) == asked(whole.folder)


def test_generations_may_be_added_later(tmp_path: Path) -> None:
    run_out(begun(population(pbt={"generations": 1}), tmp_path / "more"), landscape)
    run_out(begun(population(pbt={"generations": 2}), tmp_path / "more"), landscape)
    more, whole = begun(population(), tmp_path / "more"), begun(population(), tmp_path / "whole")
    assert (sum(more.totals.values()), finished(more)) == (24, 16)
    for plan in (more, whole):
        run_out(plan, landscape)
    assert asked(more.folder) == asked(whole.folder)
    assert {r.id for r in more.folder.records()} == {r.id for r in whole.folder.records()}


def test_a_lost_record_is_asked_again_as_it_was(tmp_path: Path) -> None:
    plan = begun(population(), tmp_path / "s")
    run_out(plan, landscape)
    before = asked(plan.folder)
    for generation in (0, 1, 2):
        lost = places(plan)[generation, 2]
        (record,) = (r for r in plan.folder.records() if lost in r.samples)
        (record.folder.path / "config.json").unlink()
    again = begun(population(), tmp_path / "s")
    assert not again.complete
    run_out(again, landscape)
    assert asked(again.folder) == before


def test_seed_and_cell_decide_what_is_drawn(tmp_path: Path) -> None:
    def first(seed: int) -> list[Any]:
        plan = begun(population(seed=seed), tmp_path / f"{seed}-{random.random()}")
        for _ in range(8):
            plan.next()
        return [tuple(params.values()) for _, params in sorted(asked(plan.folder).items())]

    assert first(0) == first(0)
    assert len({*first(0), *first(1)}) == 16


def test_checkpoints_go_when_the_next_generation_has_ended(tmp_path: Path) -> None:
    plan = begun(population(grid={"density": [0.5]}), tmp_path / "s")
    kept = []
    while (assignment := plan.next()) is not None:
        finish(plan, assignment.trial_id, landscape)
        path = plan.folder.trial_folder(assignment.trial_id) / "checkpoint" / "000001-a1-0123456789ab.pt"
        path.parent.mkdir()
        path.touch()
        plan.ended(assignment.trial_id)
        found = {p.parents[1].name for p in plan.folder.trials.glob("*/checkpoint/*.pt")}
        kept.append(sorted(s.number for r in plan.folder.records() if r.id in found for s in r.samples))
    assert kept[:7] == [list(range(n)) for n in range(1, 8)]
    assert kept[7:] == [list(range(4, n)) for n in range(8, 12)] + [list(range(8, 12))]


def test_checkpoints_that_were_deleted_are_not_missed(tmp_path: Path) -> None:
    """--verify would run their trials again."""
    plan = begun(population(grid={"density": [0.5]}), tmp_path / "s")
    while (assignment := plan.next()) is not None:
        attempt, _ = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin()
        result = {plan.space.objective: landscape(assignment.config.model_dump(mode="json"))}
        rows = {"epochs": [{"stage": "finetune", "epoch": 1}]}
        attempt.commit(checkpoint={}, rows=rows, progress={}, seconds=1.0, status="complete", result=result)
        plan.ended(assignment.trial_id)
    with_checkpoints = [r for r in plan.folder.records() if any(r.folder.path.glob("checkpoint/*.pt"))]
    assert 0 < len(with_checkpoints) < len(plan.folder.records())
    assert plan.folder.repair(checkpoints=True) == []
    (last,) = with_checkpoints[-1].folder.path.glob("checkpoint/*.pt")  # type: ignore[union-attr]
    last.write_bytes(b"damaged")
    assert len(plan.folder.repair(checkpoints=True)) == 1
    assert not begun(plan.space, tmp_path / "s").complete


def test_a_driver_that_died_before_it_deleted_leaves_nothing(tmp_path: Path) -> None:
    plan = begun(population(grid={"density": [0.5]}), tmp_path / "s")
    run_out(plan, landscape)
    for record in plan.folder.records():
        (record.folder.path / "checkpoint").mkdir()
        (record.folder.path / "checkpoint" / "000001-a1-0123456789ab.pt").touch()
    begun(plan.space, tmp_path / "s")
    left = {s.number for r in plan.folder.records() if any(r.folder.path.glob("checkpoint/*.pt")) for s in r.samples}
    assert left == {*range(4), *range(8, 12)}  # the checkpoints of generation 0 were deleted before generation 2 began
