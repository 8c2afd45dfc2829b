"""Iterative magnitude pruning: exact counts, nested masks, and weights rewound to the configured epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.folders import checkpoint_of, rows_of, same, the_stage
from tests.trials.small_trials import PRUNABLE, RECIPE, config_of, folder_of, run_in
from trials import models
from trials.data import load_data
from trials.methods.base import TrainStage
from trials.methods.magnitude.imp import ImpLevel
from trials.sparsity import nearest_count
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")


def initial_weights(seed: int) -> dict[str, Tensor]:
    raw = load_data("few_digits")
    net = models.build("tiny", num_classes=raw.num_classes, in_channels=raw.in_channels, seed=seed)
    return {key: value.clone() for key, value in net.state_dict().items()}


def levels_of(config: Any, storage: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """For each level of an imp trial: the network before, at its start and at its end, its masks, and its rates."""
    levels: list[dict[str, Any]] = []
    enter, end_epoch = ImpLevel.enter, TrainStage.end_epoch

    def copied(net: Net) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in net.model.state_dict().items()}

    def note_enter(self: ImpLevel, net: Net) -> None:
        before = copied(net)
        enter(self, net)
        masks = {key: mask.clone() for key, mask in net.masks.items()}
        levels.append({"level": self.level, "before": before, "masks": masks, "start": copied(net), "lrs": []})

    def note_end(self: TrainStage, net: Net, epoch: int) -> None:
        end_epoch(self, net, epoch)
        if isinstance(self, ImpLevel):
            levels[-1]["end"] = copied(net)
            levels[-1]["lrs"].append(float(self.sgd.lr))

    monkeypatch.setattr(ImpLevel, "enter", note_enter)
    monkeypatch.setattr(TrainStage, "end_epoch", note_end)
    state = run_in(storage, config)
    assert state.status == "complete", state.error
    return levels


@pytest.mark.parametrize(("rewind", "fraction"), [("weights", 0.2), ("learning_rate", 0.2), ("none", 0.5)])
def test_imp_counts_are_exact_and_masks_nested(
    rewind: str, fraction: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {**RECIPE, "epochs": 1}
    config = config_of("imp-weights", levels=6, rewind=rewind, prune_fraction=fraction, pretrain=one, finetune=one)
    levels = levels_of(config, tmp_path, monkeypatch)
    left = PRUNABLE
    previous = {key: torch.ones_like(mask) for key, mask in levels[0]["masks"].items()}
    for level, (name, noted) in enumerate(zip(range(1, 7), levels, strict=True), start=1):
        left = nearest_count(1 - fraction, left)
        assert name == level == noted["level"]
        assert sum(int(mask.sum()) for mask in noted["masks"].values()) == left
        assert abs(left - PRUNABLE * (1 - fraction) ** level) < level
        for key, mask in noted["masks"].items():
            assert not (mask & ~previous[key]).any()
        # the largest of the remaining weights of the whole network are kept
        kept = torch.cat([noted["before"][key][mask].abs() for key, mask in noted["masks"].items()])
        gone = torch.cat([noted["before"][key][previous[key] & ~mask].abs() for key, mask in noted["masks"].items()])
        assert kept.min() >= gone.max()
        previous = noted["masks"]
    rows = [row for row in rows_of(folder_of(config, tmp_path))["epochs"] if row["stage"] == "train"]
    counts = {row["level"]: row["kept"] for row in rows}
    assert counts == {noted["level"]: sum(int(m.sum()) for m in noted["masks"].values()) for noted in levels}


def test_imp_rewinds_weights_to_initialisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("imp-weights")
    levels = levels_of(config, tmp_path, monkeypatch)
    initial = initial_weights(config.seed)
    for noted in levels:
        for key, value in initial.items():
            under_mask = value * noted["masks"][key] if key in noted["masks"] else value
            assert torch.equal(noted["start"][key], under_mask), key
        assert not same(noted["start"], noted["end"])
    lrs = [config.pretrain.lr_schedule()(epoch) for epoch in range(2)]  # type: ignore[attr-defined]
    assert [noted["lrs"] for noted in levels] == [lrs, lrs]


def test_imp_rewinds_to_an_early_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("imp-weights-early")
    levels = levels_of(config, tmp_path, monkeypatch)
    stage = the_stage(tmp_path)
    early = checkpoint_of(stage)["net"]["snapshots"]["epoch-1"]
    # the network after one epoch of the same schedule, computed by other means
    seen: list[dict[str, Tensor]] = []
    original = TrainStage.end_epoch

    def note(self: TrainStage, net: Net, epoch: int) -> None:
        seen.append({key: value.clone() for key, value in net.model.state_dict().items()})
        original(self, net, epoch)

    monkeypatch.setattr(TrainStage, "end_epoch", note)
    run_in(tmp_path / "again", config_of("dense"))
    assert same(early, seen[0])
    assert not same(early, seen[1])
    for noted in levels:
        for key, value in early.items():
            under_mask = value * noted["masks"][key] if key in noted["masks"] else value
            assert torch.equal(noted["start"][key], under_mask), key
    assert [noted["lrs"] for noted in levels] == 2 * [[config.pretrain.lr_schedule()(1)]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["imp-learning_rate", "imp-none"])
def test_imp_keeps_weights_where_they_are_not_rewound(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(name)
    for noted in levels_of(config, tmp_path, monkeypatch):
        for key, value in noted["before"].items():
            under_mask = value * noted["masks"][key] if key in noted["masks"] else value
            assert torch.equal(noted["start"][key], under_mask), key
        if name == "imp-none":
            assert noted["lrs"] == [0.01, 0.01]
        else:
            assert noted["lrs"] == [config.pretrain.lr_schedule()(epoch) for epoch in range(2)]  # type: ignore[attr-defined]
