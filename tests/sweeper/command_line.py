"""Run the command line in this process, with trials that run here instead of on Ray."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper.cli import WRONG_INPUT, main
from sweeper.execution import on_ray

SMALL = """
about: a small one
trial: {method: one_shot, dataset: few_digits, model: tiny, pretrain: {epochs: 2}, finetune: {epochs: 1}}
grid: {density: [0.5, 0.2]}
search: {finetune.lr: {loguniform: [0.01, 0.1]}}
sampler: random
samples: 2
"""
SPACE = ["--space", "small.yaml"]


def put_in_place_of_ray(monkeypatch: pytest.MonkeyPatch, run_plan: Callable[..., None]) -> None:
    tune_run = types.ModuleType("sweeper.execution.on_ray.tune_run")
    tune_run.run_plan = run_plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sweeper.execution.on_ray.tune_run", tune_run)
    monkeypatch.setattr(on_ray, "tune_run", tune_run, raising=False)


def sweep(*arguments: str) -> int:
    return main(["--space", "small.yaml", *arguments])


def wrong(capsys: pytest.CaptureFixture[str], arguments: list[str], *parts: str) -> str:
    """The one error line of a refused command line."""
    capsys.readouterr()
    assert main(arguments) == WRONG_INPUT
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    for part in parts:
        assert part in said.err
    return said.err


def attempts(path: Path) -> dict[str, int]:
    trials = sweeper.load(path).trials
    assert trials["trial"].is_unique
    return dict(zip(trials["trial"], trials["attempts"], strict=True))


def figures(path: Path) -> Any:
    return sweeper.load(path).epochs.drop(columns="seconds")
