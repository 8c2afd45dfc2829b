"""FLOPs and counts: equal to torch's counter where dense, from the masks where sparse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.trials.contract import Repeated
from trials.data import load_data
from trials.methods.parsing import parse
from trials.sparsity import DISTRIBUTIONS, PATTERNS, build_masks, prunable
from trials.sparsity.accounting import LayerSizes, kept_counts, layer_rows, summary, torch_flops
from trials.training.build import build_net
from trials.training.net import Net


def net_of(model: str) -> tuple[Net, LayerSizes]:
    raw = load_data("digits")
    net = build_net(parse({"method": "dense", "dataset": "digits", "model": model}), raw, torch.device("cpu"))
    return net, LayerSizes.of(net, raw)


@pytest.mark.parametrize("model", ["tiny", "resnet20s", "resnet18"])
def test_dense_flops_are_those_that_torch_counts(model: str) -> None:
    net, sizes = net_of(model)
    raw = load_data("digits")
    assert sizes.dense_flops == torch_flops(net.model, (raw.in_channels, *raw.image_size))
    assert sizes.parameters == sum(p.numel() for p in net.model.parameters())
    assert summary(net, sizes)["flops"] == sizes.dense_flops
    assert summary(net, sizes) == {
        "density": 1.0,
        "sparsity": 0.0,
        "kept": sum(w.numel() for w in prunable(net.model).values()),
        "prunable": sum(w.numel() for w in prunable(net.model).values()),
        "empty_layers": 0,
        "macs": sizes.dense_flops // 2,
        "flops": sizes.dense_flops,
        "parameters": sizes.parameters,
    }


def test_measuring_leaves_no_hooks_and_no_statistics_behind() -> None:
    net, _ = net_of("tiny")
    assert not any(module._forward_hooks for module in net.model.modules())
    assert int(net.model.state_dict()["bn1.num_batches_tracked"]) == 0


def test_sparse_counts_come_from_the_masks() -> None:
    net, sizes = net_of("tiny")
    weights = prunable(net.model)
    masks = {name: torch.zeros(w.shape, dtype=torch.bool) for name, w in weights.items()}
    kept = dict(zip(weights, (5, 0, 7, 11), strict=True))
    for name, count in kept.items():
        masks[name].view(-1)[:count] = True
    net.set_masks(masks)
    assert kept_counts(net, sizes) == kept
    figures = summary(net, sizes)
    total = sum(w.numel() for w in weights.values())
    assert (figures["kept"], figures["prunable"], figures["empty_layers"]) == (23, total, 1)
    assert figures["density"] == 23 / total
    assert figures["sparsity"] == 1 - 23 / total
    positions = dict(zip(weights, (64, 16, 4, 1), strict=True))  # digits are 8x8; conv2 and conv3 stride by 2
    assert figures["flops"] == 2 * figures["macs"] == sum(2 * kept[name] * positions[name] for name in weights)
    assert figures["parameters"] == sizes.parameters - total + 23
    rows = layer_rows(net, sizes, stage="prune", level=3)
    assert [row["layer"] for row in rows] == ["conv1", "conv2", "conv3", "linear"]
    for row, (name, weight) in zip(rows, weights.items(), strict=True):
        assert (row["stage"], row["level"], row["total"], row["kept"]) == ("prune", 3, weight.numel(), kept[name])
        assert row["density"] == kept[name] / weight.numel()
        assert row["flops"] == 2 * kept[name] * positions[name]


def test_layers_without_a_mask_count_as_dense_in_flops_and_not_at_all_in_density() -> None:
    net, sizes = net_of("tiny")
    convs = prunable(net.model, linear=False)
    masks = build_masks(
        {name: w.detach() for name, w in convs.items()},
        density=0.25,
        pattern=PATTERNS["filter"],
        distribution=DISTRIBUTIONS["uniform"],
    )
    net.set_masks(masks)
    figures = summary(net, sizes)
    assert figures["prunable"] == sum(w.numel() for w in convs.values())
    assert figures["density"] == pytest.approx(0.25, abs=1e-12)
    dense_linear = 2 * net.model.get_parameter("linear.weight").numel()
    in_convs = sum(2 * int(m.sum()) * sizes.positions[name] for name, m in masks.items())
    assert figures["flops"] == dense_linear + in_convs


def test_a_smaller_network_is_counted_by_its_shapes() -> None:
    net, sizes = net_of("tiny")
    net.shrink({"conv1.weight": torch.arange(10), "conv3.weight": torch.tensor([1, 4])}, "filter")
    shapes = {"conv1": (6, 1, 3, 3), "conv2": (32, 6, 3, 3), "conv3": (46, 32, 3, 3), "linear": (10, 46)}
    kept = {f"{name}.weight": torch.Size(shape).numel() for name, shape in shapes.items()}
    assert kept_counts(net, sizes) == kept
    figures = summary(net, sizes)
    assert figures["prunable"] == sum(sizes.totals.values())
    assert figures["density"] == sum(kept.values()) / sum(sizes.totals.values())
    assert (
        figures["flops"]
        == sum(2 * kept[name] * sizes.positions[name] for name in kept)
        == torch_flops(net.model, (1, 8, 8))
    )
    assert figures["parameters"] == sum(p.numel() for p in net.model.parameters()) == sum(kept.values()) + 10 + 2 * 84
    mask = torch.ones(6, 1, 3, 3, dtype=torch.bool)
    mask[0] = False
    net.set_masks({"conv1.weight": mask})  # and masks on top
    assert summary(net, sizes)["kept"] == figures["kept"] - 9
    assert summary(net, sizes)["parameters"] == figures["parameters"] - 9


def test_grouped_convolutions_are_counted_by_the_weights_they_have() -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16))
    sizes = LayerSizes.measured(model, (8, 6, 5))
    assert sizes.totals == {"0.weight": 16 * 2 * 9, "2.weight": 16 * 9}
    assert sizes.dense_flops == 2 * (16 * 2 * 9 * 30 + 16 * 9 * 12) == torch_flops(model, (8, 6, 5))
    assert sizes.layer_parameters == sizes.parameters == 16 * 2 * 9 + 16 + 16 * 9 + 16


def test_a_layer_that_is_applied_several_times_costs_as_often() -> None:
    with torch.device("meta"):
        model = Repeated(num_classes=4, in_channels=1)
    sizes = LayerSizes.measured(model, (1, 8, 8))
    assert sizes.positions == {"stem.weight": 64, "again.weight": 3 * 64, "head.weight": 1}
    assert sizes.dense_flops == torch_flops(model, (1, 8, 8))
