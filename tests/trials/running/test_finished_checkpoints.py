"""A finished trial keeps one checkpoint, a shared trial two; what is damaged is computed again, never used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.trials.folders import assert_same_outcome, checkpoint_of, rows_of, same, state_of, the_stage, timeless
from tests.trials.methods.test_segments import member
from tests.trials.small_trials import RECIPE, config_of, folder_of, run_in
from trials.storage.rows import Row
from trials.storage.trial_folder import Attempt, TrialFolder

pytestmark = [
    pytest.mark.fault("checkpoint-damaged", "finished-checkpoint-damaged"),
    pytest.mark.usefixtures("few_digits"),
]


def checkpoints(path: Path) -> list[Path]:
    return sorted((path / "checkpoint").glob("*.pt"))


def rot(path: Path) -> None:
    """Damage the last checkpoint of a folder."""
    name = state_of(path).commits[-1].checkpoint
    assert name is not None
    (path / "checkpoint" / name).write_bytes(b"rot")


def after_one(step: int, _row: Row) -> bool:
    """A search that stops a trial after its first epoch."""
    return step == 1


@contextmanager
def counted_commits() -> Iterator[list[str]]:
    """The folders' names of all commits made meanwhile."""
    original, made = Attempt.commit, []

    def commit(self: Attempt, **given: Any) -> None:
        original(self, **given)
        made.append(self.folder.path.name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Attempt, "commit", commit)
        yield made


@pytest.mark.parametrize(("name", "stages"), [("bip", 2), ("one_shot", 1), ("one_shot-filter", 1), ("imp-weights", 2)])
def test_every_stage_ends_with_one_commit_and_the_last_one_stays(tmp_path: Path, name: str, stages: int) -> None:
    config = config_of(name)
    with counted_commits() as made:
        assert run_in(tmp_path, config).status == "complete"
    assert made.count(config.id) == stages
    assert made.count(the_stage(tmp_path).name) == 1
    folder = folder_of(config, tmp_path)
    assert len(state_of(folder).commits) == len(checkpoints(folder)) == 1
    assert len(list((folder / "rows").iterdir())) == len(state_of(folder).commits[-1].rows)


def test_commits_at_every_step_leave_one_of_a_trial_and_two_of_a_shared_one(tmp_path: Path) -> None:
    often = config_of("bip", checkpoint_every_s=0.0)
    assert run_in(tmp_path, often).status == "complete"
    assert len(checkpoints(folder_of(often, tmp_path))) == 1
    assert len(state_of(the_stage(tmp_path)).commits) == len(checkpoints(the_stage(tmp_path))) == 2


def test_a_pruned_trial_keeps_one(tmp_path: Path) -> None:
    config = config_of("bip", checkpoint_every_s=0.0)
    assert run_in(tmp_path, config, is_over=after_one).status == "pruned"
    folder = folder_of(config, tmp_path)
    assert len(state_of(folder).commits) == len(checkpoints(folder)) == 1
    before = state_of(folder).result, timeless(rows_of(folder)), checkpoint_of(folder)["net"]
    rot(folder)
    said: list[str] = []
    again = run_in(tmp_path, config, is_over=after_one, warn=said.append)
    assert (again.status, again.attempt) == ("pruned", 2)
    assert len(said) == 1
    assert again.result == before[0]
    assert timeless(rows_of(folder)) == before[1]
    assert same(checkpoint_of(folder)["net"], before[2])


def test_rows_of_a_trial_with_a_damaged_checkpoint_are_still_read(tmp_path: Path) -> None:
    config = config_of("one_shot")
    run_in(tmp_path, config)
    folder = folder_of(config, tmp_path)
    before = rows_of(folder)
    rot(folder)
    assert TrialFolder(folder).verify() == []  # a sweep looks at checkpoints when it uses them, or by --verify
    assert state_of(folder).status == "complete"
    assert rows_of(folder) == before


def test_a_shared_trial_goes_back_to_its_commit_before(tmp_path: Path) -> None:
    longer = {**RECIPE, "epochs": 3}
    first, other = (config_of("bip", density=d, pretrain=longer, checkpoint_every_s=0.0) for d in (0.2, 0.5))
    run_in(tmp_path / "damaged", first)
    run_in(tmp_path / "whole", other)
    stage = the_stage(tmp_path / "damaged")
    rot(stage)
    said: list[str] = []
    trained: list[Any] = []
    host = {"warn": said.append, "report": lambda row: trained.append((row["stage"], row["epoch"]))}
    assert run_in(tmp_path / "damaged", other, **host).status == "complete"
    (line,) = said
    assert "damaged" in line
    assert "set aside" in line
    assert [epoch for stage_name, epoch in trained if stage_name == "pretrain"] == [3]  # only what the commit held
    assert_same_outcome(folder_of(other, tmp_path / "damaged"), folder_of(other, tmp_path / "whole"))
    assert same(checkpoint_of(stage)["net"], checkpoint_of(the_stage(tmp_path / "whole"))["net"])


@pytest.mark.parametrize("damaged", [(2,), (1, 2), (1,)])
def test_a_segment_continues_an_ancestor_that_is_whole(tmp_path: Path, damaged: tuple[int, ...]) -> None:
    ends, rates = [1, 2, 3], [0.1, 0.2, 0.05]
    chain = [member("bip", ends[:n], rates[:n]) for n in (1, 2, 3)]
    for config in chain[:2]:
        run_in(tmp_path / "on", config)
        assert len(checkpoints(folder_of(config, tmp_path / "on"))) == 1
    for number in damaged:
        rot(folder_of(chain[number - 1], tmp_path / "on"))
    epochs: list[int] = []
    host = {"report": lambda row: epochs.append(row["epoch"]) if row["stage"] == "prune" else None}
    assert run_in(tmp_path / "on", chain[2], **host).status == "complete"
    whole = max({1, 2} - {*damaged}, default=0)
    assert [epoch for epoch in epochs if epoch] == [*range(whole + 1, 4)]
    run_in(tmp_path / "whole", chain[2])
    assert_same_outcome(folder_of(chain[2], tmp_path / "on"), folder_of(chain[2], tmp_path / "whole"))


def test_a_pruned_trial_whose_state_is_lost_starts_anew(tmp_path: Path) -> None:
    config, notes = config_of("one_shot", finetune={"epochs": 3, "batch_size": 128}), list[str]()
    assert run_in(tmp_path, config, is_over=lambda step, row: True).status == "pruned"
    folder = TrialFolder(folder_of(config, tmp_path))
    state = folder.state()
    assert state is not None
    rows = folder.rows(state.commits[-1])["epochs"]
    folder.state_path.unlink()
    assert run_in(tmp_path, config, is_over=lambda step, row: True, warn=notes.append).status == "pruned"
    again = folder.state()
    assert again is not None
    assert [row["val_accuracy"] for row in folder.rows(again.commits[-1])["epochs"]] == [
        row["val_accuracy"] for row in rows
    ]
    assert "its state is lost, and its search had ended it within a stage: it starts anew" in notes
