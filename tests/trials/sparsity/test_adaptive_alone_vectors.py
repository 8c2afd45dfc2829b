"""Thresholds on any module give the released code's recorded steps: sparsify_adaptive, adaptive_loss and the end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trials.methods.adaptive_recorded import MANIFEST, PRECISIONS, build_model, close, file_of, layers, numbers
from trials.sparsity import adaptive_loss, make_permanent, sparsify_adaptive
from trials.sparsity import density as density_of
from trials.sparsity.adaptive import analytic_sparsity


def batch(index: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    inputs = file_of("inputs")
    return inputs["x"][index].to(dtype), inputs["y"][index].long()


def with_thresholds(dtype: torch.dtype, *, trainable: bool = True) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    model: nn.Module = build_model().to(dtype)
    found = sparsify_adaptive(model, sparsity=MANIFEST["starget"], min_weights=MANIFEST["pthres"], trainable=trainable)
    return model, dict(zip(layers(), found, strict=True)) if trainable else {}


def given(thresholds: dict[str, nn.Parameter]) -> None:
    for r, value in zip(thresholds.values(), MANIFEST["r_for_forward_and_gradients"], strict=True):
        r.data.fill_(torch.tensor(value, dtype=torch.float32))


def loss_of(model: nn.Module, mode: Any) -> Tensor:
    if mode == "task":
        return torch.zeros(())
    return adaptive_loss(model, sparsity=MANIFEST["starget"], weight=MANIFEST["lv"], mode=mode)


def original(model: nn.Module, layer: str) -> Any:
    chain: Any = model.get_submodule(layer).parametrizations
    return chain["weight"].original


def pruned(model: nn.Module, layer: str) -> int:
    weight: Any = model.get_submodule(layer).weight
    return int((weight == 0).sum())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_forward(precision: str) -> None:
    dtype, file = PRECISIONS[precision], file_of(f"forward_{precision}")
    model, thresholds = with_thresholds(dtype)
    given(thresholds)
    x, y = batch(0, dtype)
    logits = model(x)
    close(logits, file["logits"], "logits")
    close(F.cross_entropy(logits, y), file["loss/task"], "task loss")
    for layer in layers():
        weight: Any = model.get_submodule(layer).weight
        close(weight, file[f"effective_weight/{layer}"], layer)
        assert pruned(model, layer) == int(file[f"measured/zeros/{layer}"])
    for mode in ("adaptive", "fixed"):
        close(loss_of(model, mode), file[f"loss/sparsity_{mode}"], mode)
    by_layer = density_of(model, by_layer=True)
    for layer in layers():
        zeros = int(file[f"measured/zeros/{layer}"]) / int(file[f"numel/{layer}"])
        assert by_layer[layer] == pytest.approx(1 - zeros, abs=1e-12)
    make_permanent(model)
    close(model(x), file["desparsified_logits"], "logits at the end")
    for layer in layers():
        close(model.get_parameter(f"{layer}.weight"), file[f"desparsified_weight/{layer}"], f"{layer} at the end")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["task", "adaptive", "fixed"])
def test_gradients(mode: str, precision: str) -> None:
    dtype, file = PRECISIONS[precision], file_of(f"gradients_{precision}")
    model, thresholds = with_thresholds(dtype)
    given(thresholds)
    x, y = batch(0, dtype)
    loss = F.cross_entropy(model(x), y) + loss_of(model, mode)
    loss.backward()  # type: ignore[no-untyped-call]
    close(loss, file[f"{mode}/loss_total"], "loss")
    ours = {f"{layer}.r": r.grad for layer, r in thresholds.items()}
    ours |= {f"{layer}.weight": original(model, layer).grad for layer in layers()}
    ours |= {name: p.grad for name, p in model.named_parameters() if "parametrizations" not in name}
    recorded = file.under(f"{mode}/grad/")
    assert set(recorded) <= set(ours)
    for name, reference in recorded.items():
        gradient = ours[name]
        assert gradient is not None
        close(gradient, reference, name)


def test_thresholds_that_are_not_trained_leave_the_gradients_of_the_rest() -> None:
    file = file_of("gradients_f64")
    model, _ = with_thresholds(torch.float64, trainable=False)
    for layer, value in zip(layers(), MANIFEST["r_for_forward_and_gradients"], strict=True):
        chain: Any = model.get_submodule(layer).parametrizations
        chain["weight"][0].r.fill_(torch.tensor(value, dtype=torch.float32))
    x, y = batch(0, torch.float64)
    F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    recorded = file.under("nontrainable_task/grad/")
    for name, reference in recorded.items():
        layer = name.removesuffix(".weight")
        gradient = (original(model, layer) if layer in layers() else model.get_parameter(name)).grad
        close(gradient, reference, name)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["adaptive", "fixed"])
def test_trajectory(mode: str, precision: str) -> None:
    dtype, file, how = PRECISIONS[precision], file_of(f"trajectory_{mode}_{precision}"), MANIFEST["optimizer"]
    model, thresholds = with_thresholds(dtype)
    mine = list(thresholds.values())
    assert torch.equal(torch.stack(mine).detach().double(), file["r_start_actual"].double())
    rest = [p for p in model.parameters() if all(p is not r for r in mine)]
    groups = [
        {"params": rest, "lr": how["lr_weights"], "weight_decay": how.get("weight_decay_weights", 0.0)},
        {"params": mine, "lr": how["lr_thresholds"]},
    ]
    sgd = torch.optim.SGD(groups, momentum=how.get("momentum", 0.0))
    for t in numbers(file, r"step(\d+)/"):
        assert [pruned(model, layer) for layer in layers()] == [
            int(file[f"step{t}/forward_zeros/{layer}"]) for layer in layers()
        ]
        close(1 - analytic_sparsity(torch.stack(mine)), file[f"step{t}/density_per_layer"], f"step {t}, density")
        x, y = batch(t - 1, dtype)
        task, sparsity = F.cross_entropy(model(x), y), loss_of(model, mode)
        close(task, file[f"step{t}/task_loss"], f"step {t}, task")
        close(sparsity, file[f"step{t}/sparsity_loss"], f"step {t}, sparsity")
        sgd.zero_grad()
        (task + sparsity).backward()  # type: ignore[no-untyped-call]
        sgd.step()
        recorded = file.under(f"step{t}/param/")
        for layer, r in thresholds.items():
            close(r, recorded[f"{layer}.r"], f"step {t}, {layer}.r")
            w, reference = original(model, layer), recorded[f"{layer}.weight"]
            close(w - w.mean(), reference - reference.mean(), f"step {t}, {layer}")  # forward passes do not centre it
    x, _ = batch(0, dtype)
    close(model.eval()(x), file["final/eval_logits_x0"], "final logits")
    assert sum(pruned(model, layer) for layer in layers()) == int(file["final/zeros_after_eval_forward"])
    close(make_permanent(model)(x), file["final/desparsified_logits_x0"], "final logits, permanent")
