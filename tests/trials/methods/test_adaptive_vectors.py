"""The adaptive sparsity loss equals what was recorded from the released code, in float64 and in float32."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import VECTORS
from trials.config import parse
from trials.methods.adaptive_sparsity import AdaptiveSparsityConfig, TrainWithThresholds
from trials.models import MODELS
from trials.models.late_stride_wide_resnet import late_stride_wide_resnet
from trials.schedules import Schedule
from trials.sparsity.thresholds import Thresholded, analytic_sparsity, cut, sparsity_loss, threshold_of
from trials.training import Net

FOLDER = VECTORS / "adaptive_sparsity"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
LAYERS: list[str] = MANIFEST["sparsified_layers_in_order"]
PRECISIONS = {"f64": torch.float64, "f32": torch.float32}
TOLERANCES = {torch.float64: (1e-8, 1e-10), torch.float32: (2e-4, 2e-5)}


class File:
    """One file's arrays."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz") as file:
            self.arrays = {key: torch.from_numpy(np.array(file[key])) for key in file.files}

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def under(self, prefix: str) -> dict[str, Tensor]:
        found = {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}
        assert found, f"nothing is recorded under {prefix}"
        return found

    def numbers(self, pattern: str) -> list[int]:
        found = sorted({int(match[1]) for key in self.arrays if (match := re.match(pattern, key))})
        assert found
        return found


INPUTS = File("inputs")


def close(ours: Tensor | float, reference: Tensor, what: str) -> None:
    ours = torch.as_tensor(ours, dtype=reference.dtype).detach()
    rtol, atol = TOLERANCES[reference.dtype]
    torch.testing.assert_close(
        ours.reshape(reference.shape), reference, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}"
    )


def build_model() -> nn.Sequential:
    """The manifest's net, from its description."""
    model = nn.Sequential()
    for position, text in enumerate(MANIFEST["net"]["layers"]):
        if match := re.match(r"(\w+): Conv2d\((\d+),(\d+),k(\d+),pad(\d+),stride(\d+),(no )?bias\)", text):
            name, *sizes, without = match.groups()
            i, o, k, padding, stride = map(int, sizes)
            model.add_module(name, nn.Conv2d(i, o, k, stride=stride, padding=padding, bias=not without))
        elif match := re.match(r"(\w+): Linear\((\d+),(\d+),(no )?bias\)", text):
            model.add_module(match[1], nn.Linear(int(match[2]), int(match[3]), bias=not match[4]))
        elif match := re.match(r"adaptive_avg_pool2d to (\d+)x(\d+), flatten", text):
            model.add_module("pool", nn.AdaptiveAvgPool2d((int(match[1]), int(match[2]))))
            model.add_module("flatten", nn.Flatten())
        else:
            assert text == "ReLU", text
            model.add_module(f"relu{position}", nn.ReLU())
    model.load_state_dict(INPUTS.under("init/"))
    return model


def batch(index: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return INPUTS["x"][index].to(dtype), INPUTS["y"][index].long()


def config_of(**fields: Any) -> AdaptiveSparsityConfig:
    optimizer = MANIFEST["optimizer"]
    assert (optimizer["type"], optimizer["dampening"], optimizer["nesterov"]) == ("SGD", 0, False)
    assert optimizer["weight_decay_thresholds"] == 0
    train = {
        "epochs": 1,
        "lr": optimizer["lr_weights"],
        "momentum": optimizer["momentum"],
        "weight_decay": optimizer["weight_decay_weights"],
        "schedule": "constant",
    }
    content = {"method": "adaptive_sparsity", "dataset": "digits", "model": "tiny", "train": train}
    content |= {key: MANIFEST[key] for key in ("starget", "lv", "pthres")}
    content["threshold_lr_factor"] = optimizer["lr_thresholds"] / optimizer["lr_weights"]
    config = parse({**content, **fields})
    assert isinstance(config, AdaptiveSparsityConfig)
    return config


def stage_of(dtype: torch.dtype, r: list[float] | None = None, **fields: Any) -> tuple[TrainWithThresholds, Net]:
    """The stage as it stands after it was entered, with thresholds ``r`` if they are given."""
    net, stage = Net(build_model().to(dtype)), TrainWithThresholds(config_of(**fields))
    stage.enter(net)
    if r is not None:
        stage.layers.r.copy_(torch.tensor(r, dtype=torch.float32))
        stage.cut(net)
    stage.attach(net)
    stage.begin_epoch(0)
    assert list(stage.layers.w) == [f"{layer}.weight" for layer in LAYERS]
    return stage, net


def zeros(net: Net) -> list[int]:
    return [int((~mask).sum()) for mask in net.masks.values()]


GIVEN: list[float] = MANIFEST["r_for_forward_and_gradients"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_forward(precision: str) -> None:
    dtype, file = PRECISIONS[precision], File(f"forward_{precision}")
    plain = Thresholded(config_of().sparsified(build_model().to(dtype)), 0.0)
    r = torch.tensor(GIVEN, dtype=torch.float32).to(dtype)
    before = [int((w.abs() <= cut(r[i], w.std())).sum()) for i, w in enumerate(plain.w.values())]
    assert before == [int(file[f"measured_before_forward/zeros/{layer}"]) for layer in LAYERS]
    stage, net = stage_of(dtype, GIVEN)
    layers, parameters = stage.layers, dict(net.model.named_parameters())
    with torch.no_grad():
        logits = net.model(batch(0, dtype)[0])
    close(logits, file["logits"], "logits")
    close(logits, file["desparsified_logits"], "desparsified logits")
    for position, layer in enumerate(LAYERS):
        weight = f"{layer}.weight"
        close(layers.r[position], file[f"r/{layer}"], f"r/{layer}")
        close(layers.w[weight], file[f"recentred_weight/{layer}"], f"recentred_weight/{layer}")
        close(parameters[weight], file[f"effective_weight/{layer}"], f"effective_weight/{layer}")
        close(parameters[weight], file[f"desparsified_weight/{layer}"], f"desparsified_weight/{layer}")
        close(layers.sigma[position], file[f"sigma/{layer}"], f"sigma/{layer}")
        close(layers.t[position], file[f"threshold/{layer}"], f"threshold/{layer}")
        assert layers.counts[position] == int(file[f"numel/{layer}"])
    assert zeros(net) == [int(file[f"measured/zeros/{layer}"]) for layer in LAYERS]
    assert sum(zeros(net)) == int(file["measured/zeros_total"])
    for name, total in (("measured", sum(zeros(net))), ("measured_before_forward", sum(before))):
        assert 100 * total / sum(layers.counts) == pytest.approx(float(file[f"{name}/percent"]), rel=1e-6)
    s = analytic_sparsity(layers.r)
    close(1 - s, file["analytic_density_per_layer"], "density per layer")
    close(s, file["analytic_sparsity_per_layer"], "sparsity per layer")
    close(stage.columns()["analytic_density"], file["analytic_density_weighted"], "weighted density")
    close(net.loss(*batch(0, dtype))[0], file["loss/task"], "task loss")
    for mode in ("adaptive", "fixed"):
        loss = stage_of(dtype, GIVEN, mode=mode)[0].sparsity_loss()
        close(loss, file[f"loss/sparsity_{mode}"], f"{mode} loss")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["task", "adaptive", "fixed", "nontrainable_task"])
def test_gradients(mode: str, precision: str) -> None:
    dtype, file = PRECISIONS[precision], File(f"gradients_{precision}")
    fields = {"mode": mode} if mode in ("adaptive", "fixed") else {"lv": 0.0, "trainable": mode == "task"}
    stage, net = stage_of(dtype, GIVEN, **fields)
    loss, _ = stage.backward(net, batch(0, dtype))
    parameters = dict(net.model.named_parameters())
    ours: dict[str, Tensor | None] = {name: parameter.grad for name, parameter in parameters.items()}
    ours |= {name: w.grad for name, w in stage.layers.w.items()}
    for position, layer in enumerate(LAYERS):
        ours[f"{layer}.r"] = None if stage.layers.r.grad is None else stage.layers.r.grad[position]
    if mode == "nontrainable_task":
        assert file["nontrainable_task/r_grad_is_none"].all()
        assert stage.layers.r.grad is None
    else:
        close(loss, file[f"{mode}/loss_total"], "loss")
        for layer, reference in file.under(f"{mode}/grad_effective_weight/").items():
            gradient = parameters[f"{layer}.weight"].grad
            assert gradient is not None
            close(gradient, reference, f"dL/dW of {layer}")
    recorded = file.under(f"{mode}/grad/")
    assert recorded.keys() == {name for name, gradient in ours.items() if gradient is not None}
    for name, reference in recorded.items():
        gradient = ours[name]
        assert gradient is not None
        close(gradient, reference, name)
    if mode in ("adaptive", "fixed"):
        (alone,) = torch.autograd.grad(stage.sparsity_loss(), stage.layers.r)
        for position, layer in enumerate(LAYERS):
            close(alone[position], file[f"{mode}/grad_sparsity_loss_only/{layer}.r"], f"sparsity loss alone, {layer}")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["adaptive", "fixed"])
def test_trajectory(mode: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype, file = PRECISIONS[precision], File(f"trajectory_{mode}_{precision}")
    stage, net = stage_of(dtype, mode=mode)
    layers = stage.layers
    close(stage.config.first_threshold(), file["r0"].double(), "r0")
    assert torch.equal(layers.r.detach().double(), file["r_start_actual"].double())
    original = stage.cut

    def before_centring(net: Net) -> None:
        """Everything as the optimizers left it."""
        ours = {**dict(net.model.named_parameters()), **layers.w}
        ours |= {f"{layer}.r": layers.r[position] for position, layer in enumerate(LAYERS)}
        recorded = file.under(f"step{t}/param/")
        assert recorded.keys() == ours.keys()
        for name, reference in recorded.items():
            close(ours[name], reference, f"step {t}, {name}")
        measured = [int((w.abs() <= cut(layers.r[i], w.std())).sum()) for i, w in enumerate(layers.w.values())]
        assert measured == [int(file[f"step{t}/measured_zeros/{layer}"]) for layer in LAYERS]
        assert sum(measured) == int(file[f"step{t}/measured_zeros_total"])
        original(net)

    monkeypatch.setattr(stage, "cut", before_centring)
    for t in file.numbers(r"step(\d+)/"):
        assert zeros(net) == [int(file[f"step{t}/forward_zeros/{layer}"]) for layer in LAYERS]
        close(1 - analytic_sparsity(layers.r), file[f"step{t}/density_per_layer"], f"step {t}, density")
        close(stage.sparsity_loss(), file[f"step{t}/sparsity_loss"], f"step {t}, sparsity loss")
        loss, _ = stage.step(batch(t - 1, dtype))
        close(loss, file[f"step{t}/task_loss"] + file[f"step{t}/sparsity_loss"], f"step {t}, loss")
        recorded = file.under(f"step{t}/param/")
        for name, w in layers.w.items():
            close(w, recorded[name] - recorded[name].mean(), f"step {t}, {name} centred")
    with torch.no_grad():
        logits = net.model.eval()(batch(0, dtype)[0])
    close(logits, file["final/eval_logits_x0"], "final logits")
    close(logits, file["final/desparsified_logits_x0"], "final desparsified logits")
    assert sum(zeros(net)) == int(file["final/zeros_after_eval_forward"])
    percent = 100 * sum(zeros(net)) / sum(layers.counts)
    assert percent == pytest.approx(float(file["final/measured_percent_after_eval_forward"]), rel=1e-6)


def test_thresholds_at_and_beyond_their_ends() -> None:
    file = File("edge_r_f64")
    cases = file.numbers(r"case(\d+)/")
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
    file = File("init_and_schedule")
    for position, starget in enumerate(file["starget"].tolist()):
        config = config_of(starget=starget)
        r0 = torch.tensor(config.first_threshold(), dtype=torch.float64)
        close(r0, file["r0"][position], f"r0 of {starget}")
        layers = Thresholded({"weight": torch.randn(4, 4, dtype=torch.float64)}, config.first_threshold())
        assert layers.r.item() == file["r0_float32"][position].item()
        close(analytic_sparsity(r0), file["init_sparsity_analytic"][position], f"sparsity at the start, {starget}")
        close(threshold_of(starget), file["r_for_exact_target"][position], f"r at the target {starget}")


def test_learning_rates() -> None:
    for name, recorded in File("init_and_schedule").under("lr_per_epoch/").items():
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


def wide(file: File) -> nn.Module:
    about = MANIFEST["wrn"]
    channels = file["x"].shape[1]
    model = late_stride_wide_resnet(
        about["depth"], about["widen_factor"], num_classes=about["num_classes"], in_channels=channels
    )
    state = file.under("state/")
    tracked = "num_batches_tracked"  # not recorded
    assert [name for name in model.state_dict() if not name.endswith(tracked)] == list(state)
    model.load_state_dict({**model.state_dict(), **state})
    return model


def test_wide_resnet() -> None:
    file = File("wrn")
    with torch.no_grad():
        assert torch.allclose(wide(file).eval()(file["x"]), file["logits_eval"], rtol=0, atol=1e-4)
        assert torch.allclose(wide(file).train()(file["x"]), file["logits_train"], rtol=0, atol=1e-4)
    (key,) = (key for key in file.arrays if key.startswith("logits_eval_sparsified"))
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


def test_wide_resnet_as_published() -> None:
    about = MANIFEST["wrn16_8_cifar100"]
    with torch.device("meta"):
        model = MODELS["wrn_16_8"](num_classes=100, in_channels=3)
    assert {name: list(p.shape) for name, p in model.named_parameters()} == about["shapes"]
    assert sum(p.numel() for p in model.parameters()) == about["parameters"]
    config = parse({"method": "adaptive_sparsity", "dataset": "cifar100", "model": "wrn_16_8", "starget": 0.9})
    assert isinstance(config, AdaptiveSparsityConfig)
    sparsified = config.sparsified(model)
    assert {name.removesuffix(".weight"): w.numel() for name, w in sparsified.items()} == about["sparsified"]
    assert sum(w.numel() for w in sparsified.values()) == about["sparsified_weights_total"]


def test_one_sided_is_the_corrected_form_of_what_the_script_hints_at() -> None:
    """lv relu(D - (1 - T)), D the weighted density."""
    n, starget, lv = torch.tensor([300.0, 100.0], dtype=torch.float64), 0.7, 3.0
    for sparsity in (0.4, 0.69, 0.71, 0.9):
        r = torch.tensor([threshold_of(sparsity)] * 2, dtype=torch.float64).requires_grad_()
        loss = sparsity_loss(r, n, starget=starget, lv=lv, mode="one_sided")
        (gradient,) = torch.autograd.grad(loss, r)
        assert loss.item() == pytest.approx(lv * max(starget - sparsity, 0), abs=1e-12)
        slope = math.sqrt(2 / math.pi) * torch.exp(-r.detach().square() / 2)
        close(gradient, -lv * (sparsity < starget) * n / n.sum() * slope, f"gradient at {sparsity}")
