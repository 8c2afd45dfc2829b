"""Networks of libraries and of plug-ins: what has their code is said, found, and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import trials
from tests.trials.hub.exported import edit
from tests.trials.networks.test_networks_of_plug_ins import NET
from tests.trials.stored_networks import enliven, random_masks, stored
from trials.compact import Architecture
from trials.errors import UserError
from trials.hub.export import export_folder
from trials.methods.parsing import parse
from trials.plugins import importing
from trials.plugins.importing import admit
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")
pytest.importorskip("safetensors", reason="extra hub")

IMAGES = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def trial_of(model: str, folder: Path, plugins: tuple[str, ...] = ()) -> trials.Trial:
    """A trial with a random network of a model and random masks, without any training."""
    config = parse({"method": "one_shot", "density": 0.2, "dataset": "few_digits", "model": model, "plugins": plugins})
    architecture = Architecture(model, 10, 1, (32, 32))
    net = Net(enliven(architecture.build()))
    net.set_masks(random_masks(net.model, "weight"))
    stored(folder, net, architecture)
    (folder / "config.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    return trials.load(folder)


def same(network: torch.nn.Module, trial: trials.Trial) -> None:
    with torch.no_grad():
        assert torch.equal(network(IMAGES), trial.network()(IMAGES))
    masks = trial.masks()
    assert masks
    assert all(torch.equal(network.about.masks[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize(
    "model", ["torchvision:mnasnet0_5", "torchvision:squeezenet1_1", "timm:resnet10t", "resnet20s"]
)
def test_models_of_libraries(model: str, tmp_path: Path) -> None:
    if model.startswith("timm"):
        pytest.importorskip("timm", reason="extra timm")
    trial = trial_of(model, tmp_path / "trial")
    export_folder(trial, tmp_path / "hub")
    same(trials.load_pretrained(tmp_path / "hub"), trial)
    code = json.loads((tmp_path / "hub" / "config.json").read_text())["model_code"]
    prefix, colon, _ = model.partition(":")
    assert (code or {}).get("module") == (prefix if colon else None)


def test_the_library_of_a_model_is_named_if_it_is_not_here(tmp_path: Path) -> None:
    export_folder(trial_of("torchvision:squeezenet1_1", tmp_path / "trial"), tmp_path / "hub")
    edit(tmp_path / "hub", lambda described: described["architecture"].update(model="torchvision:squeezenet9"))
    with pytest.raises(UserError, match=r"no classifier of this name.* \(it was exported with torchvision \d"):
        trials.load_pretrained(tmp_path / "hub")


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file of a plug-in's model, admitted."""
    monkeypatch.setattr(importing, "_admitted", {})
    file = tmp_path / "hub_net.py"
    file.write_text(NET)
    admit([str(file)])
    yield file
    importing._drop("hub_net")


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    importing._drop("hub_net")
    monkeypatch.setattr(importing, "_admitted", {})


def test_a_plug_ins_model(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trial_of("hub_net:OwnNet", tmp_path / "trial", (str(code),))
    export_folder(trial, tmp_path / "hub")
    for path in (tmp_path / "hub").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
    card = (tmp_path / "hub" / "README.md").read_text()
    assert 'load_pretrained("FOLDER", plugins=["PATH/hub_net"])' in card
    assert "with the folders or files of `hub_net`" in card
    forget(monkeypatch)
    with pytest.raises(UserError) as said:
        trials.load_pretrained(tmp_path / "hub")
    assert str(said.value) == (
        f"{tmp_path}/hub/config.json names the model hub_net:OwnNet, which is of the plug-in hub_net, and code is "
        "imported only where you ask for it: give load_pretrained(..., plugins=['PATH/hub_net']), the folder or .py "
        "file of hub_net"
    )
    same(trials.load_pretrained(tmp_path / "hub", plugins=[str(code)]), trial)


def test_a_plug_in_that_computes_something_else(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_folder(trial_of("hub_net:OwnNet", tmp_path / "trial", (str(code),)), tmp_path / "hub")
    forget(monkeypatch)
    code.write_text(f"{NET}\n# a comment\n")
    with pytest.warns(UserWarning, match=r"the plug-in hub_net has changed since: \w{12} -> \w{12}"):
        trials.load_pretrained(tmp_path / "hub", plugins=[str(code)])
    forget(monkeypatch)
    code.write_text(NET.replace(".relu()", ".tanh()"))
    with (
        pytest.warns(UserWarning, match="has changed since"),
        pytest.raises(UserError, match=r"the weights fit, but the code of the model computes something else now"),
    ):
        trials.load_pretrained(tmp_path / "hub", plugins=[str(code)])
    forget(monkeypatch)
    code.write_text(NET.replace("8, 8, 3", "8, 8, 5"))
    with (
        pytest.warns(UserWarning, match="has changed since"),
        pytest.raises(UserError, match=r"has second.weight as float32 \[8, 8, 3, 3\], but the model has"),
    ):
        trials.load_pretrained(tmp_path / "hub", plugins=[str(code)])


TIED = """
from torch import nn

class TiedNet(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.first, self.second = nn.Linear(in_channels, 8), nn.Linear(8, 8)
        self.third, self.last = nn.Linear(8, 8), nn.Linear(8, num_classes)
        self.third.weight = self.second.weight
        self.about = "a network"

    def forward(self, x):
        return self.last(self.third(self.second(self.first(x.mean((2, 3))))))
"""


@pytest.mark.parametrize("about", [True, False])
def test_tied_weights_and_an_attribute_of_the_same_name(about: bool, code: Path, tmp_path: Path) -> None:
    code.write_text(TIED if about else TIED.replace('        self.about = "a network"\n', ""))
    admit([str(code)])
    folder = tmp_path / "trial"
    config = parse({"method": "dense", "dataset": "few_digits", "model": "hub_net:TiedNet", "plugins": (str(code),)})
    architecture = Architecture("hub_net:TiedNet", 10, 1, (32, 32))
    stored(folder, Net(enliven(architecture.build())), architecture)
    (folder / "config.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    trial = trials.load(folder)
    if about:
        with pytest.raises(UserError, match="has a model with an attribute about, which load_pretrained sets"):
            export_folder(trial, tmp_path / "hub")
        return
    export_folder(trial, tmp_path / "hub")
    network = trials.load_pretrained(tmp_path / "hub")
    assert network.third.weight is network.second.weight
    with torch.no_grad():
        assert torch.equal(network(IMAGES), trial.network()(IMAGES))
