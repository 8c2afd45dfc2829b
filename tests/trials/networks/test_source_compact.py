"""Compact exports as a start, and files that look like one."""

from __future__ import annotations

import pathlib

import pytest
import torch

from tests.trials.networks.sources import (
    assert_weights,
    refusal_of,
    started,
    started_from,
    tiny,
)
from trials import compact
from trials.errors import UserError
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")


DAMAGED: dict[str, object] = {
    "a list": [0, 1, 2],
    "None": None,
    "a number": 3,
    "text": "0-9",
    "another type": torch.arange(10, dtype=torch.int32),
    "floats": torch.arange(10.0),
    "a mask": torch.arange(16) < 10,
    "two dimensions": torch.arange(10)[None],
    "none": torch.arange(0),
    "a scalar": torch.tensor(3),
    "duplicates": torch.tensor([*range(9), 8]),
    "descending": torch.arange(9, -1, -1),
    "out of range": torch.arange(7, 17),
    "negative": torch.arange(-10, 0),
    "without values": torch.arange(10, device="meta"),
    "sparse": torch.arange(10).to_sparse(),
}


@pytest.mark.parametrize("rows", DAMAGED)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_compact_networks_with_damaged_rows_are_refused(rows: str, tmp_path: pathlib.Path) -> None:
    net = Net(tiny())
    net.shrink({"conv1.weight": torch.arange(6)}, "filter")
    compact.save(tmp_path / "whole.pt", compact.Architecture("tiny", 10, 1, (8, 8)), net.kept, net.model.state_dict())
    started_from(tmp_path / "whole.pt")
    content = torch.load(tmp_path / "whole.pt", weights_only=True)
    content["kept"]["conv1.weight"] = DAMAGED[rows]
    assert "export it again" in refusal_of(content, tmp_path)
    with pytest.raises(UserError, match="export it again"):
        compact.load(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["conv9.weight", "bn1.weight", "linear.weight", "a\nb", 3, None])
def test_compact_networks_with_rows_of_other_layers_are_refused(name: object, tmp_path: pathlib.Path) -> None:
    architecture = {"model": "tiny", "num_classes": 10, "in_channels": 1, "image_size": [8, 8]}
    content = {"state_dict": tiny().state_dict(), "architecture": architecture, "kept": {name: torch.arange(3)}}
    assert "export it again" in refusal_of(content, tmp_path)


@pytest.mark.parametrize("part", ["state_dict", "architecture", "kept"])
@pytest.mark.parametrize("value", [None, 5, [1]])
def test_files_like_a_compact_export_but_damaged(part: str, value: object, tmp_path: pathlib.Path) -> None:
    state = tiny().state_dict()
    content = {"state_dict": state, "architecture": {"model": "tiny"}, "kept": {"conv2.weight": torch.tensor([0])}}
    content[part] = value
    if part == "state_dict":
        assert "must hold a state dict" in refusal_of(content, tmp_path)
    else:
        assert_weights(started(content, tmp_path), state)  # a state dict, and other things beside it
