"""A source is read once per process, each trial starts from it as if it was read anew, and no trial changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.folders import assert_same_outcome, state_of, the_stage
from tests.trials.kept_sources import assert_changes_nothing_kept, counted_reads
from tests.trials.small_trials import config_of, folder_of, run_in
from trials import models
from trials.networks.named_files import resolved
from trials.storage import read_once
from trials.storage.read_once import SOURCES
from trials.storage.trial_folder import TrialFolder

pytestmark = [pytest.mark.fault("shared-trial-damaged"), pytest.mark.usefixtures("few_digits", "nothing_kept")]


SOME = ("bip", "hydra", "imp-weights-early", "one_shot-coupled", "prune_iterative", "finetune", "regrow-filter", "dwp")
"""Methods that write into masks, weights or snapshots in ways of their own; tests/products/test_sources.py has all."""


@pytest.fixture
def nothing_kept() -> None:
    SOURCES.clear()


def densities(name: str, *kept: float, **fields: Any) -> list[Any]:
    return [config_of(name, density=density, **fields) for density in kept]


def test_trials_that_start_from_a_shared_trial_read_its_files_once(tmp_path: Path) -> None:
    first, *others = [*densities("one_shot-filter", 0.3, 0.4, 0.6), *densities("bip", 0.2, 0.5), config_of("dense")]
    with counted_reads() as read:
        assert run_in(tmp_path, first).status == "complete"
        stage = the_stage(tmp_path)
        for config in others:
            assert run_in(tmp_path, config).status == "complete"
    assert the_stage(tmp_path) == stage
    files = [path for path in stage.rglob("*") if path.suffix in (".pt", ".parquet")]
    assert len(files) == 3
    assert [read[path] for path in files] == [1, 1, 1]
    assert read[stage / "state.json"] >= 1 + len(others)  # each trial asks whether it is still the same


def test_the_next_process_reads_it_anew(tmp_path: Path) -> None:
    first, second = densities("one_shot-filter", 0.3, 0.4)
    run_in(tmp_path, first)
    SOURCES.clear()  # as a new process begins
    with counted_reads() as read:
        run_in(tmp_path, second)
    (checkpoint,) = (the_stage(tmp_path) / "checkpoint").iterdir()
    assert read[checkpoint] == 1


def test_networks_that_a_stage_reads_are_sources_too(tmp_path: Path) -> None:
    """Of dwp: the victim, from which it starts, and its other surrogate."""
    with counted_reads() as read:
        for steps in (1, 2):
            assert run_in(tmp_path, config_of("dwp", steps=steps)).status == "complete"
    checkpoints = list((tmp_path / "stages").rglob("*.pt"))
    assert [read[path] for path in checkpoints] == [1, 1]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    torch.save(models.build("tiny", num_classes=10, in_channels=1, seed=5).state_dict(), path)
    return path


def test_a_source_net_is_read_once(tmp_path: Path, weights: Path) -> None:
    configs = [resolved(config) for config in densities("one_shot", 0.3, 0.4, 0.5, source_net=str(weights))]
    with counted_reads() as read:
        for config in configs:
            assert run_in(tmp_path, config).status == "complete"
    assert read[weights] == 1


def test_weights_of_torchvision_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    monkeypatch.setattr("trials.methods.starting.source_path", lambda source_net, model: weights)
    monkeypatch.setattr("trials.methods.starting._source", lambda config: None)
    with counted_reads() as read:
        for config in densities("one_shot", 0.3, 0.4, 0.5, source_net=str(weights)):
            assert run_in(tmp_path, config).status == "complete"
    assert read[weights] == 1


def test_a_trial_whose_groups_others_take_is_hashed_and_loaded_once(tmp_path: Path) -> None:
    assert run_in(tmp_path, config_of("l1-weight")).status == "complete"
    trial = folder_of(config_of("l1-weight"), tmp_path)
    fields = {"base_pr_model": str(trial), "stage_pr": None}
    configs = [resolved(config_of("l1-weight", **fields, seed=seed)) for seed in (4, 5)]
    SOURCES.clear()
    with counted_reads() as read:
        for config in configs:
            assert run_in(tmp_path, config).status == "complete"
    (checkpoint,) = (trial / "checkpoint").iterdir()
    assert read[checkpoint] == 2  # hashed, and loaded


def test_a_source_net_that_changes_is_noticed(tmp_path: Path, weights: Path) -> None:
    first, second = (resolved(c) for c in densities("one_shot", 0.3, 0.4, source_net=str(weights)))
    assert run_in(tmp_path, first).status == "complete"
    torch.save(models.build("tiny", num_classes=10, in_channels=1, seed=6).state_dict(), weights)
    state = run_in(tmp_path, second)
    assert state.status == "failed"
    assert "restore that file" in (state.error or {})["message"]


def test_a_source_net_whose_change_has_no_other_stamp_is_noticed(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an object store, whose times are whole seconds. A trial of the new content runs."""
    monkeypatch.setattr("trials.storage.read_once.stamp_of", lambda file: (0,))
    first, second = densities("one_shot", 0.3, 0.4, source_net=str(weights))
    assert run_in(tmp_path, resolved(first)).status == "complete"
    torch.save(models.build("tiny", num_classes=10, in_channels=1, seed=6).state_dict(), weights)
    assert run_in(tmp_path, resolved(second)).status == "complete"


def test_a_shared_trial_that_was_computed_again_is_read_again(tmp_path: Path) -> None:
    first, second = densities("one_shot-filter", 0.3, 0.4)
    run_in(tmp_path, first)
    stage = the_stage(tmp_path)
    (before,) = (stage / "checkpoint").iterdir()
    before.write_bytes(b"rot")
    assert TrialFolder(stage).verify(checkpoint=True)
    with counted_reads() as read:
        assert run_in(tmp_path, second).status == "complete"
    (after,) = (stage / "checkpoint").glob("*.pt")
    assert state_of(stage).attempt == 2
    assert (read[after], read[before]) == (1, 0)


def test_damage_to_what_is_kept_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage that does not change a file's times, as a failing disk makes it: the trial starts from what was read."""
    first, second = densities("one_shot-filter", 0.3, 0.4)
    for storage in ("damaged", "whole"):
        run_in(tmp_path / storage, first)
    (checkpoint,) = (the_stage(tmp_path / "damaged") / "checkpoint").iterdir()
    there, original = read_once.stamp_of(checkpoint), read_once.stamp_of
    checkpoint.write_bytes(b"rot")
    monkeypatch.setattr(read_once, "stamp_of", lambda file: there if file == checkpoint else original(file))
    for storage in ("damaged", "whole"):
        assert run_in(tmp_path / storage, second).status == "complete"
    assert state_of(the_stage(tmp_path / "damaged")).attempt == 1
    assert_same_outcome(folder_of(second, tmp_path / "damaged"), folder_of(second, tmp_path / "whole"))


@pytest.mark.parametrize("name", SOME)
def test_no_method_changes_what_is_kept(name: str, tmp_path: Path) -> None:
    assert_changes_nothing_kept(name, tmp_path)
