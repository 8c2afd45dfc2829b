"""The space that ``--init`` writes passes ``--dry-run`` and lists every field, for all methods and kinds of data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from sweeper.cli import COMPLETE, main
from sweeper.describe.fields import described_fields
from sweeper.describe.schema import space_schema
from sweeper.space.space_files import read_space
from tests.sweeper.command_line import wrong
from trials.data import DATASETS
from trials.methods.registry import METHODS
from trials.models import build
from trials.yaml_text import parse_yaml

pytestmark = pytest.mark.usefixtures("here")

DATA = ("digits", "cifar10", "imagenet", "folder", "parquet")


def init(method: str, data: str, file: str = "new.yaml") -> Path:
    assert main(["--init", method, "--data", data, "--to", file]) == COMPLETE
    return Path(file)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("method", METHODS)
def test_it_passes_the_dry_run(method: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = init(method, data)
    if method == "finetune":
        assert "set trial.source_net" in capsys.readouterr().out
        model, channels = str(read_space(path)["trial"]["model"]), 1 if data == "digits" else 3
        classes = 1000 if data == "imagenet" else 10
        torch.save(build(model, num_classes=classes, in_channels=channels, seed=0).state_dict(), "dense.pt")
    assert main(["--space", str(path), "--dry-run"]) == COMPLETE
    said = capsys.readouterr()
    assert "trials of " + method in said.out
    assert said.err == ""


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"finetune"}))
def test_so_does_its_demo(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = init(method, "parquet")
    assert main(["--space", str(path), "--profile", "demo", "--dry-run"]) == COMPLETE
    assert "not here" not in capsys.readouterr().out


@pytest.mark.parametrize("method", ["bip", "greg2", "regrow_iterative", "adaptive_sparsity"])
def test_every_field_stands_in_it_with_its_default(method: str) -> None:
    """With every # before a field removed, it is YAML that holds the defaults."""
    text = init(method, "cifar10").read_text()
    plain = re.sub(r"^(\s*)# (?=\s*[\w.]+:( |$))", r"\1", text, flags=re.MULTILINE)
    trial = parse_yaml(plain, "here")["trial"]
    space = read_space(Path("new.yaml"))
    swept = {*(space["grid"] or {}), *space.get("search", {}), *space.get("replicates", {}).get("values", {})}
    for one in described_fields(METHODS[method].Config):
        if one.path in swept:
            assert f"{one.path.rpartition('.')[2]} is given below, in grid, search or replicates" in text
            continue
        inside = trial
        for key in one.path.split("."):
            if inside is None:
                break
            assert key in inside, one.path
            inside = inside[key]
    assert all(f"## {line}" for line in text.splitlines() if "##" in line)


def test_the_schema_accepts_it() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(space_schema())
    for method in METHODS:
        space = read_space(init(method, "folder", f"{method}.yaml"))
        assert [error.message[:200] for error in validator.iter_errors(space)] == []


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    path = init("imp", "digits")
    before = path.read_text()
    wrong(capsys, ["--init", "bip", "--to", str(path)], "'new.yaml'", "exists", "another name")
    assert path.read_text() == before


def test_what_is_wrong_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    wrong(capsys, ["--init", "lottery"], "'lottery'", "lottery is called imp here")
    wrong(capsys, ["--init", "imp", "--data", "cifar"], "'cifar'", "cifar10")
    wrong(capsys, ["--init", "imp", "--to", "missing/x.yaml"], "'missing/x.yaml'")
    wrong(capsys, ["--init", "imp", "--to", "space.txt"], "'space.txt'", "must end with .yaml")
    wrong(capsys, ["--data", "cifar10", "--list-spaces"], "--data", "--init")
    assert not list(Path().glob("*imp*"))


def test_the_file_is_named_after_what_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--init", "imp"]) == COMPLETE
    assert "--space imp_cifar10.yaml --dry-run" in capsys.readouterr().out
    assert set(DATA) <= set(DATASETS)
