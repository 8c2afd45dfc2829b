"""DWP: the surrogates, their gradient, and a small attack that transfers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from tests.trials.folders import rows_of
from tests.trials.global_and_gradient import MANIFEST, build_net, convs, load
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.config.recipes import BackwardConfig
from trials.methods.dwp.attacks import Attack, Fooled, input_gradient
from trials.methods.dwp.surrogates import PrunedPass, Surrogates
from trials.sparsity import PATTERNS
from trials.sparsity.dropping import drop

CHANNELS, CLASSES = load("inputs.npz")["x"].shape[1], load("inputs.npz")["cotangent"].shape[1]
PIXELS = torch.full((CHANNELS, 1, 1), -2.0), torch.full((CHANNELS, 1, 1), 3.0)


def inputs() -> tuple[Tensor, Tensor]:
    arrays = load("inputs.npz", torch.float64)
    assert MANIFEST.get("input", list(arrays["x"].shape)) == list(arrays["x"].shape)
    return arrays["x"], arrays["y"]


def surrogates(count: int = 3, pruned_pass: PrunedPass = "both", **fields: float) -> Surrogates:
    return Surrogates(
        build_net(torch.float64).eval(),
        BackwardConfig(**fields),  # type: ignore[arg-type]
        count=count,
        pruned_pass=pruned_pass,
        generators=lambda layer: torch.Generator().manual_seed(len(layer)),
    )


@pytest.mark.parametrize("pruned_pass", ["both", "backward"])
def test_without_candidates_it_is_the_networks_own_gradient(pruned_pass: PrunedPass) -> None:
    x, y = inputs()
    ensemble = surrogates(p_prune=0.0, p_bern=0.5, pruned_pass=pruned_pass)
    leaf = x.clone().requires_grad_(True)
    torch.autograd.backward(F.cross_entropy(ensemble.model(leaf), y, reduction="sum"))
    torch.testing.assert_close(ensemble(x, y), leaf.grad)
    alone = torch.stack([ensemble(x[i : i + 1], y[i : i + 1])[0] for i in range(len(y))])  # per image
    torch.testing.assert_close(ensemble(x, y), alone)


def test_it_is_the_mean_over_networks_with_pruned_weights() -> None:
    x, y = inputs()
    model = build_net(torch.float64)
    magnitudes = {name: model.get_submodule(name).weight.detach().abs() for name in convs()}
    kept = drop(magnitudes, 0.5, pattern=PATTERNS["weight"])
    first, again = surrogates(count=3, p_prune=0.5, p_bern=0.5), surrogates(count=3, p_prune=0.5, p_bern=0.5)
    gradients = []
    for _ in range(3):
        weights = first.draw()
        for name in convs():
            changed = weights[f"{name}.weight"] != model.get_submodule(name).weight
            assert not (changed & kept[name]).any()
            assert not weights[f"{name}.weight"][changed].any()
        gradients.append(input_gradient(lambda z, w=weights: functional_call(model, w, (z,)), x, y))  # type: ignore[misc]
    assert not torch.equal(gradients[0], gradients[1])
    torch.testing.assert_close(again(x, y), torch.stack(gradients).mean(0))
    assert not torch.equal(again(x, y), again(x, y))  # each call draws new surrogates


def test_pruning_the_backward_pass_alone_keeps_the_loss() -> None:
    x, y = inputs()
    both, backward = (
        surrogates(count=1, p_prune=0.5, p_bern=1.0, pruned_pass=pruned_pass) for pruned_pass in ("both", "backward")
    )
    own = input_gradient(backward.model, x, y)
    found = [both(x, y), backward(x, y), own]
    assert not any(torch.allclose(a, b) for a, b in ((found[0], found[1]), (found[1], own)))
    torch.testing.assert_close(input_gradient(backward.model, x, y), own)  # the network is unchanged
    assert not any("forward" in vars(module) for module in backward.model.modules())


@pytest.mark.parametrize("targeted", [False, True])
def test_an_attack_stays_in_its_ball_and_reaches_its_goal(targeted: bool) -> None:
    x, y = inputs()
    x = x.clamp(-2, 3)
    model = build_net(torch.float64).eval()
    attack = Attack(epsilon=0.02, steps=5, momentum=1.0, targeted=targeted)
    labels = (y + 1) % CLASSES if targeted else y
    changed = attack(lambda z, t: input_gradient(model, z, t), x, labels, PIXELS)
    assert ((changed - x).abs() <= 0.02 * 5 + 1e-12).all()  # epsilon is of pixels in 0..1, which here span 5
    assert (changed - x).abs().max() > 0.02 * 4.9
    assert (changed >= PIXELS[0]).all()
    assert (changed <= PIXELS[1]).all()
    before, after = (F.cross_entropy(model(z), labels) for z in (x, changed))
    assert (after < before) == targeted


def test_rates_of_fooled_images() -> None:
    before, after, y = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 1, 0, 0]), torch.tensor([0, 1, 2, 0])
    away, towards = Fooled.zero(torch.device("cpu")), Fooled.zero(torch.device("cpu"))
    away.add(before, after, y, None)
    towards.add(before, after, y, torch.tensor([1, 2, 1, 1]))
    assert away.rate() == 2 / 3
    assert towards.rate() == 1 / 3
    assert Fooled.zero(torch.device("cpu")).rate() == 0


def test_rows_report_transfer_with_and_without(few_digits: None, tmp_path: Path) -> None:
    recipe = {"epochs": 8, "batch_size": 32}
    rates = {}
    for epsilon in (0.001, 0.3):
        config = config_of("dwp", pretrain=recipe, epsilon=epsilon, steps=4, images=40)
        state = run_in(tmp_path, config)
        assert state.status == "complete", state.error
        row = rows_of(folder_of(config, tmp_path))["epochs"][-1]
        assert row["density"] == 1
        rates[epsilon] = row
    assert len(list((tmp_path / "stages").iterdir())) == 2  # surrogate and victim, shared by both trials
    for split in ("val", "test"):
        for name in ("", "_dense"):
            for kind in ("transfer", "white_box"):
                column = f"{split}_{kind}_rate{name}"
                assert rates[0.001][column] < rates[0.3][column] <= 1
            assert rates[0.3][f"{split}_transfer_rate{name}"] > 0.2
