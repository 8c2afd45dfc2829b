"""What a space may say of replicates, and how a sweep with them may go on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from sweeper.continuing import refuse_contradictions
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.derived_configs import compare_committed
from sweeper.search.warm_start import warm_start
from sweeper.space.compatibility import contradictions
from sweeper.space.load import from_document
from sweeper.space.options.replicates import JUDGES, read_replicates
from tests.sweeper.replicates.replicated_sweeps import by_point, noisy, replicated, space_with
from tests.sweeper.sweeps import begun, make_space, run_out, searching
from trials.errors import UserError

PBT = {"population": 2, "interval": 1, "generations": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([0, 1], "replicates is [0, 1], but must be a mapping"),
        ({}, "replicates.values is missing"),
        ({"values": {}}, "replicates.values is {}"),
        ({"values": [0, 1]}, "replicates.values is [0, 1]"),
        ({"values": {"seed": []}}, "at least one value"),
        ({"values": {"seed": 3}}, "replicates.values.seed is 3"),
        ({"values": {"seed": [0, 0]}}, "twice"),
        ({"values": {"seed": [-1]}}, "at least 0"),
        ({"values": {"seed": [True]}}, "whole numbers"),
        ({"values": {"seed": [0.5]}}, "whole numbers"),
        ({"values": {"density": [0.5]}}, "put it in grid"),
        ({"values": {"seed": [0]}, "judge": "maximum"}, "judge"),
        ({"values": {"seed": [0]}, "judge": {"name": "lower_bound", "k": -1}}, "k"),
        ({"values": {"seed": [0]}, "judge": {"name": "mean", "k": 1}}, "key"),
        ({"values": {"seed": [0]}, "race": "yes"}, "race"),
        ({"values": {"seed": [0]}, "races": True}, "race"),
    ],
)
def test_what_is_wrong_is_one_line(content: Any, said: str) -> None:
    with pytest.raises(UserError) as raised:
        searching("tpe", 2, replicates=content)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"grid": {"seed": [0, 1]}}, "seed is in grid too"),
        ({"trial": {"method": "one_shot", "dataset": "digits", "model": "tiny", "seed": 3}}, "remove trial.seed"),
        ({"search": {"seed": {"int": [0, 3]}}, "samples": 2}, "seed is in search too"),
        ({"cases": {"dense": {"when": {"density": 0.5}, "trial": {"seed": 1}}}}, "cases.dense.trial"),
        ({"pbt": PBT, "samples": None, "search": {"finetune.lr": {"uniform": [0.1, 0.2]}}}, "pbt"),
        (
            {"confirm": {"seed": [5, 2]}},
            "confirm.seed has 2, but the search runs its trials with that seed",
        ),
    ],
)
def test_seeds_are_left_to_replicates(fields: dict[str, Any], said: str) -> None:
    content = {"search": {"finetune.lr": {"uniform": [0.1, 0.2]}}, "samples": 2, **fields}
    with pytest.raises(UserError) as raised:
        make_space(replicates={"values": {"seed": [0, 1, 2]}}, **content)
    assert said in str(raised.value)


def test_a_race_needs_one_objective() -> None:
    objectives = [{"column": name, "direction": "maximize"} for name in ("val_accuracy", "sparsity")]
    with pytest.raises(UserError, match="race"):
        space_with(2, replicates={"race": True}, objectives=objectives)


def test_a_document_gives_the_same_space() -> None:
    draw = random.Random(0)
    for _ in range(30):
        judge: Any = draw.choice([*JUDGES, {"name": "lower_bound", "k": draw.random()}])
        seeds = draw.sample(range(100), draw.randint(2, 4))
        values = {"seed": seeds} if draw.random() < 0.5 else {"split_seed": seeds, "seed": [1]}
        space = searching("tpe", 2, replicates={"values": values, "judge": judge, "race": draw.random() < 0.5})
        assert from_document(space.document()) == space
        assert read_replicates(space.replicates) == space.replicates
    assert "replicates" not in searching("tpe", 2).document()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"race": True}, "replicates.race is true, which needs at least 2 replicates of a point, but "),
        ({"judge": "lower_bound"}, "replicates.judge is lower_bound, which needs at least 2 replicates of a point, "),
    ],
)
def test_one_replicate_is_neither_raced_nor_bounded_but_a_stored_space_with_it_is_read(
    extra: dict[str, Any], said: str
) -> None:
    values = {"seed": [0], "split_seed": [3]}
    with pytest.raises(UserError) as raised:
        searching("tpe", 2, replicates={"values": values, **extra})
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)
    searching("tpe", 2, replicates={"values": {"seed": [0], "split_seed": [3, 4]}, **extra})
    document = searching("tpe", 2, replicates={"values": values}).document()
    stored = from_document({**document, "replicates": {"values": values, **extra}})
    assert stored.replicates == read_replicates({"values": values, **extra})


def test_a_grid_with_seeds_has_the_trials_of_replicates_with_them(tmp_path: Path) -> None:
    """Names of trials say what is computed, not which section has asked for it."""
    gridded = make_space(grid={"density": [0.5, 0.2], "seed": [0, 1]})
    spread = make_space(samples=1, replicates={"values": {"seed": [0, 1]}})
    for space, name in ((gridded, "a"), (spread, "b")):
        run_out(begun(space, tmp_path / name))
    names = [{record.id for record in SweepFolder(tmp_path / name).records()} for name in "ab"]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (None, "replicates is missing"),
        ({"values": {"seed": [0, 2]}}, "replicates.values.seed lacks 1"),
        ({"values": {"seed": [0, 1, 2], "split_seed": [0]}}, "replicates is"),
        ({"judge": "median"}, "replicates.judge is 'median'"),
        ({"race": True}, "replicates.race is"),
        ({"values": {"seed": [0, 1, 2, 3]}}, None),
        ({"values": {"seed": [2, 1, 0]}}, None),
    ],
)
def test_only_seeds_may_be_added(now: dict[str, Any] | None, said: str | None) -> None:
    old = space_with(2)
    new = searching("tpe", 2) if now is None else space_with(2, replicates=now)
    found = contradictions(old, new)
    assert (not found) if said is None else said in found[0]
    if now is None:
        assert "replicates" in contradictions(new, old)[0]


def test_committed_trials_are_those_of_the_space(tmp_path: Path) -> None:
    space = space_with(3, replicates={"race": True}, confirm={"seed": [9]})
    folder = SweepFolder(tmp_path)
    folder.append({"space": space.document()})
    run_out(begun(space, tmp_path), noisy())
    assert compare_committed(space, folder.records()).difference is None
    assert refuse_contradictions(folder, space).revised is None
    less = space_with(3, replicates={"race": True, "values": {"seed": [0, 1]}}, confirm={"seed": [9]})
    assert "was made as seed=2 of its point" in str(compare_committed(less, folder.records()).difference)


def test_an_earlier_sweep_gives_one_observation_per_point(tmp_path: Path) -> None:
    earlier = space_with(4)
    folder = SweepFolder(tmp_path / "earlier")
    folder.append({"space": earlier.document()})
    run_out(begun(earlier, tmp_path / "earlier"), noisy(0.1))
    again = space_with(4, replicates={"values": {"seed": [5, 6]}}, from_sweep="earlier")
    found = warm_start(again, SweepFolder(tmp_path / "later"))
    for cell in again.cells():
        told = replicated(begun(earlier, tmp_path / "earlier"), cell.key).outcomes
        assert [o.values for o in found[cell.key].observations] == [
            told[n].values for n in sorted(told, key=lambda n: _first_id(by_point(folder)[cell.key, n]))
        ]


def test_points_that_were_dropped_are_no_observations(tmp_path: Path) -> None:
    earlier = space_with(10, "random", replicates={"race": True})
    folder = SweepFolder(tmp_path / "earlier")
    folder.append({"space": earlier.document()})
    run_out(begun(earlier, tmp_path / "earlier"), noisy(0.002))
    again = space_with(4, "tpe", replicates={"values": {"seed": [5, 6]}}, from_sweep="earlier")
    found = warm_start(again, SweepFolder(tmp_path / "later"))
    for cell in again.cells():
        told = replicated(begun(earlier, tmp_path / "earlier"), cell.key).outcomes
        complete = {outcome.values for outcome in told.values() if outcome.values}
        assert len(complete) < 10
        assert {observation.values for observation in found[cell.key].observations} == complete


def _first_id(records: dict[int, Any]) -> str:
    return min(record.id for record in records.values())
