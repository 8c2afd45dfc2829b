"""Every step file recorded from the released code is replayed by the method and config that its manifest describes.

All patterns, both methods, scores that are drawn, copied or aliased, optimisers apart and shared, both orders, and
finetuning under the mask: parameters, scores, BN statistics and masks after every step, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.methods.recorded import SCORES, Recorded, about, compare, files
from tests.trials.recorded_set import cases, covers
from tests.trials.vectors import MANIFEST, close
from trials.methods.base import TrainStage
from trials.methods.bip.bip import Bilevel
from trials.methods.bip.hydra import TrainScores
from trials.methods.bip.scored import score_gradient
from trials.methods.parsing import parse
from trials.training.net import Batch

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
        "pattern": PATTERN.get(about["layer_type"], about["layer_type"]),
        "score_init": about["score_init"],
        "first_conv": "pruned",
        "prune": {"epochs": 1, "schedule": "constant", **recipe},
    }
    if content["method"] == "bip":
        content |= {
            "implicit_gradient": about["ig_term"],
            "implicit_step": about["lr2"],
            "mask_lr": about["mask_lr"],
            "mask_schedule": "constant",
            "batchnorm": "both",
            "optimizers": "separate" if about["frozen_tensors_untouched"] else "shared",
            "redundant_forwards": True,
            "accelerate": accelerate,
        }
    return parse(content)


class Watched:
    """Compares within a step: gradients before, and parameters after, every step of an optimiser."""

    def __init__(self, stage: Any, recorded: Recorded) -> None:
        self.stage, self.recorded, self.step = stage, recorded, 0
        if isinstance(stage, Bilevel):
            stage.lower.step = self._around(stage.lower.step, "grad_lower", "after_lower")  # type: ignore[method-assign]
            stage.upper.step = self._around(stage.upper.step, "grad_upper_total", "after_upper")  # type: ignore[method-assign]
            stage.step_upper = self._upper(stage.step_upper)  # type: ignore[method-assign]
            stage.step_lower = self._lower(stage.step_lower)  # type: ignore[method-assign]
        elif isinstance(stage, TrainScores):
            stage.sgd.step = self._around(stage.sgd.step, "grad", "")  # type: ignore[method-assign]

    def parameters(self) -> dict[str, Tensor]:
        """All parameters by their recorded names; a pruned layer's weight is its theta."""
        plain = {key: p for key, p in self.stage.net.model.named_parameters() if key not in self.stage.scores}
        scores = {key.removesuffix(".weight") + SCORES: s for key, s in self.stage.scores.items()}
        return {**plain, **self.stage.theta, **scores}

    def compare(self, prefix: str, ours: Mapping[str, Tensor | None]) -> None:
        compare(self.recorded, f"step{self.step}/{prefix}/", ours)

    def _around(self, original: Callable[[], None], before: str, after: str) -> Callable[[], None]:
        def step() -> None:
            self.compare(before, {key: p.grad for key, p in self.parameters().items()})
            original()
            if after:
                self.compare(after, self.parameters())

        return step

    def _lower(self, original: Callable[[Batch], Any]) -> Callable[[Batch], Any]:
        def step_lower(batch: Batch) -> Any:
            result = original(batch)
            close(result[0], self.recorded[f"step{self.step}/loss_lower"], "loss_lower")
            return result

        return step_lower

    def _upper(self, original: Callable[[Batch], Any]) -> Callable[[Batch], Any]:
        backward = self.stage.net.backward

        def joint(*batch: Tensor) -> Any:
            """One backward pass gives the gradients of both levels."""
            result = backward(*batch)
            gradients = {key: p.grad for key, p in self.parameters().items()}
            for key, (theta, s, m, g) in zip(self.stage.scores, self.stage.layers(), strict=True):
                gradients[key] = g * m
                gradients[key.removesuffix(".weight") + SCORES] = score_gradient(g.clone(), theta, s)
            self.compare("grad_joint", gradients)
            self.compare("grad_upper_raw", gradients)
            return result

        def step_upper(batch: Batch) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(self.stage.net, "backward", joint)
                result = original(batch)
            if self.recorded.arrays.part(f"step{self.step}/after_upper_mask/"):
                self.recorded.expect_masks(self.stage.net.masks, f"step{self.step}/after_upper_mask/")
            return result

        return step_upper


@pytest.mark.parametrize("name", cases(STEP_FILES, "step file of bip"))
def test_steps(name: str) -> None:
    recorded = Recorded(name)
    about, net = recorded.about, recorded.net
    upper_first = any(key.startswith("step1/after_upper/") for key in recorded.arrays)
    config = config_of(about, accelerate=upper_first)
    net.set_masks(config.top({key: recorded.scores[key] for key in config.scored(net)}))
    recorded.expect_masks(net.masks, "init_mask/")
    switched_on = MANIFEST["files"][name].get("n_mask_entries_switched_on_per_step")
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
    watched = Watched(stage, recorded)
    if order := MANIFEST["files"][name].get("parameter_order"):
        given = watched.parameters() if not finetune else dict(net.model.named_parameters())
        assert {key for key in order if not (finetune and key.endswith(SCORES))} == given.keys()
    for step in recorded.steps():
        watched.step = step
        before = {key: mask.clone() for key, mask in net.masks.items()}
        batches = [recorded.batch("train", step)]
        if config.method == "bip":
            batches.append(recorded.batch("val", step))
        loss, _ = stage.step(*batches)
        close(loss, recorded[f"step{step}/{'loss_upper' if config.method == 'bip' else 'loss'}"], "loss")
        ours: dict[str, Tensor] = dict(net.model.state_dict())
        if not finetune:
            ours |= stage.theta | {k.removesuffix(".weight") + SCORES: s for k, s in stage.scores.items()}
        for key, value in recorded.under(f"step{step}/after/").items():
            if finetune and key.endswith(SCORES):
                assert torch.equal(value, recorded.scores[key.replace(SCORES, ".weight")])  # scores stay as they are
                continue
            if finetune and key in net.masks:
                value = value * net.masks[key]  # the released code also decays masked weights, without effect
            close(ours[key], value, f"step{step}/after/{key}")
        recorded.expect_masks(net.masks, f"step{step}/after_mask/")
        if switched_on is not None:
            assert sum(int((net.masks[key] & ~mask).sum()) for key, mask in before.items()) == switched_on[step - 1]


@pytest.mark.parametrize(
    ("key", "choices"),
    [
        ("layer_type", ["unstructured", "filter", "channel"]),
        ("score_init", ["random", "copy", "alias"]),
        ("frozen_tensors_untouched", [True, False]),
        ("exp_mode", ["prune", "finetune"]),
        ("trainer", ["bilevel", "base"]),
        ("batchnorm", [True, False]),
        ("ig_term", ["code", "paper", "none"]),
    ],
)
def test_the_files_cover_every_choice(key: str, choices: list[Any]) -> None:
    covers([about(name)[key] for name in STEP_FILES], choices, f"{key} of a step file of bip")
