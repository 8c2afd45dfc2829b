"""The contract of preconditions: a method is refused on a model and data by its check, or it trains a step on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trials.pruned_files import masked_file
from trials.config.trial_config import TrialConfig
from trials.data import DATASETS, RawData, header_of, load_data
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.preconditions import require_runnable
from trials.models import MODELS
from trials.running.trial import TrialHost, run

MASKED = "a file with a mask"
"""Stands for the path of such a file, made for the model and the data."""

NONE = {"epochs": 0}
STEP = {"epochs": 1, "batch_size": 64, "lr": 1e-3}  # the default of 0.1 diverges at once in a net of 152 layers
GROWS = {"update_reg_interval": 1, "reg_granularity_prune": 2.0, "stabilize_reg_interval": 0}
SPARSE = {"prune_fraction": 0.5, "finetune": NONE}
SEARCH = {"controller": {"episodes": 1}, "episode": {**STEP, "reward_images": 2}}
ONE_EPOCH = {**STEP, "schedule": "constant", "warmup_share": 0.0}

METHODS_AT_ONCE: dict[str, dict[str, Any]] = {
    "dense": {"train": STEP},
    "one_shot": {"density": 0.5, "finetune": STEP},
    "imp": {"levels": 1, "prune_fraction": 0.5, "rewind": "none", "finetune": STEP},
    "bip": {"density": 0.5, "prune": STEP},
    "hydra": {"density": 0.5, "prune": STEP, "finetune": None},
    "finetune": {"source_net": MASKED, "finetune": STEP},
    "l1": {"stage_pr": 0.5, "finetune": STEP},
    "greg1": {"stage_pr": 0.5, **GROWS, "finetune": NONE},
    "greg2": {"stage_pr": 0.5, **GROWS, "reg_granularity_pick": 1.0, "finetune": NONE},
    "oracle": {"stage_pr": 0.02, "max_candidates": 100, "finetune": STEP},
    "global_prune": {"finetune": STEP},
    "layer_prune": {"finetune": STEP},
    "gradient_prune": {"train": STEP},
    "dwp": {"surrogates": 2, "steps": 1, "images": 2, "pretrain": STEP},
    "adaptive_sparsity": {"starget": 0.5, "pthres": 40, "train": STEP},
    "prune_iterative": {"levels": 1, "prune_fraction": 0.5, "finetune": STEP},
    "regrow": {"prune": SPARSE, **SEARCH, "finetune": ONE_EPOCH},
    "regrow_iterative": {
        "prune": {**SPARSE, "levels": 1},
        "target_sparsity": 0.3,
        "budget_max": 0.3,
        "rounds": 1,
        **SEARCH,
    },
    "single_layer": {"prune": {**SPARSE, "distribution": "uniform"}, "episode": {**STEP, "reward_images": 2}},
}
"""By method, a config with one step in each stage and no training before it."""

VARIANTS: dict[str, dict[str, Any]] = {
    **{
        f"one_shot-{pattern}-{distribution}": {"pattern": pattern, "distribution": distribution}
        for pattern in ("weight", "kernel", "filter", "channel")
        for distribution in ("global", "uniform", "uniform_plus", "erk")
    },
    **{f"one_shot-{score}": {"score": score} for score in ("random", "lamp")},
    **{
        f"one_shot-coupled-{distribution}": {"couple": True, "pattern": "filter", "distribution": distribution}
        for distribution in ("global", "uniform")
    },
    "prune_iterative-coupled": {"couple": True, "pattern": "filter"},
    "one_shot-uniform_plus-sparse": {"distribution": "uniform_plus", "density": 0.005},
    "one_shot-filter-dense": {"pattern": "filter", "density": 0.995},
    "imp-uniform_plus-late": {"distribution": "uniform_plus", "levels": 12, "finetune": NONE},
    **{f"imp-{name}": {"distribution": name} for name in ("uniform", "uniform_plus", "erk")},
    **{f"{method}-{name}": {"pattern": name} for method in ("bip", "hydra") for name in ("filter", "channel")},
    "bip-channel-first": {"pattern": "channel", "first_conv": "pruned"},
    "hydra-filter-original": {"pattern": "filter", "variant": "original"},
    **{f"{method}-{name}": {"pattern": name} for method in ("l1", "greg1", "greg2") for name in ("weight", "channel")},
    "l1-original": {"variant": "original"},
    "l1-skipped": {"skip_layers": ["0", "1", "2", "3", "4", "5", "6"]},
    "oracle-weight": {"pattern": "weight", "stage_pr": 1e-4},
    **{f"global_prune-{name}": {"pattern": name} for name in ("weight", "kernel_mean", "filter_l1")},
    "global_prune-none": {"p_prune": 1e-6},
    **{f"layer_prune-{name}": {"score": name} for name in ("gradient", "l1")},
    "layer_prune-original": {"variant": "original", "score": "l1"},
    "gradient_prune-linear": {"train": {**STEP, "backward": {"linear": True}}},
    **{
        f"{method}-backward-none-{pattern}": {
            recipe: {**STEP, "backward": {"p_prune": 1e-6, "pattern": pattern}},
        }
        for method, recipe in (("gradient_prune", "train"), ("dense", "train"), ("one_shot", "finetune"))
        for pattern in ("weight", "kernel_mean", "filter_l1")
    },
    "dwp-kernel": {"pattern": "kernel"},
    "adaptive_sparsity-none": {"pthres": 10**9},
    "adaptive_sparsity-cut": {"exact_target": True, "finetune": STEP},
    "adaptive_sparsity-original": {"variant": "original", "mode": "fixed", "exact_target": True},
    "prune_iterative-filter": {"pattern": "filter"},
    "prune_iterative-filter-empty": {"pattern": "filter", "distribution": "uniform", "prune_fraction": 0.99},
    "prune_iterative-weight-empty": {"distribution": "uniform", "prune_fraction": 0.999, "levels": 3},
    "regrow-filter": {"unit": "filter", "selection": "gradient"},
    "regrow-filter-empty": {
        "unit": "filter",
        "selection": "gradient",
        "prune": {**SPARSE, "distribution": "uniform", "prune_fraction": 0.99},
    },
    "regrow-rule": {"allocation": "greedy", "selection": "random", "initial": "kaiming"},
    "regrow-too-little": {"regrow_fraction": 1e-9},
    "regrow-too-often": {"rounds": 3, "regrow_fraction": 0.5, "allocation": "uniform"},
    "regrow_iterative-reached": {"target_sparsity": 0.7},
    "regrow_iterative-out-of-reach": {"target_sparsity": 0.1, "budget_max": 0.005},
    "regrow_iterative-filter-out-of-reach": {"target_sparsity": 0.1, "budget_max": 0.005, "unit": "filter"},
    "single_layer-dense-layer": {"prune": {**SPARSE, "distribution": "uniform_plus"}},
    "single_layer-no-budget": {"budget_fraction": 1e-9},
}
"""Choices of pattern, score and distribution, and requests that hardly any network can meet, as METHOD-NAME."""


def configs(names: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fields of variants, on top of their methods' own."""
    by_method = {name: name.partition("-")[0] for name in names}
    return {n: {"method": m, **METHODS_AT_ONCE[m], **names[n]} for n, m in by_method.items()}


class Tied(nn.Module):
    """Two convolutions with one weight, and a linear head."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.one = nn.Conv2d(8, 8, 3, padding=1)
        self.other = nn.Conv2d(8, 8, 3, padding=1)
        self.other.weight = self.one.weight
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.other(F.relu(self.one(x))))
        return self.head(x.mean((2, 3)))


class Repeated(nn.Module):
    """One convolution applied three times."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = F.relu(self.again(x))
        return self.head(x.mean((2, 3)))


class Unused(nn.Module):
    """A convolution that no forward pass calls."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.spare = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).mean((2, 3)))


class Branching(nn.Module):
    """Decides by values, which the meta device does not have, how it is built and what it computes."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.scale = float(self.stem.weight.abs().mean())
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x) if float(x.mean()) > self.scale else x.abs()
        return self.head(x.mean((2, 3)))


def convolutions(groups: int, *, num_classes: int, in_channels: int) -> nn.Sequential:
    """A stem, a grouped convolution (with 16 groups: depthwise) and a pointwise one, with BN."""
    return nn.Sequential(
        *(nn.Conv2d(in_channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, num_classes)),
    )


def grouped_stem(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """A grouped convolution that reads the image."""
    return nn.Sequential(
        *(nn.Conv2d(in_channels, 4 * in_channels, 3, groups=in_channels), nn.ReLU()),
        *(nn.Conv2d(4 * in_channels, 8, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)),
    )


def wrong_head(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Makes one output too many."""
    return MODELS["tiny"](num_classes=num_classes + 1, in_channels=in_channels)  # type: ignore[return-value]


def large_images_only(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Takes images of 32x32 only."""
    return nn.Sequential(nn.Conv2d(in_channels, 4, 5), nn.Flatten(), nn.Linear(4 * 28 * 28, num_classes))


OWN: dict[str, Callable[..., nn.Module]] = {
    "depthwise": partial(convolutions, 16),
    "grouped": partial(convolutions, 4),
    "grouped_stem": grouped_stem,
    "tied": Tied,
    "repeated": Repeated,
    "branching": Branching,
    "unused": Unused,
    "wrong_head": wrong_head,
    "large_images_only": large_images_only,
}
"""Nets of the kinds that people bring: with groups, with common or repeated layers, and such as do not fit the data."""


def images(channels: int, side: int, count: int = 30, classes: int = 4) -> RawData:
    """A data set of random images; 27 of 30 are left to train on."""
    generator = torch.Generator().manual_seed(side)
    pixels = torch.randint(256, (count + 8, channels, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count + 8) % classes
    moments = ((0.5,) * channels, (0.25,) * channels)
    data = (pixels[:count], labels[:count], pixels[count:], labels[count:])
    return RawData("blots", *data, classes, *moments, 0, False, "", f"{channels:02}{side:04}{count:010}")


def offered(patch: pytest.MonkeyPatch, models: Mapping[str, Callable[..., nn.Module]], **blots: RawData) -> None:
    """Register models and data sets for a test."""
    for name, builder in models.items():
        patch.setitem(MODELS, name, builder)
    for name, raw in blots.items():
        patch.setitem(DATASETS, name, lambda _folder, raw=raw: raw)


def parsed(content: Mapping[str, Any]) -> TrialConfig:
    """The config; a file with a mask is written where it starts from one."""
    if content.get("source_net") == MASKED:
        data = load_data(content["dataset"])
        content = {**content, "source_net": masked_file(content["model"], data.num_classes, data.in_channels)}
    return parse(content)


def refused(content: Mapping[str, Any]) -> str:
    """Why the config is refused before anything starts, in one line; empty if it is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that linear layers stay whole
        try:
            config = parsed(content)
            require_runnable(config, header_of(load_data(config.dataset)))
        except UserError as error:
            line = str(error)
            assert line
            assert "\n" not in line
            assert len(line) < 700
            return line
    return ""


def kept(content: Mapping[str, Any], storage: Path) -> bool:
    """Check the contract for a config; return whether it trained."""
    if refused(content):
        return False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*linear layers stay whole.*")
        config = parsed(content)
        state = run(config, storage / "sweep" / "trials" / config.id, TrialHost(storage / "stages"))
    assert state.status == "complete", (state.error or {}).get("traceback")
    return True
