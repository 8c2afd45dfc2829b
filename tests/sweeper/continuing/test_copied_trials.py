"""Trials of another sweep that were copied into a sweep's folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import COMPLETE, main
from sweeper.folder.sweep_folder import SweepFolder
from tests.sweeper.command_line import wrong
from tests.sweeper.continuing.small_sweeps import SPACES, begin, refused, rewrite
from tests.trials.sealed_files import document

pytestmark = pytest.mark.fault("trial-copied")


def two_sweeps(kind: str, **others: Any) -> tuple[SweepFolder, SweepFolder]:
    """A sweep, and another one that differs in a few fields."""
    here = begin(kind)
    Path("other.yaml").write_text(yaml.safe_dump({**SPACES[kind], **others}, sort_keys=False))
    assert main(["--space", "other.yaml"]) == COMPLETE
    return here, SweepFolder(Path("results/other"))


def copied(here: SweepFolder, other: SweepFolder, number: int) -> tuple[str, str]:
    """Copy another sweep's sample of this number; return the names of the trials that have it now."""
    names = {sample.number: record.id for record in here.records() for sample in record.samples}
    theirs = {sample.number: record.id for record in other.records() for sample in record.samples}
    assert names.get(number) != theirs[number]
    shutil.copytree(Path(str(other.trials)) / theirs[number], Path(str(here.trials)) / theirs[number])
    return names.get(number, ""), theirs[number]


@pytest.mark.parametrize("kind", ["searched", "population"])
def test_two_trials_of_one_number_are_refused_and_readers_say_it(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    folder, other = two_sweeps(kind, seed=7)
    names = copied(folder, other, 1)
    folders = [str(folder.trials / name) for name in names]
    words = ["are both sample 1 of cell density=0.5: move the folder of the one that is another sweep's away"]
    refused(capsys, folder, ["--space", "small.yaml"], *folders, *words)
    wrong(capsys, ["--resume", "small"], *folders, *words)
    for command in (["--show", "small"], ["--list"]):
        assert main(command) == COMPLETE
        said = capsys.readouterr().out
        assert f"trials {min(names)} and {max(names)} are both sample 1 of cell density=0.5" in said
    shutil.rmtree(folders[1])
    assert main(["--resume", "small"]) == COMPLETE
    assert "are both" not in capsys.readouterr().out


def test_a_number_that_the_search_does_not_have_is_refused(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = two_sweeps("searched", samples=3)
    _, name = copied(folder, other, 2)
    refused(
        capsys, folder, ["--space", "small.yaml"], str(folder.trials / name), "is sample 2 of cell density=0.5, but"
    )


@pytest.mark.parametrize("number", ["1", 1.0, None, True, [1]])
def test_a_sample_whose_number_is_none_is_a_damaged_file(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], number: Any
) -> None:
    folder = begin("searched")
    rewrite(folder, ran[0], lambda content: content["samples"][0].update(number=number))
    assert main(["--resume", "small"]) == COMPLETE
    assert f"{ran[0]}/config.json is damaged: a sample has the number" in capsys.readouterr().out
    assert json.dumps(number) != json.dumps(
        document(folder.trial_folder(ran[0]) / "config.json")["samples"][0]["number"]
    )


def test_what_repeats_a_number_by_right_is_continued(here: Path, ran: list[str]) -> None:
    """Replicates and confirmations have the number of their point; repeated points are samples of one trial."""
    space = {
        **SPACES["plain"],
        "search": {"finetune.schedule": {"choice": ["constant", "cosine"]}},
        "samples": 2,
        "replicates": {"values": {"seed": [0, 1]}},
        "confirm": {"seed": [2, 3]},
    }
    folder = begin("plain", space)
    count = len(ran)
    assert count == 6
    assert main(["--resume", "small"]) == COMPLETE
    assert main(["--space", "small.yaml", "--set", "confirm.seed=[2, 3, 4]"]) == COMPLETE
    assert len(ran) == count + 1 == len(list(folder.records()))
