"""Regrown weights and their initial values equal the reference vectors (file d, and the cases of f)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trials.bidirectional import MANIFEST, arrays, records, under
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

D = arrays("d_selection.npz")
LAYERS = [key.removeprefix("start_mask__") for key in D if key.startswith("start_mask__")]
START = {name: D[f"start_mask__{name}"].bool() for name in LAYERS}
DENSE = {name: D[f"dense_weight__{name}"] for name in LAYERS}


def stale() -> dict[str, Tensor]:
    return {name: D[f"start_weight__{name}"].clone() for name in LAYERS}


def named(name: str, prefix: str) -> list[dict[str, Any]]:
    return records(name, prefix)


def ids(record: dict[str, Any]) -> str:
    return str(record["key"])


def regrow(layer: str, index: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's mask and weights, with ``values`` at ``index``."""
    weights = stale()
    masks = grown(START, {layer: index})
    write_weights(weights, {layer: index}, {layer: values})
    return masks[layer], weights[layer]


def expect(mask: Tensor, weight: Tensor, key: str, source: dict[str, Tensor] = D) -> None:
    assert torch.equal(mask, source[f"{key}__mask"].bool())
    assert torch.equal(weight, source[f"{key}__weight"])


def test_capacities() -> None:
    (capacities,) = (r["capacities"] for r in MANIFEST["d_selection.npz"] if "capacities" in r)
    assert {name: int((~START[name]).sum()) for name in LAYERS} == capacities


@pytest.mark.parametrize("record", named("d_selection.npz", "sal__"), ids=ids)
def test_by_saliency(record: dict[str, Any]) -> None:
    key = record["key"]
    _, layer, _, kind = key.split("__")
    index = selection.highest(START[layer], D[f"saliency__{layer}"], record["requested"])
    assert len(index) == record["actual"]
    assert torch.equal(index, D[f"{key}__order"])
    masks = grown(START, {layer: index})
    values = initial_values(kind, masks, {layer: index}, torch.Generator(), stale=stale())
    expect(*regrow(layer, index, values[layer]), key)


@pytest.mark.parametrize("record", named("d_selection.npz", "salinit__"), ids=ids)
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
    assert values.shape == D[f"{key}__values"].shape
    assert values.abs().max() <= bound
    assert values.abs().mean() == pytest.approx(bound / 2, rel=0.3)  # uniform
    assert values.unique().numel() == len(values)


@pytest.mark.parametrize("record", named("d_selection.npz", "ref__"), ids=ids)
def test_by_reference(record: dict[str, Any]) -> None:
    key = record["key"]
    _, allowed_name, layer, _ = key.split("__")
    allowed, reference = D[f"allowed_mask_{allowed_name}__{layer}"].bool(), D[f"reference_mask__{layer}"].bool()
    # bit-identical to the original's draws: one generator, the priority group first
    generator = torch.Generator().manual_seed(record["torch_manual_seed"])
    index, kept = selection.referenced(START[layer], allowed, reference, record["requested"], generator)
    assert len(index) == len(index.unique()) == record["actual"]
    assert kept == min(record["requested"], record["n_priority"])
    priority = set((~START[layer] & allowed & reference).flatten().nonzero().flatten().tolist())
    assert len(priority) == record["n_priority"]
    assert set(index[:kept].tolist()) <= priority
    assert not set(index[kept:].tolist()) & priority
    if record["deterministic"]:
        assert set(index.tolist()) == set(D[f"{key}__order"].tolist())
    else:
        assert torch.equal(index, D[f"{key}__order"])
    expect(*regrow(layer, index, DENSE[layer].reshape(-1)[index]), key)


@pytest.mark.parametrize("record", named("d_selection.npz", "refreplay__"), ids=ids)
def test_replay(record: dict[str, Any]) -> None:
    key = record["key"]
    layer = key.split("__")[2]
    wanted = D[f"{key}__requested_idx"]
    assert len(wanted) == record["requested"]
    index = still_pruned(START[layer], flat(wanted, START[layer].shape))
    assert len(index) == record["actual"]
    expect(*regrow(layer, index, DENSE[layer].reshape(-1)[index]), key)


def still_pruned(mask: Tensor, index: Tensor) -> Tensor:
    """What a replay of saved indices can regrow: not what is kept by now."""
    return index[~mask.reshape(-1)[index]]


def flat(index: Tensor, shape: torch.Size) -> Tensor:
    """Flat indices [n] of indices per dimension [n, dims]."""
    return torch.from_numpy(np.ravel_multi_index(index.T.numpy(), tuple(shape)))


@pytest.mark.parametrize("record", named("d_selection.npz", "single__"), ids=ids)
def test_single_layer(record: dict[str, Any]) -> None:
    key = record["key"]
    layer = key.split("__")[1]
    mask = START[layer]
    generator = torch.Generator().manual_seed(record["torch_manual_seed"])
    reference = D[f"reference_mask__{layer}"].bool()
    index, kept = selection.referenced(mask, torch.ones_like(mask), reference, record["requested"], generator)
    assert (kept, len(index) - kept) == (record["from_reference"], record["random_init"])
    new = grown({layer: mask}, {layer: index})[layer]
    regrown = RegrownWeights(new.shape, index[kept:], new, None, None, torch.Generator().manual_seed(1))
    drawn = fan_in_normal(regrown)
    values = torch.cat([DENSE[layer].reshape(-1)[index[:kept]], drawn.float()])
    got, weight = regrow(layer, index, values)
    assert int(got.sum()) == int(D[f"{key}__mask"].sum())
    assert torch.equal(weight.reshape(-1)[index[:kept]], DENSE[layer].reshape(-1)[index[:kept]])
    if len(drawn) > 30:  # the original's fan-in lacks the kernel's area
        area = math.prod(new.shape[2:])
        assert float(drawn.std()) == pytest.approx(record["random_std"] / math.sqrt(area), rel=0.2)


@pytest.mark.parametrize("record", named("d_selection.npz", "replayinit__"), ids=ids)
def test_replay_with_initial_values(record: dict[str, Any]) -> None:
    key = record["key"]
    _, kind, again = key.split("__")
    saved = {name: flat(index, START[name].shape) for name, index in under(D, "replayinit__idx__").items()}
    indices = {name: still_pruned(START[name], index) for name, index in saved.items()}
    assert sum(map(len, indices.values())) == record["total"]
    masks, weights, generator = (
        grown(START, indices),
        stale(),
        torch.Generator().manual_seed(record["torch_manual_seed"]),
    )
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


@pytest.mark.parametrize(
    "record", [r for p in ("randsel__", "salsel__") for r in records("f_baselines.npz", p)], ids=ids
)
def test_selection_of_the_baselines(record: dict[str, Any]) -> None:
    kind, layer = record["key"].split("__")
    if kind == "salsel":
        index = selection.highest(START[layer], D[f"saliency__{layer}"], record["requested"])
    else:
        index = selection.uniform(
            START[layer], record["requested"], torch.Generator().manual_seed(record["torch_manual_seed"])
        )
    assert len(index) == record["actual"]
    mask, weight = regrow(layer, index, torch.zeros(len(index)))
    if kind == "salsel":
        expect(mask, weight, record["key"], arrays("f_baselines.npz"))
    else:
        assert int(mask.sum()) == int(arrays("f_baselines.npz")[f"{record['key']}__mask"].sum())
        assert not weight.reshape(-1)[index].any()


def test_growing_kept_weights_or_one_twice_is_refused() -> None:
    layer = LAYERS[0]
    there = START[layer].flatten().nonzero()[0]
    gone = (~START[layer]).flatten().nonzero()[0]
    for index in (there, torch.cat([gone, gone])):
        with pytest.raises(ValueError, match="already, or given twice"):
            grown(START, {layer: index})
