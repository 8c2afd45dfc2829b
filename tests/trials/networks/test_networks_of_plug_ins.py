"""Networks of a user's own model: readers of stored networks build them once their code is admitted, and only then."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trials import compact
from trials.analysis import sparsity_accuracy
from trials.errors import NotAdmitted, UserError
from trials.methods.parsing import parse
from trials.networks.export import FORMS, export
from trials.networks.load import load_into
from trials.networks.stored import network
from trials.plugins import importing
from trials.plugins.importing import admit
from trials.running.trial import TrialHost, run

pytestmark = pytest.mark.usefixtures("few_digits")

NET = """
from torch import nn

class OwnNet(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.first = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3)
        self.last = nn.Linear(8, num_classes)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.last(self.second(x).relu().mean((2, 3)))
"""
IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def admitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of a model's code, admitted for the time of the test; what is imported is forgotten after it."""
    monkeypatch.setattr(importing, "_admitted", {})
    file = tmp_path / "own_net.py"
    file.write_text(NET)
    admit([str(file)])
    yield file
    importing._drop("own_net")


@pytest.fixture
def trial(admitted: Path, tmp_path: Path) -> Path:
    """The folder of a trial that has cut filters of it."""
    recipe = {"epochs": 1, "batch_size": 128}
    fields = {"method": "one_shot", "density": 0.5, "pattern": "filter", "pretrain": recipe, "finetune": recipe}
    named = {"dataset": "few_digits", "model": "own_net:OwnNet", "plugins": [str(admitted)]}
    config = parse({**fields, **named})
    state = run(config, tmp_path / config.id, TrialHost(tmp_path / "stages"))
    assert state.status == "complete", state.error
    (tmp_path / config.id / "config.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    return tmp_path / config.id


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IMAGES)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_written_and_read(
    trial: Path, admitted: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = trial.parent / f"net.{'onnx' if form == 'onnx' else 'pt'}"
    export(trial, to, form)
    expected = outputs(network(trial)[1].model)
    assert sparsity_accuracy([trial])[0]["accuracy"] > 0
    if form == "dense":
        other = sys.modules["own_net"].OwnNet(10, 1)
        load_into(other, to)
        assert torch.allclose(outputs(other), expected, atol=1e-6)
    if form != "compact":
        return
    importing._drop("own_net")
    monkeypatch.setattr(importing, "_admitted", {})
    with pytest.raises(
        NotAdmitted, match=r"model is 'own_net:OwnNet', but plugins lists no own_net: .*plugins=\[\.\.\.\]"
    ):
        compact.load(to)
    found = compact.load(to, plugins=[str(admitted)])
    assert torch.allclose(outputs(found), expected, atol=1e-5)
    assert sum(p.numel() for p in found.parameters()) < sum(
        p.numel() for p in sys.modules["own_net"].OwnNet(10, 1).parameters()
    )


def test_a_plug_in_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plugins has '.*none\.py', which is not there"):
        compact.load(tmp_path / "net.pt", plugins=[str(tmp_path / "none.py")])


def test_a_stored_trial_is_not_read_without_its_plug_ins(trial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing._drop("own_net")
    monkeypatch.setattr(importing, "_admitted", {})
    with pytest.raises(UserError, match=r"own_net"):
        sparsity_accuracy([trial])
    with pytest.raises(NotAdmitted, match=r"plugins lists no own_net"):
        network(trial)
    assert "own_net" not in sys.modules
