"""Small sweeps of each kind of space, and commands that resume or extend them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import COMPLETE, main
from sweeper.folder.sweep_folder import SweepFolder
from tests.sweeper.command_line import wrong
from tests.trials.sealed_files import document, write_document

BASE: dict[str, Any] = {"method": "one_shot", "dataset": "few_digits", "model": "tiny", "pretrain": {"epochs": 1}}
SPACES: dict[str, dict[str, Any]] = {
    "plain": {"trial": {**BASE, "finetune": {"epochs": 1}}, "grid": {"density": [0.5]}},
    "searched": {
        "trial": {**BASE, "finetune": {"epochs": 1, "momentum": 0.8}},
        "grid": {"density": [0.5]},
        "search": {
            "pretrain.schedule": {"choice": ["constant", "cosine"]},
            "finetune.momentum": {"uniform": [0.1, 0.9], "when": {"pretrain.schedule": "cosine"}},
        },
        "enqueue": [{"pretrain.schedule": "constant"}, {"pretrain.schedule": "cosine"}],
        "sampler": "random",
        "samples": 2,
    },
    "conditional": {
        "trial": {**BASE, "finetune": {"epochs": 1}},
        "grid": {
            "density": [0.2, 0.5],
            "finetune.epochs": {"values": [1, 2], "when": {"density": 0.5}},
        },
    },
    "cases": {
        "trial": {**BASE, "finetune": {"epochs": 1}},
        "grid": {"density": [0.5, 0.2]},
        "cases": {"sparse": {"when": {"density": 0.2}, "trial": {"finetune": {"lr": 0.05}}}},
    },
    "population": {
        "trial": {**BASE, "finetune": {"epochs": 3}},
        "grid": {"density": [0.5]},
        "search": {"finetune.lr": {"loguniform": [0.01, 0.1]}},
        "pbt": {"population": 2, "interval": 1, "generations": 2},
    },
}
LARGER = {
    "plain": ["--set", "grid.density=[0.5, 0.2]"],
    "searched": ["--samples", "3"],
    "conditional": ["--set", "grid.density=[0.2, 0.5, 0.4]"],
    "cases": ["--set", "grid.density=[0.5, 0.2, 0.4]"],
    "population": ["--set", "pbt.generations=3"],
}


def every_way(folder: SweepFolder, kind: str) -> Iterator[list[str]]:
    """Command lines that resume and extend a sweep, first while it is finished, then while its trials are not."""
    for finished in (True, False):
        if not finished:
            unfinish(folder)
        yield from (command(kind, extends) for extends in (False, True))


def begin(kind: str, space: dict[str, Any] | None = None) -> SweepFolder:
    Path("small.yaml").write_text(yaml.safe_dump(space or SPACES[kind], sort_keys=False))
    assert main(["--space", "small.yaml"]) == COMPLETE
    return SweepFolder(Path("results/small"))


def unfinish(folder: SweepFolder) -> None:
    for record in folder.records():
        (record.folder.path / "state.json").unlink()


def command(kind: str, extends: bool, *more: str) -> list[str]:
    return ["--space", "small.yaml", *(LARGER[kind] if extends else []), *more]


def rewrite(folder: SweepFolder, trial: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder.trial_folder(trial) / "config.json"
    content = document(path)
    change(content)
    write_document(path, content)


def everything(folder: SweepFolder) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in Path(str(folder.path)).rglob("*")
        if path.is_file() and "lock" not in path.parts
    }


def refused(capsys: pytest.CaptureFixture[str], folder: SweepFolder, words: list[str], *parts: str) -> None:
    """The run and the dry run are refused alike, and nothing is written."""
    before = everything(folder)
    wrong(capsys, words, *parts, "--name")
    assert everything(folder) == before


def changed(kind: str, path: str, value: Any) -> dict[str, Any]:
    space = json.loads(json.dumps(SPACES[kind]))
    *parents, last = path.split("/")
    inner = space
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return dict(space)
