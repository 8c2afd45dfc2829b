"""Episodes run in parallel on Ray give bit-identical rewards, rows and network to sequential ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.execution.on_ray.parallel_tasks import bundles, parallel_map
from sweeper.space.load import from_document
from trials.errors import Preempted
from trials.methods.parsing import parse
from trials.running.trial import TrialHost, run
from trials.storage.trial_folder import TrialFolder

CONFIG: dict[str, Any] = {
    "method": "regrow",
    "dataset": "digits",
    "model": "tiny",
    "pretrain": {"epochs": 1},
    "prune": {"prune_fraction": 0.9, "finetune": {"epochs": 1}},
    "controller": {"episodes": 3, "episodes_in_flight": 2, "lr": 0.01},
    "episode": {"epochs": 1, "data_fraction": 0.2},
    "finetune": None,
}
RESOURCES = {"CPU": 1.0}


pytestmark = pytest.mark.usefixtures("ray")


def rows(storage: Path, map_: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    config = parse(CONFIG)
    state = run(config, storage / "trials" / config.id, TrialHost(storage / "stages", map=map_))
    assert state.status == "complete", state.error
    found = TrialFolder(storage / "trials" / config.id).rows(state.commits[-1])["allocations"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found], state.result


def never() -> bool:
    return False


def always() -> bool:
    return True


def test_tasks_give_the_same_results_as_this_process(tmp_path: Path) -> None:
    counted: list[int] = []
    tasks = parallel_map(RESOURCES, never)

    def watched(work: Any, shared: Any, items: Any) -> list[Any]:
        counted.append(len(items))
        return list(tasks(work, shared, items))

    assert rows(tmp_path / "tasks", watched) == rows(tmp_path / "here", None)
    assert counted == [2, 1]


def work(shared: int, item: int, should_stop: Callable[[], bool]) -> tuple[int, int]:
    if should_stop():
        raise Preempted
    return shared, item


def failing(shared: int, item: int, should_stop: Callable[[], bool]) -> int:
    if item == 2:
        raise ValueError("piece 2 is broken")
    return item


def test_results_are_in_the_order_of_the_pieces() -> None:
    assert parallel_map(RESOURCES, never)(work, 7, [3, 1, 2]) == [(7, 3), (7, 1), (7, 2)]


def test_a_requested_stop_is_not_a_failure() -> None:
    with pytest.raises(Preempted):
        parallel_map(RESOURCES, always)(work, 7, [1, 2])
    with pytest.raises(ValueError, match="piece 2 is broken"):
        parallel_map(RESOURCES, never)(failing, 7, [1, 2])


def slow_but_for_the_first(folder: Path, item: int, should_stop: Callable[[], bool]) -> None:
    if item == 1:
        raise ValueError("piece 1 is broken")
    time.sleep(1)
    (folder / f"{item}").touch()


def test_nothing_still_runs_when_a_piece_has_failed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="piece 1 is broken"):
        parallel_map(RESOURCES, never)(slow_but_for_the_first, tmp_path, [1, 2, 3])
    assert {path.name for path in tmp_path.iterdir()} == {"2", "3"}


def test_a_trial_has_a_bundle_for_each_of_its_pieces() -> None:
    assert parse(CONFIG).parallel_pieces == 2
    assert parse({**CONFIG, "allocation": "greedy"}).parallel_pieces == 1
    assert bundles({"CPU": 2.0, "GPU": 0.5}, 3) == [{"CPU": 2.0, "GPU": 0.5}] * 3


def test_more_pieces_than_there_is_room_for_are_refused() -> None:
    from sweeper.execution.on_ray.requirements import require_room
    from trials.errors import UserError

    trial = {**CONFIG, "controller": {"episodes": 4, "episodes_in_flight": 3}}
    space = from_document({"name": "parallel", "trial": trial, "grid": {"seed": [0]}})
    with pytest.raises(UserError, match="3 pieces at once, each with as much, but there is room for 2"):
        require_room(space, None)
