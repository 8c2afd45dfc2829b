"""A resumed sweep may run elsewhere: which trials run where the space says now, and which as they were scheduled."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeper.search.plan import Assignment, Plan
from sweeper.space.compatibility import contradictions
from tests.sweeper.populations import SEARCH, TRIAL, landscape, population
from tests.sweeper.sweeps import begun, finish, make_space
from tests.trials.sealed_files import document, write_document
from trials.methods.parsing import parse
from trials.models import build

HERE: dict[str, Any] = {"checkpoint_every_s": 60.0, "capture": True}
ELSEWHERE: dict[str, Any] = {"checkpoint_every_s": 5.0, "capture": False}


def where(assignment: Assignment) -> dict[str, Any]:
    return {name: getattr(assignment.config, name) for name in HERE}


def taken(plan: Plan) -> list[Assignment]:
    return list(iter(plan.next, None))


def test_later_generations_run_where_the_space_says_now(tmp_path: Path) -> None:
    before, now = (population(trial={**TRIAL, **fields}, grid={"density": [0.5]}) for fields in (HERE, ELSEWHERE))
    assert contradictions(before, now) == []
    expected = []
    for space, name in ((before, "stays"), (now, "moves")):
        plan = begun(before, tmp_path / name)
        for assignment in taken(plan):
            assert where(assignment) == HERE
            finish(plan, assignment.trial_id, landscape)
            plan.ended(assignment.trial_id)
        second = taken(begun(space, tmp_path / name))
        assert [where(assignment) for assignment in second] == 4 * [HERE if space is before else ELSEWHERE]
        expected.append([assignment.trial_id for assignment in second])
    assert expected[0] == expected[1]  # where trials run is no part of their names


@pytest.mark.parametrize("fields", [{}, {"search": SEARCH, "sampler": "random", "samples": 2}], ids=["grid", "random"])
def test_a_scheduled_trial_keeps_what_its_config_says(fields: dict[str, Any], tmp_path: Path) -> None:
    base = {"grid": {"density": [0.5, 0.2]}, **fields}
    before, now = (make_space(**{**base, "trial": {**TRIAL, **where_it_runs}}) for where_it_runs in (HERE, ELSEWHERE))
    first = begun(before, tmp_path).next()
    assert first is not None
    plan = begun(now, tmp_path)
    again, *others = taken(plan)
    assert (again.trial_id, where(again)) == (first.trial_id, HERE)
    assert [where(assignment) for assignment in others] == len(others) * [ELSEWHERE]
    for record in plan.folder.records():
        assert record.config.model_dump(mode="json") == record.content


NAMED: dict[str, Any] = {"method": "bip", "dataset": "digits", "model": "tiny", "density": 0.2, "prune": {"epochs": 4}}
SEARCHES: dict[str, dict[str, Any]] = {
    "grid": {},
    "random": {"search": {"mask_lr": {"uniform": [0.1, 0.2]}}, "sampler": "random", "samples": 2},
    "population": {
        "search": {"mask_lr": {"uniform": [0.1, 0.2]}},
        "pbt": {"population": 2, "interval": 1, "generations": 2},
    },
}


@pytest.mark.parametrize("fields", SEARCHES.values(), ids=SEARCHES)
def test_a_scheduled_trial_reads_data_and_files_where_the_space_has_them_now(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    spaces = []
    for name in ("before", "now"):
        (tmp_path / name).mkdir()
        weights = tmp_path / name / "net.pt"
        torch.save(build("tiny", num_classes=10, in_channels=1, seed=0).state_dict(), weights)
        trial = {**NAMED, "prune": {"epochs": 4, "schedule": "constant"}, "mask_schedule": "constant"}
        trial |= {"source_net": str(weights), "data_dir": str(tmp_path / name)}
        spaces.append(make_space(trial=trial, grid={"seed": [0, 1]}, **fields))
    before, now = spaces
    scheduled = [assignment.trial_id for assignment in taken(begun(before, tmp_path / "sweep"))]
    shutil.rmtree(tmp_path / "before")
    plan = begun(now, tmp_path / "sweep")
    again = taken(plan)
    for trial_id in scheduled:
        finish(plan, trial_id, lambda _: 0.5)
        plan.ended(trial_id)
    for assignment in [*again, *taken(begun(now, tmp_path / "sweep"))]:  # a further generation too
        assert assignment.config.id == assignment.trial_id
        assert assignment.config.data_dir == str(tmp_path / "now")
        assert getattr(assignment.config, "source_net") == str(tmp_path / "now" / "net.pt")  # noqa: B009
    assert {assignment.trial_id for assignment in again} == set(scheduled)


@pytest.mark.parametrize("fields", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("devices", [("cuda", "cpu"), ("cpu", "auto"), ("auto", "cpu")], ids="->".join)
def test_a_scheduled_trial_runs_on_the_device_that_the_space_gives_now(
    devices: tuple[str, str], fields: dict[str, Any], tmp_path: Path
) -> None:
    """The space's device alone is looked for before the run."""
    trial = {**NAMED, "prune": {"epochs": 4, "schedule": "constant"}, "mask_schedule": "constant"}
    before, now = (
        make_space(trial={**trial, **({} if device == "auto" else {"device": device})}, grid={"seed": [0, 1]}, **fields)
        for device in devices
    )
    scheduled = taken(begun(before, tmp_path / "sweep"))
    again = taken(begun(now, tmp_path / "sweep"))
    assert {assignment.trial_id for assignment in again} == {assignment.trial_id for assignment in scheduled}
    assert {assignment.config.device for assignment in scheduled} == {devices[0]}
    assert {assignment.config.device for assignment in again} == {devices[1]}


def test_a_trial_scheduled_before_files_were_hashed_is_given_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(build("tiny", num_classes=10, in_channels=1, seed=0).state_dict(), "net.pt")
    space = make_space(trial={**NAMED, "source_net": "net.pt"}, grid={"density": [0.2]})
    (first,) = taken(begun(space, tmp_path / "sweep"))
    path = tmp_path / "sweep/trials" / first.trial_id / "config.json"
    content = document(path)
    content["config"] |= {"source_net": "net.pt", "file_hashes": {}}
    content["id"] = parse(content["config"]).id
    write_document(path, content)
    path.parent.rename(path.parent.with_name(content["id"]))
    (again,) = taken(begun(space, tmp_path / "sweep"))
    assert again.trial_id == content["id"]
    assert getattr(again.config, "source_net") == str(tmp_path / "net.pt")  # noqa: B009
