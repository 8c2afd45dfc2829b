"""Which checkpoints a sweep keeps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import sweeper
import trials
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing.automatic import drop_and_pack
from sweeper.packing.dropped_parents import dropped_parents
from sweeper.packing.kept_checkpoints import kept_checkpoints
from sweeper.packing.packing import pack_finished
from sweeper.packing.repairing import repaired
from sweeper.space.load import from_document
from tests.sweeper.packing.packed_sweeps import (
    assert_equal,
    commit_finished,
    finish_all,
    networks_of,
    sweep_of,
    tables_of,
)
from tests.sweeper.populations import population
from tests.sweeper.sweeps import begun, make_space, searching
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.networks.named_files import resolved

SEARCH: dict[str, Any] = {"finetune.lr": {"loguniform": [1e-3, 1.0]}}


def sweep_keeping(path: Path, policy: str, **fields: Any) -> SweepFolder:
    space = make_space(search=SEARCH, sampler="random", samples=3, keep_checkpoints=policy, **fields)
    return sweep_of(path, 0, space)


@pytest.mark.parametrize("packed", [False, True])
def test_best_keeps_the_best_point_of_each_cell(tmp_path: Path, packed: bool) -> None:
    folder = sweep_keeping(tmp_path / "sweep", "best")
    best = set(sweeper.load(folder.path).best()["trial"])
    assert len(best) == 2
    if packed:
        pack_finished(folder, kept_checkpoints(folder, over=True))
    else:
        drop_and_pack(folder, over=True)
    assert networks_of(folder).keys() == best
    assert repaired(folder, checkpoints=True) == []
    assert networks_of(folder).keys() == best
    assert all(record.finished for record in folder.records())


def test_what_is_kept_no_more_is_dropped_from_packed_trials_too(tmp_path: Path) -> None:
    folder = sweep_keeping(tmp_path / "sweep", "best")
    best = set(sweeper.load(folder.path).best()["trial"])
    pack_finished(folder)
    before = tables_of(folder.path)
    (archive,) = (tmp_path / "sweep" / "packed").glob("*.zip")
    size = archive.stat().st_size
    drop_and_pack(folder, over=True)
    assert networks_of(folder).keys() == best
    (now,) = (tmp_path / "sweep" / "packed").glob("*.zip")
    assert now.stat().st_size < size / 2
    assert_equal(tables_of(folder.path), before)
    assert repaired(folder, checkpoints=True) == []
    drop_and_pack(folder, over=True)
    assert list((tmp_path / "sweep" / "packed").glob("*.zip")) == [now]


def test_best_keeps_what_confirms_it_and_the_pareto_front(tmp_path: Path) -> None:
    folder = sweep_keeping(tmp_path / "confirmed", "best", grid={"density": [0.5]}, confirm={"seed": [7, 8]})
    drop_and_pack(folder, over=True)
    frame = sweeper.load(folder.path).trials
    confirmed = set(frame[frame["confirms"].notna()]["trial"])
    assert len(confirmed) == 2
    assert networks_of(folder).keys() == confirmed | set(frame["confirms"].dropna())


def test_best_keeps_the_trials_of_a_point_that_lacks_replicates(tmp_path: Path) -> None:
    space = make_space(
        search=SEARCH, sampler="random", samples=2, keep_checkpoints="best", grid={"density": [0.5]},
        replicates={"values": {"seed": [0, 1]}},
    )  # fmt: skip
    plan = begun(space, tmp_path / "sweep")
    plan.folder.append({"space": space.document()})
    for number in range(3):
        assignment = plan.next()
        assert assignment is not None
        commit_finished(plan.folder.trial_folder(assignment.trial_id), number)
        plan.ended(assignment.trial_id)
    pack_finished(plan.folder, kept_checkpoints(plan.folder, over=False))
    finish_all(begun(space, plan.folder.path), 3)
    drop_and_pack(plan.folder, over=True)
    points = sweeper.load(plan.folder.path).points()
    assert networks_of(plan.folder).keys() == set(points["trials"][points["val_accuracy"].idxmax()])


def test_none_keeps_no_checkpoint_and_damaged_rows_mean_that_the_trial_runs_again(tmp_path: Path) -> None:
    folder = sweep_keeping(tmp_path / "sweep", "none")
    before = tables_of(folder.path)
    drop_and_pack(folder, over=True)
    assert networks_of(folder) == {}
    assert not list((tmp_path / "sweep" / "trials").rglob("*.pt"))
    assert tables_of(folder.path)["epochs"].equals(before["epochs"])
    hurt = folder.records()[0]
    next((tmp_path / "sweep" / "trials" / hurt.id / "rows").glob("epochs*")).write_bytes(b"rot")
    (line,) = repaired(folder)
    assert hurt.id in line
    assert [record.id for record in folder.records() if not record.finished] == [hurt.id]
    finish_all(begun(make_space(search=SEARCH, sampler="random", samples=3), folder.path))
    assert len(tables_of(folder.path)["epochs"]) == len(before["epochs"])


def test_all_keeps_all(tmp_path: Path) -> None:
    folder = sweep_keeping(tmp_path / "sweep", "all")
    assert "keep_checkpoints" not in (folder.space_document() or {})
    drop_and_pack(folder, over=True)
    assert len(networks_of(folder)) == 6


def test_last_level_drops_what_has_fewer_levels(tmp_path: Path) -> None:
    trial = {
        "method": "prune_iterative", "dataset": "digits", "model": "tiny", "prune_fraction": 0.4,
        "pretrain": {"epochs": 1}, "finetune": {"epochs": 1},
    }  # fmt: skip
    space = make_space(trial=trial, grid={"levels": [1, 2, 3], "seed": [0, 1]}, keep_checkpoints="last_level")
    folder = sweep_of(tmp_path / "sweep", 0, space)
    drop_and_pack(folder, over=True)
    kept = [record for record in folder.records() if record.id in networks_of(folder)]
    assert sorted((record.content["levels"], record.content["seed"]) for record in kept) == [(3, 0), (3, 1)]


@pytest.mark.parametrize("policy", ["best", "last_level"])
def test_the_last_generation_of_a_population_keeps_theirs(tmp_path: Path, policy: str) -> None:
    space = population(grid={"density": [0.5]}, keep_checkpoints=policy, pbt={"population": 2, "generations": 2})
    folder = sweep_of(tmp_path / "sweep", 0, space)
    drop_and_pack(folder, over=True)
    lineage = sweeper.load(folder.path).lineage
    assert networks_of(folder).keys() == set(lineage[lineage["generation"] == 1]["trial"])


def test_trials_that_another_sweep_names_keep_theirs(tmp_path: Path) -> None:
    folder = sweep_keeping(tmp_path / "sweep", "none")
    named = folder.records()[0].id
    (tmp_path / "other").mkdir()
    SweepFolder(tmp_path / "other").append({"space": {"trial": {"reference": f"{tmp_path}/sweep/trials/{named}"}}})
    drop_and_pack(folder, over=True)
    assert networks_of(folder).keys() == {named}


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("damage", ["a pipe", "a folder", "flipped"])
def test_if_a_damaged_sweep_may_name_them_all_keep_theirs(tmp_path: Path, damage: str) -> None:
    folder = sweep_keeping(tmp_path / "sweep", "none")
    other = tmp_path / "other"
    other.mkdir()
    if damage == "a pipe":
        os.mkfifo(other / "sweep.yaml")
    elif damage == "a folder":
        (other / "sweep.yaml").mkdir()
    else:
        (other / "sweep.yaml").write_bytes((folder.path / "sweep.yaml").read_bytes().replace(b"search", b"seasch", 1))
    before = networks_of(folder)
    drop_and_pack(folder, over=True)
    assert networks_of(folder) == before != {}


@pytest.mark.parametrize("packed", [False, True])
def test_who_needs_a_dropped_network_is_told_so_in_one_line(tmp_path: Path, packed: bool) -> None:
    folder = sweep_keeping(tmp_path / "sweep", "none")
    if packed:
        pack_finished(folder, kept_checkpoints(folder, over=True))
    drop_and_pack(folder, over=True)
    where = str(tmp_path / "sweep" / "trials" / folder.records()[0].id)
    content = {"method": "l1", "dataset": "digits", "model": "tiny", "base_pr_model": where, "finetune": None}
    for need in (lambda: trials.load(where).network(), lambda: resolved(parse(content))):
        with pytest.raises(UserError, match=r"its sweep has dropped its checkpoint .* another --name") as said:
            need()
        assert "\n" not in str(said.value)
    assert trials.load(where).status == "complete"


@pytest.mark.parametrize(("policy", "lines"), [("none", 1), ("best", 0), ("all", 0)])
def test_a_population_that_goes_on_without_its_checkpoints_says_so(tmp_path: Path, policy: str, lines: int) -> None:
    fields: dict[str, Any] = {"grid": {"density": [0.5]}, "keep_checkpoints": policy}
    space = population(**fields, pbt={"population": 2, "generations": 2})
    folder = sweep_of(tmp_path / "sweep", 0, space)
    drop_and_pack(folder, over=True)
    assert dropped_parents(folder, space) == []
    longer = population(**fields, pbt={"population": 2, "generations": 3})
    found = dropped_parents(folder, longer)
    assert len(found) == lines
    assert all("2 members" in line and "the same results" in line for line in found)
    (begun(longer, folder.path)).next()
    assert len(dropped_parents(folder, longer)) == lines


def test_another_policy_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="keep_checkpoints is 'some', but must be"):
        from_document({**searching("random", 1).document(), "keep_checkpoints": "some"})
