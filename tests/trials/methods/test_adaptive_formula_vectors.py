"""The adaptive sparsity loss's thresholds, rates and networks equal those recorded from the released code."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from tests.trials.methods.adaptive_recorded import MANIFEST, close, config_of, file_of, numbers, zeros
from tests.trials.recorded_set import Arrays, absent, cases
from trials.config.schedules import Schedule
from trials.methods.adaptive.adaptive_sparsity import AdaptiveSparsityConfig, TrainWithThresholds
from trials.methods.adaptive.thresholds import Thresholded, analytic_sparsity, sparsity_loss, threshold_of
from trials.methods.parsing import parse
from trials.models import MODELS
from trials.models.late_stride_wide_resnet import late_stride_wide_resnet
from trials.training.net import Net


def test_thresholds_at_and_beyond_their_ends() -> None:
    file = file_of("edge_r_f64")
    cases = numbers(file, r"case(\d+)/")
    assert len(cases) == len(file["r"])
    for case in cases:
        r = file["r"][case]
        layers = Thresholded({"weight": file["weight"]}, 0.0)
        layers.r.copy_(r)
        layers.r.requires_grad_()
        layers.centre()
        (mask,), (w,) = layers.masks().values(), layers.w.values()
        effective = (w * mask).requires_grad_()
        output = nn.functional.linear(file["x"], effective, file["bias"])
        (output * file["cotangent"]).sum().backward()
        layers.pass_through({"weight": effective})
        assert w.grad is not None
        assert layers.r.grad is not None
        close(output, file[f"case{case}/output"], f"case {case}, output")
        close(effective, file[f"case{case}/effective_weight"], f"case {case}, W")
        close(w.grad, file[f"case{case}/grad_weight"], f"case {case}, dL/dw")
        close(layers.r.grad, file[f"case{case}/grad_r_task"], f"case {case}, dL/dr at r = {float(r)}")
        density = 1 - analytic_sparsity(layers.r)
        close(density, file[f"case{case}/density"], f"case {case}, density")
        (slope,) = torch.autograd.grad(density.sum(), layers.r)
        close(slope, file[f"case{case}/ddensity_dr"], f"case {case}, d density/dr")


def test_initial_thresholds() -> None:
    file = file_of("init_and_schedule")
    for position, starget in enumerate(file["starget"].tolist()):
        config = config_of(starget=starget)
        r0 = torch.tensor(config.first_threshold(), dtype=torch.float64)
        close(r0, file["r0"][position], f"r0 of {starget}")
        layers = Thresholded({"weight": torch.randn(4, 4, dtype=torch.float64)}, config.first_threshold())
        assert layers.r.item() == file["r0_float32"][position].item()
        close(analytic_sparsity(r0), file["init_sparsity_analytic"][position], f"sparsity at the start, {starget}")
        close(threshold_of(starget), file["r_for_exact_target"][position], f"r at the target {starget}")


def test_learning_rates() -> None:
    for name, recorded in file_of("init_and_schedule").under("lr_per_epoch/").items():
        epochs, (lr, threshold_lr) = int(name), recorded[0].tolist()
        assert len(recorded) == epochs
        train = {"epochs": epochs, "lr": lr}
        config = parse(
            {"method": "adaptive_sparsity", "dataset": "digits", "model": "tiny", "starget": 0.5, "variant": "original",
             "train": train}
        )  # fmt: skip
        assert isinstance(config, AdaptiveSparsityConfig)
        assert config.threshold_lr_factor * lr == pytest.approx(threshold_lr, rel=1e-12)
        schedule = config.train.lr_schedule()
        rates = torch.tensor([schedule(epoch) for epoch in range(epochs)], dtype=recorded.dtype)
        close(rates, recorded[:, 0], f"learning rates of {name} epochs")
        close(config.threshold_lr_factor * rates, recorded[:, 1], f"the thresholds', {name} epochs")
        corrected = [Schedule("cosine_restart", lr, epochs)(epoch) for epoch in range(epochs)]
        if epochs % 2:
            assert recorded[-1, 0] == lr
            assert corrected[-1] < lr
        else:
            close(torch.tensor(corrected, dtype=recorded.dtype), recorded[:, 0], f"{name} epochs, corrected")


def wide(file: Arrays) -> nn.Module:
    about, state = MANIFEST["wrn"], file.under("state/")
    assert about.get("input", list(file["x"].shape))[1:] == list(file["x"].shape[1:])
    model = late_stride_wide_resnet(
        about["depth"],
        about["widen_factor"],
        num_classes=about.get("num_classes", len(file["logits_eval"][0])),
        in_channels=file["x"].shape[1],
    )
    tracked = "num_batches_tracked"  # not recorded
    own = [name for name in model.state_dict() if not name.endswith(tracked)]
    if lacking := [name for name in own if name not in state]:
        absent(f"array state/{lacking[0]} in {file.file}")
    assert own == [name for name in state if not name.endswith(tracked)]
    model.load_state_dict({**model.state_dict(), **state})
    return model


def test_wide_resnet() -> None:
    file = file_of("wrn")
    with torch.no_grad():
        assert torch.allclose(wide(file).eval()(file["x"]), file["logits_eval"], rtol=0, atol=1e-4)
        assert torch.allclose(wide(file).train()(file["x"]), file["logits_train"], rtol=0, atol=1e-4)


def test_sparsified_wide_resnet() -> None:
    file = file_of("wrn")
    keys = [key for key in file if key.startswith("logits_eval_sparsified")]
    if not keys:
        absent("array logits_eval_sparsified_... in adaptive_sparsity/wrn.npz")
    (key,) = keys
    match = re.fullmatch(r"logits_eval_sparsified_starget([\d.]+)_pthres(\d+)", key)
    assert match is not None
    net = Net(wide(file).eval())
    TrainWithThresholds(config_of(starget=float(match[1]), pthres=int(match[2]))).enter(net)
    with torch.no_grad():
        assert torch.allclose(net.model(file["x"]), file[key], rtol=0, atol=1e-4)
    assert list(net.masks) == [f"{layer}.weight" for layer in MANIFEST["wrn"]["sparsified_layers_in_order"]]
    assert zeros(net) == file["sparsified_zeros"].tolist()
    percent = 100 * sum(zeros(net)) / sum(mask.numel() for mask in net.masks.values())
    assert percent == pytest.approx(float(file["sparsified_measured_percent"]), rel=1e-6)


PUBLISHED = [key for key in MANIFEST if re.fullmatch(r"wrn\d+_\d+_\w+", key)]


@pytest.mark.parametrize("key", cases(PUBLISHED, "published wide ResNet, as wrn16_8_cifar100"))
def test_wide_resnet_as_published(key: str) -> None:
    about = MANIFEST[key]
    depth, widen, _ = key.removeprefix("wrn").split("_", 2)
    classes, channels = about["shapes"]["linear.weight"][0], about["shapes"]["conv1.weight"][1]
    with torch.device("meta"):
        if (name := f"wrn_{depth}_{widen}") in MODELS:
            model = MODELS[name](num_classes=classes, in_channels=channels)
        else:
            model = late_stride_wide_resnet(int(depth), int(widen), num_classes=classes, in_channels=channels)
    assert {name: list(p.shape) for name, p in model.named_parameters()} == about["shapes"]
    assert sum(p.numel() for p in model.parameters()) == about["parameters"]
    config = parse({"method": "adaptive_sparsity", "dataset": "cifar100", "model": "wrn_16_8", "starget": 0.9})
    assert isinstance(config, AdaptiveSparsityConfig)
    sparsified = config.sparsified(model)
    assert {name.removesuffix(".weight"): w.numel() for name, w in sparsified.items()} == about["sparsified"]
    assert sum(w.numel() for w in sparsified.values()) == about["sparsified_weights_total"]


def test_one_sided_is_the_corrected_form_of_the_scripts_hint() -> None:
    """The loss is lv relu(D - (1 - T)), with D the weighted density."""
    n, starget, lv = torch.tensor([300.0, 100.0], dtype=torch.float64), 0.7, 3.0
    for sparsity in (0.4, 0.69, 0.71, 0.9):
        r = torch.tensor([threshold_of(sparsity)] * 2, dtype=torch.float64).requires_grad_()
        loss = sparsity_loss(r, n, starget=starget, lv=lv, mode="one_sided")
        (gradient,) = torch.autograd.grad(loss, r)
        assert loss.item() == pytest.approx(lv * max(starget - sparsity, 0), abs=1e-12)
        slope = math.sqrt(2 / math.pi) * torch.exp(-r.detach().square() / 2)
        close(gradient, -lv * (sparsity < starget) * n / n.sum() * slope, f"gradient at {sparsity}")
