"""torch's process-wide switches: every trial sets its own, and gives back what it found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.folders import checkpoint_of, rows_of, same, state_of, the_stage, timeless
from tests.trials.recorded_graph import RecordedGraph
from tests.trials.small_trials import CONFIGS, config_of, folder_of, run_in
from trials import analysis
from trials.commands import profile
from trials.errors import UserError
from trials.methods.dense import fields_of_source
from trials.methods.registry import METHODS
from trials.methods.regrow.episodes import Bench, EpisodeRecipe, run_episode
from trials.running import environment, trial
from trials.running.shared_trials import shared_by
from trials.storage.rows import Row
from trials.training.arithmetic import arithmetic, arithmetic_of
from trials.training.graphs import Program
from trials.training.network_copy import NetworkCopy

pytestmark = pytest.mark.usefixtures("few_digits")


CPU, CUDA = torch.device("cpu"), torch.device("cuda")
"""The switches of CUDA can be set without a card."""


def switches() -> dict[str, Any]:
    cudnn = torch.backends.cudnn
    return {
        "products": torch.get_float32_matmul_precision(),
        "convolutions": cudnn.allow_tf32,
        "benchmark": cudnn.benchmark,
        "cudnn": cudnn.deterministic,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fills": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    }


def asked(tf32: bool, deterministic: bool) -> dict[str, Any]:
    """The switches inside a trial on CUDA."""
    return {
        "products": "high" if tf32 else "highest",
        "convolutions": tf32,
        "benchmark": not deterministic,
        "cudnn": deterministic,
        "deterministic": deterministic,
        "warns": False,
        "fills": False,
    }


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # monkeypatch takes it away again
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = switches()
    yield
    assert switches() == before


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("tf32", [False, True])
def test_cuda_computes_as_asked_inside_and_as_before_outside(tf32: bool, deterministic: bool) -> None:
    before = switches()
    with arithmetic(CUDA, tf32=tf32, deterministic=deterministic):
        assert switches() == asked(tf32, deterministic)
        for inner in ((False, False), (True, True), (tf32, not deterministic)):
            with arithmetic(CUDA, tf32=inner[0], deterministic=inner[1]):
                assert switches() == asked(*inner)
            assert switches() == asked(tf32, deterministic)
    assert switches() == before


def test_switches_come_back_after_an_error() -> None:
    before = switches()
    with pytest.raises(KeyError), arithmetic(CUDA, tf32=True, deterministic=True):
        raise KeyError
    assert switches() == before


def test_what_the_process_had_set_does_not_reach_a_trial_and_comes_back() -> None:
    before = switches()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    try:
        given = switches()
        for deterministic in (False, True):
            with arithmetic(CUDA, deterministic=deterministic):
                assert switches() == asked(False, deterministic)
            assert switches() == given
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision(before["products"])
        torch.backends.cudnn.benchmark = before["benchmark"]


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_cpu_leaves_the_switches_of_cuda_alone(deterministic: bool) -> None:
    before = switches()
    with arithmetic(CPU, tf32=True, deterministic=deterministic):
        assert switches() == {**before, "deterministic": deterministic, "fills": False}
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_every_trial_on_cuda_reserves_a_workspace_that_a_later_deterministic_one_can_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with arithmetic(CUDA):
        pass
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
    with arithmetic(CUDA):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:2:16:8"
    refused = pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG is ':4096:2:16:8': unset it")
    with refused, arithmetic(CUDA, deterministic=True):
        pass


def test_an_operation_without_a_deterministic_algorithm_is_named_with_the_way_out() -> None:
    with pytest.raises(UserError) as caught, arithmetic(CPU, deterministic=True):
        torch.zeros(2, 2).put_(torch.tensor([0]), torch.ones(1), accumulate=False)
    said = str(caught.value)
    assert said == (
        "deterministic is true, but put_ has no deterministic algorithm on cpu: leave deterministic out, or give "
        "device: cpu"
    )


def test_it_is_named_also_where_a_capture_has_failed_of_it() -> None:
    def step() -> None:
        raise RuntimeError("_histc_cuda does not have a deterministic implementation, but you set 'torch.use_")

    program = Program(step, RecordedGraph(), "a step", warm_up=0)
    named = pytest.raises(UserError, match="deterministic is true, but _histc_cuda has no deterministic algorithm on c")
    with named, arithmetic(CUDA, deterministic=True):
        program.run()


# --- in trials


def inside(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The switches at every report of trials that follow, as if they ran on CUDA."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(trial, "arithmetic_of", lambda config, device: arithmetic_of(config, CUDA))
    return seen


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("tf32", [False, True])
def test_a_trial_and_its_shared_trial_compute_as_the_config_says(
    tf32: bool, deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, before = inside(monkeypatch), switches()
    config = config_of("one_shot", tf32=tf32, deterministic=deterministic)

    def report(row: Row) -> None:
        seen.append({**switches(), "stage": row["stage"]})

    assert run_in(tmp_path, config, report=report).status == "complete"
    assert {found.pop("stage") for found in seen} == {"pretrain", "finetune"}
    assert all(found == asked(tf32, deterministic) for found in seen)
    assert switches() == before


def test_a_failed_trial_gives_the_switches_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside(monkeypatch)
    before = switches()

    def fails(row: Row) -> None:
        raise RuntimeError("scatter_add_cuda does not have a deterministic implementation, but you set 'torch.use")

    state = run_in(tmp_path, config_of("dense", deterministic=True, until_epoch=1), report=fails)
    assert (state.status, (state.error or {})["type"]) == ("failed", "UserError")
    assert "scatter_add_cuda has no deterministic algorithm on cuda" in (state.error or {})["message"]
    assert switches() == before


@pytest.mark.parametrize("name", CONFIGS)
def test_sources_and_references_compute_as_the_trial(name: str) -> None:
    config = config_of(name, tf32=True, deterministic=True)
    for shared in shared_by(config).values():
        assert (shared.tf32, shared.deterministic) == (True, True)
    assert {"tf32", "deterministic", "precision"} <= fields_of_source(config, type(config)).keys()
    assert METHODS[config.method](config).config.id != config_of(name).id


def test_a_piece_in_another_process_computes_as_its_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def regrown(bench: Bench, episode: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        raise KeyError

    monkeypatch.setattr(Bench, "regrown", regrown)
    for deterministic in (True, False):
        copy = NetworkCopy(config_of("regrow", deterministic=deterministic), b"", 1, "key", "data")
        with pytest.raises(KeyError):
            run_episode(Bench(copy, 0, EpisodeRecipe()), Any, lambda: False)  # type: ignore[arg-type]
    assert seen == [True, False]


def test_commands_on_stored_networks_compute_as_their_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def noting(*_: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        raise KeyError

    monkeypatch.setattr(analysis, "evaluate", noting)
    monkeypatch.setattr(profile, "measure", noting)
    for deterministic in (True, False):
        config = config_of("one_shot-filter", deterministic=deterministic)
        assert run_in(tmp_path, config).status == "complete"
        folder = folder_of(config, tmp_path)
        content = {"config": config.model_dump(mode="json")}
        (folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(KeyError):
            analysis.sparsity_accuracy([folder])
        with pytest.raises(KeyError):
            profile.profile(folder, CPU)
        (folder / "config.json").unlink()
        with pytest.raises(KeyError):
            profile.profile(folder, CPU)
    assert seen == [True, True, False, False, False, False]


def test_the_environment_says_how_cuda_computed_and_nothing_of_it_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("dense", tf32=True)
    assert run_in(tmp_path, config).status == "complete"
    assert {"tf32", "deterministic"}.isdisjoint(state_of(the_stage(tmp_path)).environments[0])
    monkeypatch.setattr(environment, "device_name", lambda device: "card")
    found = environment.environment_of(config, CUDA, 1, "c")
    assert (found["tf32"], found["deterministic"], found["precision"]) == (True, False, "bf16")


@pytest.mark.parametrize("name", ["bip", "adaptive_sparsity"])
def test_deterministic_changes_no_bit_on_a_cpu(name: str, tmp_path: Path) -> None:
    """tests/products/test_numerics.py asks this of every option of every method."""
    folders = [folder_of(config, tmp_path) for config in both(name, tmp_path)]
    rows = [timeless(rows_of(folder)) for folder in folders]
    for row in (row for tables in rows for table in tables.values() for row in table):
        row.pop("stage_id", None)
    assert same(*rows)
    assert same(*(checkpoint_of(folder)["net"] for folder in folders))


def both(name: str, storage: Path) -> Iterator[Any]:
    """Run a trial without and with deterministic algorithms; yield the configs."""
    for deterministic in (False, True):
        config = config_of(name, deterministic=deterministic, device="cpu")
        assert run_in(storage, config).status == "complete"
        yield config
