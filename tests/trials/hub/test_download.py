"""hf:OWNER/NAME: downloads, the cache, and what is said where a model cannot be had."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import trials
from tests.trials.hub.exported import Exported
from tests.trials.hub.local_hub import SHA, LocalHub, serving
from trials.errors import UserError

constants = pytest.importorskip("huggingface_hub.constants", reason="extra hub")

IMAGES = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def hub(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    folder = exported.copy("one_shot", tmp_path / "published")
    (folder / "training_args.bin").write_bytes(b"anything")
    found = LocalHub("me/net.v1", folder, ("main", SHA, "v2"))
    with serving(found) as endpoint:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield found


def refused(address: str) -> str:
    with pytest.raises(UserError) as said:
        trials.load_pretrained(address)
    assert "\n" not in str(said.value)
    return str(said.value)


@pytest.mark.parametrize("address", ["hf:me/net.v1", "hf:me/net.v1@main", f"hf:me/net.v1@{SHA}", "hf:me/net.v1@v2"])
def test_a_model_is_downloaded_once(address: str, hub: LocalHub, exported: Exported) -> None:
    network = trials.load_pretrained(address)
    with torch.no_grad():
        assert torch.equal(network(IMAGES), exported.trial("one_shot").network()(IMAGES))
    assert sorted(hub.fetched) == ["README.md", "config.json", "masks.safetensors", "model.safetensors"]
    trials.load_pretrained(address)
    assert len(hub.fetched) == 4


def test_without_a_network_the_cache_serves(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    trials.load_pretrained("hf:me/net.v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not trials.load_pretrained("hf:me/net.v1").training
    assert refused("hf:me/other").startswith(
        "hf:me/other is not in the cache of huggingface_hub and cannot be downloaded ("
    )
    assert refused("hf:me/other").endswith(
        "load it once where there is a network, or give a folder that holds the model"
    )


def test_what_the_hub_refuses_is_a_line(hub: LocalHub) -> None:
    assert refused("hf:me/none") == (
        "hf:me/none is not on the Hub, or not public: check the name, or log in (hf auth login)"
    )
    assert refused("hf:me/net.v1@nightly") == (
        "hf:me/net.v1@nightly has no revision nightly: give a branch, a tag or a commit of it, or none for the newest"
    )
    hub.gated = True
    assert "is gated, and you have no access" in refused("hf:me/net.v1")


def test_a_damaged_download_names_the_address(hub: LocalHub) -> None:
    size = (hub.folder / "model.safetensors").stat().st_size
    (hub.folder / "model.safetensors").write_bytes(b"anything")
    assert refused("hf:me/net.v1") == (
        "hf:me/net.v1/model.safetensors has 8 bytes, but config.json says "
        f"{size}: ask who published it, or give another revision"
    )


def test_a_model_of_another_library(hub: LocalHub) -> None:
    (hub.folder / "config.json").write_text('{"model_type": "bert"}')
    assert "hf:me/net.v1/config.json has library None" in refused("hf:me/net.v1")


@pytest.mark.parametrize(
    "address",
    ["hf:", "hf:net", "hf:me/net/more", "hf:../net", "hf:me/..", "hf:me/net@", "hf:me/n et", "hf:me/net@a\nb"],
)
def test_addresses_that_are_none(address: str) -> None:
    assert "must be hf:OWNER/NAME or hf:OWNER/NAME@REVISION" in refused(address)


@pytest.mark.parametrize(("missing", "source"), [("huggingface_hub", "hf:me/net"), ("safetensors", "folder")])
def test_a_missing_library_is_named_with_its_extra(missing: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    name = missing.replace("_", "-")
    assert refused(source).endswith(f"needs {name}, which is not installed: pip install 'sparsity-sweeper[hub]'")
