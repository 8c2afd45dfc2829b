"""Every field that changes what a trial computes changes its name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from tests.trials.configs import SMALLEST
from trials.config.recipes import BackwardConfig
from trials.config.trial_config import WHERE
from trials.methods.parsing import parse
from trials.methods.registry import METHODS

OTHER: dict[str, Any] = {  # a value for each field that differs from its default and from SMALLEST
    "dataset": "cifar10",
    "model": "resnet20s",
    "seed": 1,
    "val_fraction": 0.2,
    "split_seed": 1,
    "stratify_split": True,
    "image_column": "picture",
    "label_column": "kind",
    "image_size": 48,
    "file_hashes": {"source_net": "0123456789abcdef"},
    "augment": False,
    "report": "best_val",
    "nm": [1, 2],
    "couple": True,
    "normalise": "imagenet",
    "precision": "float64",
    "tf32": True,
    "deterministic": True,
    "memory_format": "channels_last",
    "compile": True,
    "density": 0.3,
    "snapshots": [1],
    "score": "random",
    "distribution": "uniform",
    "pattern": "filter",
    "levels": 2,
    "prune_fraction": 0.3,
    "rewind": "learning_rate",
    "rewind_epoch": 1,
    "implicit_gradient": "code",
    "implicit_step": 0.5,
    "score_init": "random",
    "mask_lr": 0.5,
    "mask_schedule": "constant",
    "batchnorm": "both",
    "hydra.batchnorm": "frozen",
    "starget": 0.5,
    "mode": "one_sided",
    "lv": 3.0,
    "pthres": 10,
    "initial_threshold": 0.5,
    "trainable": False,
    "threshold_lr_factor": 0.5,
    "exact_target": True,
    "optimizers": "shared",
    "accelerate": True,
    "redundant_forwards": True,
    "first_conv": "dense",
    "source_net": "weights.pt",
    "rounding": "released",
    "zeros": "trained",
    "source_mask.pattern": "channel",
    "source_mask.distribution": "uniform",
    "epochs": 7,
    "batch_size": 64,
    "lr": 0.25,
    "momentum": 0.5,
    "weight_decay": 0.25,
    "schedule": "cosine_released",
    "warmup_epochs": 2,
    "warmup_lr": 0.25,
    "lr_steps": "0:0.02,3:0.01",
    **{f"{method}.pattern": "weight" for method in ("l1", "greg1", "greg2", "oracle")},
    **{f"{method}.batch_size": 32 for method in ("greg1", "greg2")},
    "oracle.model": "lenet5",
    "stage_pr": {"1-2": 0.2},
    "oracle.stage_pr": {"0": 0.07},
    "skip_layers": ["1"],
    "base_pr_model": "somewhere",
    "inherit_pruned": "pr",
    "pick_pruned": "max",
    "reinit": "kaiming",
    "ratio_exit": "own",
    "update_reg_interval": 7,
    "reg_granularity_prune": 1e-3,
    "reg_upper_limit": 2.0,
    "mag_ratio_limit": 5.0,
    "stabilize_reg_interval": 7,
    "block_loss_grad": True,
    "reg_granularity_pick": 1e-4,
    "reg_upper_limit_pick": 0.1,
    "reg_granularity_recover": 0.0,
    "max_candidates": 1000,
    "p_prune": 0.6,
    "p_bern": 0.25,
    "keep_one": True,
    "linear": True,
    "refresh_every": 7,
    "layer_prune.score": "gradient",
    "score_batches": 3,
    "score_batch_size": 7,
    "global_prune.pattern": "weight",
    "backward.pattern": "kernel",
    "dwp.pattern": "kernel",
    "surrogates": 2,
    "pruned_pass": "backward",
    "epsilon": 0.5,
    "steps": 3,
    "targeted": True,
    "images": 7,
    "victim_seed": 7,
    "victim_model": "resnet20s",
    "warmup_share": 0.3,
    "patience": 3,
    "prune_iterative.finetune.schedule": "cosine",
    "prune_iterative.prune_fraction": 0.4,
    "lr_old": 1e-4,
    "frozen_epochs": 7,
    "differential_epochs": 7,
    "keep": ["dense"],
    "reference": "/elsewhere/trial",
    "unit": "filter",
    "target_sparsity": 0.9,
    "budget_min": 0.002,
    "budget_max": 0.1,
    "budget_choices": 3,
    "budget_fraction": 0.1,
    "budgets": "full",
    "regrow_iterative.prune.prune_fraction": 0.4,
    "regrow_iterative.ssim_threshold": 0.4,
    "single_layer.order": "ssim",
    "in_flight": 2,
    **{f"{method}.finetune.schedule": "constant" for method in ("regrow", "regrow_iterative")},
    **{
        f"{method}.{path}.schedule": "cosine"
        for method in ("regrow", "regrow_iterative", "single_layer")
        for path in ("prune.finetune", "episode")
    },
    "prune.score": "magnitude",
    "prune.distribution": "erk",
    "regrown": "frozen",
    "layers": ["conv2"],
    "ssim_threshold": 0.3,
    "ssim_per": "sample",
    "ssim_batches": 2,
    "order": "network",
    "allocation": "greedy",
    "selection": "random",
    "initial": "kaiming",
    "reinitialise": True,
    "saliency_model": "sparse",
    "saliency_batches": 2,
    "batchnorm_batches": 2,
    "data_fraction": 0.5,
    "reward_images": 10,
    "episodes": 20,
    "episodes_in_flight": 2,
    "hidden": 8,
    "actions": 5,
    "temperature": 0.5,
    "baseline_decay": 0.5,
    "entropy_start": 0.5,
    "entropy_end": 0.5,
    "entropy_decay": 0.5,
    "spread": 0.5,
    "spread_window": 5,
    "spread_after": 5,
    "exact": False,
    "rounds": 2,
    "regrow_fraction": 0.5,
    "until_epoch": 1,
}
NOT_DIVIDED = (  # their first stage has no epochs to divide
    "dwp", "global_prune", "greg1", "greg2", "layer_prune", "regrow", "regrow_iterative", "single_layer",
)  # fmt: skip
ADAMW = ("prune.finetune", "episode", "finetune")  # recipes of methods that regrow
BY_EPOCHS = ("warmup_epochs", "warmup_lr", "lr_steps")  # AdamW sets its rate after every step
BESIDE: dict[str, dict[str, Any]] = {  # fields that another one needs
    "file_hashes": {"source_net": "weights.pt"},
    "source_mask": {"source_net": "weights.pt", "source_mask": {"density": 0.5}},
    "reinitialise": {"initial": "kaiming"},
    "nm": {"pattern": "nm", "density": 0.5},
    "couple": {"pattern": "filter"},
}
INSTEAD = {"base_pr_model": "stage_pr"}  # fields that replace another one
ONE_VALUE = {  # fields that accept one value only
    *(("imp", name) for name in ("pattern", "source_net", "source_mask", "file_hashes")),
    ("dense", "file_hashes"),
    *((method, "rounding") for method in ("adaptive_sparsity", "prune_iterative")),  # counts are equal, so names are
    *((method, "prune.rounding") for method in ("regrow", "regrow_iterative", "single_layer")),
    *((method, "inherit_pruned") for method in ("greg2", "oracle")),
    ("gradient_prune", "compile"),
    *(("prune_iterative", f"finetune.{name}") for name in BY_EPOCHS),
    ("regrow_iterative", "allocation"),
    *(
        (method, f"{path}.{name}")
        for method in ("regrow", "regrow_iterative", "single_layer")
        for path in ADAMW
        for name in BY_EPOCHS
    ),
    *(
        (method, f"episode.backward.{name}")
        for method in ("regrow", "regrow_iterative", "single_layer")
        for name in BackwardConfig.model_fields
    ),
    *((method, "until_epoch") for method in NOT_DIVIDED),
}


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields, those of nested recipes included."""
    for name, field in model.model_fields.items():
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        nested = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        if nested:
            yield from leaves(nested[0], (*path, name))
        else:
            yield (*path, name)


def other(method: str, path: tuple[str, ...]) -> Any:
    """The value in ``OTHER`` by method and path, by the last two names, by method and last name, or by last name."""
    keys = (f"{method}.{'.'.join(path)}", ".".join(path[-2:]), f"{method}.{path[-1]}", path[-1])
    return next(OTHER[key] for key in keys if key in OTHER)


def setting(content: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    return content


FIELDS = [(method, path) for method in METHODS for path in leaves(METHODS[method].Config)]
NAMING = [
    (method, path)
    for method, path in FIELDS
    if path[0] not in (*WHERE, "method", "variant", "lineage")
    and not {(method, path[0]), (method, ".".join(path))} & ONE_VALUE
]


@pytest.mark.parametrize(("method", "path"), NAMING, ids=[f"{method}-{'.'.join(path)}" for method, path in NAMING])
def test_every_other_field_renames(method: str, path: tuple[str, ...]) -> None:
    base = SMALLEST[method] | BESIDE.get(path[0], {})
    if len(path) > 1 and path[0] not in BESIDE:  # give the optional recipes, so that only the field differs
        base = setting(base, path[:-1], {})
    changed = {key: value for key, value in base.items() if key != INSTEAD.get(path[0])}
    changed = setting(changed, path, other(method, path))
    assert parse(changed) != parse(base)
    assert parse(changed).id != parse(base).id


def configs_of(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A config class and those that its fields hold."""
    yield kind
    for field in kind.model_fields.values():
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from configs_of(inner)


CONFIGS = sorted({c for method in METHODS.values() for c in configs_of(method.Config)}, key=lambda c: c.__qualname__)

FREE_TEXT = {"method", "device"}
"""Fields of any text, which is looked up elsewhere: the config's own class says the method, torch knows its devices."""


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__qualname__)
def test_a_field_that_a_subclass_gives_anew_keeps_its_rules(config: type[BaseModel]) -> None:
    """Else a wrong value is taken: a schedule of any text was, and ran as another one."""
    for name, field in config.model_fields.items():
        own = {type(rule) for rule in field.metadata}
        assert field.annotation is not str or own or name in FREE_TEXT, f"{name} is any text"
        for base in config.__mro__[1:]:
            if issubclass(base, BaseModel) and name in base.model_fields:
                above = base.model_fields[name]
                same_kind = above.annotation == field.annotation
                assert not same_kind or {type(rule) for rule in above.metadata} <= own, f"{name} of {base.__name__}"


TEXTS = [(config, name) for config in CONFIGS for name, field in config.model_fields.items() if field.annotation is str]


@pytest.mark.parametrize(("config", "name"), TEXTS, ids=lambda part: getattr(part, "__qualname__", part))
def test_a_name_that_does_not_exist_is_refused(config: type[BaseModel], name: str) -> None:
    if name in FREE_TEXT:
        return
    with pytest.raises(ValidationError) as refused:
        config.model_validate({name: "no such name"})
    assert name in {error["loc"][0] for error in refused.value.errors()}
