"""Compact networks, FLOPs and parameters equal those recorded from the released GReg code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trials.compact.test_models import masked
from tests.trials.greg_nets import MANIFEST, files, indices, initial
from tests.trials.recorded_set import Arrays, cases, covers
from trials.compact import silent
from trials.methods.greg.groups import group_scores, pick_groups, prune_count
from trials.methods.greg.layer_table import layer_table
from trials.methods.greg.ratios import layer_ratios, read_skip_layers, read_stage_pr
from trials.sparsity.accounting import LayerSizes, layer_parameters, summary
from trials.training.net import Net

FILES = files("compact")


def recorded(name: str) -> tuple[dict[str, Any], Arrays, Net, dict[str, Tensor]]:
    """A file's manifest entry, arrays, network, and the groups to remove from each convolution, by weight name."""
    model, content = initial(name, torch.float64)
    modules = dict(model.named_modules())
    pruned = content.under("pruned/")
    removed = {f"{key}.weight": rows for key, rows in pruned.items() if isinstance(modules[key], nn.Conv2d)}
    assert any(len(rows) for rows in removed.values())
    return MANIFEST["files"][name], content, Net(model.eval()), removed


def test_the_vectors_hold_both_patterns() -> None:
    covers([MANIFEST["files"][name]["params"]["wg"] for name in FILES], ["filter", "channel"], "compact file of greg")


@pytest.mark.parametrize("name", cases(FILES, "compact file of greg"))
def test_compact_networks_are_the_released_ones(name: str) -> None:
    about, content, net, removed = recorded(name)
    net.shrink(removed, about["params"]["wg"])
    state, reference = net.model.state_dict(), content.under("compact/")
    assert set(reference) <= state.keys()
    for key in state:
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(state[key], reference[key]), key
    for weight, rows in net.kept.items():
        assert len(rows) == len(net.model.get_parameter(weight))
    for layer, rows in content.under("kept/").items():
        weight = f"{layer}.weight"
        gone = removed.get(weight, torch.zeros(0, dtype=torch.int64)).tolist()
        assert sorted([*rows.tolist(), *gone]) == list(range(len(rows) + len(gone)))
        if about["params"]["wg"] == "filter" and weight in net.kept:
            assert net.kept[weight].tolist() == rows.tolist()


@pytest.mark.parametrize("name", cases(FILES, "compact file of greg"))
def test_the_lowest_groups_are_removed(name: str) -> None:
    about, content, net, _ = recorded(name)
    pattern, table = about["params"]["wg"], layer_table(net.model)
    assert [layer.name for layer in table.layers] == about.get("layer_order", [layer.name for layer in table.layers])
    skipped = read_skip_layers(about["params"].get("skip_layers", ""))
    ratios = layer_ratios(table, read_stage_pr(about["params"]["stage_pr"]), skipped, pattern)
    for layer, rows in content.under("pruned/").items():
        scores = group_scores(net.model.get_parameter(f"{layer}.weight"), pattern)
        ours = pick_groups(scores, prune_count(ratios[layer], scores.numel()), "min")
        assert indices(ours) == sorted(rows.tolist()), layer


@pytest.mark.parametrize("name", cases(FILES, "compact file of greg"))
def test_outputs(name: str) -> None:
    about, content, net, removed = recorded(name)
    pattern = about["params"]["wg"]

    def close(reference: str) -> None:
        with torch.no_grad():
            torch.testing.assert_close(net.model(content["x"]), content[reference], rtol=0, atol=1e-12)

    close("y_dense")
    zeroed = recorded(name)[2].model
    with torch.no_grad():
        for weight, rows in removed.items():
            zeroed.get_parameter(weight).index_fill_(0 if pattern == "filter" else 1, rows, 0)
        weights_only = zeroed(content["x"])
    torch.testing.assert_close(weights_only, content["y_masked_weights_only"], rtol=0, atol=1e-12)
    same = pattern == "channel"  # without its filter, batch norm or bias still emits a constant
    gap = (weights_only - content["y_masked"]).abs().max()
    assert (gap < 1e-12) == same
    masked(net.model, removed, pattern)
    close("y_masked")
    idle = silent(net.model)
    net.shrink(removed, pattern)
    close("y_compact")
    if gone := about.get("max_abs_weights_only_masked_minus_compact"):
        assert float(gap) == pytest.approx(gone, rel=1e-6)
    again = recorded(name)[2]
    again.shrink(idle, "filter")  # filters found by their zeros equal the removed ones
    shapes = [{key: tensor.shape for key, tensor in each.model.state_dict().items()} for each in (net, again)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", cases(FILES, "compact file of greg"))
def test_flops_and_parameters(name: str) -> None:
    about, _, net, removed = recorded(name)
    sizes = LayerSizes.measured(net.model, about["net"].get("input", [3, 8, 8]))
    assert (sizes.dense_flops, sizes.layer_parameters) == (about["flops_dense"], about["params_dense"])
    net.shrink(removed, about["params"]["wg"])
    assert (summary(net, sizes)["flops"], layer_parameters(net.model)) == (
        about["flops_compact"],
        about["params_compact"],
    )
