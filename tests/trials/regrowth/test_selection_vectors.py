"""Regrown weights and their initial values equal the reference vectors (file d, and the cases of f)."""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trials.bidirectional import about, arrays, key_of, record_of, records
from tests.trials.recorded_set import Arrays, absent, cases
from trials.regrowth import selection
from trials.regrowth.initial import (
    RegrownWeights,
    fan_in_normal,
    grown,
    initial_values,
    kaiming_bound,
    reinitialise,
    write_weights,
    xavier_bound,
)
from trials.regrowth.layer_signals import choose_targets
from trials.training.net import Net

D = arrays("d_selection.npz")
LAYERS = [key.removeprefix("start_mask__") for key in D if key.startswith("start_mask__")]
START = {name: D[f"start_mask__{name}"].bool() for name in LAYERS}
DENSE = {name: D[f"dense_weight__{name}"] for name in LAYERS if f"dense_weight__{name}" in D}


def stale() -> dict[str, Tensor]:
    return {name: D[f"start_weight__{name}"].clone() for name in LAYERS}


def named(name: str, *prefixes: str) -> list[Any]:
    """The records of a file with those prefixes, as a test's parameters."""
    found = [record for prefix in prefixes for record in records(name, prefix)]
    return cases(found, f"record {' or '.join(prefixes)} of bidirectional/{name}", key_of)


def regrow(layer: str, index: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's mask and weights, with ``values`` at ``index``."""
    weights = stale()
    masks = grown(START, {layer: index})
    write_weights(weights, {layer: index}, {layer: values})
    return masks[layer], weights[layer]


def expect(mask: Tensor, weight: Tensor, key: str, source: Arrays = D) -> None:
    assert torch.equal(mask, source[f"{key}__mask"].bool())
    assert torch.equal(weight, source[f"{key}__weight"])


def test_arrays_have_the_shapes_of_their_layers() -> None:
    for layer in LAYERS or absent("layer in bidirectional/d_selection.npz"):
        for kind in ("start_weight", "saliency", "dense_weight", "reference_mask", "allowed_mask_half"):
            assert D.get(f"{kind}__{layer}", START[layer]).shape == START[layer].shape, (kind, layer)
        assert D.get(f"allowed_mask_ones__{layer}", START[layer].byte() | 1).all()


def test_capacities() -> None:
    found = [record["capacities"] for record in about("d_selection.npz") if "capacities" in record]
    (capacities,) = found or absent("capacities in bidirectional/d_selection.npz")
    assert {name: int((~START[name]).sum()) for name in LAYERS} == capacities


@pytest.mark.parametrize("record", named("d_selection.npz", "sal__"))
def test_by_saliency(record: dict[str, Any]) -> None:
    key = record["key"]
    _, layer, _, kind = key.split("__")
    index = selection.highest(START[layer], D[f"saliency__{layer}"], record["requested"])
    assert len(index) == record["actual"]
    assert torch.equal(index, D[f"{key}__order"])
    masks = grown(START, {layer: index})
    values = initial_values(kind, masks, {layer: index}, torch.Generator(), stale=stale())
    expect(*regrow(layer, index, values[layer]), key)


@pytest.mark.parametrize("record", named("d_selection.npz", "salinit__"))
def test_bounds_of_initial_values(record: dict[str, Any]) -> None:
    key = record["key"]
    _, layer, count, kind = key.split("__")
    index = selection.highest(START[layer], D[f"saliency__{layer}"], int(count.removeprefix("k")))
    masks = grown(START, {layer: index})
    regrown = RegrownWeights(masks[layer].shape, index, masks[layer], None, None, torch.Generator())
    assert (regrown.fan_in, regrown.fan_out) == (record["fan_in"], record["fan_out"])
    bound = kaiming_bound(regrown) if kind == "kaiming" else xavier_bound(regrown)
    assert bound == pytest.approx(float(D[f"{key}__bound"]), rel=1e-6)
    values = initial_values(kind, masks, {layer: index}, torch.Generator().manual_seed(0))[layer]
    recorded, unit = D[f"{key}__values"], D[f"{key}__unit_draws"]
    assert values.shape == recorded.shape
    assert unit.abs().max() <= 1
    assert float((recorded - unit * bound).abs().max()) <= max(record.get("max_err_vs_unit_draw_times_bound", 0), 1e-6)
    assert float(recorded.abs().max()) == pytest.approx(record.get("max_abs", float(recorded.abs().max())))
    assert record.get("bound", bound) == pytest.approx(bound, rel=1e-6)
    assert values.abs().max() <= bound
    assert values.abs().mean() == pytest.approx(bound / 2, rel=0.3)  # uniform
    assert values.unique().numel() == len(values)


@pytest.mark.parametrize("record", named("d_selection.npz", "ref__"))
def test_by_reference(record: dict[str, Any]) -> None:
    key = record["key"]
    _, allowed_name, layer, _ = key.split("__")
    allowed, reference = D[f"allowed_mask_{allowed_name}__{layer}"].bool(), D[f"reference_mask__{layer}"].bool()
    # bit-identical to the original's draws: one generator, the priority group first
    generator = torch.Generator().manual_seed(record.get("torch_manual_seed", 0))
    index, kept = selection.referenced(START[layer], allowed, reference, record["requested"], generator)
    assert len(index) == len(index.unique()) == record["actual"]
    assert kept == min(record["requested"], record["n_priority"])
    priority = set((~START[layer] & allowed & reference).flatten().nonzero().flatten().tolist())
    assert len(priority) == record["n_priority"]
    others = int((~START[layer] & allowed & ~reference).sum())
    assert record.get("n_other", others) == others
    assert set(index[:kept].tolist()) <= priority
    assert not set(index[kept:].tolist()) & priority
    if record.get("deterministic"):
        assert set(index.tolist()) == set(D[f"{key}__order"].tolist())
    elif "torch_manual_seed" in record:
        assert torch.equal(index, D[f"{key}__order"])
    else:
        return  # another draw
    expect(*regrow(layer, index, DENSE[layer].reshape(-1)[index]), key)


@pytest.mark.parametrize("record", named("d_selection.npz", "refreplay__"))
def test_replay(record: dict[str, Any]) -> None:
    key = record["key"]
    layer = key.split("__")[2]
    wanted = D[f"{key}__requested_idx"]
    assert len(wanted) == record["requested"]
    index = selection.eligible(START[layer], flat(wanted, START[layer].shape))
    assert len(index) == record["actual"]
    expect(*regrow(layer, index, DENSE[layer].reshape(-1)[index]), key)


def flat(index: Tensor, shape: torch.Size) -> Tensor:
    """Flat indices [n] of indices per dimension [n, dims]."""
    return torch.from_numpy(np.ravel_multi_index(index.T.numpy(), tuple(shape)))


@pytest.mark.parametrize("record", named("d_selection.npz", "single__"))
def test_single_layer(record: dict[str, Any]) -> None:
    key = record["key"]
    layer = key.split("__")[1]
    mask = START[layer]
    generator = torch.Generator().manual_seed(record.get("torch_manual_seed", 0))
    reference = D[f"reference_mask__{layer}"].bool()
    index, kept = selection.referenced(mask, torch.ones_like(mask), reference, record["requested"], generator)
    assert (kept, len(index) - kept) == (record["from_reference"], record["random_init"])
    room = (int((~mask & reference).sum()), int((~mask & ~reference).sum()))
    assert (record.get("cap_reference", room[0]), record.get("cap_random", room[1])) == room
    new = grown({layer: mask}, {layer: index})[layer]
    regrown = RegrownWeights(new.shape, index[kept:], new, None, None, torch.Generator().manual_seed(1))
    drawn = fan_in_normal(regrown)
    values = torch.cat([DENSE[layer].reshape(-1)[index[:kept]], drawn.float()])
    got, weight = regrow(layer, index, values)
    assert int(got.sum()) == int(D[f"{key}__mask"].sum())
    assert torch.equal(weight.reshape(-1)[index[:kept]], DENSE[layer].reshape(-1)[index[:kept]])
    theirs, new_there = D[f"{key}__weight"], D[f"{key}__mask"].bool() & ~mask
    assert torch.equal(theirs[~new_there], D[f"start_weight__{layer}"][~new_there])
    assert int((theirs[new_there] == DENSE[layer][new_there]).sum()) >= kept
    assert record["random_std"] == pytest.approx(math.sqrt(2 / new.shape[1]))
    if len(drawn) > 30:  # the original's fan-in lacks the kernel's area
        area = math.prod(new.shape[2:])
        assert float(drawn.std()) == pytest.approx(record["random_std"] / math.sqrt(area), rel=0.2)


@pytest.mark.parametrize("record", named("d_selection.npz", "replayinit__"))
def test_replay_with_initial_values(record: dict[str, Any]) -> None:
    key = record["key"]
    _, kind, again = key.split("__")
    saved = {name: flat(index, START[name].shape) for name, index in D.under("replayinit__idx__").items()}
    indices = {name: selection.eligible(START[name], index) for name, index in saved.items()}
    assert sum(map(len, indices.values())) == record["total"]
    masks, weights, generator = (
        grown(START, indices),
        stale(),
        torch.Generator().manual_seed(record.get("torch_manual_seed", 0)),
    )
    assert record.get("deterministic", kind != "dual_lottery") == (kind != "dual_lottery")
    write_weights(weights, indices, initial_values(kind, masks, indices, generator, stale=weights, reference=DENSE))
    if again == "reinit1":
        reinitialise(kind, weights, masks, generator, {name: DENSE[name] for name in indices})
    for name in LAYERS:
        assert torch.equal(masks[name], D[f"{key}__mask__{name}"].bool()), name
        reference = D[f"{key}__weight__{name}"]
        if kind != "dual_lottery":
            assert torch.equal(weights[name], reference), name
        elif again == "reinit0":
            old = torch.ones(reference.numel(), dtype=torch.bool)
            old[indices.get(name, torch.empty(0, dtype=torch.int64))] = False
            assert torch.equal(weights[name].reshape(-1)[old], reference.reshape(-1)[old]), name
        else:
            assert torch.equal(weights[name] != 0, reference != 0), name


def test_dual_lottery_has_the_variance_of_its_rows_kept_weights() -> None:
    mask = torch.zeros(2, 4000, dtype=torch.bool)
    mask[1, :1000] = True
    index = torch.cat([torch.arange(500), torch.arange(4000 + 1000, 4000 + 4000)])
    masks = grown({"w": mask}, {"w": index})
    values = initial_values("dual_lottery", masks, {"w": index}, torch.Generator().manual_seed(0))["w"]
    assert float(values[:500].std()) == pytest.approx(math.sqrt(2 / 500), rel=0.1)
    assert float(values[500:].std()) == pytest.approx(math.sqrt(2 / 4000), rel=0.1)


@pytest.mark.parametrize("record", named("f_baselines.npz", "randsel__", "salsel__"))
def test_selection_of_the_baselines(record: dict[str, Any]) -> None:
    kind, layer = record["key"].split("__")
    if kind == "salsel":
        index = selection.highest(START[layer], D[f"saliency__{layer}"], record["requested"])
    else:
        index = selection.uniform(
            START[layer], record["requested"], torch.Generator().manual_seed(record.get("torch_manual_seed", 0))
        )
    assert len(index) == record["actual"]
    mask, weight = regrow(layer, index, torch.zeros(len(index)))
    if kind == "salsel":
        expect(mask, weight, record["key"], arrays("f_baselines.npz"))
    else:
        assert int(mask.sum()) == int(arrays("f_baselines.npz")[f"{record['key']}__mask"].sum())
        assert not weight.reshape(-1)[index].any()
        theirs = arrays("f_baselines.npz")[f"{record['key']}__weight"]  # another draw: its new weights are zero as well
        new = arrays("f_baselines.npz")[f"{record['key']}__mask"].bool() & ~START[layer]
        assert int(new.sum()) == record["actual"]
        assert torch.equal(theirs, torch.where(new, 0, D[f"start_weight__{layer}"]))


def test_random_layer_selection() -> None:
    """A subset of the layers in random order. Ours draws from a generator of its own, not from Python's."""
    record = record_of("f_baselines.npz", "random_layer_selection")
    names, count = list(record["in"]), record["num_layers"]
    theirs = list(names)
    random.Random(record["python_random_seed"]).shuffle(theirs)
    assert theirs[:count] == record["out"]
    net = Net(nn.Sequential(OrderedDict((name, nn.Linear(4, 4)) for name in names)))
    net.set_masks({f"{name}.weight": torch.eye(4, dtype=torch.bool) for name in names})
    orders = set()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        chosen = choose_targets(net, dict.fromkeys(net.masks, 0.5), layers=names, threshold=None, order="shuffled",
                                missing=None, generator=generator)  # fmt: skip
        assert sorted(chosen.names) == sorted(net.masks)
        orders.add(tuple(chosen.names[:count]))
    assert len(orders) > 1


def test_growing_kept_weights_or_one_twice_is_refused() -> None:
    layer = (LAYERS or absent("layer in bidirectional/d_selection.npz"))[0]
    there = START[layer].flatten().nonzero()[0]
    gone = (~START[layer]).flatten().nonzero()[0]
    for index in (there, torch.cat([gone, gone])):
        with pytest.raises(ValueError, match="already, or given twice"):
            grown(START, {layer: index})
