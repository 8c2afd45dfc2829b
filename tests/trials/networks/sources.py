"""Trials that start from files of weights, for the tests of what such files may hold."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trials.small_trials import config_of
from trials import models
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.registry import METHODS
from trials.methods.starting import load_source, require_fitting
from trials.networks.named_files import resolved
from trials.training.net import Net

DATA = DataHeader("few_digits", 10, 1, (8, 8), 400)
State = Mapping[str, Tensor]


def tiny(seed: int = 1, **shape: int) -> nn.Module:
    return models.build("tiny", **{"num_classes": 10, "in_channels": 1, **shape}, seed=seed)


def started(content: object, folder: pathlib.Path, method: str = "one_shot", **fields: Any) -> Net:
    """The network of a trial that starts from a file of ``content``, after the check before anything starts."""
    torch.save(content, folder / "net.pt")
    return started_from(folder / "net.pt", method, **fields)


def started_from(path: pathlib.Path, method: str = "one_shot", data: DataHeader = DATA, **fields: Any) -> Net:
    config = resolved(config_of(method, source_net=str(path), **fields))
    require_fitting(config, data)
    shape = {"num_classes": data.num_classes, "in_channels": data.in_channels}
    net = Net(models.build(config.model, **shape, seed=99))
    load_source(net, METHODS[config.method](config))
    return net


def assert_weights(net: Net, state: State) -> None:
    own = net.model.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], state[name]) for name in own)


def refusal_of(content: object, folder: pathlib.Path, **fields: Any) -> str:
    with pytest.raises(UserError) as refused:
        started(content, folder, **fields)
    return one_line(str(refused.value))


def one_line(text: str) -> str:
    assert text.isprintable()
    assert len(text) < 600
    assert not text.endswith(("(", "...", " "))
    return text


def prefixed(state: State, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}
