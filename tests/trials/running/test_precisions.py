"""``precision: auto`` is bf16 on CUDA and float32 on a CPU, under one trial id: shared trials of both stay apart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trials.folders import assert_same_outcome, checkpoint_of, rows_of, same, state_of
from tests.trials.sealed_files import document, without_checksum, write_document
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.config.trial_config import TrialConfig
from trials.data import load_data
from trials.errors import UserError
from trials.methods import segments
from trials.methods.parsing import parse
from trials.running import progress
from trials.running.shared_trials import refuse_other_content, shared_by
from trials.training import device
from trials.training.build import build_net
from trials.training.network_copy import NetworkCopy, forget

pytestmark = [pytest.mark.fault("device-kind"), pytest.mark.usefixtures("few_digits")]


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this machine's CPU a device on which ``auto`` is the given precision."""
    return lambda precision: monkeypatch.setitem(device.AUTO_PRECISION, "cpu", precision)


def stages(storage: Path) -> dict[str, Path]:
    """The folders of shared trials, by method and what stands behind the fingerprint."""
    found = {}
    for path in (storage / "stages").iterdir():
        method, _, _, *precision = path.name.split("-")
        found["-".join([method, *precision])] = path
    return found


def precisions(path: Path) -> list[str]:
    return [found["precision"] for found in state_of(path).environments]


def started_from(path: Path) -> set[str]:
    return {row["stage_id"] for row in rows_of(path)["epochs"] if row["stage_id"] is not None}


SHARED = {"dense": ["dense"], "one_shot": ["dense"], "bip": ["dense"], "regrow-rule": ["dense", "prune_iterative"]}
"""Methods that copy or start from a dense trial, or from a sparse one with a dense one of its own."""


@pytest.mark.parametrize(
    ("name", "first"), [("dense", "float32"), ("one_shot", "bf16"), ("bip", "float32"), ("regrow-rule", "bf16")]
)
def test_no_trial_starts_from_a_shared_trial_of_another_precision(
    name: str, first: str, tmp_path: Path, on: Callable[[str], None]
) -> None:
    config = config_of(name)
    for precision in (first, "bf16" if first == "float32" else "float32"):
        shutil.rmtree(tmp_path / "sweep", ignore_errors=True)  # another sweep of the same storage
        for storage in (tmp_path, tmp_path / precision):
            on(precision)
            assert run_in(storage, config).status == "complete"
        folder, alone = folder_of(config, tmp_path), folder_of(config, tmp_path / precision)
        assert_same_outcome(folder, alone)
        assert precisions(folder) == [precision]
        suffix = "" if precision == "float32" else "-bf16"
        own = {path.name for kind, path in stages(tmp_path).items() if kind.endswith("bf16") == bool(suffix)}
        assert started_from(folder) <= own
        assert all(name.endswith(suffix) for name in own)
    assert stages(tmp_path).keys() == {f"{method}{suffix}" for method in SHARED[name] for suffix in ("", "-bf16")}
    nets = [checkpoint_of(path)["net"] for kind, path in stages(tmp_path).items() if kind.startswith("dense")]
    assert not same(*nets)


def test_a_precision_that_was_given_is_in_the_name_already(tmp_path: Path, on: Callable[[str], None]) -> None:
    on("bf16")
    for precision in ("float32", "bf16", "float64"):
        storage = tmp_path / precision
        assert run_in(storage, config_of("one_shot", precision=precision)).status == "complete"
        assert stages(storage).keys() == {"dense"}


def test_the_name_of_a_folder_on_a_cpu_is_the_old_one(tmp_path: Path) -> None:
    config = config_of("one_shot", device="cpu")
    (shared,) = shared_by(config).values()
    assert run_in(tmp_path, config).status == "complete"
    fingerprint = state_of(folder_of(config, tmp_path)).result["data"]
    assert stages(tmp_path)["dense"].name == f"{shared.id}-{fingerprint[:6]}"


def test_what_an_older_version_trained_in_bf16_under_the_old_name_is_left_alone(
    tmp_path: Path, on: Callable[[str], None]
) -> None:
    config = config_of("one_shot")
    on("bf16")
    run_in(tmp_path, config)
    older = stages(tmp_path)["dense-bf16"].rename(tmp_path / "stages" / "older")
    older = older.rename(older.with_name(started_from(folder_of(config, tmp_path)).pop().removesuffix("-bf16")))
    for name in ("state.json", "config.json"):
        without_checksum(older / name)
    before = {path: path.read_bytes() for path in older.rglob("*") if path.is_file()}
    for precision in ("float32", "bf16"):
        shutil.rmtree(tmp_path / "sweep")
        on(precision)
        run_in(tmp_path, config)
        assert started_from(folder_of(config, tmp_path)) == {f"{older.name}-{precision}"}
        assert precisions(folder_of(config, tmp_path)) == [precision]
    assert {path: path.read_bytes() for path in older.rglob("*") if path.is_file()} == before


def test_a_shared_trial_of_a_version_that_did_not_say_its_precision_counts_as_float32(tmp_path: Path) -> None:
    config = config_of("one_shot")
    run_in(tmp_path, config)
    path = stages(tmp_path)["dense"] / "state.json"
    content = document(path)
    del content["environments"]
    write_document(path, content)
    shutil.rmtree(tmp_path / "sweep")
    assert run_in(tmp_path, config).status == "complete"
    assert stages(tmp_path).keys() == {"dense"}
    assert state_of(path.parent).attempt == 1


# --- a trial that goes on elsewhere


def stop_at(storage: Path, config: TrialConfig, stage: str) -> None:
    """Run a trial until it has a row of a stage; it is preempted there."""
    seen: list[str] = []
    state = run_in(storage, config, report=lambda row: seen.append(row["stage"]), should_stop=lambda: stage in seen)
    assert state.status == "preempted"


@pytest.mark.parametrize("name", ["one_shot", "bip", "imp-weights"])
def test_its_checkpoint_goes_on_and_its_environments_are_both(
    name: str, tmp_path: Path, on: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    config = config_of(name)
    on("bf16")
    stop_at(tmp_path, config, {"one_shot": "finetune", "bip": "prune", "imp-weights": "train"}[name])
    before = rows_of(folder_of(config, tmp_path))["epochs"]
    on("float32")
    assert run_in(tmp_path, config).status == "complete"
    assert precisions(folder_of(config, tmp_path)) == ["bf16", "float32"]
    assert rows_of(folder_of(config, tmp_path))["epochs"][: len(before)] == before
    assert stages(tmp_path).keys() == {"dense-bf16"}


def test_a_trial_that_begins_anew_elsewhere_takes_the_shared_trial_of_its_own_precision(
    tmp_path: Path, on: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    config = config_of("one_shot")
    on("bf16")
    assert run_in(tmp_path, config, should_stop=lambda: True).status == "preempted"
    assert not state_of(folder_of(config, tmp_path)).commits
    on("float32")
    assert run_in(tmp_path, config).status == "complete"
    assert {name.endswith("-bf16") for name in started_from(folder_of(config, tmp_path))} == {False}


def test_a_segment_counts_the_precision_of_its_ancestor(tmp_path: Path, on: Callable[[str], None]) -> None:
    first = config_of("bip", prune={"epochs": 2, "batch_size": 128, "schedule": "constant", "lr": 0.1}, until_epoch=1)
    on("bf16")
    run_in(tmp_path, first)
    second = segments.child(first, {"prune.lr": 0.05}, 2)
    on("float32")
    assert run_in(tmp_path, second).status == "complete"
    assert precisions(folder_of(second, tmp_path)) == ["bf16", "float32"]
    assert stages(tmp_path).keys() == {"dense-bf16"}


# --- before anything starts


@pytest.mark.parametrize("suffix", ["", "-bf16", "-float32"])
def test_another_content_is_refused_under_every_name(suffix: str, tmp_path: Path) -> None:
    (shared,) = shared_by(config_of("one_shot")).values()
    folder = tmp_path / f"{shared.id}-123456{suffix}"
    folder.mkdir()
    content = shared.model_dump(mode="json")
    content["train"]["momentum"] = 0.5
    write_document(folder / "config.json", {"id": shared.id, "samples": [], "config": content})
    with pytest.raises(UserError, match=f"shared trial {folder.name} was made with 0.5 as its train.momentum"):
        refuse_other_content(tmp_path, [shared], "1234567890")
    refuse_other_content(tmp_path, [shared.model_copy(update={"precision": "float32"})], "1234567890")


def test_new_fields_are_no_part_of_a_name_but_where_they_are_set() -> None:
    config = config_of("bip")
    ids = {parse({**config.model_dump(), name: True}).id for name in ("tf32", "deterministic")}
    assert len({config.id, *ids}) == 3
    assert parse({**config.model_dump(), "tf32": False, "deterministic": False}).id == config.id


@pytest.mark.parametrize("precision", ["auto", "float32", "bf16"])
def test_tf32_is_for_what_is_computed_in_float32(precision: str) -> None:
    config_of("bip", precision=precision, tf32=True)
    with pytest.raises(UserError, match="tf32 is True, but precision 'float64' computes nothing in float32: leave one"):
        config_of("bip", precision="float64", tf32=True)


@pytest.mark.parametrize("there", ["float32", "bf16"])
def test_a_piece_on_another_kind_of_device_computes_in_the_precision_of_its_trial(
    there: str, on: Callable[[str], None]
) -> None:
    config = config_of("regrow")
    on("bf16" if there == "float32" else "float32")
    net = build_net(config, load_data(*config.data_key), torch.device("cpu"))
    copy, images = NetworkCopy.of(config, net), torch.rand(4, 1, 8, 8)
    on(there)
    other = build_net(config, load_data(*config.data_key), torch.device("cpu"))
    forget()
    assert torch.equal(copy.restore().net.logits(images), net.logits(images))
    assert not torch.equal(other.logits(images), net.logits(images))
    forget()
