"""docs/own_network.md: the files and commands that it shows, run as they stand there."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

import sweeper
from sweeper.cli import COMPLETE, main
from tests.sweeper.on_ray import ROOT
from trials.networks.export import export
from trials.plugins import importing

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "own_network.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside the package, with the files of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importing, "_admitted", {})
    for _, text in BLOCKS:
        if name := re.match(r"# (\S+\.(?:py|yaml))\n", text):
            (tmp_path / name[1]).write_text(text)
    yield tmp_path
    importing._drop("mynet")


@pytest.mark.usefixtures("ray")
def test_the_page_works_as_it_stands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in here.iterdir()) == ["make_data.py", "mynet.py", "own.yaml"]
    (commands,) = (text.splitlines() for language, text in BLOCKS if language == "bash")
    assert commands[0] == "python make_data.py"
    runpy.run_path("make_data.py")
    assert len(commands) == 4
    for command in commands[1:]:
        program, *arguments = shlex.split(command)
        assert program == "sparsity-sweep"
        assert main(arguments) == COMPLETE, capsys.readouterr()
    found = {name: sweeper.load(f"results/own_{name}").trials for name in ("bip", "imp", "greg")}
    assert {name: set(trials["status"]) for name, trials in found.items()} == {name: {"complete"} for name in found}
    assert sorted(found["bip"]["density"].round(2)) == [0.1, 0.5]
    assert found["imp"]["density"].round(2).tolist() == [0.64]
    assert found["greg"]["density"][0] < 0.5
    assert all(float(trials["test_accuracy"].max()) > 0.2 for trials in found.values()), "of ten classes"
    loads, reads = (text for language, text in BLOCKS if language == "python" and not text.startswith("# "))
    exec(loads, {})
    assert found["greg"]["trial"][0] in capsys.readouterr().out
    export(here / "results" / "own_greg" / "trials" / found["greg"]["trial"][0], here / "small.pt", "compact")
    importing._drop("mynet")
    importing._admitted.clear()
    names: dict[str, object] = {}
    exec(reads, names)
    model = names["model"]
    assert isinstance(model, torch.nn.Module)
    assert len(model.get_parameter("conv2.weight")) == 16
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert Path(str(sys.modules["mynet"].__file__)) == here / "mynet.py"
