"""A shared trial that another default of the code has made is refused before anything starts, once for all trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import COMPLETE, main
from tests.sweeper.command_line import wrong
from tests.trials.small_trials import BASE, CONFIGS
from trials.__main__ import main as run_one
from trials.config.trial_config import TrialConfig
from trials.data import load_data
from trials.dotted_paths import set_at
from trials.methods.parsing import parse
from trials.running import shared_trials
from trials.running.shared_trials import shared_by, shared_name

STAGES = Path("results/stages")
METHODS = ["dense", "one_shot", "imp-weights", "bip", "greg1", "regrow", "single_layer", "dwp"]
"""Methods with a dense source, with a sparse one that has a dense one itself, with references, and dense training."""


def leave(shared: TrialConfig, path: str | None = None, value: Any = None, fingerprint: str | None = None) -> Path:
    """Write the ``config.json`` of a shared trial with another value at ``path``, as another version left it."""
    content = shared.model_dump(mode="json")
    if path is not None:
        set_at(content, path, value)
    folder = STAGES / shared_name(shared.id, fingerprint or load_data(*shared.data_key).fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"schema": 1, "id": shared.id, "config": content, "samples": []}))
    return folder


def written(name: str, **space: Any) -> TrialConfig:
    """Write a space and a config of the same trial; the config."""
    fields = {**BASE, **CONFIGS[name]}
    Path("small.yaml").write_text(yaml.safe_dump({"trial": fields, "grid": {"seed": [3, 4]}, **space}))
    Path("config.yaml").write_text(yaml.safe_dump(fields))
    return parse(fields)


def everything() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}


WAYS: dict[str, Callable[[], int]] = {
    "run": lambda: main(["--space", "small.yaml"]),
    "dry run": lambda: main(["--space", "small.yaml", "--dry-run"]),
    "one trial": lambda: run_one(["config.yaml"]),
}


def cases() -> list[tuple[str, int]]:
    """Every shared trial of every method, by its number."""
    counts = {"regrow": 2, "single_layer": 2, "dwp": 2}
    return [(name, number) for name in METHODS for number in range(counts.get(name, 1))]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "number"), cases())
def test_every_shared_trial_of_another_content_is_refused_before_anything_starts(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], name: str, number: int, way: str
) -> None:
    shared = list(shared_by(written(name)).values())[number]
    recipe = "train" if shared.method == "dense" else "pretrain"
    folder = leave(shared, f"{recipe}.momentum", 0.5)
    before = everything()
    assert WAYS[way]() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in (
        f"shared trial {folder.name} was made with 0.5 as its {recipe}.momentum, but the default is 0.9 now",
        "set the earlier value, or give another --storage",
    ):
        assert part in said
    assert (ran, everything()) == ([], before)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("path", "value"), [("augment", False), ("train.lr", 3), ("train.momentum", 0.5)])
def test_a_changed_default_of_any_field_is_refused(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], path: str, value: Any, way: str
) -> None:
    (shared,) = shared_by(written("bip")).values()
    leave(shared, path, value)
    assert WAYS[way]() == 2
    assert f"was made with {value} as its {path}, but the default is " in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["same", "no config", "damaged config", "other data", "not needed"])
def test_what_is_not_taken_or_not_known_is_not_refused(here: Path, ran: list[str], kind: str) -> None:
    (shared,) = shared_by(written("bip")).values()
    if kind == "other data":
        leave(shared, "train.momentum", 0.5, fingerprint="0" * 16)
    elif kind == "not needed":
        leave(shared.model_copy(update={"seed": 99}), "train.momentum", 0.5)
    else:
        path = leave(shared) / "config.json"
        if kind != "same":
            path.unlink()
        if kind == "damaged config":
            path.write_text("{")
    assert main(["--space", "small.yaml"]) == COMPLETE
    assert len(ran) == 2


def test_writing_the_earlier_value_or_another_storage_is_the_way_out(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (shared,) = shared_by(written("bip")).values()
    leave(shared, "train.momentum", 0.5)
    wrong(capsys, ["--space", "small.yaml"], "train.momentum", "(the trial at seed=3)")
    assert main(["--space", "small.yaml", "--set", "trial.pretrain.momentum=0.5"]) == COMPLETE
    assert main(["--space", "small.yaml", "--storage", "elsewhere"]) == COMPLETE
    assert len(ran) == 4


def test_the_shared_trial_of_a_searched_training_is_found(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = written("bip", search={"pretrain.momentum": {"choice": [0.9, 0.8]}}, samples=2)
    set_at(content := config.model_dump(mode="json"), "pretrain.momentum", 0.8)
    (shared,) = shared_by(parse(content)).values()
    leave(shared, "augment", False)
    wrong(capsys, ["--space", "small.yaml", "--dry-run"], "augment", "(the trial at seed=3, pretrain.momentum=0.8)")


def test_segments_of_dense_training_share_nothing(here: Path, ran: list[str]) -> None:
    pbt = {"population": 2, "interval": 1, "generations": 2}
    config = written("dense", search={"train.lr": {"loguniform": [0.01, 0.1]}}, pbt=pbt)
    for rate in (0.01, 0.1):
        set_at(content := config.model_dump(mode="json"), "train.lr", rate)
        leave(parse(content), "augment", False)
    assert main(["--space", "small.yaml", "--dry-run"]) == COMPLETE


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_the_driver_does_not_know_the_precision_and_compares_the_shared_trials_of_all(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], precision: str, way: str
) -> None:
    (shared,) = shared_by(written("bip")).values()
    folder = leave(shared, "train.momentum", 0.5)
    folder = folder.rename(folder.with_name(f"{folder.name}-{precision}"))
    assert WAYS[way]() == 2
    assert f"shared trial {folder.name} was made with 0.5 as its train.momentum" in capsys.readouterr().err
    assert ran == []


def test_each_is_compared_once_however_many_trials_need_it(
    here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    densities = [round(0.01 + i / 1000, 3) for i in range(300)]
    for shared in shared_by(written("bip", grid={"seed": [3, 4], "density": densities})).values():
        leave(shared)
    read: list[Path] = []
    compare = shared_trials._compare

    def noting(folder: Path, config: TrialConfig) -> None:
        read.append(folder)
        compare(folder, config)

    monkeypatch.setattr(shared_trials, "_compare", noting)
    assert main(["--space", "small.yaml", "--dry-run"]) == COMPLETE
    assert len(read) == 1  # the shared trial of the other seed is not there
