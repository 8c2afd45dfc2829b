"""Masks equal those of the reference vectors, entry by entry (their README is the definition)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.vectors import MANIFEST, load
from trials.sparsity import DISTRIBUTIONS, PATTERNS, Masks, build_masks

GROUPS = ["filter", "channel"]


def global_masks(scores: list[Tensor], density: float) -> Masks:
    named = {str(i): score for i, score in enumerate(scores)}
    return build_masks(
        named, density=density, pattern=PATTERNS["weight"], distribution=DISTRIBUTIONS["global"], absolute=True
    )


def group_mask(scores: Tensor, pattern: str, density: float) -> Tensor:
    return build_masks(
        {"w": scores}, density=density, pattern=PATTERNS[pattern], distribution=DISTRIBUTIONS["uniform"], absolute=True
    )["w"]


def test_unstructured() -> None:
    arrays = load("mask_unstructured.npz")
    scores = arrays.numbered("scores_{}")
    for a, density in enumerate(arrays["ks"].tolist()):
        masks = global_masks(scores, density)
        assert sum(int(m.sum()) for m in masks.values()) == int(arrays[f"n_kept_k{a}"])
        for mask, reference in zip(masks.values(), arrays.numbered(f"mask_k{a}_{{}}"), strict=True):
            assert torch.equal(mask, reference.bool())


def within_ties(masks: list[Tensor], values: list[Tensor], kept: int) -> bool:
    """Whether the masks keep ``kept`` entries, all above the threshold among them, and none below it."""
    flat, scores = (torch.cat([part.reshape(-1) for part in parts]) for parts in (masks, values))
    if int(flat.sum()) != kept:
        return False
    if not kept:
        return True
    threshold = scores.sort(descending=True).values[kept - 1]
    return bool(flat[scores > threshold].all()) and not bool(flat[scores < threshold].any())


def test_unstructured_ties() -> None:
    """The released sort keeps some of the tied entries, ours the higher flat indices."""
    arrays = load("mask_unstructured_ties.npz")
    scores = arrays.numbered("scores_{}")
    stable = said("mask_unstructured_ties.npz").get("equals_stable_ascending_sort")
    for a, density in enumerate(arrays["ks"].tolist()):
        ours = list(global_masks(scores, density).values())
        released = [mask.bool() for mask in arrays.numbered(f"mask_k{a}_{{}}")]
        for masks in (ours, released):
            assert within_ties(masks, [score.abs() for score in scores], int(arrays[f"n_kept_k{a}"]))
        for mask, reference in zip(ours, arrays.numbered(f"mask_stable_k{a}_{{}}"), strict=True):
            assert torch.equal(mask, reference.bool())
        if stable is not None:
            assert all(map(torch.equal, ours, released)) == stable[a]


def said(name: str) -> dict[str, Any]:
    """What the manifest says of a file, if anything."""
    found: dict[str, Any] = MANIFEST.get("files", {}).get(name, {})
    return found


def test_the_manifest_gives_the_shapes_and_axes_of_the_files() -> None:
    for name in ("mask_unstructured.npz", "mask_unstructured_ties.npz"):
        shapes = [list(score.shape) for score in load(name).numbered("scores_{}")]
        assert said(name).get("layer_shapes", shapes) == shapes
    for axis, pattern in enumerate(GROUPS):
        about, scores = said(f"mask_{pattern}.npz"), load(f"mask_{pattern}.npz")["scores"]
        assert about.get("shape", list(scores.shape)) == list(scores.shape)
        assert about.get("axis", axis) == axis


@pytest.mark.parametrize("pattern", GROUPS)
def test_groups(pattern: str) -> None:
    arrays = load(f"mask_{pattern}.npz")
    norms = PATTERNS[pattern].unit_scores(arrays["scores"]).reshape(-1)
    torch.testing.assert_close(norms, arrays["group_norms"], rtol=1e-12, atol=0)
    per_group = arrays["scores"].numel() // norms.numel()
    for a, density in enumerate(arrays["ks"].tolist()):
        mask = group_mask(arrays["scores"], pattern, density)
        assert torch.equal(mask, arrays[f"mask_k{a}"].bool())
        assert int(mask.sum()) == int(arrays[f"groups_kept_k{a}"]) * per_group


@pytest.mark.parametrize("pattern", GROUPS)
def test_groups_ties(pattern: str) -> None:
    arrays = load(f"mask_{pattern}.npz")
    stable = said(f"mask_{pattern}.npz").get("ties_equal_stable")
    norms = PATTERNS[pattern].unit_scores(arrays["scores_ties"]).reshape(-1)
    for a, density in enumerate(arrays["ks"].tolist()):
        mask, released = group_mask(arrays["scores_ties"], pattern, density), arrays[f"mask_ties_k{a}"].bool()
        assert torch.equal(mask, arrays[f"mask_ties_stable_k{a}"].bool())
        units = released.movedim(GROUPS.index(pattern), 0).flatten(1)
        assert torch.equal(units.any(1), units.all(1))
        assert within_ties([units.any(1)], [norms], int(arrays[f"groups_kept_k{a}"]))
        if stable is not None:
            assert torch.equal(mask, released) == stable[a]
