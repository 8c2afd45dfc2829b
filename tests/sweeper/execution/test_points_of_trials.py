"""Which point a trial belongs to, and what trackers call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.tune")

from sweeper.execution.on_ray.trackers.point import MOST_CHARACTERS, TrackedPoint, group_name, point_of
from sweeper.execution.on_ray.trackers.tensorboard_runs import MOST_NAME_BYTES, folder_name
from sweeper.folder.confirmations import Confirmation
from sweeper.folder.replicates import Replicate
from trials.storage.config_file import write_config


def sample(number: int, attrs: dict[str, Any] | None = None, cell: str = "density=0.5") -> dict[str, Any]:
    params = {"finetune.lr": 0.1}
    return {"cell": cell, "number": number, "grid": {"density": 0.5}, "params": params, "attrs": attrs or {}}


CONFIRMS = Confirmation("one_shot-0", {"seed": 7}).attrs()
ROLES: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "a point of one trial": ([sample(3)], "density=0.5 #3", "trial"),
    "a replicate": ([sample(3, Replicate({"seed": 1}).attrs())], "density=0.5 #3", "replicate"),
    "a confirmation": ([sample(3, CONFIRMS)], "density=0.5 #3", "confirmation"),
    "a segment": (
        [sample(9, {"pbt": {"member": 1, "generation": 2, "changes": {}}})],
        "density=0.5 member 1",
        "segment",
    ),
    "no cell": ([sample(0, cell="")], "#0", "trial"),
    "of several samples, the first": ([sample(5), sample(2)], "density=0.5 #2", "trial"),
    "of several cells, its own": ([sample(0, cell="a=1"), sample(5)], "density=0.5 #5", "trial"),
    "searched and confirmed": ([sample(1, CONFIRMS), sample(4)], "density=0.5 #4", "trial"),
}


@pytest.mark.parametrize("kind", ROLES)
def test_a_trial_belongs_to_the_point_of_its_sample(tmp_path: Path, kind: str) -> None:
    samples, name, role = ROLES[kind]
    write_config(tmp_path, "a", {}, samples)
    found = point_of(tmp_path, "density=0.5")
    assert (found.name, found.role) == (name, role)
    assert found.values == {"density": 0.5, "finetune.lr": 0.1}


def test_a_trial_without_a_config_belongs_to_none(tmp_path: Path) -> None:
    assert point_of(tmp_path, "density=0.5") == TrackedPoint()


def test_groups_of_two_sweeps_of_one_name_differ() -> None:
    assert group_name("small", "0123456789", "density=0.5 #3") == "small density=0.5 #3 (012345)"
    assert group_name("small", "a" * 8, "#3") != group_name("small", "b" * 8, "#3")
    long = [group_name("small", "0" * 8, f"{'x' * 200} #{number}") for number in range(3)]
    assert len(set(long)) == 3
    assert {len(name) for name in long} == {MOST_CHARACTERS}


def test_a_folder_of_any_point_can_be_made(tmp_path: Path) -> None:
    names = ["density=0.5 #3", "net=a/b:C #1", "..", "x" * 300 + " #1", "x" * 300 + " #2", "é" * 150 + " #0"]
    folders = [folder_name(name) for name in names]
    assert folders[:2] == ["density=0.5 #3", "net=a_b_C #1"]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert len(folder.encode()) <= MOST_NAME_BYTES
        (tmp_path / folder / "run").mkdir(parents=True)
    assert len(list(tmp_path.iterdir())) == len(names)
