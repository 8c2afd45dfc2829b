"""Magnitude pruning with each distribution equals the reference vectors, mask for mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.bidirectional import about, arrays, records
from tests.trials.recorded_set import cases, covers
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES, Masks, build_masks, drop_nearest, keep_nearest

FILE = "a_pruners.npz"
ABOUT = about(FILE)
OURS = {"lamp": "global", "glob": "global", "unif": "uniform", "unifplus": "uniform_plus", "erk": "erk"}
CASES: dict[str, dict[str, Any]] = {case["key"]: case for case in records(FILE)}


def test_every_pruner_and_mode_is_there() -> None:
    covers([case["pruner"] for case in CASES.values()], OURS, f"pruner in bidirectional/{FILE}")
    modes = [(mode, iteration) for mode in ("static", "updated") for iteration in (1, 2)]
    covers([(case["mode"], case["iteration"]) for case in CASES.values()], modes, f"mode in bidirectional/{FILE}")


def weights(net: str, which: str, within: Masks | None) -> dict[str, Tensor]:
    found = {layer: arrays(FILE)[f"{net}__{which}__{layer}"] for layer in ABOUT["layers"][net]}
    return {layer: w * within[layer] for layer, w in found.items()} if within else found


def prune(case: dict[str, Any], now: dict[str, Tensor], within: Masks | None) -> Masks:
    lamp = case["pruner"] == "lamp"
    scores = SCORES["lamp" if lamp else "magnitude"](now, torch.Generator())
    return build_masks(
        scores,
        density=1 - case["amount"],
        pattern=PATTERNS["weight"],
        distribution=DISTRIBUTIONS[OURS[case["pruner"]]],
        within=within,
        count=keep_nearest if lamp else drop_nearest,
    )


def start(case: dict[str, Any]) -> tuple[dict[str, Tensor], Masks | None]:
    """The weights and masks that the case's prune finds."""
    if case["iteration"] == 1:
        return weights(case["net"], "weight", None), None
    before = {**case, "iteration": 1}
    masks = prune(before, *start(before))
    return weights(case["net"], "weight_updated" if case["mode"] == "updated" else "weight", masks), masks


@pytest.mark.parametrize("key", cases(CASES, f"case in bidirectional/{FILE}"))
def test_masks(key: str) -> None:
    case = CASES[key]
    if "error" in case:
        assert case["error"] == "ValueError"
        with pytest.raises(ValueError, match=f"{OURS[case['pruner']]} must remove"):
            prune(case, *start(case))
        return
    now, within = start(case)
    masks = prune(case, now, within)
    if "kept_exact_arithmetic" in case:
        assert [int(mask.sum()) for mask in masks.values()] == case["kept_exact_arithmetic"]
    if not case.get("float32_sensitive"):
        assert [int(mask.sum()) for mask in masks.values()] == case["kept"]
        for layer, mask in masks.items():
            assert torch.equal(mask, arrays(FILE)[f"{key}__mask__{layer}"].bool()), layer
    if (amounts := arrays(FILE).get(f"{key}__amounts")) is not None and not case.get("float32_sensitive"):
        had = [int(mask.sum()) for mask in within.values()] if within else [w.numel() for w in now.values()]
        ours = [1 - int(mask.sum()) / count if count else 0.0 for mask, count in zip(masks.values(), had, strict=True)]
        # recorded fractions differ from the removed share by rounding, half a weight at most
        for mine, theirs, count in zip(ours, amounts.tolist(), had, strict=True):
            assert abs(mine - theirs) <= 0.5 / max(count, 1) + 1e-6


@pytest.mark.parametrize("net", cases(ABOUT.get("layers", {}), f"net in bidirectional/{FILE}"))
def test_lamp_scores(net: str) -> None:
    dense = weights(net, "weight", None)
    compare(SCORES["lamp"](dense, torch.Generator()), f"{net}__lamp_scores_dense__")


SCORED = [key for key in CASES if any(a.startswith(f"{key}__lamp_scores") for a in arrays(FILE))]


@pytest.mark.parametrize("key", cases(SCORED, f"LAMP score after pruning in bidirectional/{FILE}"))
def test_lamp_scores_after_pruning(key: str) -> None:
    now, _ = start(CASES[key])
    masks = prune(CASES[key], now, None)
    left = {layer: w * masks[layer] for layer, w in now.items()}
    compare(SCORES["lamp"](left, torch.Generator()), f"{key}__lamp_scores_after__")


def compare(scores: dict[str, Tensor], prefix: str) -> None:
    for layer, score in scores.items():
        torch.testing.assert_close(score, arrays(FILE)[prefix + layer].double(), rtol=2e-5, atol=1e-9)


def test_recorded_invalid_names_are_unknown() -> None:
    assert set(ABOUT["invalid_pruner_names"].values()) == {"ValueError"}
    assert not set(ABOUT["invalid_pruner_names"]) & {"global", "uniform", "uniform_plus", "erk", "lamp"}


@pytest.mark.parametrize("size", [10, 100_000])
def test_lamp_keeps_one_weight_in_every_layer_while_the_budget_allows(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = {str(i): torch.randn(size, generator=generator) * 10.0 ** -(3 * i) for i in range(4)}
    layers["equal"] = torch.ones(size)
    layers["nothing"] = torch.zeros(size)
    scores = SCORES["lamp"](layers, torch.Generator())
    masks = build_masks(
        scores,
        density=5.5 / (6 * size),
        pattern=PATTERNS["weight"],
        distribution=DISTRIBUTIONS["global"],
        count=lambda density, n: int(density * n),
    )
    assert [int(mask.sum()) for mask in masks.values()] == [1, 1, 1, 1, 1, 0]
    assert masks["equal"][-1]  # of equal weights the lower index is removed first
    assert not scores["nothing"].any()
