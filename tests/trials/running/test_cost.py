"""The columns of cost agree with what is counted from outside: images whose logits get a gradient, and their FLOPs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trials.contract import METHODS_AT_ONCE
from tests.trials.folders import rows_of, state_of, the_stage
from tests.trials.recorded_graph import RecordedGraph
from tests.trials.small_trials import BASE, RECIPE, config_of, folder_of, run_in
from trials.config.trial_config import TrialConfig
from trials.methods.parsing import parse
from trials.networks.named_files import resolved
from trials.networks.stored import network_of
from trials.running import trial
from trials.training import graphs
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")

IMAGES = 360  # to train on


@dataclass
class Passes:
    """Images whose logits got a gradient, and FLOPs of convolutions and linear layers in these forward passes."""

    images: int = 0
    flops: int = 0


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Passes]:
    found, of_pass, made = Passes(), [0], Net.__init__

    def marked(self: Net, model: nn.Module, **options: Any) -> None:
        made(self, model, **options)
        model.is_whole = True  # type: ignore[assignment]

    def begins(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if getattr(module, "is_whole", False):
            of_pass[0] = 0

    def ends(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            positions = output[0, 0].numel() if output.dim() == 4 else 1
            of_pass[0] += 2 * module.weight.numel() * positions * len(output)
        if getattr(module, "is_whole", False) and output.requires_grad:
            images, flops = len(output), of_pass[0]

            def count(_gradient: Tensor) -> None:
                found.images += images
                found.flops += 3 * flops

            output.register_hook(count)

    monkeypatch.setattr(Net, "__init__", marked)
    before = nn.modules.module.register_module_forward_pre_hook(begins)
    after = nn.modules.module.register_module_forward_hook(ends)
    yield found
    before.remove()
    after.remove()


def counted_by(config: TrialConfig, storage: Path) -> tuple[float, Any, int]:
    """Gradient evaluations of a trial and of its dense start, per image, and FLOPs of the trial after it."""
    state = run_in(storage, config)
    assert state.status == "complete", (state.error or {}).get("traceback")
    result = state.result
    assert result["cost"] == result["gradient_evaluations"] / IMAGES
    last = rows_of(folder_of(config, storage))["epochs"][-1]
    if config.method != "dense":  # whose rows are those of the shared trial
        assert all(last[name] == result[name] for name in ("gradient_evaluations", "cost", "cost_flops"))
    return result["cost"], result["dense_cost"], result["cost_flops"]


@pytest.mark.parametrize(
    "method", [name for name in METHODS_AT_ONCE if name != "finetune"]
)  # starts from a file: below
def test_every_method_counts_its_passes(method: str, tmp_path: Path, passes: Passes) -> None:
    pretrain = {} if method in ("dense", "adaptive_sparsity") else {"pretrain": RECIPE}
    config = parse({**BASE, "method": method, **METHODS_AT_ONCE[method], **pretrain})
    cost, dense, _ = counted_by(config, tmp_path)
    assert (cost + dense) * IMAGES == pytest.approx(passes.images, abs=1e-6)
    assert dense == {"dense": 1, "adaptive_sparsity": 0, "dwp": 4}.get(method, 2)  # dwp has a victim, too
    assert cost > 0 or method == "dense"


@pytest.mark.parametrize(
    "name", ["bip", "bip-original", "greg1", "imp-weights-early", "regrow", "regrow_iterative", "bip-backward", "l1"]
)
def test_passes_and_their_flops_of_longer_trials(name: str, tmp_path: Path, passes: Passes) -> None:
    cost, dense, flops = counted_by(config_of(name), tmp_path)
    assert (cost + dense) * IMAGES == pytest.approx(passes.images, abs=1e-6)
    (start,) = (tmp_path / "stages").glob("dense-*")
    assert flops + state_of(start).result["cost_flops"] == passes.flops


def test_a_cut_network_costs_less_than_a_masked_one(tmp_path: Path) -> None:
    flops = {}
    for name, pattern in (("cut", "filter"), ("masked", "weight")):
        config = config_of("l1", stage_pr="[0-2:0.5]", pattern=pattern)
        cost, _, flops[name] = counted_by(config, tmp_path)
        assert cost == 2.0
    assert flops["cut"] < 0.6 * flops["masked"]


def test_steps_of_bip_take_two_batches(tmp_path: Path) -> None:
    assert counted_by(config_of("bip", finetune=None), tmp_path)[0] == 4.0
    assert counted_by(config_of("hydra", finetune=None), tmp_path)[0] == 2.0


def test_a_replayed_step_counts_like_an_eager_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("one_shot", pretrain={"epochs": 0}, finetune={**RECIPE, "batch_size": 32})
    eager = counted_by(config, tmp_path / "eager")
    monkeypatch.setattr(graphs, "graph_for", lambda device, generators=(): RecordedGraph())
    assert counted_by(config, tmp_path / "captured") == eager


def test_what_an_older_version_trained_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgets(trial.Progress):
        def commit(self, *arguments: Any, **fields: Any) -> None:
            self.cost.known = False
            super().commit(*arguments, **fields)

    config = config_of("one_shot")
    source = config_of("dense")
    with monkeypatch.context() as patch:
        patch.setattr(trial, "Progress", Forgets)
        run_in(tmp_path, source)
    state = run_in(tmp_path, config)
    assert (state.result["cost"], state.result["dense_cost"]) == (2.0, None)


def test_nobody_knows_what_the_weights_of_a_file_have_cost(tmp_path: Path) -> None:
    config = config_of("dense")
    run_in(tmp_path, config)
    torch.save(network_of(the_stage(tmp_path))["model"], tmp_path / "weights.pt")
    begun = resolved(config_of("one_shot", source_net=str(tmp_path / "weights.pt")))
    assert counted_by(begun, tmp_path)[:2] == (2.0, None)
    finetuned = {**BASE, "method": "finetune", "source_net": str(tmp_path / "weights.pt"), "finetune": RECIPE}
    assert counted_by(resolved(parse(finetuned)), tmp_path)[:2] == (2.0, None)
