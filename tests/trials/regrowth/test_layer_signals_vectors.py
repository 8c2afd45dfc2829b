"""SSIM and saliency equal the reference vectors (files b and c)."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

from tests.trials import bidirectional
from tests.trials.bidirectional import about, arrays
from tests.trials.recorded_set import cases
from trials.regrowth.saliency import (
    biased_entries,
    class_saliency,
    class_statistics,
    saliency,
    sparse_saliency,
    squared_gradients,
)
from trials.regrowth.ssim import (
    ascending,
    below,
    defined,
    layer_similarity,
    mean_maps,
    sample_maps,
    similarities,
    similarity,
)
from trials.sparsity import prunable
from trials.training.net import Net

B = arrays("b_ssim.npz")
C = arrays("c_saliency.npz")
PAIRS = [key.removesuffix("__a") for key in B if key.startswith("maps__") and key.endswith("__a")]


def check(ours: Tensor | float, reference: Tensor, atol: float, rtol: float = 0.0) -> None:
    torch.testing.assert_close(torch.as_tensor(ours).double(), reference.double(), rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("pair", cases(PAIRS, "pair of maps in bidirectional/b_ssim.npz"))
def test_ssim_of_two_maps(pair: str) -> None:
    check(similarity(B[f"{pair}__a"][None], B[f"{pair}__b"][None])[0], B[f"{pair}__ssim"], atol=2e-6)


def test_ssim_of_layers_of_equal_size_in_one_go() -> None:
    a, b = ({pair: B[f"{pair}__{which}"][None] for pair in PAIRS} for which in "ab")
    for pair, value in similarities(a, b).items():
        check(value[0], B[f"{pair}__ssim"], atol=2e-6)


def test_maps_that_are_skipped_are_undefined() -> None:
    skipped = {f"maps__{name.replace('/', '__')}" for name in about("b_ssim.npz")["skipped_maps"]}
    assert skipped == {pair for pair in PAIRS if math.isnan(float(B[f"{pair}__ssim"]))}
    assert skipped == {p for p in PAIRS if similarity(B[f"{p}__a"][None], B[f"{p}__b"][None]).isnan().all()}


def test_which_layers_are_scored() -> None:
    """Blocks without any scored map are left out."""
    said, scored = about("b_ssim.npz"), {pair.split("__")[1] for pair in PAIRS if not B[f"{pair}__ssim"].isnan()}
    assert {pair.split("__")[1] for pair in PAIRS} - scored == set(said["blocks_absent_from_result"])
    for name, blocks in said.items():
        if match := re.fullmatch(r"raw_(nb\d+)_layers_present", name):
            found = [(key.split("__")[2], key.split("__")[3]) for key in RAW if f"__{match[1]}__" in key]
            assert sorted(found) == sorted((block, layer) for block, layers in blocks.items() for layer in layers)


class Raw(nn.Module):
    """The README's layers on a raw activation."""

    def __init__(self) -> None:
        super().__init__()
        self.p, self.q, self.r, self.lin = nn.Identity(), nn.AvgPool2d(2), nn.Identity(), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        self.q(x)
        self.r(torch.ones_like(x[:, :1]))
        return self.lin(self.p(x))  # type: ignore[no-any-return]


RAW = sorted(key.removesuffix("__ssim") for key in B if re.fullmatch(r"raw__nb\d+__\w+__ssim", key))


@pytest.mark.parametrize("key", cases(RAW, "raw activation in bidirectional/b_ssim.npz"))
def test_features(key: str) -> None:
    _, count, _, layer = key.split("__")
    found = {
        which: mean_maps(Raw(), B.numbered(f"raw__{which}__batch{{}}")[: int(count.removeprefix("nb"))], [layer, "lin"])
        for which in "ab"
    }
    for which, maps in found.items():
        assert list(maps) == [layer]  # outputs other than feature maps are left out
        check(maps[layer], B[f"{key}__feat_{which}"], atol=2e-6)
    check(similarity(found["a"][layer][None], found["b"][layer][None])[0], B[f"{key}__ssim"], atol=2e-6)


LAYERS = [key.removeprefix("e2e__ssim__") for key in B if key.startswith("e2e__ssim__")]


def states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The dense network's and the sparse one's state."""
    masks = {f"{name}.weight": mask for name, mask in B.under("e2e__mask__").items()}
    dense = dict(B.under("e2e__state__"))
    return dense, {name: value * masks[name] if name in masks else value for name, value in dense.items()}


def networks() -> tuple[nn.Module, nn.Module]:
    dense, sparse = (bidirectional.cnn(state, B["e2e__x0"]) for state in states())
    return dense, sparse


def end_to_end() -> dict[str, float]:
    return layer_similarity(*networks(), B.numbered("e2e__x{}"), LAYERS)


def test_dense_against_sparse_network() -> None:
    found = end_to_end()
    assert list(found) == LAYERS
    for which, network in zip(("dense", "sparse"), networks(), strict=True):
        maps = mean_maps(network, B.numbered("e2e__x{}"), LAYERS)
        for name, reference in B.under(f"e2e__feat_{which}__").items():
            check(maps[name], reference, atol=2e-6)
    for name, value in found.items():
        check(value, B[f"e2e__ssim__{name}"], atol=5e-5)


def test_priority_and_target_layers() -> None:
    said, found = about("b_ssim.npz"), end_to_end()
    default = said["e2e_ssim_with_default"]
    missing = next((value for name, value in default.items() if math.isnan(found[name])), 0.5)
    assert defined(found, missing) == pytest.approx(default, abs=5e-5)
    assert ascending(found, missing) == said["e2e_priority_order"]
    for threshold, names in said["selector_layers_by_threshold"].items():
        assert set(below(found, float(threshold), missing)) == set(names)
    measured = [name for name in LAYERS if not math.isnan(found[name])]
    assert set(ascending(found)) == set(measured)  # undefined signals are left out
    assert set(below(found, 2.0)) == set(measured)


def test_images_one_by_one() -> None:
    images, layers = B["perclass__images"], list(B.under("perclass__ssim__"))
    assert len(B["perclass__labels"].unique()) == len(images)
    dense, sparse = (sample_maps(network, images, layers) for network in networks())
    for name, values in similarities(dense, sparse).items():
        check(values, B[f"perclass__ssim__{name}"], atol=5e-5)
        check(values.mean(), B[f"perclass__avg__{name}"], atol=5e-5)
    averaged = layer_similarity(*networks(), images.split(3), layers, per="sample")
    for name, value in averaged.items():
        check(value, B[f"perclass__avg__{name}"], atol=5e-5)


def batches() -> list[tuple[Tensor, Tensor]]:
    return list(zip(C.numbered("x{}"), C.numbered("y{}"), strict=True))


def network() -> nn.Module:
    return bidirectional.cnn(C.under("state__"), C["x0"])


def close(ours: Tensor, reference: Tensor) -> None:
    check(ours, reference, rtol=1e-4, atol=1e-6 * float(reference.abs().max()))


@pytest.mark.parametrize(
    ("prefix", "limit"),
    [
        ("saliency", None),
        ("saliency_targets_only", None),  # the original ignores its max_batches, as the manifest says
        ("saliency_first_batch_only", 1),
        ("saliency_baseline_script", None),
    ],
)
def test_saliency(prefix: str, limit: int | None) -> None:
    net = Net(network())
    reference = C.under(f"{prefix}__")
    weights = prunable(net.model)
    wanted = {f"{name}.weight": weights[f"{name}.weight"] for name in reference}
    if prefix == "saliency_targets_only" and not about("c_saliency.npz").get("max_batches_argument_ignored", True):
        limit = 1
    for name, ours in saliency(net, batches(), wanted, limit).items():
        close(ours, reference[name.removesuffix(".weight")])


def test_saliency_of_a_sparse_network_needs_the_dense_weights() -> None:
    net = Net(network())
    weights = prunable(net.model)
    dense = {name: weight.detach().clone() for name, weight in weights.items()}
    net.set_masks(
        {name: torch.rand(w.shape, generator=torch.Generator().manual_seed(0)) < 0.5 for name, w in dense.items()}
    )
    with pytest.raises(ValueError, match="has masks"):  # where the original gives all zero
        saliency(net, batches(), weights)
    squares = squared_gradients(net, batches(), weights)
    for name, ours in sparse_saliency(net, batches(), weights, dense).items():
        torch.testing.assert_close(ours, squares[name] * dense[name] ** 2)
        assert ours[~net.masks[name]].any()  # pruned weights have a saliency too


def test_masks_do_not_make_all_saliencies_zero() -> None:
    """The original's names no longer match once a network has masks, so all that it finds is zero."""
    assert about("c_saliency.npz")["masked_model_gives_all_zero"] is True
    net = Net(network())
    dense = {name: weight.detach().clone() for name, weight in prunable(net.model).items()}
    net.set_masks({name: torch.ones_like(weight, dtype=torch.bool) for name, weight in dense.items()})
    reference = C.under("saliency__")
    for name, ours in sparse_saliency(net, batches(), prunable(net.model), dense).items():
        close(ours, reference[name.removesuffix(".weight")])  # masks that keep all change nothing


def class_saliencies(order: str) -> dict[str, Tensor]:
    model = network()
    reference = C.under(f"perclass_{order}__")
    parameters = {name: dict(model.named_parameters())[name] for name in reference}
    classes = len(next(iter(reference.values())))
    return class_saliency(model, batches(), parameters, classes, "first" if order == "first" else "second")


@pytest.mark.parametrize("order", ["first", "second"])
def test_class_saliency(order: str) -> None:
    present = about("c_saliency.npz")["classes_present"]
    for name, ours in class_saliencies(order).items():
        close(ours, C[f"perclass_{order}__{name}"])
        absent = [c for c in range(len(ours)) if c not in present]
        assert not ours[absent].any()
        assert ours[present].any(1).all()


def test_class_statistics_and_biased_entries() -> None:
    percentile = about("c_saliency.npz")["biased_percentile"]
    for name, ours in class_saliencies("second").items():
        statistics = class_statistics(ours)
        close(statistics.mean, C[f"stats_mean_per_class__{name}"])
        close(statistics.std, C[f"stats_std_per_class__{name}"])
        close(statistics.mean_range, C[f"stats_avg_max_diff__{name}"])
        close(statistics.unfairness, C[f"stats_fairness_score__{name}"])
        index, ranges, classes = biased_entries(ours, percentile)
        reference = C[f"biased_idx__{name}"].reshape(-1)
        assert set(index.tolist()) == set(reference.tolist())
        close(ranges, C[f"biased_diff__{name}"])
        theirs = dict(zip(reference.tolist(), C[f"biased_class__{name}"].reshape(-1).tolist(), strict=True))
        assert dict(zip(index.tolist(), classes.tolist(), strict=True)) == theirs
