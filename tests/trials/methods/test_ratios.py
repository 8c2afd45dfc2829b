"""The layers that a pruning ratio applies to, in each of its written forms."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from trials import models
from trials.methods.greg.layer_table import layer_table, table_of
from trials.methods.greg.ratios import layer_ratios, read_skip_layers, read_stage_pr
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.training.net import Net
from trials.yaml_text import parse_yaml


def test_text_and_typed_forms_are_equal() -> None:
    same_values: list[tuple[Any, ...]] = [
        ("[0, 0.5,0.25,]", [0, 0.5, 0.25], (0.0, 0.5, 0.25)),
        ("[1-15:0.7]", "1-15 : 0.7", {"1-15": 0.7}, "0:0,1-9:0.7,10-15:0.7", [[1, 15, 0.7]], ((1, 15, 0.7),)),
        ("[0-4:0.5, 2:0]", {"0-1": 0.5, "3-4": 0.5}, "2:0.1,0-1:0.5,2-2:0,3-4:0.5", [[0, 1, 0.5], [3, 4, 0.5]]),
        ("[0-18:0]", {}, "3:0"),
        (0.5, 0.5),
    ]
    for values in same_values:
        assert len({repr(read_stage_pr(value)) for value in values}) == 1, values
    assert read_skip_layers("[1.0, 2.3,]") == read_skip_layers(["1.0", "2.3"]) == ("1.0", "2.3")
    assert read_skip_layers([2, "9"]) == read_skip_layers("2,9") == ("2", "9")


def test_reading_is_idempotent() -> None:
    for text in ("[0,0.5]", "[1-15:0.7,3:0.5]", "[0-2:1]"):
        assert read_stage_pr(read_stage_pr(text)) == read_stage_pr(text)


@pytest.mark.parametrize("model", ["tiny", "resnet20s", "resnet20", "wrn_28_1", "ResNet50", "vgg16"])
@pytest.mark.parametrize("pattern", ["filter", "channel", "weight"])
def test_one_number_prunes_what_may_be_pruned_but_the_first_layer(model: str, pattern: Any) -> None:
    """And the network can be shrunk by these ratios."""
    table = table_of(model)
    ratios = layer_ratios(table, 0.5, (), pattern)
    assert ratios[table.layers[0].name] == 0
    pruned = [layer for layer in table.layers if ratios[layer.name]]
    if pattern == "weight":
        assert len(pruned) == len(table.layers) - 1
        return
    assert pruned
    assert not any(layer.linear or layer.conv == -1 for layer in pruned)
    assert not any(layer.last_in_block if pattern == "filter" else layer.conv == 0 for layer in pruned)
    config = parse({"method": "l1", "dataset": "cifar10", "model": model, "stage_pr": 0.5, "pattern": pattern})
    with torch.device("meta"):
        net = Net(models.MODELS[model](num_classes=10, in_channels=3))
    METHODS["l1"](config).initialised(net)


def test_linear_layers_stay_whole_with_filters_and_a_warning() -> None:
    table = table_of("vgg16")
    with pytest.warns(UserWarning, match="linear layers stay whole with pattern 'filter': classifier"):
        ratios = layer_ratios(table, read_stage_pr("[0-13:0.5]"), (), "filter")  # type: ignore[arg-type]
    assert ratios["classifier"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert layer_ratios(table, ((0, 13, 0.5),), (), "filter", released=True)["classifier"] == 0.5
        assert layer_ratios(table, ((0, 13, 0.5),), (), "weight")["classifier"] == 0.5


def test_skipped_layers_are_matched_by_component() -> None:
    table = table_of("resnet101")
    ratios = layer_ratios(table, 0.5, ("3.1", "2"), "filter")
    assert ratios["layer3.1.conv1"] == ratios["layer2.3.conv1"] == 0
    assert ratios["layer3.10.conv1"] == ratios["layer3.0.conv1"] == 0.5
    released = layer_ratios(table, 0.5, ("3.1",), "filter", released=True)
    assert released["layer3.10.conv1"] == 0


def test_shortcuts_share_the_index_of_the_convolution_before() -> None:
    layers = {layer.name: layer for layer in table_of("resnet20").layers}
    assert layers["layer2.0.shortcut.0"].index == layers["layer2.0.conv2"].index
    assert layers["layer2.0.shortcut.0"].path == "2.0.-1"
    assert layer_table(nn.Sequential(nn.Linear(2, 2))).layers[0].path == "0"


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("[0:0.5]", ((0, 0, 0.5),)),
        ("0:0.5", ((0, 0, 0.5),)),
        ("[1-15:0.7, 3:0.5]", ((1, 2, 0.7), (3, 3, 0.5), (4, 15, 0.7))),
        ("[2:4]", None),
        ("{0:0.5}", None),
        ("{0: 0.5}", ((0, 0, 0.5),)),
    ],
)
def test_released_texts_mean_the_same_without_quotes(text: str, spans: object) -> None:
    read = parse_yaml(f"stage_pr: {text}", "here")["stage_pr"]
    if spans is None:
        with pytest.raises(ValueError, match="stage_pr is"):
            read_stage_pr(read)
    else:
        assert read_stage_pr(read) == spans
