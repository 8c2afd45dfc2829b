"""BiP's steps, and the finetuning after them, equal those recorded from the released code, in float64.

The manifest selects the files: bilevel steps with separate scores whose frozen tensors stay untouched
(the released code's behaviour under torch 2 semantics, and the paper's implicit term), and masked finetuning.
"""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trials.methods.recorded import SCORES, Recorded, about, compare, files
from tests.trials.recorded_set import Arrays, absent, cases, covers
from tests.trials.vectors import ATOL, MANIFEST, RTOL, close, load
from trials.config.recipes import Recipe
from trials.config.schedules import PiecewiseConstant, Schedule
from trials.methods.base import TrainStage
from trials.methods.bip.bip import Bilevel, BipConfig
from trials.methods.parsing import parse
from trials.sparsity import DISTRIBUTIONS, PATTERNS, build_masks, keep_count, prunable
from trials.training.net import Net

STATISTICS = ("running_mean", "running_var")


STEPS = files(
    trainer=("bilevel",),
    layer_type=("unstructured",),
    frozen_tensors_untouched=(True,),
    score_init=("random", "copy"),
    ig_term=("code", "paper"),
)
FINETUNING = files(trainer=("base",), exp_mode=("finetune",), layer_type=("unstructured",))


def config_of(said: dict[str, Any]) -> BipConfig:
    recipe = {"epochs": 1, "schedule": "constant", **{key: said[key] for key in ("lr", "momentum", "weight_decay")}}
    config = parse(
        {
            "method": "bip",
            "dataset": "digits",
            "model": "tiny",
            "precision": "float64",
            "density": said["k"],
            "rounding": "released",
            "implicit_gradient": said["ig_term"],
            "implicit_step": said["lr2"],
            "score_init": said["score_init"],
            "mask_lr": said["mask_lr"],
            "mask_schedule": "constant",
            "batchnorm": "both",
            "prune": recipe,
        }
    )
    assert isinstance(config, BipConfig)
    return config


PLAIN = {"k": 0.3, "lr": 0.1, "mask_lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "ig_term": "none", "lr2": 0.0}


class Statistics:
    """Counts a model's forward passes and records each BatchNorm's batch statistics, to replay the running ones.

    The released code makes four forward passes in a step: lower, joint, upper (the same batch again), and one under the
    new mask. Our stage makes two; the others are replayed here into the running statistics.
    """

    def __init__(self, model: nn.Module, norms: dict[str, nn.BatchNorm2d]) -> None:
        self.norms = norms
        self.passes = 0
        self.seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in norms}
        model.register_forward_pre_hook(self._count)
        for name, module in norms.items():
            module.register_forward_pre_hook(lambda _, inputs, name=name: self._note(name, inputs[0]))

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.passes += 1

    def _note(self, name: str, x: Tensor) -> None:
        x = x.detach()
        self.seen[name].append((x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=True)))

    def start(self) -> dict[str, tuple[Tensor, Tensor]]:
        self.passes = 0
        self.seen = {name: [] for name in self.norms}
        return {name: (m.running_mean.clone(), m.running_var.clone()) for name, m in self.norms.items()}

    def replay(self, start: dict[str, tuple[Tensor, Tensor]], order: list[int]) -> dict[str, tuple[Tensor, Tensor]]:
        ends = {}
        for name, (mean, var) in start.items():
            momentum = self.norms[name].momentum
            assert momentum is not None
            for position in order:
                seen_mean, seen_var = self.seen[name][position]
                mean, var = torch.lerp(mean, seen_mean, momentum), torch.lerp(var, seen_var, momentum)
            ends[name] = (mean, var)
        return ends

    def expect(self, ends: dict[str, tuple[Tensor, Tensor]]) -> None:
        for name, (mean, var) in ends.items():
            close(self.norms[name].running_mean, mean, f"{name}.running_mean")
            close(self.norms[name].running_var, var, f"{name}.running_var")

    def put(self, ends: dict[str, tuple[Tensor, Tensor]]) -> None:
        for name, (mean, var) in ends.items():
            self.norms[name].running_mean.copy_(mean)
            self.norms[name].running_var.copy_(var)


@pytest.mark.parametrize("term", ["code", "paper"])
def test_the_step_files_are_there(term: str) -> None:
    chosen = [about(name) for name in STEPS if about(name)["ig_term"] == term]
    covers([entry["batchnorm"] for entry in chosen], [False, True], f"batchnorm of a bip step with ig_term {term}")
    covers([entry["score_init"] for entry in chosen], ["random", "copy"], f"score_init of one with ig_term {term}")


@pytest.mark.parametrize("name", cases(STEPS, "bilevel step file with separate scores"))
def test_bilevel_steps(name: str) -> None:
    recorded = Recorded(name)
    net, stage = recorded.net, Bilevel(config_of(recorded.about))
    if recorded.about["score_init"] == "copy":
        stage.enter(net)
        assert stage.initial is not None
        theta, scores = stage.initial
        assert all(torch.equal(scores[key], recorded.scores[key]) for key in recorded.scores)
        assert all(torch.equal(theta[key], recorded.weights[key]) for key in recorded.weights)
    else:
        masks = build_masks(
            recorded.scores,
            density=recorded.about["k"],
            pattern=PATTERNS["weight"],
            distribution=DISTRIBUTIONS["global"],
            absolute=True,
            count=keep_count,
        )
        net.set_masks(masks)
        stage.initial = (recorded.weights, recorded.scores)
    recorded.expect_masks(net.masks, "init_mask/")
    stage.attach(net)
    stage.begin_epoch(0)
    net.model.train()
    statistics = Statistics(net.model, recorded.norms)

    pruned = {id(weight) for weight in prunable(net.model).values()}
    plain = {key: p for key, p in net.model.named_parameters() if id(p) not in pruned}

    def parameters() -> dict[str, Tensor | None]:
        scores = {key.removesuffix(".weight") + SCORES: value for key, value in stage.scores.items()}
        return {**stage.theta, **scores, **plain}

    def gradients() -> dict[str, Tensor | None]:
        return {key: tensor.grad for key, tensor in parameters().items() if tensor is not None}

    for step in recorded.steps():
        start = statistics.start()

        loss, _ = stage.step_lower(recorded.batch("val", step))
        close(loss, recorded[f"step{step}/loss_lower"], "loss_lower")
        compare(recorded, f"step{step}/grad_lower/", gradients())
        compare(recorded, f"step{step}/after_lower/", parameters())

        loss, _ = stage.step_upper(recorded.batch("train", step))
        close(loss, recorded[f"step{step}/loss_upper"], "loss_upper")
        compare(recorded, f"step{step}/grad_upper_total/", gradients())

        assert statistics.passes == 2  # only the passes that the paper needs
        statistics.expect(statistics.replay(start, [0, 1]))
        net.loss(*recorded.batch("train", step))  # the released code's pass for its log, under the new mask
        ends = statistics.replay(start, [0, 1, 1, 2])
        running = {
            f"{name}.{kind}": value for name, pair in ends.items() for kind, value in zip(STATISTICS, pair, strict=True)
        }
        compare(recorded, f"step{step}/after/", {**parameters(), **running})
        statistics.put(ends)

        masks = recorded.masks(f"step{step}/after_mask/")
        assert masks.keys() == net.masks.keys()
        for key, weight in prunable(net.model).items():
            assert torch.equal(net.masks[key], masks[key])
            assert torch.equal(weight, stage.theta[key] * masks[key])


@pytest.mark.parametrize("name", cases(FINETUNING, "finetune file of bip"))
def test_finetuning_under_a_constant_mask(name: str) -> None:
    """The released code also decays masked weights, which has no effect; ours are zero."""
    recorded = Recorded(name)
    net, said = recorded.net, recorded.about
    masks = recorded.masks("init_mask/")
    net.set_masks(masks)
    recipe = Recipe(
        epochs=1, lr=said["lr"], momentum=said["momentum"], weight_decay=said["weight_decay"], schedule="constant"
    )
    stage = TrainStage("finetune", recipe)
    stage.enter(net)
    stage.attach(net)
    stage.begin_epoch(0)
    net.model.train()
    decayed = {key: recorded.weights[key].clone() for key in masks}
    momentum = {key: torch.zeros_like(weight) for key, weight in decayed.items()}
    for step in recorded.steps():
        loss, _ = stage.step(recorded.batch("train", step))
        for key, mask in masks.items():
            momentum[key].mul_(said["momentum"]).add_(decayed[key], alpha=said["weight_decay"])
            decayed[key].sub_(momentum[key], alpha=said["lr"])
            theirs = recorded.under(f"step{step}/after/").get(key)
            if theirs is not None:
                close(decayed[key][~mask], theirs[~mask], f"step{step}/after/{key}, masked")
        close(loss, recorded[f"step{step}/loss"], "loss")
        compare(recorded, f"step{step}/grad/", {key: p.grad for key, p in net.model.named_parameters()})
        state = net.model.state_dict()
        for key, value in recorded.under(f"step{step}/after/").items():
            if not key.endswith(SCORES):
                close(state[key], value * masks[key] if key in masks else value, f"step{step}/after/{key}")
        assert all(torch.equal(masks[key], mask) for key, mask in recorded.masks(f"step{step}/after_mask/").items())


@pytest.mark.parametrize("kind", ["unstructured", "filter", "channel"])
def test_straight_through_gradient(kind: str) -> None:
    """With theta = 1 the upper gradient is the one recorded: upstream * sign(s), for any mask."""
    arrays = load("ste.npz")
    scores, upstream, reference = arrays["scores"], arrays["upstream"], arrays[f"grad_{kind}"]
    pattern = PATTERNS["weight" if kind == "unstructured" else kind]
    mask = build_masks(
        {"w": scores},
        density=float(arrays["k"]),
        pattern=pattern,
        distribution=DISTRIBUTIONS["uniform"],
        absolute=True,
        count=keep_count,
    )["w"]
    assert torch.equal(mask, arrays[f"mask_{kind}"].bool())
    gradient = Bilevel(config_of({**PLAIN, "score_init": "copy"})).gradient
    close(gradient(upstream.clone(), torch.ones_like(scores), scores, mask.double()), reference, kind)
    theta = torch.linspace(-1, 1, scores.numel(), dtype=torch.float64).view_as(scores)
    close(gradient(upstream.clone(), theta, scores, mask.double()), reference * theta, f"{kind}, times theta")


def net_of_weights(weights: list[Tensor]) -> Net:
    model = nn.Sequential()
    for i, weight in enumerate(weights):
        layer: nn.Module
        if weight.dim() == 4:
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), bias=False)
        else:
            layer = nn.Linear(weight.shape[1], weight.shape[0])
        model.add_module(str(i), layer)
    net = Net(model.double())
    with torch.no_grad():
        for parameter, weight in zip(prunable(model).values(), weights, strict=True):
            parameter.copy_(weight)
    return net


def stage_for_scores(kind: str, density: float) -> Bilevel:
    return Bilevel(config_of({**PLAIN, "score_init": kind, "k": density}))


def test_scores_start_as_a_copy_of_the_weights() -> None:
    arrays = load("score_init.npz")
    weights = arrays.numbered("weight_{}")
    net = net_of_weights(weights)
    stage = stage_for_scores("copy", float(arrays["k"]))
    stage.enter(net)
    assert stage.initial is not None
    theta, scores = (list(part.values()) for part in stage.initial)
    for weight, reference, t, s in zip(weights, arrays.numbered("scaled_scores_{}"), theta, scores, strict=True):
        assert torch.equal(s, reference)
        assert torch.equal(t, weight)
        assert s.data_ptr() != t.data_ptr()  # the released code lets them share memory
    said = MANIFEST.get("files", {}).get("score_init.npz", {})
    assert all(said.get("scores_share_storage_with_weights_in_original", [True]))


def test_random_scores_lie_within_their_bound_and_weights_are_rescaled() -> None:
    arrays = load("score_init.npz")
    weights, density = arrays.numbered("weight_{}"), float(arrays["k"])
    net = net_of_weights(weights)
    stage = stage_for_scores("random", density)
    stage.enter(net)
    assert stage.initial is not None
    theta, scores = (list(part.values()) for part in stage.initial)
    checked = 0
    for i, s in enumerate(scores):
        bound = float(arrays[f"random_score_bound_{i}"])
        assert bound == pytest.approx(1 / math.sqrt(float(arrays[f"fan_in_{i}"])), rel=1e-12)
        assert float(s.abs().max()) <= bound
        n = s.numel()  # uniform: the extremes come near the bound, the mean near 0, the variance near b^2/3
        assert float(s.max()) > bound * (1 - 20 / n)
        assert float(s.min()) < -bound * (1 - 20 / n)
        assert abs(float(s.mean())) < 5 * bound / math.sqrt(3 * n)
        assert float(s.var()) == pytest.approx(bound**2 / 3, rel=10 / math.sqrt(n))
        close(theta[i], weights[i] / math.sqrt(density), f"weight_{i} / sqrt(k)")
        if f"scale_rand_weight_{i}" in arrays:
            close(theta[i], arrays[f"scale_rand_weight_{i}"], f"scale_rand_weight_{i}")
            checked += 1
    assert checked


OLDER = [
    int(key.rsplit("_", 1)[1])
    for key in Arrays("bip", "score_init.npz")
    if key.startswith("hydra_original_repo_scores")
]


@pytest.mark.parametrize("position", cases(sorted(OLDER), "hydra_original_repo_scores in bip/score_init.npz"))
def test_scores_of_the_older_hydra_repository(position: int) -> None:
    """sqrt(6 / fan_in) w / max|w|: another scale in every layer, so only the ranking within layers is ours."""
    arrays = load("score_init.npz")
    theirs, weight = arrays[f"hydra_original_repo_scores_{position}"], arrays[f"weight_{position}"]
    scale = math.sqrt(6 / float(arrays[f"fan_in_{position}"])) / float(weight.abs().max())
    close(weight * scale, theirs, f"layer {position}")
    ours, other = (
        build_masks(
            {"layer": scores},
            density=float(arrays["k"]),
            pattern=PATTERNS["weight"],
            distribution=DISTRIBUTIONS["uniform"],
            absolute=True,
        )["layer"]
        for scores in (arrays[f"scaled_scores_{position}"], theirs)
    )
    assert torch.equal(ours, other)


OURS = {"cosine": "cosine_released", "step": "step", "constant": "constant"}


def schedules() -> tuple[dict[str, Tensor], dict[str, float]]:
    """The recorded rates by name, and the rates of the run that played them."""
    arrays = load("schedules.npz")
    said = str(MANIFEST.get("files", {}).get("schedules.npz", {}).get("description", ""))
    rates = {"lr": 0.1, "mask_lr": 0.3, "warmup_lr": 0.02}  # the README's, if the manifest does not say
    for key in rates:
        if match := re.search(rf"(?<![a-z_]){key}=([\d.]*\d)", said):
            rates[key] = float(match[1])
    return dict(arrays), rates


def played(key: str) -> tuple[str, int, int]:
    """(schedule, epochs, warm-up epochs) of a key such as ``step_E100_W0``."""
    match = re.fullmatch(r"(\w+)_E(\d+)_W(\d+)", key)
    assert match is not None, f"schedules.npz has {key!r}, which is no schedule"
    return match[1], int(match[2]), int(match[3])


@pytest.mark.parametrize("prefix", ["", "unused_mask_"])
@pytest.mark.parametrize("kind", OURS)
def test_schedules(kind: str, prefix: str) -> None:
    """With prefix: the released code's own schedules of the mask's rate, which it never calls."""
    recorded, rates = schedules()
    chosen = {key: rate for key, rate in recorded.items() if played(key)[0] == prefix + kind}
    if not chosen and (prefix, kind) != ("unused_mask_", "constant"):
        absent(f"schedule {prefix}{kind} in bip/schedules.npz")
    for key, reference in chosen.items():
        _, epochs, warmup = played(key)
        lr = rates["mask_lr" if prefix else "lr"]
        schedule: Schedule | PiecewiseConstant = Schedule(OURS[kind], lr, epochs, warmup, rates["warmup_lr"])
        if prefix and kind == "step":  # breaks at 75, 90 and 100 %
            breaks = {
                0: lr,
                **{warmup + math.ceil(epochs * at / 20): lr * 10**-n for n, at in enumerate((15, 18, 20), 1)},
            }
            schedule = PiecewiseConstant(tuple(breaks.items()))
        ours = torch.tensor([schedule(epoch) for epoch in range(epochs + warmup)], dtype=torch.float64)
        torch.testing.assert_close(ours, reference, rtol=RTOL, atol=ATOL, msg=key)


def test_no_schedule_is_unknown() -> None:
    known = {prefix + kind for prefix in ("", "unused_mask_") for kind in OURS}
    assert {played(key)[0] for key in schedules()[0]} <= known
