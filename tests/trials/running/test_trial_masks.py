"""Masks hold at every step, and change only where the method changes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.folders import checkpoint_of, rows_of, same
from tests.trials.small_trials import CONFIGS, RECIPE, config_of, folder_of, run_in
from trials.methods.base import TrainStage
from trials.methods.bip.bip import Bilevel
from trials.running import trial
from trials.training.net import Net
from trials.training.optimizers import Sgd

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.mark.parametrize("name", ["one_shot", "imp-weights", "bip"])
def test_pruned_weights_stay_exactly_zero_at_every_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With large momentum and weight decay."""
    strong = {**RECIPE, "momentum": 0.9, "weight_decay": 0.01, "lr": 0.1}
    fields = {key: strong for key in ("pretrain", "prune", "finetune") if key in CONFIGS[name]}
    steps: list[str] = []
    original = Sgd.__init__

    def wrap(self: Sgd, *arguments: Any, **keywords: Any) -> None:
        original(self, *arguments, **keywords)
        step = self.step

        def stepped() -> None:
            step()
            for net in nets:
                parameters = dict(net.model.named_parameters())
                for key, mask in net.masks.items():
                    assert not parameters[key][~mask].any()
                    steps.append(key)

        self.step = stepped  # type: ignore[assignment]

    nets: list[Net] = []
    build = trial.build_net

    def note_net(*arguments: Any) -> Net:
        nets.append(build(*arguments))
        return nets[-1]

    monkeypatch.setattr(trial, "build_net", note_net)
    monkeypatch.setattr(Sgd, "__init__", wrap)
    state = run_in(tmp_path, config_of(name, **fields))
    assert state.status == "complete", state.error
    assert len(steps) >= 6 * 4


def test_masks_are_kept_through_finetuning_after_bip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[dict[str, Tensor]] = []
    original = TrainStage.attach

    def attach(self: TrainStage, net: Net) -> None:
        if self.name == "finetune":
            noted.append({key: mask.clone() for key, mask in net.masks.items()})
        original(self, net)

    monkeypatch.setattr(TrainStage, "attach", attach)
    config = config_of("bip")
    run_in(tmp_path, config)
    assert len(noted) == 1
    assert same(noted[0], checkpoint_of(folder_of(config, tmp_path))["net"]["masks"])


def test_bip_moves_its_masks_and_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    original = Bilevel.end_epoch

    def end_epoch(self: Bilevel, net: Net, epoch: int) -> None:
        original(self, net, epoch)
        noted.append(({k: m.clone() for k, m in net.masks.items()}, {k: t.clone() for k, t in self.theta.items()}))
        for key, theta in self.theta.items():
            assert torch.equal(self.z[key], theta * net.masks[key])

    monkeypatch.setattr(Bilevel, "end_epoch", end_epoch)
    run_in(tmp_path, config_of("bip"))
    (masks_1, theta_1), (masks_2, theta_2) = noted
    assert not same(masks_1, masks_2)
    assert not same(theta_1, theta_2)
    dropped = torch.cat([theta_2[key][~mask].abs().reshape(-1) for key, mask in masks_2.items()])
    assert dropped.max() > 0  # masked weights are not set to zero


def test_bip_at_full_density_changes_nothing_on_entry(tmp_path: Path) -> None:
    config = config_of("bip", density=1.0)
    run_in(tmp_path, config)
    rows = rows_of(folder_of(config, tmp_path))["epochs"]
    assert rows[2]["epoch"] == 0
    assert rows[2]["val_loss"] == rows[1]["val_loss"]
    assert {row["density"] for row in rows} == {1.0}
