"""Training with the adaptive sparsity loss equals the released code's recorded steps, in float64 and float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.methods.adaptive_recorded import (
    MANIFEST,
    PRECISIONS,
    build_model,
    close,
    config_of,
    file_of,
    layers,
    numbers,
    zeros,
)
from tests.trials.recorded_set import absent, covers
from trials.methods.adaptive.adaptive_sparsity import TrainWithThresholds
from trials.methods.adaptive.thresholds import Thresholded, analytic_sparsity, cut
from trials.training.net import Net


def batch(index: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    inputs = file_of("inputs")
    return inputs["x"][index].to(dtype), inputs["y"][index].long()


def stage_of(dtype: torch.dtype, r: list[float] | None = None, **fields: Any) -> tuple[TrainWithThresholds, Net]:
    """The stage after it was entered, with thresholds ``r`` if given."""
    net, stage = Net(build_model().to(dtype)), TrainWithThresholds(config_of(**fields))
    stage.enter(net)
    if r is not None:
        stage.layers.r.copy_(torch.tensor(r, dtype=torch.float32))
        stage.cut(net)
    stage.attach(net)
    stage.begin_epoch(0)
    assert list(stage.layers.w) == [f"{layer}.weight" for layer in layers()]
    return stage, net


def given() -> list[float]:
    return list(MANIFEST["r_for_forward_and_gradients"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_forward(precision: str) -> None:
    dtype, file = PRECISIONS[precision], file_of(f"forward_{precision}")
    plain = Thresholded(config_of().sparsified(build_model().to(dtype)), 0.0)
    r = torch.tensor(given(), dtype=torch.float32).to(dtype)
    before = [int((w.abs() <= cut(r[i], w.std())).sum()) for i, w in enumerate(plain.w.values())]
    assert before == [int(file[f"measured_before_forward/zeros/{layer}"]) for layer in layers()]
    assert sum(before) == int(file["measured_before_forward/zeros_total"])
    stage, net = stage_of(dtype, given())
    cuts, parameters = stage.layers, dict(net.model.named_parameters())
    with torch.no_grad():
        logits = net.model(batch(0, dtype)[0])
    close(logits, file["logits"], "logits")
    close(logits, file["desparsified_logits"], "desparsified logits")
    for position, layer in enumerate(layers()):
        weight = f"{layer}.weight"
        close(cuts.r[position], file[f"r/{layer}"], f"r/{layer}")
        close(cuts.w[weight], file[f"recentred_weight/{layer}"], f"recentred_weight/{layer}")
        close(parameters[weight], file[f"effective_weight/{layer}"], f"effective_weight/{layer}")
        close(parameters[weight], file[f"desparsified_weight/{layer}"], f"desparsified_weight/{layer}")
        close(cuts.sigma[position], file[f"sigma/{layer}"], f"sigma/{layer}")
        close(cuts.t[position], file[f"threshold/{layer}"], f"threshold/{layer}")
        assert cuts.counts[position] == int(file[f"numel/{layer}"])
    assert zeros(net) == [int(file[f"measured/zeros/{layer}"]) for layer in layers()]
    assert sum(zeros(net)) == int(file["measured/zeros_total"])
    for name, total in (("measured", sum(zeros(net))), ("measured_before_forward", sum(before))):
        assert 100 * total / sum(cuts.counts) == pytest.approx(float(file[f"{name}/percent"]), rel=1e-6)
    s = analytic_sparsity(cuts.r)
    close(1 - s, file["analytic_density_per_layer"], "density per layer")
    close(s, file["analytic_sparsity_per_layer"], "sparsity per layer")
    close(stage.columns()["analytic_density"], file["analytic_density_weighted"], "weighted density")
    close(net.loss(*batch(0, dtype))[0], file["loss/task"], "task loss")
    for mode in ("adaptive", "fixed"):
        loss = stage_of(dtype, given(), mode=mode)[0].sparsity_loss()
        close(loss, file[f"loss/sparsity_{mode}"], f"{mode} loss")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["task", "adaptive", "fixed", "nontrainable_task"])
def test_gradients(mode: str, precision: str) -> None:
    dtype, file = PRECISIONS[precision], file_of(f"gradients_{precision}")
    fields = {"mode": mode} if mode in ("adaptive", "fixed") else {"lv": 0.0, "trainable": mode == "task"}
    stage, net = stage_of(dtype, given(), **fields)
    loss, _ = stage.backward(net, batch(0, dtype))
    parameters = dict(net.model.named_parameters())
    ours: dict[str, Tensor | None] = {name: parameter.grad for name, parameter in parameters.items()}
    ours |= {name: w.grad for name, w in stage.layers.w.items()}
    for position, layer in enumerate(layers()):
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
    for name, reference in recorded.items():
        gradient = ours[name]
        assert gradient is not None
        close(gradient, reference, name)
    if mode in ("adaptive", "fixed"):
        (alone,) = torch.autograd.grad(stage.sparsity_loss(), stage.layers.r)
        for position, layer in enumerate(layers()):
            close(alone[position], file[f"{mode}/grad_sparsity_loss_only/{layer}.r"], f"sparsity loss alone, {layer}")
    covers(recorded, [name for name, gradient in ours.items() if gradient is not None], f"{mode}/grad in {file.file}")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["adaptive", "fixed"])
def test_trajectory(mode: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype, file = PRECISIONS[precision], file_of(f"trajectory_{mode}_{precision}")
    stage, net = stage_of(dtype, mode=mode)
    cuts = stage.layers
    close(stage.config.first_threshold(), file["r0"].double(), "r0")
    assert torch.equal(cuts.r.detach().double(), file["r_start_actual"].double())
    original, lacking = stage.cut, set[str]()

    def before_centring(net: Net) -> None:
        """Compare every tensor as the optimizers left it."""
        ours = {**dict(net.model.named_parameters()), **cuts.w}
        ours |= {f"{layer}.r": cuts.r[position] for position, layer in enumerate(layers())}
        recorded = file.under(f"step{t}/param/")
        assert set(recorded) <= ours.keys()
        lacking.update(ours.keys() - set(recorded))
        for name, reference in recorded.items():
            close(ours[name], reference, f"step {t}, {name}")
        measured = [int((w.abs() <= cut(cuts.r[i], w.std())).sum()) for i, w in enumerate(cuts.w.values())]
        assert measured == [int(file[f"step{t}/measured_zeros/{layer}"]) for layer in layers()]
        assert sum(measured) == int(file[f"step{t}/measured_zeros_total"])
        percent = 100 * sum(measured) / sum(cuts.counts)
        assert percent == pytest.approx(float(file[f"step{t}/measured_percent"]), rel=1e-6)
        original(net)

    monkeypatch.setattr(stage, "cut", before_centring)
    for t in numbers(file, r"step(\d+)/"):
        assert zeros(net) == [int(file[f"step{t}/forward_zeros/{layer}"]) for layer in layers()]
        close(1 - analytic_sparsity(cuts.r), file[f"step{t}/density_per_layer"], f"step {t}, density")
        close(stage.sparsity_loss(), file[f"step{t}/sparsity_loss"], f"step {t}, sparsity loss")
        loss, _ = stage.step(batch(t - 1, dtype))
        close(loss, file[f"step{t}/task_loss"] + file[f"step{t}/sparsity_loss"], f"step {t}, loss")
        recorded = file.under(f"step{t}/param/")
        for name in cuts.w.keys() & set(recorded):
            close(cuts.w[name], recorded[name] - recorded[name].mean(), f"step {t}, {name} centred")
    with torch.no_grad():
        logits = net.model.eval()(batch(0, dtype)[0])
    close(logits, file["final/eval_logits_x0"], "final logits")
    close(logits, file["final/desparsified_logits_x0"], "final desparsified logits")
    assert sum(zeros(net)) == int(file["final/zeros_after_eval_forward"])
    percent = 100 * sum(zeros(net)) / sum(cuts.counts)
    assert percent == pytest.approx(float(file["final/measured_percent_after_eval_forward"]), rel=1e-6)
    if lacking:
        absent(f"array step.../param/{sorted(lacking)[0]} in {file.file}")
