"""A search that starts from the results of an earlier sweep."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.search.warm_start import WarmStart, commit_warm_start, warm_start
from sweeper.space.space import Space
from tests.sweeper.sweeps import ONE_SHOT, asked, finish, landscape, make_space, run_space
from tests.trials.sealed_files import document, write_document
from trials.config import revisions
from trials.config.revisions import Revised
from trials.errors import UserError

SEARCH: dict[str, Any] = {"finetune.lr": {"loguniform": [1e-3, 1.0]}, "finetune.momentum": {"uniform": [0.0, 0.95]}}
PATHS = list(SEARCH)


@pytest.fixture
def earlier(tmp_path: Path) -> SweepFolder:
    return run_space(make_space(search=SEARCH, samples=6, sampler="random"), tmp_path / "earlier")


def later(folder: Path, sampler: Any = "tpe", **fields: Any) -> tuple[Space, SweepFolder]:
    content = {"search": SEARCH, "samples": 4, "sampler": sampler, "from_sweep": "earlier", "seed": 1, **fields}
    return make_space(**content), SweepFolder(folder / "later")


def value_of(params: dict[str, Any]) -> float:
    return landscape({"finetune": {"lr": params["finetune.lr"], "momentum": params["finetune.momentum"]}})


def test_results_of_the_same_search_are_observations(tmp_path: Path, earlier: SweepFolder) -> None:
    space, folder = later(tmp_path, grid={"density": [0.5, 0.2], "seed": [3, 4]})
    warm = warm_start(space, folder)
    assert {key: (len(cell.observations), cell.points) for key, cell in warm.items()} == {
        f"density={d},seed={s}": (6, ()) for d in (0.5, 0.2) for s in (3, 4)
    }
    there = asked(earlier)
    for key, cell in warm.items():
        density = key.split(",")[0]
        found = {tuple(o.params[path] for path in PATHS): o.values[0] for o in cell.observations}
        assert found == {
            tuple(params[path] for path in PATHS): value_of(params) for (c, _), params in there.items() if c == density
        }
    commit_warm_start(folder, warm)
    plan = Plan(space, folder, warm)
    study = plan._searches["density=0.5,seed=3"].study
    assert [trial.values[0] for trial in study.trials] == [o.values[0] for o in warm["density=0.5,seed=3"].observations]
    cold = Plan(space, SweepFolder(tmp_path / "cold"))
    assert plan._searches["density=0.5,seed=3"].ask().params != cold._searches["density=0.5,seed=3"].ask().params


def test_trials_of_another_revision_only_give_points(
    tmp_path: Path, earlier: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    denser = Revised("data", 9, lambda config: getattr(config, "density", 1) > 0.4, "its images were upside down")
    monkeypatch.setattr(revisions, "REVISED", (*revisions.REVISED, denser))
    warm = warm_start(*later(tmp_path))
    assert {key: (len(cell.observations), len(cell.points)) for key, cell in warm.items()} == {
        "density=0.5": (0, 3),
        "density=0.2": (6, 0),
    }


@pytest.mark.parametrize(
    ("sampler", "trial"),
    [("tpe", {"dataset": "cifar10"}), ("random", {}), ({"name": "nsga2", "population_size": 2}, {})],
)
def test_the_best_points_of_a_different_search_are_tried_first(
    tmp_path: Path, earlier: SweepFolder, sampler: Any, trial: dict[str, Any]
) -> None:
    given = {"finetune.lr": 0.7, "finetune.momentum": 0.1}
    space, folder = later(
        tmp_path, sampler, trial={**ONE_SHOT, **trial}, enqueue=[given], from_sweep={"sweep": "earlier", "points": 2}
    )
    run_space(space, folder.path)
    samples = asked(folder)
    for cell in ("density=0.5", "density=0.2"):
        there = sorted((p for (c, _), p in asked(earlier).items() if c == cell), key=value_of, reverse=True)
        assert [samples[cell, n] for n in range(3)] == [given, *there[:2]]


def test_a_committed_warm_start_outlives_the_earlier_sweep(tmp_path: Path, earlier: SweepFolder) -> None:
    space, folder = later(tmp_path)
    warm = warm_start(space, folder)
    commit_warm_start(folder, warm)
    written = (folder.path / "warm.json").read_bytes()
    shutil.rmtree(earlier.path)
    assert warm_start(space, folder) == warm
    commit_warm_start(folder, warm)
    assert (folder.path / "warm.json").read_bytes() == written
    wider = later(tmp_path, grid={"density": [0.5, 0.2, 0.1]})[0]
    with pytest.raises(UserError, match=r"from_sweep is 'earlier', but .* is not the folder of a sweep"):
        warm_start(wider, folder)
    (folder.path / "warm.json").write_text("{")
    with pytest.raises(UserError, match=r"warm.json is damaged"):
        warm_start(space, folder)


def observation(lr: Any = 0.1, values: Any = (0.5,), **others: Any) -> dict[str, Any]:
    params = {"finetune.lr": lr, "finetune.momentum": 0.5, **others}
    return {"params": params, "values": values, "violations": {}}


@pytest.mark.fault("damaged-file")
@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"observations": [observation(density=0.5)]}, "which is no point of this search"),
        ({"observations": [{**observation(), "params": {"finetune.lr": 0.1}}]}, "which is no point of this search"),
        ({"observations": [observation(lr=7.0)]}, "which is no point of this search"),
        ({"observations": [observation(lr=float("nan"))]}, "which is no point of this search"),
        ({"observations": [observation(lr=10**400)]}, "which is no point of this search"),
        ({"observations": [observation(lr=[0.1])]}, "which is no point of this search"),
        ({"observations": [observation(values=[])]}, "observations have other than 1 values, one per objective"),
        ({"observations": [observation(values=[0.5, 1.0])]}, "observations have other than 1 values"),
        ({"observations": [observation(values=[float("nan")])]}, "has nan where a finite number belongs"),
        ({"observations": [observation(values=[10**400])]}, "where a finite number belongs"),
        ({"observations": [{**observation(), "violations": {"flops<=": True}}]}, "has True where a finite number"),
        ({"points": [{"density": 0.5}]}, "a point has 'density', which is not searched"),
    ],
)
def test_what_was_committed_for_another_search_is_refused(
    tmp_path: Path, earlier: SweepFolder, other: dict[str, Any], says: str
) -> None:
    space, folder = later(tmp_path)
    commit_warm_start(folder, warm_start(space, folder))
    path = folder.path / "warm.json"
    good = {"observations": [observation()], "points": [{"finetune.lr": 7.0}]}  # of which nothing is tried
    write_document(path, {"schema": 1, "cells": {"density=0.5": good, "density=0.2": good}})
    assert len(warm_start(space, folder)["density=0.2"].observations) == 1
    write_document(path, {"schema": 1, "cells": {"density=0.5": good, "density=0.2": {**good, **other}}})
    with pytest.raises(UserError) as caught:
        warm_start(space, folder)
    assert str(caught.value).startswith(f"{path} cannot be used (")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_new_cells_are_warmed_and_cells_without_a_counterpart_are_not(tmp_path: Path, earlier: SweepFolder) -> None:
    space, folder = later(tmp_path)
    commit_warm_start(folder, warm_start(space, folder))
    wider, _ = later(tmp_path, grid={"density": [0.5, 0.2, 0.1]})
    warm = warm_start(wider, folder)
    assert warm["density=0.1"] == WarmStart()
    commit_warm_start(folder, warm)
    assert document(folder.path / "warm.json")["cells"].keys() == warm.keys()


CONDITIONAL: dict[str, Any] = {
    "score": {"choice": ["magnitude", "random"]},
    "finetune.momentum": {"uniform": [0.1, 0.9], "when": {"score": "random"}},
}
FIRST_POINTS = [{"score": "magnitude"}, {"score": "random", "finetune.momentum": 0.3}]


@pytest.mark.parametrize(("momentum", "observed"), [(0.8, 4), (0.2, 2)], ids=["as it was", "another"])
def test_a_value_that_a_condition_leaves_to_the_template_must_agree(
    tmp_path: Path, momentum: float, observed: int
) -> None:
    search = {"search": CONDITIONAL, "enqueue": FIRST_POINTS, "samples": 2}
    trials = [{**ONE_SHOT, "finetune": {"epochs": 1, "momentum": value}} for value in (0.8, momentum)]
    run_space(make_space(trial=trials[0], sampler="random", **search), tmp_path / "earlier")
    warm = warm_start(*later(tmp_path, trial=trials[1], **search))
    found = [observation for cell in warm.values() for observation in cell.observations]
    assert len(found) == observed
    assert all(observation.params["score"] == "random" for observation in found) == (momentum == 0.2)


def test_fields_that_the_earlier_version_lacked_count_as_their_defaults(tmp_path: Path, earlier: SweepFolder) -> None:
    before = warm_start(*later(tmp_path))
    for record in earlier.records():
        path = Path(str(record.folder.path)) / "config.json"
        content = document(path)
        for name in ("stratify_split", "image_column", "image_size", "capture", "file_hashes", "lineage"):
            del content["config"][name]
        write_document(path, content)
    assert warm_start(*later(tmp_path)) == before
    assert all(cell.observations for cell in before.values())


def test_after_a_kill_the_next_driver_asks_the_same(tmp_path: Path, earlier: SweepFolder) -> None:
    space, folder = later(tmp_path)
    run_space(space, folder.path)
    other = SweepFolder(tmp_path / "other")
    commit_warm_start(other, warm_start(space, other))
    while True:
        plan = Plan(space, other, warm_start(space, other))
        if plan.complete:
            break
        assignment = plan.next()
        assert assignment is not None
        finish(plan, assignment.trial_id)
    assert asked(other) == asked(folder)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"from_sweep": "nothing"}, "from_sweep is 'nothing', but "),
        ({"from_sweep": "later"}, "from_sweep is 'later', but that is this sweep: name an earlier one"),
        (
            {"search": {**SEARCH, "finetune.momentum": {"uniform": [0.0, 0.9]}}},
            "from_sweep needs the same names and ranges, but finetune.momentum is searched as uniform from 0.0 to 0.9, "
            "in the earlier sweep uniform from 0.0 to 0.95: make them agree",
        ),
        (
            {"search": {**SEARCH, "pretrain.lr": {"uniform": [0.1, 0.2]}}},
            "from_sweep needs the same names and ranges, but pretrain.lr is searched as uniform from 0.1 to 0.2, "
            "in the earlier sweep not at all: make them agree",
        ),
        ({"grid": {"density": [0.3]}}, "from_sweep is 'earlier', but none of its 12 complete trials has the method"),
        ({"search": {}, "samples": 1}, "from_sweep is 'earlier', but search is empty: remove from_sweep"),
        ({"from_sweep": {"sweep": "earlier", "points": 0}}, "from_sweep.points is 0, but must be greater than or"),
        ({"from_sweep": {"sweeep": "earlier"}}, "from_sweep.sweep is missing: add it"),
    ],
)  # fmt: skip
def test_an_earlier_sweep_that_does_not_agree_is_refused(
    tmp_path: Path, earlier: SweepFolder, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError) as caught:
        warm_start(*later(tmp_path, **fields))
    assert str(caught.value).startswith(says)
    assert not (tmp_path / "later").exists()


@pytest.mark.fault("damaged-file")
@pytest.mark.parametrize("name", ["config.json", "state.json"])
def test_damaged_trials_of_the_earlier_sweep_are_named(tmp_path: Path, earlier: SweepFolder, name: str) -> None:
    file = min(earlier.trials.iterdir()) / name
    file.write_bytes(file.read_bytes()[:-5])
    lines: list[str] = []
    warm = warm_start(*later(tmp_path), note=lines.append)
    assert sorted(len(cell.observations) for cell in warm.values()) == [5, 6]
    assert len(lines) == 1
    assert str(file) in lines[0]
