"""Population based training of real trials: each member's whole history is in its rows, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.results.lineage import history
from sweeper.results.tables import load
from sweeper.search.epoch_budget import planned
from sweeper.search.plan import Plan
from sweeper.space.space import Space
from tests.sweeper.populations import population
from tests.sweeper.sweeps import begun, finished
from tests.trials.folders import assert_same_outcome
from tests.trials.killing import Killed, deaths, killed_at_write
from trials.methods.parsing import parse
from trials.methods.segments import child
from trials.running.trial import TrialHost, run
from trials.storage.trial_folder import TrialFolder


def run_for_real(space: Space, path: Path) -> Plan:
    plan = begun(space, path / "small")
    while (assignment := plan.next()) is not None:
        folder = plan.folder.trial_folder(assignment.trial_id)
        run(assignment.config, folder, TrialHost(plan.folder.stages))
        plan.ended(assignment.trial_id)
    return plan


BIP = {
    "method": "bip",
    "dataset": "few_digits",
    "model": "tiny",
    "pretrain": {"epochs": 1},
    "mask_schedule": "constant",
    "prune": {"epochs": 3, "schedule": "constant"},
}
BIP_SEARCH = {
    "implicit_step": {"loguniform": [1e-6, 1e-2]},
    "mask_lr": {"loguniform": [1e-2, 1e-1]},
    "prune.lr": {"loguniform": [1e-2, 1e-1]},
}


def small_bip() -> Space:
    pbt = {"population": 3, "interval": 1, "generations": 3, "quantile": 0.4}
    return population(trial=BIP, search=BIP_SEARCH, pbt=pbt, grid={"density": [0.3]})


@pytest.mark.usefixtures("few_digits")
def test_the_last_generation_reports_every_members_whole_history(tmp_path: Path) -> None:
    run_for_real(small_bip(), tmp_path)
    sweep = load(tmp_path / "small")
    assert set(sweep.trials["status"]) == {"complete"}
    last = sweep.lineage[sweep.lineage["generation"] == 2]
    assert sorted(last["member"]) == [0, 1, 2]
    changed = 0
    for trial, member in zip(last["trial"], last["member"], strict=True):
        through = history(sweep.lineage, "density=0.3", member)
        rows = sweep.epochs[(sweep.epochs["trial"] == trial) & (sweep.epochs["stage"] == "prune")]
        assert rows["epoch"].tolist() == [0, 1, 2, 3]
        for column, path in (("lr", "prune.lr"), ("mask_lr", "mask_lr"), ("implicit_step", "implicit_step")):
            assert rows[column].tolist()[1:] == pytest.approx(through[path].tolist()), column
        assert through["trial"].tolist()[1:] == [*through["parent_trial"].tolist()[2:], trial]
        changed += through["prune.lr"].nunique() > 1
    assert changed


@pytest.mark.usefixtures("few_digits")
def test_every_segment_counts_its_own_epochs(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "trial": {**BIP, "finetune": {"epochs": 2}},
        "search": BIP_SEARCH,
        "grid": {"density": [0.3]},
    }
    pbt = {"population": 2, "interval": 2, "generations": 2}
    spent = {}
    for budget in (8, 9, 10):  # generation 0 takes 2 epochs; generation 1 takes 1, and 2 of finetuning
        plan = run_for_real(population(**fields, pbt=pbt, max_epochs=budget), tmp_path)
        assert plan.over
        spent[budget] = (finished(plan), plan.budget.taken)
        assert begun(plan.space, tmp_path / "small").budget.taken == plan.budget.taken
    assert spent == {8: (3, 7), 9: (3, 7), 10: (4, 10)}
    assert plan.complete
    dense = parse({"method": "dense", "dataset": "digits", "model": "tiny", "train": {"epochs": 5}})
    segment = parse({**dense.model_dump(mode="json"), "until_epoch": 2})
    assert [planned(config) for config in (dense, segment, child(segment, {"train.lr": 0.2}, 5))] == [0, 2, 3]


@pytest.mark.usefixtures("few_digits")
def test_a_population_killed_ten_times_gives_the_same_results(tmp_path: Path) -> None:
    whole = run_for_real(small_bip(), tmp_path / "whole")
    draw, kills = deaths(seed=7, longest=12), 0
    while kills < 10:
        number, place = next(draw)
        try:
            with killed_at_write(number, place):
                run_for_real(small_bip(), tmp_path / "killed")
            break
        except Killed:
            kills += 1
    killed = run_for_real(small_bip(), tmp_path / "killed")
    assert kills == 10
    names = {record.id: record.samples for record in whole.folder.records()}
    assert {record.id: record.samples for record in killed.folder.records()} == names
    for record in killed.folder.records():
        if "lineage" in record.content and len(record.content["lineage"]) == 2:  # earlier checkpoints are deleted
            assert_same_outcome(record.folder.path, whole.folder.trial_folder(record.id))
        state, other = record.folder.state(), TrialFolder(whole.folder.trial_folder(record.id)).state()
        assert state is not None
        assert other is not None
        assert (state.status, state.result) == (other.status, other.result)
