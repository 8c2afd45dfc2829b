"""``--describe`` and ``--init`` of users' code, which ``--plugins`` lists."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from sweeper.cli import COMPLETE, main
from tests.sweeper.command_line import wrong
from tests.trials.plugins.code import write_code
from tests.trials.plugins.conftest import nothing_admitted

__all__ = ["nothing_admitted"]

pytestmark = pytest.mark.usefixtures("nothing_admitted", "folder")

PLUGINS = ["--plugins", "code/mynets", "--plugins", "code/bare"]


@pytest.fixture
def folder(here: Path) -> Path:
    write_code(here / "code")
    return here


def described(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["--describe", name, *PLUGINS]) == COMPLETE
    return " ".join(capsys.readouterr().out.split())


def test_a_method_is_described_as_those_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    said = described("bare.pruning:Mine", capsys)
    assert "method bare.pruning:Mine" in said
    assert "finetune 40 epochs" in said
    assert "strength = 1.0" in said
    assert "weight all models" in said


def test_other_objects_are_shown_as_they_are_called(capsys: pytest.CaptureFixture[str]) -> None:
    said = described("mynets.wide:MyNet", capsys)
    assert "model mynets.wide:MyNet parameters 314 for 10 classes of RGB images" in said
    assert "called as (num_classes, in_channels) revision 1" in said
    assert "called as (weights, generator)" in described("bare.pruning:squared", capsys)
    assert "parameters 11,181,642" in described("torchvision:resnet18", capsys)


def test_nothing_is_imported_that_is_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--describe", "mynets.wide:MyNet"], ["--init", "bare.pruning:Mine"]):
        wrong(capsys, arguments, "plugins lists no", "give --plugins")
    wrong(capsys, ["--describe", "mynets.wide:Wide", *PLUGINS], "mynets.wide has no Wide")
    wrong(capsys, ["--describe", "nothing"], "nothing has that name")
    assert "mynets.blocks" not in sys.modules or "mynets" in sys.modules


@pytest.mark.parametrize("data", ["bare.pruning:few", "digits"])
def test_a_space_for_a_method_of_ones_own_lists_its_code(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("spaces").mkdir()
    to = ["--to", "spaces/new.yaml"]
    assert main(["--init", "bare.pruning:Mine", "--data", data, *to, *PLUGINS]) == COMPLETE
    content = yaml.safe_load(Path("spaces/new.yaml").read_text())
    assert content["plugins"] == ["../code/mynets", "../code/bare"]
    capsys.readouterr()
    assert main(["--space", "spaces/new.yaml", "--dry-run"]) == COMPLETE
    assert "trials of bare.pruning:Mine" in capsys.readouterr().out
    assert main(["--space", "spaces/new.yaml", "--profile", "demo", "--dry-run"]) == COMPLETE


def test_a_file_is_named_without_modules_and_owners(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--init", "bare.pruning:Mine", "--data", "bare.pruning:few", *PLUGINS]) == COMPLETE
    assert Path("Mine_few.yaml").exists()
