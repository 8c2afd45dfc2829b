"""A short trial on small data in every layout of every data set."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import trials.data
from tests.trials import layouts
from tests.trials.data.test_cifar import pictures, write_pickles
from tests.trials.folders import assert_same_outcome, rows_of
from tests.trials.small_trials import folder_of, run_in
from trials.config.trial_config import TrialConfig
from trials.data import DATASETS
from trials.data.sets.imagenet import load_imagenet
from trials.methods.parsing import parse
from trials.running import progress


@pytest.fixture(autouse=True)
def private_cache_and_small_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trials.data, "_loaded", {})
    monkeypatch.setitem(DATASETS, "imagenet", partial(load_imagenet, crop_size=16, resize=18))


def pickles(name: str) -> Callable[[Path, pytest.MonkeyPatch], Path]:
    return lambda root, monkeypatch: write_pickles(root, name, monkeypatch)


def parquet(root: Path, _: object = None) -> Path:
    images = [layouts.encoded(image.transpose(1, 2, 0), "PNG") for image in pictures(8)]
    layouts.write_parquet(root / "train-00000-of-00001.parquet", images, [0, 1, 2, 3] * 2)
    layouts.write_parquet(root / "test-00000-of-00001.parquet", images[:4], [0, 1, 2, 3])
    return root


def tinyimagenet(layout: str) -> Callable[[Path, pytest.MonkeyPatch], Path]:
    return lambda root, _: layouts.write_tinyimagenet(root, layout)


LAYOUTS: dict[str, tuple[str, Callable[[Path, pytest.MonkeyPatch], Path]]] = {
    "cifar10, pickles": ("cifar10", pickles("CIFAR10")),
    "cifar10, Parquet": ("cifar10", parquet),
    "cifar100, pickles": ("cifar100", pickles("CIFAR100")),
    "cifar100, Parquet": ("cifar100", parquet),
    "any, Parquet": ("parquet", parquet),
    "tinyimagenet, official": ("tinyimagenet", tinyimagenet("official")),
    "tinyimagenet, rearranged": ("tinyimagenet", tinyimagenet("classes")),
    "tinyimagenet, rearranged by BiP": ("tinyimagenet", tinyimagenet("moved")),
    "tinyimagenet, Parquet": ("tinyimagenet", lambda root, _: layouts.write_tinyimagenet_parquet(root)),
    "any, folders": ("folder", lambda root, _: layouts.write_folders(root)),
    "imagenet, folders": ("imagenet", lambda root, _: layouts.write_imagenet(root)),
    "imagenet, Parquet": ("imagenet", lambda root, _: layouts.write_imagenet_parquet(root)),
}


def config_for(dataset: str, folder: Path, **fields: object) -> TrialConfig:
    recipe = {"epochs": 1, "batch_size": 2, "lr": 0.01}
    trial = {"method": "dense", "model": "tiny", "train": recipe, "val_fraction": 0.25, "device": "cpu"}
    return parse({**trial, "dataset": dataset, "data_dir": str(folder), **fields})


def test_every_data_set_has_a_layout_here() -> None:
    assert {dataset for dataset, _ in LAYOUTS.values()} == DATASETS.keys() - {"digits"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_trial_runs(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, write = LAYOUTS[layout]
    config = config_for(dataset, write(tmp_path / "data", monkeypatch))
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    rows = rows_of(folder_of(config, tmp_path))["epochs"]
    assert [row["epoch"] for row in rows] == [1]
    for figure in ("train_loss", "val_loss", "test_loss"):
        assert math.isfinite(rows[0][figure])
    assert state.result["data"] == trials.data.load_data(dataset, config.data_dir).fingerprint
    assert state.result["flops"] > 0


def test_streamed_data_resume_in_mid_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_for("imagenet", layouts.write_imagenet(tmp_path / "data"))
    assert run_in(tmp_path / "whole", config).status == "complete"
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    statuses = []
    while not statuses or statuses[-1] == "preempted":
        assert len(statuses) < 10, "it makes no progress"
        statuses.append(run_in(tmp_path / "parts", config, should_stop=lambda: True).status)
    assert statuses[-1] == "complete"
    assert len(statuses) > 4  # five steps, stopped after each
    assert_same_outcome(folder_of(config, tmp_path / "parts"), folder_of(config, tmp_path / "whole"))
