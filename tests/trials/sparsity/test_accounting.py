"""FLOPs and counts: equal to torch's counter where dense, from the masks where sparse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.trials.contract import OWN, Repeated, Tied
from trials.data import load_data
from trials.methods.parsing import parse
from trials.models import MODELS
from trials.sparsity import DISTRIBUTIONS, PATTERNS, build_masks, prunable
from trials.sparsity.accounting import LayerSizes, kept_counts, layer_rows, realised, summary, torch_flops
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


@pytest.mark.parametrize("name", MODELS)
def test_every_model_costs_what_torch_counts(name: str) -> None:
    with torch.device("meta"):
        model = MODELS[name](num_classes=5, in_channels=3)
    shape = (3, 32, 32)
    assert LayerSizes.measured(model, shape).dense_flops == torch_flops(model, shape)


@pytest.mark.parametrize("name", ["depthwise", "grouped", "grouped_stem", "tied", "repeated", "unused"])
def test_odd_networks_cost_what_torch_counts(name: str) -> None:
    model = OWN[name](num_classes=5, in_channels=3)
    model.train()
    assert LayerSizes.measured(model, (3, 9, 7)).dense_flops == torch_flops(model, (3, 9, 7))
    assert model.training


class Tokens(nn.Module):
    """Linear layers on the tokens of an image, one of them applied twice, between convolutions of both kinds."""

    def __init__(self, *, attention: bool = False, computed: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True) if attention else None
        self.computed = computed
        self.mix = nn.Linear(4, 4, bias=False)  # along the tokens
        self.mlp = nn.Linear(8, 16)
        self.back = nn.Linear(16, 8, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)  # [B, 4, 8]
        if self.attention is not None:
            x = x + self.attention(x, x, x, need_weights=False)[0]
        for _ in range(2):
            x = x + self.back(torch.relu(self.mlp(x)))
        x = self.mix(x.transpose(1, 2)).transpose(1, 2)
        x = x + x @ (self.back.weight @ self.back.weight.t()) if self.computed else x
        logits: torch.Tensor = self.head(x.mean(1))
        return logits


def test_linear_layers_on_tokens_cost_once_for_each_token() -> None:
    sizes = LayerSizes.measured(model := Tokens(), (3, 8, 8))
    positions = {"stem": 4, "mix": 8, "mlp": 2 * 4, "back": 2 * 4, "head": 1}
    assert sizes.positions == {f"{name}.weight": count for name, count in positions.items()}
    assert sizes.dense_flops == torch_flops(model, (3, 8, 8))
    net = Net(model)
    mask = torch.rand(8, 16, generator=torch.Generator().manual_seed(0)) < 0.3
    net.set_masks({"back.weight": mask})
    assert summary(net, sizes)["flops"] == sizes.dense_flops - 2 * 8 * int((~mask).sum())


def test_of_attention_the_output_layer_is_counted_and_torch_counts_the_rest() -> None:
    sizes = LayerSizes.measured(model := Tokens(attention=True), (3, 8, 8))
    assert sizes.positions["attention.out_proj.weight"] == 4
    projections, products = 2 * 4 * 8 * 24, 2 * 2 * 4 * 4 * 8  # of 4 tokens of 8 numbers: q, k and v; q times k, then v
    assert torch_flops(model, (3, 8, 8)) == sizes.dense_flops + projections + products


def test_weights_that_are_used_without_their_layer_count() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    applied: dict[str, nn.Module] = {"conv": model[0], "linear": model[2]}

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = applied["conv"], applied["linear"]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.conv2d(x, self.conv.weight).flatten(1)
            return x @ self.linear.weight.t()

    sizes = LayerSizes.measured(functional := Functional(), (3, 8, 8))
    assert sizes.positions == {"conv.weight": 36, "linear.weight": 1}
    assert sizes.dense_flops == torch_flops(functional, (3, 8, 8))


class Standardised(nn.Conv2d):
    """Computes its weight anew from its parameter."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(input, self.weight / self.weight.std(), self.bias)


def test_a_layer_that_computes_its_weight_counts() -> None:
    model = nn.Sequential(Standardised(3, 4, 3), nn.ReLU(), Standardised(4, 4, 3), nn.Flatten(), nn.Linear(64, 5))
    sizes = LayerSizes.measured(model, (3, 8, 8))
    assert sizes.dense_flops == torch_flops(model, (3, 8, 8))


def test_a_weight_of_two_layers_counts_once_and_is_used_by_both() -> None:
    model = Tied(num_classes=4, in_channels=1)
    sizes = LayerSizes.measured(model, (1, 8, 8))
    assert sizes.positions == {"stem.weight": 64, "one.weight": 2 * 64, "head.weight": 1}
    assert sizes.parameters == sum(p.numel() for p in model.parameters())
    assert sizes.layer_parameters == sizes.parameters
    net = Net(model)
    mask = torch.rand(8, 8, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.3
    net.set_masks({"one.weight": mask})
    figures, gone = summary(net, sizes), int((~mask).sum())
    assert figures["flops"] == sizes.dense_flops - 2 * 2 * 64 * gone
    assert (figures["kept"], figures["prunable"]) == (mask.numel() - gone, mask.numel())
    assert figures["parameters"] == sizes.parameters - gone
    assert sum(row["flops"] for row in layer_rows(net, sizes, stage="prune", level=0)) == figures["flops"]


@pytest.mark.parametrize("masked", [False, True])
def test_densities_of_compact_networks_are_of_all_weights_of_the_whole_model(masked: bool) -> None:
    net, sizes = net_of("tiny")
    net.shrink({"conv1.weight": torch.arange(10)}, "filter")
    if masked:
        net.set_masks({"conv1.weight": torch.arange(54).view(6, 1, 3, 3) < 5})
    figures = summary(net, sizes)
    there = sum(weight.numel() for weight in prunable(net.model).values()) - (54 - 5 if masked else 0)
    assert (figures["kept"], figures["prunable"]) == (there, sum(sizes.totals.values()))
    assert figures["density"] == there / figures["prunable"]
    assert sum(row["kept"] for row in layer_rows(net, sizes, stage="prune", level=0)) == there


def test_a_model_that_cannot_be_traced_is_counted_as_it_is() -> None:
    with torch.no_grad():
        net = Net(OWN["branching"](num_classes=4, in_channels=1))
    sizes = LayerSizes.measured(net.model, (1, 8, 8))
    with torch.no_grad():
        net.model.get_parameter("stem.weight")[:4] = 0
    assert realised(net, sizes)["compact_flops"] == sizes.dense_flops
    assert realised(net, sizes)["compact_parameters"] == sizes.parameters


def test_a_layer_that_is_applied_several_times_costs_as_often() -> None:
    with torch.device("meta"):
        model = Repeated(num_classes=4, in_channels=1)
    sizes = LayerSizes.measured(model, (1, 8, 8))
    assert sizes.positions == {"stem.weight": 64, "again.weight": 3 * 64, "head.weight": 1}
    assert sizes.dense_flops == torch_flops(model, (1, 8, 8))
