"""Weights exported from a trial, and foreign weights that a trial starts from."""

from __future__ import annotations

import hashlib
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from tests.trials.folders import checkpoint_of
from tests.trials.small_trials import config_of, folder_of, run_in
from trials import compact, models
from trials.__main__ import main
from trials.compact import Architecture
from trials.errors import UserError
from trials.networks import hub, torchvision_weights
from trials.networks.export import compare, export
from trials.networks.load import load_into
from trials.networks.named_files import digest_of_file, resolved
from trials.networks.torchvision_weights import pretrained, require_usable, source_path
from trials.sparsity import prunable
from trials.training.net import Net


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, few_digits: None) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for density in (0.2, 0.4):
        assert run_in(folder, config_of("bip", density=density)).status == "complete"
    return folder


def trial(storage: Path, density: float) -> Path:
    return folder_of(config_of("bip", density=density), storage)


def tiny() -> nn.Module:
    return models.build("tiny", num_classes=10, in_channels=1, seed=99)


def test_dense_export_is_the_network_with_zeros(storage: Path, tmp_path: Path) -> None:
    export(trial(storage, 0.2), tmp_path / "net.pt")
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    net = checkpoint_of(trial(storage, 0.2))["net"]
    model = tiny()
    model.load_state_dict(state)
    for name, mask in net["masks"].items():
        assert torch.equal(state[name] != 0, mask)


def test_prune_export_uses_torchs_names(storage: Path, tmp_path: Path) -> None:
    export(trial(storage, 0.2), tmp_path / "net.pt", form="prune")
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    model = tiny()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            prune.identity(module, "weight")
    model.load_state_dict(state)
    export(trial(storage, 0.2), tmp_path / "dense.pt")
    plain = tiny()
    plain.load_state_dict(torch.load(tmp_path / "dense.pt", weights_only=True))
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(model.eval()(x), plain.eval()(x))


def test_masks_compared(storage: Path) -> None:
    one, other = trial(storage, 0.2), trial(storage, 0.4)
    masks = [checkpoint_of(path)["net"]["masks"] for path in (one, other)]
    *layers, overall = compare(one, other)
    both = sum(int((masks[0][n] & masks[1][n]).sum()) for n in masks[0])
    either = sum(int((masks[0][n] | masks[1][n]).sum()) for n in masks[0])
    assert (overall["layer"], overall["iou"]) == ("all", both / either)
    assert [row["layer"] for row in layers] == [name.removesuffix(".weight") for name in masks[0]]
    assert all(row["iou"] == 1 for row in compare(one, one))
    assert compare(other, one) == compare(one, other)


def compact_trial(folder: Path, name: str, removed: dict[str, list[int]]) -> Path:
    """A trial that has pruned a compact network without these filters to half of its weights."""
    net = Net(tiny())
    net.shrink({f"{layer}.weight": torch.tensor(rows) for layer, rows in removed.items()}, "filter")
    architecture = Architecture("tiny", 10, 1, (8, 8))
    compact.save(folder / f"{name}.pt", architecture, net.kept, net.model.state_dict())
    config = resolved(config_of("one_shot", density=0.5, finetune=None, source_net=str(folder / f"{name}.pt")))
    assert run_in(folder / name, config).status == "complete"
    return folder_of(config, folder / name)


def whole_masks(trial: Path) -> dict[str, torch.Tensor]:
    """By weight name, the mask of a compact trial of tiny in the whole model's shapes, row by row."""
    net = checkpoint_of(trial)["net"]
    rows = {name: net["kept"].get(name, torch.arange(len(weight))) for name, weight in prunable(tiny()).items()}
    columns = {"conv2.weight": rows["conv1.weight"], "conv3.weight": rows["conv2.weight"]}
    columns["linear.weight"] = rows["conv3.weight"]
    found = {name: torch.zeros(weight.shape, dtype=torch.bool) for name, weight in prunable(tiny()).items()}
    for name, mask in net["masks"].items():
        for i, row in enumerate(rows[name].tolist()):
            for j, column in enumerate(columns.get(name, torch.arange(1)).tolist()):
                found[name][row, column] = mask[i, j]
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"conv1": [*range(6)]}, {"conv1": [*range(10, 16)]}),  # of one shape, with other rows
        ({"conv1": [*range(6)]}, {"conv2": [0, 5]}),
        ({"conv3": [3], "conv2": [1, 2]}, {"conv3": [4], "conv2": [1, 3]}),
        ({"conv1": [0]}, {}),
    ],
)
def test_masks_of_compact_networks_are_compared_in_the_whole_model(
    one: dict[str, list[int]], other: dict[str, list[int]], tmp_path: Path, few_digits: None
) -> None:
    trials = [compact_trial(tmp_path, f"net{i}", removed) for i, removed in enumerate((one, other))]
    *layers, overall = compare(*trials)
    masks = [whole_masks(trial) for trial in trials]
    for row in layers:
        pair = [found[f"{row['layer']}.weight"] for found in masks]
        assert (row["both"], row["either"]) == (int((pair[0] & pair[1]).sum()), int((pair[0] | pair[1]).sum()))
    assert overall["both"] == sum(row["both"] for row in layers)
    assert all(row["iou"] == 1 for row in compare(trials[0], trials[0]))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("dense", "dense"), "has no mask to compare"),
        (("bip", "dense"), "has no mask to compare"),
        (("dense", "bip"), "has no mask to compare"),
        (("bip", "one_shot-filter"), "must have masks of the same weights, but differ in linear.weight: compare"),
    ],
)
def test_what_has_no_common_masks_is_not_compared(
    names: tuple[str, str], said: str, tmp_path: Path, few_digits: None
) -> None:
    configs = [config_of(name) for name in names]
    for config in configs:
        run_in(tmp_path, config)
    with pytest.raises(UserError, match=said):
        compare(*(folder_of(config, tmp_path) for config in configs))


def test_a_trial_starts_from_a_released_checkpoint(storage: Path, tmp_path: Path) -> None:
    """In the released code's form: under a key, with a prefix, with scores, with a numpy number."""
    model = tiny()
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    state["module.conv1.popup_scores"] = torch.zeros_like(state["module.conv1.weight"])
    content = {
        "epoch": 3,
        "arch": "tiny",
        "state_dict": state,
        "optimizer": {"param_groups": [{"lr": np.float64(0.1)}]},
    }
    torch.save(content, tmp_path / "checkpoint.pth.tar")
    other = tiny()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    load_into(other, tmp_path / "checkpoint.pth.tar")
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))

    config = config_of("bip", source_net=str(tmp_path / "checkpoint.pth.tar"), prune={"epochs": 0}, finetune=None)
    state_of = run_in(tmp_path, config)
    assert state_of.status == "complete", state_of.error
    net = checkpoint_of(folder_of(config, tmp_path))["net"]
    for name, parameter in model.named_parameters():
        kept = net["masks"].get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(net["model"][name], parameter.detach() * kept)
    assert not (tmp_path / "stages").exists()


def broken(what: str) -> Any:
    state = dict(tiny().state_dict())
    if what == "missing":
        del state["conv2.weight"]
    elif what == "unexpected":
        state["conv9.weight"] = torch.zeros(1)
    elif what == "shape":
        state["linear.bias"] = torch.zeros(3)
    return state


@pytest.mark.parametrize(
    ("what", "says"), [("missing", "lacks conv2.weight"), ("unexpected", "conv9.weight"), ("shape", "linear.bias")]
)
def test_weights_of_another_model_are_refused(what: str, says: str, tmp_path: Path) -> None:
    torch.save(broken(what), tmp_path / "net.pt")
    with pytest.raises(UserError, match=says):
        load_into(tiny(), tmp_path / "net.pt")


def test_files_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("weights")
    torch.save([1, 2], tmp_path / "list")
    torch.save({"model": nn.Linear(1, 1)}, tmp_path / "pickle")
    for name in ("text", "list", "pickle", "absent"):
        with pytest.raises(UserError, match="source_net"):
            load_into(tiny(), tmp_path / name)


def test_commands(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = str(trial(storage, 0.2)), str(trial(storage, 0.4))
    assert main(["export", one, "--to", str(tmp_path / "net.pt"), "--form", "prune"]) == 0
    assert "conv1.weight_mask" in torch.load(tmp_path / "net.pt", weights_only=True)
    capsys.readouterr()
    assert main(["compare", one, other]) == 0
    assert "all  both" in capsys.readouterr().out
    assert main(["export", str(tmp_path), "--to", str(tmp_path / "x.pt")]) == 2
    assert not (tmp_path / "x.pt").exists()
    assert capsys.readouterr().err.startswith("error: ")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's hub cache, empty; nothing can be downloaded."""

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def write_as_torchvision(cache: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any]) -> Path:
    """Write weights of ResNet18 under a name that ends with their hash, and let torchvision say that name."""
    torch.save(state, cache / "net")
    path = cache / f"resnet18-{hashlib.sha256((cache / 'net').read_bytes()).hexdigest()[:8]}.pth"
    (cache / "net").rename(path)
    monkeypatch.setattr(torchvision_weights, "_url_of", lambda model: f"https://example.org/{path.name}")
    return path


def test_torchvision_weights_come_from_its_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.build("ResNet18", num_classes=1000, in_channels=3, seed=1)
    written = write_as_torchvision(cache, monkeypatch, model.state_dict())
    require_usable("ResNet18", 1000, 3)
    path = source_path("torchvision", "ResNet18")
    assert path == written
    other = models.build("ResNet18", num_classes=1000, in_channels=3, seed=2)
    load_into(other, path)
    assert torch.equal(other.get_parameter("fc.weight"), model.get_parameter("fc.weight"))
    with pytest.raises(UserError, match=r"in other shapes fc\.weight"):
        load_into(models.build("ResNet18", num_classes=10, in_channels=3, seed=2), path)
    path.write_bytes(path.read_bytes()[:-1])  # what was read before is not taken for what is there now
    with pytest.raises(UserError, match="delete it"):
        require_usable("ResNet18", 1000, 3)


USES: dict[str, tuple[Callable[[], object], str]] = {
    "checked": (lambda: require_usable("ResNet18", 1000, 3), "source_net is 'torchvision': its weights"),
    "loaded": (lambda: source_path("torchvision", "ResNet18"), "source_net is 'torchvision': its weights"),
    "evaluated": (lambda: pretrained("resnet18", num_classes=1000), "weights of resnet18"),
}
"""Where torchvision's weights of ResNet18 are asked for, and how the message begins."""


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", ["other weights", "cut", "empty", "no weights"])
def test_another_content_under_torchvisions_name_is_refused(cache: Path, use: str, kind: str) -> None:
    path = cache / "resnet18-f37072fd.pth"
    torch.save(tiny().state_dict(), path)
    whole = path.read_bytes()
    content = {"other weights": whole, "cut": whole[: len(whole) // 2], "empty": b"", "no weights": b"<html>"}[kind]
    path.write_bytes(content)
    ask, begins = USES[use]
    with pytest.raises(UserError) as refused:
        ask()
    found = hashlib.sha256(content).hexdigest()[:8]
    assert str(refused.value) == (
        f"{begins} are at {path}, but the SHA-256 of that file is {found}..., and must begin with f37072fd, as its "
        "name says: delete it, and it is downloaded again"
    )


def test_weights_that_are_not_here_yet_are_not_refused_before_the_run(cache: Path) -> None:
    require_usable("ResNet18", 1000, 3)
    with pytest.raises(UserError, match="cannot be downloaded"):
        source_path("torchvision", "ResNet18")


def test_torchvisions_weights_are_read_once_for_ten_thousand_cells(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_as_torchvision(cache, monkeypatch, {"weight": torch.zeros(3)})
    read: list[Path] = []

    def noting(path: Path, what: str) -> str:
        read.append(path)
        return digest_of_file(path, what)

    monkeypatch.setattr(hub, "digest_of_file", noting)
    for _ in range(10_000):
        require_usable("ResNet18", 1000, 3)
    assert len(read) == 1


@pytest.mark.usefixtures("cache")
def test_torchvision_weights_without_a_network() -> None:
    with pytest.raises(
        UserError, match=r"resnet50-0676ba61\.pth, and https.* cannot be downloaded .*no route.*put it there"
    ):
        source_path("torchvision", "ResNet50")
    assert source_path("~/net.pt", "tiny") == Path.home() / "net.pt"


def test_torchvision_has_only_its_own_models() -> None:
    with pytest.raises(
        UserError, match="source_net is 'torchvision', but model is 'tiny', but must be one of: ResNet18"
    ):
        config_of("bip", source_net="torchvision")
