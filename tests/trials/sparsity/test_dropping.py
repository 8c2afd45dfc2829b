"""Global and layer pruning by a share of units: the reference vectors, exact counts, and restoring."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.trials.global_and_gradient import build_net, convs, load, of_convs, squeezed
from trials.sparsity import PATTERNS, Masks, prunable
from trials.sparsity.dropping import drop, drop_count, pruned, shares, smallest_kept, spare
from trials.sparsity.gradients import GRADIENT_SCORES, mean_gradients
from trials.training.net import Net

KERNEL = PATTERNS["kernel"]


def magnitudes(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().abs() for name, weight in prunable(model, linear=False).items()}


def off(masks: Masks) -> int:
    return sum(int((~mask).sum()) for mask in masks.values())


@pytest.mark.parametrize("rule", ["exact", "below"])
def test_global_prune_npz(rule: str) -> None:
    """Without ties the released rule and the exact one are the same."""
    arrays, inputs, model = load("global_prune.npz"), load("inputs.npz"), build_net()
    scores = magnitudes(model)
    norms = {name: KERNEL.unit_scores(score) for name, score in scores.items()}
    for name, reference in of_convs(arrays, "kernel_l1").items():
        torch.testing.assert_close(norms[name][:, :, 0, 0], reference, rtol=1e-6, atol=0)
    total = int(arrays["total_kernels"])
    assert total == sum(norm.numel() for norm in norms.values())
    assert int(arrays["total_weights"]) == sum(score.numel() for score in scores.values())
    for i in arrays.numbers("p{}/"):
        share = float(arrays["p_prune"][i])
        masks = drop(scores, share, pattern=KERNEL, rule=rule)  # type: ignore[arg-type]
        kept = {name: squeezed(mask, mask.shape[:2]) for name, mask in masks.items()}
        for name, reference in of_convs(arrays, f"p{i}/keep_kernel_mask").items():
            assert torch.equal(kept[name], reference.bool()), (i, name)
        assert sum(int((~k).sum()) for k in kept.values()) == int(arrays[f"p{i}/pruned_kernels"])
        assert int(arrays[f"p{i}/pruned_kernels"]) == drop_count(share, total)
        assert off(masks) == int(arrays[f"p{i}/pruned_weights"])
        tau = smallest_kept(list(norms.values()), [k[:, :, None, None] for k in kept.values()])
        torch.testing.assert_close(tau, arrays[f"p{i}/threshold"], rtol=1e-6, atol=0)
        measured = shares(model, masks, KERNEL)
        assert measured["unit_sparsity"] == int(arrays[f"p{i}/pruned_kernels"]) / total
        assert measured["weight_sparsity"] == int(arrays[f"p{i}/pruned_weights"]) / int(arrays["total_weights"])
        with pruned(model, masks), torch.no_grad():
            torch.testing.assert_close(model(inputs["x"]), arrays[f"p{i}/logits"], rtol=0, atol=1e-5)


def test_elementwise_masks_npz() -> None:
    arrays, scores = load("elementwise_masks.npz"), magnitudes(build_net())
    assert int(arrays["total_weights"]) == sum(score.numel() for score in scores.values())
    for i in arrays.numbers("p{}/"):
        masks = drop(scores, float(arrays["p_prune"][i]), pattern=PATTERNS["weight"])
        for name, reference in of_convs(arrays, f"p{i}/keep_mask").items():
            assert torch.equal(masks[name], reference.bool()), (i, name)
        assert off(masks) == int(arrays[f"p{i}/pruned_weights"])
        tau = smallest_kept(list(scores.values()), list(masks.values()))
        torch.testing.assert_close(tau, arrays[f"p{i}/threshold"], rtol=1e-6, atol=0)


def test_global_prune_bernoulli_npz() -> None:
    arrays, scores = load("global_prune_bernoulli.npz"), magnitudes(build_net())
    for i in arrays.numbers("case{}/"):
        p_prune, p_bern = arrays["p_prune_p_bern"][i].tolist()
        candidates, runs = drop(scores, p_prune, pattern=KERNEL), float(arrays[f"case{i}/repeats"])
        for name, reference in of_convs(arrays, f"case{i}/candidate_mask").items():
            assert torch.equal(~squeezed(candidates[name], reference.shape), reference.bool())
            # the original's own draws: a frequency near p_bern at every candidate, and nowhere else
            frequency = arrays[f"case{i}/prune_frequency/{name.removesuffix('.weight')}"]
            assert not frequency[~reference.bool()].any()
            off_by = (frequency[reference.bool()] - p_bern).abs()
            assert (off_by <= 6 * math.sqrt(p_bern * (1 - p_bern) / runs)).all()
        count = sum(int((~squeezed(mask, mask.shape[:2])).sum()) for mask in candidates.values())
        assert count == int(arrays[f"case{i}/candidates"])
        mean, std = float(arrays[f"case{i}/theory_mean"]), float(arrays[f"case{i}/theory_std"])
        assert (mean, std) == pytest.approx((count * p_bern, math.sqrt(count * p_bern * (1 - p_bern))))
        assert abs(float(arrays[f"case{i}/pruned_kernels_mean"]) - mean) < 5 * std / math.sqrt(runs)
        assert float(arrays[f"case{i}/pruned_kernels_std"]) == pytest.approx(std, rel=0.25)
        for seed in (
            int(key.split("/")[1][4:]) for key in arrays if key.startswith(f"case{i}/seed") and convs()[0] in key
        ):
            one = torch.Generator().manual_seed(seed)
            masks = spare(candidates, p_bern, pattern=KERNEL, generators=lambda _, one=one: one)
            for name, reference in of_convs(arrays, f"case{i}/seed{seed}/keep_kernel_mask").items():
                assert torch.equal(squeezed(masks[name], reference.shape), reference.bool())
        repeats, counts = 200, []
        one = torch.Generator().manual_seed(i)
        for _ in range(repeats):
            masks = spare(candidates, p_bern, pattern=KERNEL, generators=lambda _, one=one: one)
            assert not any((~masks[name] & candidates[name]).any() for name in masks)
            counts.append(sum(int((~squeezed(m, m.shape[:2])).sum()) for m in masks.values()))
        assert abs(sum(counts) / repeats - mean) < 5 * std / math.sqrt(repeats)
        assert len(set(counts)) > 1


def test_layer_pruning_npz_gradients_and_scores() -> None:
    arrays, inputs, model = load("layer_pruning.npz"), load("inputs.npz"), build_net()
    weights = prunable(model, linear=False)
    half = len(inputs["y"]) // 2
    for batches in (
        [(inputs["x"], inputs["y"])],
        [(inputs["x"][:half], inputs["y"][:half]), (inputs["x"][half:], inputs["y"][half:])],
    ):
        gradients = mean_gradients(Net(model), weights, batches)
        for name, reference in of_convs(arrays, "grad").items():
            torch.testing.assert_close(gradients[name], reference, rtol=1e-4, atol=1e-6)
        for kind, ours in (("taylor", "taylor"), ("grad", "gradient")):
            scores = GRADIENT_SCORES[ours](weights, gradients)
            for name, reference in of_convs(arrays, f"scores/{kind}").items():
                torch.testing.assert_close(scores[name], reference, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, reference in of_convs(arrays, "scores/l1").items():
        torch.testing.assert_close(KERNEL.unit_scores(weights[name].abs())[:, :, 0, 0], reference, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["taylor", "grad", "l1"])
@pytest.mark.parametrize(("rule", "recorded"), [("exact", "exact_k"), ("through", "original")])
def test_layer_pruning_npz_masks(kind: str, rule: str, recorded: str) -> None:
    arrays = load("layer_pruning.npz")
    scores = of_convs(arrays, f"scores/{kind}")
    pattern = PATTERNS["kernel" if kind == "l1" else "weight"]
    if kind == "l1":
        scores = {name: score[:, :, None, None] for name, score in scores.items()}
    for i in arrays.numbers("p{}/"):
        masks = drop(scores, float(arrays["p"][i]), pattern=pattern, per_layer=True, rule=rule)  # type: ignore[arg-type]
        for name in convs():
            reference = arrays[f"p{i}/{kind}/keep_mask_{recorded}/{name}"].bool()
            assert torch.equal(squeezed(masks[f"{name}.weight"], reference.shape), reference), (i, name)
            assert int((~reference).sum()) == int(arrays[f"p{i}/{kind}/pruned_{recorded}/{name}"])


def test_layer_pruning_npz_ties() -> None:
    arrays = load("layer_pruning.npz")
    score = GRADIENT_SCORES["taylor"]({"w": arrays["ties/weight"]}, {"w": arrays["ties/grad"]})
    share = float(arrays["ties/p"])
    exact, released = (
        drop(score, share, pattern=PATTERNS["weight"], per_layer=True, rule=rule)["w"] for rule in ("exact", "through")
    )
    assert torch.equal(released, arrays["ties/keep_mask_original"].bool())
    assert int((~exact).sum()) == drop_count(share, exact.numel()) < int((~released).sum())


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    share=st.floats(0, 1, exclude_max=True),
    levels=st.integers(1, 5),
    per_layer=st.booleans(),
)
def test_counts_are_exact_under_ties(sizes: list[int], share: float, levels: int, per_layer: bool) -> None:
    source = torch.Generator().manual_seed(sum(sizes))
    scores = {str(i): torch.randint(levels, (n,), generator=source).float() for i, n in enumerate(sizes)}
    exact = drop(scores, share, pattern=PATTERNS["weight"], per_layer=per_layer)
    pools = [[name] for name in scores] if per_layer else [list(scores)]
    for names in pools:
        n = sum(scores[name].numel() for name in names)
        assert off({name: exact[name] for name in names}) == int(share * n)
    below, through = (
        drop(scores, share, pattern=PATTERNS["weight"], per_layer=per_layer, rule=rule) for rule in ("below", "through")
    )
    for name in scores:  # "below" removes a subset of "exact", which removes a subset of "through"
        assert not (~below[name] & exact[name]).any()
        assert not (~exact[name] & through[name]).any()


def test_a_mean_does_not_favour_small_kernels() -> None:
    scores = {"small": torch.full((2, 2, 1, 1), 1.0), "large": torch.full((2, 2, 3, 3), 0.5)}
    assert not drop(scores, 0.5, pattern=KERNEL)["small"].any()
    assert not drop(scores, 0.5, pattern=PATTERNS["kernel_mean"])["large"].any()
    filters = drop(scores, 0.5, pattern=PATTERNS["filter_l1"])
    assert not filters["small"].any()
    assert filters["large"].all()


@pytest.mark.parametrize("pattern", ["kernel", "weight", "kernel_mean"])
def test_the_best_unit_of_every_output_channel_can_be_kept(pattern: str) -> None:
    source = torch.Generator().manual_seed(0)
    small, large = (torch.rand(shape, generator=source) for shape in ((6, 5, 1, 1), (4, 6, 3, 3)))
    scores = {"small": small * 1e-3, "large": large}
    plain, kept = (drop(scores, 0.5, pattern=PATTERNS[pattern], keep_one=one) for one in (False, True))
    assert not plain["small"].flatten(1).any(1).all()
    units = {name: PATTERNS[pattern].unit_scores(score) for name, score in scores.items()}
    for name, unit in units.items():
        alive = PATTERNS[pattern].unit_scores(kept[name].float()) > 0
        assert alive.flatten(1).gather(1, unit.flatten(1).argmax(1, keepdim=True)).all()
    total = sum(unit.numel() for unit in units.values())
    gone = sum(int((PATTERNS[pattern].unit_scores(mask.float()) == 0).sum()) for mask in kept.values())
    assert gone == drop_count(0.5, total)
    assert off(drop(scores, 0.99, pattern=PATTERNS["weight"], keep_one=True)) == drop_count(0.99, 246)


def test_temporarily_pruned_weights_are_restored() -> None:
    model = build_net()
    weight = model.get_submodule(convs()[0]).weight
    assert isinstance(weight, nn.Parameter)
    weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    half, most = (drop(magnitudes(model), share, pattern=KERNEL) for share in (0.5, 0.9))
    with pruned(model, most), pruned(model, half):
        for name, mask in most.items():
            assert torch.equal(model.get_parameter(name) != 0, mask & half[name])
    with pytest.raises(RuntimeError, match="on purpose"), pruned(model, most):
        raise RuntimeError("on purpose")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.get_submodule(convs()[0]).weight is weight
    assert not weight.requires_grad


def test_sparing_draws_do_not_depend_on_the_dropped_share() -> None:
    scores = {"a": torch.rand(40, 3, 3, 3), "b": torch.rand(20, 40, 1, 1)}

    def spared(share: float) -> Masks:
        candidates = drop(scores, share, pattern=KERNEL)
        return spare(candidates, 0.5, pattern=KERNEL, generators=lambda n: torch.Generator().manual_seed(ord(n)))

    less, more = spared(0.3), spared(0.6)
    assert off(less)
    for name in scores:
        assert not (more[name] & ~less[name]).any()
