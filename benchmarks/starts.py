"""How long a trial takes to start: reading what it starts from once per process, and not drawing what it overwrites."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import count
from pathlib import Path
from unittest import mock

import torch

from benchmarks.timing import pair
from trials import models
from trials.config.trial_config import TrialConfig
from trials.methods.parsing import parse
from trials.running.shared_trials import Obtained, obtain
from trials.running.trial import TrialHost, run
from trials.storage.read_once import SOURCES
from trials.storage.trial_folder import TrialFolder
from trials.training.build import build_net

MODELS = ("tiny", "resnet20s", "resnet18", "vgg16", "resnet50", "wrn_28_10")
PRUNED = {"method": "one_shot", "dataset": "digits", "pretrain": {"epochs": 0}, "finetune": None}


def _config(model: str, density: float) -> TrialConfig:
    return parse({**PRUNED, "model": model, "density": density})


def _run(config: TrialConfig, storage: Path) -> None:
    assert run(config, storage / "sweep" / "trials" / config.id, TrialHost(storage / "stages")).status == "complete"


def reading(model: str, storage: Path) -> str:
    """A shared trial that is read from the disk, against one that the process keeps."""
    config = _config(model, 0.5)
    _run(config, storage)
    (folder,) = (storage / "stages").iterdir()

    def read() -> Obtained:
        return obtain(TrialFolder(folder), lambda: None, lambda: False)  # type: ignore[arg-type, return-value]

    def read_anew() -> Obtained:
        SOURCES.clear()
        return read()

    return pair(read, read_anew).line(f"{model}, its shared trial", "kept", "read", "<= 0.5")


def drawing(model: str) -> str:
    """A model built without initial values, against one with them."""
    build = partial(models.build, model, num_classes=10, in_channels=3, seed=0)
    return pair(partial(build, values=False), build).line(f"{model}, built", "without values", "with", "<= 0.5 of 10 M")


def trivial(model: str, storage: Path) -> str:
    """A trivial trial, against one that reads its source from the disk and draws its network first."""
    number = count(1)

    def trial() -> None:
        _run(_config(model, round(0.95 - next(number) * 1e-3, 6)), storage)

    def as_before() -> None:
        SOURCES.clear()
        with mock.patch(
            "trials.running.trial.build_net", lambda config, raw, device, _: build_net(config, raw, device)
        ):
            trial()

    return pair(trial, as_before, rounds=25, warmup=2).line(f"{model}, a trial", "now", "as before", "<= 1")


def main() -> None:
    torch.set_num_threads(1)
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            print(reading(model, Path(folder)), flush=True)
        print(drawing(model), flush=True)
    for model in ("tiny", "resnet20s", "resnet18"):
        with tempfile.TemporaryDirectory() as folder:
            print(trivial(model, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
