"""Every form of every kind of trial loads again, with its masks, and computes what the trial's network computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils import prune

from tests.trials.networks.sources import started_from, tiny
from tests.trials.stored_networks import enliven, outputs, random_masks, stored
from trials import compact
from trials.analysis import retention
from trials.compact import Architecture
from trials.networks.export import compare, export
from trials.networks.load import load_into
from trials.sparsity import prunable
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
GONE = {"conv1.weight": torch.tensor([0, 3, 4]), "conv3.weight": torch.arange(20)}


def net_of(*, shrunk: bool, pattern: str | None) -> Net:
    net = Net(enliven(tiny()))
    if shrunk:
        net.shrink(GONE, "filter")
    if pattern:
        net.set_masks(random_masks(net.model, pattern))
    return net


KINDS: dict[str, Callable[[], Net]] = {
    "dense": lambda: net_of(shrunk=False, pattern=None),
    "masked": lambda: net_of(shrunk=False, pattern="weight"),
    "filters masked": lambda: net_of(shrunk=False, pattern="filter"),
    "shrunk": lambda: net_of(shrunk=True, pattern=None),
    "shrunk and masked": lambda: net_of(shrunk=True, pattern="weight"),
    "shrunk and filters masked": lambda: net_of(shrunk=True, pattern="filter"),
}


def written(kind: str, form: str, folder: Path) -> tuple[Net, Path]:
    net, to = KINDS[kind](), folder / f"net.{'onnx' if form == 'onnx' else 'pt'}"
    export(stored(folder / "trial", net, Architecture("tiny", 10, 1, (8, 8))), to, form)
    return net, to


def whole_masks(kind: str) -> dict[str, Tensor]:
    """Which weights of the whole model the network has, worked out from what was removed."""
    net, there = KINDS[kind](), {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(tiny()).items()}
    gone = GONE if net.kept else {}
    for name, reader in (("conv1.weight", "conv2.weight"), ("conv3.weight", "linear.weight")):
        if name in gone:
            there[name][gone[name]] = False
            there[reader][:, gone[name]] = False
    for name, mask in net.masks.items():
        there[name][there[name].clone()] = mask.flatten()
    return there


def close(model: torch.nn.Module, net: Net) -> None:
    torch.testing.assert_close(outputs(model, IMAGES), outputs(net.model, IMAGES), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_dense(kind: str, tmp_path: Path) -> None:
    net, path = written(kind, "dense", tmp_path)
    plain, loaded = tiny(2), tiny(3)
    plain.load_state_dict(torch.load(path, weights_only=True))
    load_into(loaded, path)
    for model in (plain, loaded, started_from(path, density=0.01).model):
        close(model, net)
    assert all(not plain.get_parameter(name)[~mask].any() for name, mask in whole_masks(kind).items())
    assert all((norm.running_var > 0).all() for norm in plain.modules() if isinstance(norm, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("kind", KINDS)
def test_prune(kind: str, tmp_path: Path) -> None:
    net, path = written(kind, "prune", tmp_path)
    state = torch.load(path, weights_only=True)
    model, there = tiny(2), whole_masks(kind)
    for name in there:
        if f"{name}_mask" in state:
            prune.identity(model.get_submodule(name.removesuffix(".weight")), "weight")
        else:
            assert there[name].all()
    model.load_state_dict(state)
    close(model, net)
    start = started_from(path, density=0.01)
    close(start.model, net)
    assert {name: mask.sum() for name, mask in start.masks.items()} == (
        {name: mask.sum() for name, mask in there.items()} if kind != "dense" else {}
    )
    assert all(torch.equal(start.masks[name], there[name]) for name in start.masks)


@pytest.mark.parametrize("kind", KINDS)
def test_compact(kind: str, tmp_path: Path) -> None:
    net, path = written(kind, "compact", tmp_path)
    loaded, start = compact.load(path), started_from(path, density=0.01)
    close(loaded, net)
    close(start.model, net)
    masks = compact.load_masks(path)
    assert bool(masks) == bool(net.masks)
    assert all(torch.equal(start.masks[name], mask) for name, mask in masks.items())
    for name, weight in prunable(loaded).items():  # no random weight is zero, so the zeros are the masked ones
        assert torch.equal(masks[name] if name in masks else torch.ones_like(weight) != 0, weight != 0)
    assert start.kept.keys() >= net.kept.keys()


@pytest.mark.parametrize("kind", ["masked", "shrunk and filters masked"])
def test_onnx(kind: str, tmp_path: Path) -> None:
    import onnxruntime

    net, path = written(kind, "onnx", tmp_path)
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"images": IMAGES.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), outputs(net.model, IMAGES), rtol=1e-4, atol=1e-5)


def test_masks_and_retention_are_of_the_whole_model(tmp_path: Path) -> None:
    kinds = ("masked", "shrunk and masked")
    trials = [stored(tmp_path / kind, KINDS[kind](), Architecture("tiny", 10, 1, (8, 8))) for kind in kinds]
    there = [whole_masks(kind) for kind in kinds]
    for row in compare(*trials)[:-1]:
        one, other = (masks[f"{row['layer']}.weight"] for masks in there)
        assert (row["both"], row["either"]) == (int((one & other).sum()), int((one | other).sum()))
    expected = {n.removesuffix(".weight"): [float(masks[n].float().mean()) for masks in there] for n in there[0]}
    found = retention(trials)
    assert found.keys() == expected.keys()
    for layer, shares in found.items():
        assert shares == pytest.approx(expected[layer])
