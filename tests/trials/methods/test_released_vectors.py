"""Every step file recorded from the released code is replayed by the method and config that its manifest describes.

All patterns, both methods, scores that are drawn, copied or aliased, optimisers apart and shared, both orders, and
finetuning under the mask: parameters, scores, BN statistics and masks after every step, in float64.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.methods.recorded import SCORES, Recorded, files
from tests.trials.vectors import MANIFEST, close
from trials.methods.base import TrainStage
from trials.methods.bip.bip import Bilevel
from trials.methods.bip.hydra import TrainScores
from trials.methods.parsing import parse

STEP_FILES = files(trainer=("bilevel", "base"))
PATTERN = {"unstructured": "weight"}


def config_of(about: dict[str, Any], accelerate: bool) -> Any:
    recipe = {key: about[key] for key in ("lr", "momentum", "weight_decay")}
    content = {
        "method": "bip" if about["trainer"] == "bilevel" else "hydra",
        "dataset": "digits",
        "model": "tiny",
        "precision": "float64",
        "density": about["k"],
        "rounding": "released",
        "pattern": PATTERN.get(about["layer_type"], about["layer_type"]),
        "score_init": about["score_init"],
        "first_conv": "pruned",
        "prune": {"epochs": 1, "schedule": "constant", **recipe},
    }
    if content["method"] == "bip":
        content |= {
            "implicit_gradient": about["ig_term"],
            "implicit_step": about["lr2"] or 0.0,
            "mask_lr": about["mask_lr"],
            "mask_schedule": "constant",
            "batchnorm": "both",
            "optimizers": "separate" if about["frozen_tensors_untouched"] else "shared",
            "redundant_forwards": True,
            "accelerate": accelerate,
        }
    return parse(content)


@pytest.mark.parametrize("name", STEP_FILES)
def test_steps(name: str) -> None:
    recorded = Recorded(name)
    about, net = recorded.about, recorded.net
    upper_first = any(key.startswith("step1/after_upper/") for key in recorded.arrays)
    config = config_of(about, accelerate=upper_first)
    net.set_masks(config.top({key: recorded.scores[key] for key in config.scored(net)}))
    assert all(torch.equal(net.masks[key], mask) for key, mask in recorded.masks("init_mask/").items())
    finetune = about["exp_mode"] == "finetune"
    stage: Any
    if finetune:
        stage = TrainStage("finetune", config.prune)
    else:
        stage = Bilevel(config) if config.method == "bip" else TrainScores(config, config.prune)
        stage.initial = ({key: recorded.weights[key] for key in recorded.scores}, recorded.scores)
    stage.attach(net)
    stage.begin_epoch(0)
    net.model.train()
    for step in recorded.steps():
        batches = [recorded.batch("train", step)]
        if config.method == "bip":
            batches.append(recorded.batch("val", step))
        loss, _ = stage.step(*batches)
        recorded_loss = recorded[f"step{step}/{'loss_upper' if config.method == 'bip' else 'loss'}"]
        close(loss, recorded_loss, "loss")
        ours: dict[str, Tensor] = dict(net.model.state_dict())
        if not finetune:
            ours |= stage.theta | {k.removesuffix(".weight") + SCORES: s for k, s in stage.scores.items()}
        for key, value in recorded.under(f"step{step}/after/").items():
            if finetune and key.endswith(SCORES):
                continue  # they do not change
            if finetune and key in net.masks:
                value = value * net.masks[key]  # the released code also decays masked weights, without effect
            close(ours[key], value, f"step{step}/after/{key}")
        masks = recorded.masks(f"step{step}/after_mask/")
        assert masks.keys() == net.masks.keys()
        assert all(torch.equal(net.masks[key], mask) for key, mask in masks.items())


def test_the_files_cover_every_choice() -> None:
    abouts = [MANIFEST["files"][name] for name in STEP_FILES]
    assert {about["layer_type"] for about in abouts} == {"unstructured", "filter", "channel"}
    assert {about["score_init"] for about in abouts} == {"random", "copy", "alias"}
    assert {about["frozen_tensors_untouched"] for about in abouts} == {True, False}
    assert {about["exp_mode"] for about in abouts} == {"prune", "finetune"}
