"""Only the space that began a sweep resumes it, and only a larger one extends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import COMPLETE, main
from tests.sweeper.continuing.small_sweeps import (
    BASE,
    SPACES,
    begin,
    changed,
    command,
    every_way,
    refused,
    unfinish,
)

pytestmark = pytest.mark.fault("other-code")


@pytest.mark.parametrize("extends", [False, True], ids=["resume", "extend"])
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
@pytest.mark.parametrize("kind", SPACES)
def test_the_space_that_began_it_resumes_and_extends_it(
    here: Path, ran: list[str], kind: str, extends: bool, finished: bool
) -> None:
    folder = begin(kind)
    first = list(ran)
    if not finished:
        unfinish(folder)
    assert main(command(kind, extends)) == COMPLETE
    again, new = [name for name in ran[len(first) :] if name in first], set(ran) - set(first)
    assert len(again) == (0 if finished else len(first))
    assert bool(new) == extends
    for record in folder.records():
        assert record.finished


CHANGES: dict[str, tuple[str, str, Any]] = {
    "template": ("plain", "trial/finetune/epochs", 2),
    "template where no condition holds": ("searched", "trial/finetune/momentum", 0.7),
    "template beside the search": ("searched", "trial/finetune/epochs", 2),
    "template where the grid has no value": ("conditional", "trial/finetune/epochs", 3),
    "template before a population": ("population", "trial/pretrain/epochs", 2),
    "a population's stage": ("population", "trial/finetune/epochs", 4),
    "case": ("cases", "cases/sparse/trial/finetune/lr", 0.06),
    "case of other cells": ("cases", "cases/sparse/when/density", 0.5),
    "a further case": ("cases", "cases/more", {"when": {"density": 0.5}, "trial": {"finetune": {"epochs": 2}}}),
    "stage left out": ("plain", "trial/finetune", None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_space_is_refused_with_the_way_to_continue(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], change: str
) -> None:
    kind, path, value = CHANGES[change]
    folder = begin(kind)
    Path("small.yaml").write_text(yaml.safe_dump(changed(kind, path, value)))
    for words in every_way(folder, kind):
        refused(capsys, folder, words, "trial.", "--resume small")
        refused(capsys, folder, [*words, "--dry-run"], "trial.", "--resume small")
    first = len(ran)
    assert main(["--resume", "small"]) == COMPLETE  # as it was begun
    assert len(ran) == 2 * first


@pytest.mark.parametrize("densities", [[0.2, 0.5], [0.5, 0.2]])
def test_the_order_of_a_grid_decides_nothing(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], densities: list[float]
) -> None:
    space = changed("conditional", "grid/density", densities)
    folder = begin("conditional", space)
    Path("small.yaml").write_text(yaml.safe_dump({**space, "trial": {**BASE, "finetune": {"epochs": 3}}}))
    refused(capsys, folder, ["--space", "small.yaml"], "trial.finetune.epochs is 3, but the sweep was begun with 1")
