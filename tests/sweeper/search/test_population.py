"""What a generation of population based training passes to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweeper.populations import SEARCH, landscape, places, population
from tests.sweeper.sweeps import asked, begun, finish, run_out
from trials.methods.parsing import parse


def test_the_worst_go_on_from_copies_of_the_best(tmp_path: Path) -> None:
    plan = begun(population(pbt={"population": 8, "quantile": 0.25, "generations": 2}), tmp_path / "s")
    run_out(plan, landscape)
    found = places(plan)
    value = {m: landscape(plan.space.config(plan.cells[0], found[0, m].params).model_dump()) for m in range(8)}
    ranked = sorted(value, key=lambda member: -value[member])
    for member in range(8):
        place, params = found[1, member].attrs["pbt"], found[1, member].params
        if member in ranked[6:]:
            assert place["parent"] in ranked[:2]
            assert place["changes"].keys() == SEARCH.keys()
            assert set(place["changes"].values()) <= {"perturbed", "resampled"}
            assert params != found[0, place["parent"]].params
        else:
            assert (place["parent"], place["changes"]) == (member, {})
            assert params == found[0, member].params


def test_a_segment_is_a_trial_that_continues_its_parents(tmp_path: Path) -> None:
    plan = begun(population(), tmp_path / "s")
    run_out(plan, landscape)
    found = places(plan)
    assert len(found) == 12
    configs = {(s.cell, s.number): record.content for record in plan.folder.records() for s in record.samples}
    for (generation, _), sample in found.items():
        config = configs[sample.cell, sample.number]
        assert config["until_epoch"] == 2 * (generation + 1)
        assert [segment["until_epoch"] for segment in config["lineage"]] == [2, 4, 6][:generation]
        assert config["finetune"]["lr"] == sample.params["finetune.lr"]
        if generation:
            parent = found[generation - 1, sample.attrs["pbt"]["parent"]]
            assert config["lineage"][-1]["values"] == parent.params
            assert sample.attrs["pbt"]["parent_trial"] == parse(configs[sample.cell, parent.number]).id
            assert config["lineage"][:-1] == configs[sample.cell, parent.number]["lineage"]


def test_the_next_generation_waits_for_all_of_this_one(tmp_path: Path) -> None:
    plan = begun(population(grid={"density": [0.5]}), tmp_path / "s")
    first = [plan.next() for _ in range(5)]
    assert [assignment is None for assignment in first] == [*4 * [False], True]
    assert not plan.complete
    for assignment in first[:3]:
        assert assignment is not None
        finish(plan, assignment.trial_id, landscape)
        plan.ended(assignment.trial_id)
        assert plan.next() is None
    assert first[3] is not None
    finish(plan, first[3].trial_id, landscape)
    plan.ended(first[3].trial_id)
    assert [plan.next() is None for _ in range(5)] == [*4 * [False], True]


def test_cells_do_not_wait_for_each_other(tmp_path: Path) -> None:
    plan = begun(population(), tmp_path / "s")
    handed = [plan.next() for _ in range(8)]
    assert all(handed)
    for assignment in handed:
        if assignment is not None and assignment.cell == "density=0.2":
            finish(plan, assignment.trial_id, landscape)
            plan.ended(assignment.trial_id)
    following = plan.next()
    assert following is not None
    assert (following.cell, following.config.until_epoch) == ("density=0.2", 4)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_population_gets_better(direction: str, tmp_path: Path) -> None:
    sign = 1 if direction == "maximize" else -1
    space = population(pbt={"population": 8, "interval": 1, "generations": 6}, direction=direction)
    plan = begun(space, tmp_path / "s")
    run_out(plan, lambda config: sign * landscape(config))
    found = places(plan)

    def mean(generation: int) -> float:
        configs = [space.config(plan.cells[0], found[generation, member].params).model_dump() for member in range(8)]
        return sum(map(landscape, configs)) / 8

    assert mean(5) > mean(0) + 0.1


def test_equal_lineages_are_one_trial(tmp_path: Path) -> None:
    search = {"finetune.schedule": {"choice": ["cosine"]}}
    plan = begun(population(search=search, grid={"density": [0.5]}), tmp_path / "s")
    ran = run_out(plan, lambda config: 0.5)
    assert len(ran) == 3  # one per generation, for all four members
    assert len(asked(plan.folder)) == 12
    assert begun(plan.space, tmp_path / "s").complete
