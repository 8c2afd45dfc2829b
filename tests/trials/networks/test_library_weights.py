"""``source_net: pretrained``: the weights of torchvision and timm, from files where their downloaders keep them."""

from __future__ import annotations

import hashlib
import os
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models as torchvision_models

from trials import models
from trials.data import require_data
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.preconditions import require_runnable
from trials.networks import library_weights
from trials.networks.named_files import resolved
from trials.networks.stored import network
from trials.running.trial import TrialHost, run

TIMM, TORCHVISION = "timm:test_resnet.r160_in1k", "torchvision:squeezenet1_1"
FEW = {"epochs": 1, "batch_size": 128}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of torch and of Hugging Face, on a machine without a network."""

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "torch" / "checkpoints").mkdir(parents=True)
    library_weights._read.cache_clear()
    return tmp_path


def write_timm(cache: Path, seed: int = 5, classes: int = 1000) -> nn.Module:
    """Put weights of timm's test_resnet where Hugging Face's client would have put them."""
    model = models.build(TIMM, num_classes=classes, in_channels=3, seed=seed)
    place = cache / "hub" / "models--timm--test_resnet.r160_in1k"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), place / "snapshots" / ("0" * 40) / "model.safetensors")
    return model


def write_torchvision(cache: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Put weights of SqueezeNet into torch's hub cache, under a name that ends with their hash."""
    model = models.build(TORCHVISION, num_classes=1000, in_channels=3, seed=5)
    file = cache / "torch" / "checkpoints" / "net"
    torch.save(model.state_dict(), file)
    name = f"squeezenet1_1-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    file.rename(file.with_name(name))
    weights: Any = torchvision_models.SqueezeNet1_1_Weights.DEFAULT
    monkeypatch.setattr(weights.value, "url", f"https://example.org/{name}")
    return model


def config_of(model: str, **fields: Any) -> Any:
    recipe = {"method": "one_shot", "density": 0.5, "source_net": "pretrained", "finetune": {**FEW, "epochs": 0}}
    return parse({**recipe, "model": model, "dataset": "few_digits", **fields})


def test_timms_weights_start_a_trial_with_a_last_layer_of_its_own(few_digits: None, cache: Path) -> None:
    written = write_timm(cache)
    config = resolved(config_of(TIMM, density=1.0, finetune=None))
    require_runnable(config, require_data("few_digits"))
    notes: list[str] = []
    state = run(config, cache / config.id, TrialHost(cache / "stages", warn=notes.append))
    assert state.status == "complete", state.error
    assert notes == [
        f"the pretrained weights of {TIMM} are for other classes: fc.weight, fc.bias keep their initial values"
    ]
    found = network(cache / config.id)[1].model
    assert torch.equal(found.get_parameter("layer1.0.conv1.weight"), written.get_parameter("layer1.0.conv1.weight"))
    own = models.build(TIMM, num_classes=10, in_channels=1, seed=0)
    assert torch.equal(found.get_parameter("fc.weight"), own.get_parameter("fc.weight"))
    gray = found.get_parameter("conv1.0.weight")
    assert torch.allclose(gray, written.get_parameter("conv1.0.weight").sum(1, keepdim=True)), "timm sums RGB for gray"


def test_the_content_of_the_weights_is_part_of_the_trials_name(cache: Path) -> None:
    write_timm(cache, seed=5)
    one = resolved(config_of(TIMM))
    assert one.source_net == "pretrained"
    write_timm(cache, seed=6)
    other = resolved(config_of(TIMM))
    assert one.id != other.id
    assert parse(other.model_dump(mode="json")) == other
    with pytest.raises(UserError, match=r"source_net is 'pretrained', whose content has hash .* restore that file"):
        resolved(one)


def test_other_weights_of_the_same_size_and_time_are_read_themselves(cache: Path) -> None:
    built = models.build(TIMM, num_classes=1000, in_channels=3, seed=0)
    for seed in (5, 6):
        written = write_timm(cache, seed)
        file = library_weights.weights_file(TIMM)
        os.utime(file, ns=(10**18, 10**18))  # as tools that copy a file do
        state, _ = library_weights.library_state(TIMM, file, built)
        assert torch.equal(state["fc.weight"], written.get_parameter("fc.weight"))


def test_a_damaged_file_of_the_same_size_and_time_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_torchvision(cache, monkeypatch)
    file = library_weights.weights_file(TORCHVISION)
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match=r"the SHA-256 of that file is .* delete it, and it is downloaded again"):
        library_weights.weights_file(TORCHVISION)


def test_torchvisions_weights_come_from_its_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_torchvision(cache, monkeypatch)
    config = resolved(config_of(TORCHVISION))
    require_runnable(config, DataHeader("any", 10, 3, (64, 64), 1000))
    built = models.build(TORCHVISION, num_classes=10, in_channels=3, seed=1)
    state, other = library_weights.library_state(TORCHVISION, library_weights.weights_file(TORCHVISION), built)
    assert other == ("classifier.1.weight", "classifier.1.bias")
    assert torch.equal(state["features.0.weight"], written.get_parameter("features.0.weight"))
    with pytest.raises(UserError, match="read 3 channels, and the data have 1"):
        require_runnable(config, DataHeader("any", 10, 1, (64, 64), 1000))


def test_weights_that_are_not_here_are_refused_with_the_place(cache: Path) -> None:
    with pytest.raises(
        UserError, match=r"torchvision's squeezenet1_1 are not at .*squeezenet1_1-b8a52dc0\.pth, .*put it"
    ):
        resolved(config_of(TORCHVISION))
    with pytest.raises(
        UserError, match=r"timm's test_resnet\.r160_in1k are not in Hugging Face's cache, .*cannot be do"
    ):
        resolved(config_of(TIMM))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "own model": ({"model": "tiny"}, "for which no library has weights: give torchvision:NAME or timm:NAME"),
    "mask": ({"model": TIMM, "source_mask": {"density": 0.5}}, "source_net names no file that it could be of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_pretrained_weights_is_refused(case: str) -> None:
    fields, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        config_of(**fields)


def test_weights_that_a_library_has_not_are_refused(cache: Path) -> None:
    with pytest.raises(UserError, match="weights of googlenet are for inputs that the network normalises"):
        resolved(config_of("torchvision:googlenet"))
    with pytest.raises(UserError, match="timm has no weights for vit_small_patch16_18x2"):
        library_weights.weights_file("timm:vit_small_patch16_18x2_224")


class Runs:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_weights_that_would_run_code_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_torchvision(cache, monkeypatch)
    (file,) = (cache / "torch" / "checkpoints").iterdir()
    torch.save({"features.0.weight": Runs(cache / "ran")}, file)
    name = f"squeezenet1_1-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    file.rename(file.with_name(name))
    monkeypatch.setattr(torchvision_models.SqueezeNet1_1_Weights.DEFAULT.value, "url", f"https://example.org/{name}")
    config = resolved(config_of(TORCHVISION))
    with pytest.raises(UserError, match="cannot be loaded"):
        require_runnable(config, DataHeader("any", 10, 3, (64, 64), 1000))
    assert not (cache / "ran").exists()


def test_damaged_weights_are_refused(cache: Path) -> None:
    write_timm(cache)
    file = library_weights.weights_file(TIMM)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"weights of timm:test_resnet\.r160_in1k cannot be loaded"):
        require_runnable(resolved(config_of(TIMM)), DataHeader("any", 10, 3, (64, 64), 1000))
