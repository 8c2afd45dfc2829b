"""FLOPs and counts: against torch's own counter where dense, from the masks where sparse."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from trials.config import parse
from trials.data import load
from trials.sparsity import DISTRIBUTIONS, PATTERNS, build_masks, prunable
from trials.sparsity.accounting import LayerSizes, kept_counts, layer_rows, summary
from trials.training import Net, build_net


def net_of(model: str) -> tuple[Net, LayerSizes]:
    raw = load("digits")
    net = build_net(parse({"method": "dense", "dataset": "digits", "model": model}), raw, torch.device("cpu"))
    return net, LayerSizes.of(net, raw)


@pytest.mark.parametrize("model", ["tiny", "resnet20s", "resnet18"])
def test_dense_flops_are_those_that_torch_counts(model: str) -> None:
    net, sizes = net_of(model)
    raw = load("digits")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.model(torch.zeros(1, raw.in_channels, *raw.image_size))
    assert sizes.dense_flops == counter.get_total_flops()
    assert sizes.parameters == sum(p.numel() for p in net.model.parameters())
    assert summary(net, sizes)["flops"] == sizes.dense_flops
    assert summary(net, sizes) | {"flops": 0} == {
        "density": 1.0,
        "sparsity": 0.0,
        "kept": sum(w.numel() for w in prunable(net.model).values()),
        "prunable": sum(w.numel() for w in prunable(net.model).values()),
        "empty_layers": 0,
        "flops": 0,
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
    assert figures["flops"] == sum(2 * kept[name] * positions[name] for name in weights)
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
