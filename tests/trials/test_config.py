"""Configs: what names a trial, and what is said about one that cannot be."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from trials.config import WHERE, TrialConfig, content_hash, parse
from trials.errors import UserError, unknown_name
from trials.methods import METHODS
from trials.methods.bip import BipConfig
from trials.methods.dense import dense_source

WHAT = {"dataset": "digits", "model": "tiny"}
SMALLEST: dict[str, dict[str, Any]] = {
    "dense": {"method": "dense", **WHAT},
    "one_shot": {"method": "one_shot", "density": 0.2, **WHAT},
    "imp": {"method": "imp", **WHAT},
    "bip": {"method": "bip", "density": 0.2, **WHAT},
    "hydra": {"method": "hydra", "density": 0.2, **WHAT},
    "l1": {"method": "l1", "stage_pr": 0.5, **WHAT},
    "greg1": {"method": "greg1", "stage_pr": 0.5, **WHAT},
    "greg2": {"method": "greg2", "stage_pr": 0.5, **WHAT},
    "oracle": {"method": "oracle", "stage_pr": {"0": 0.1}, **WHAT},
    "global_prune": {"method": "global_prune", **WHAT},
    "layer_prune": {"method": "layer_prune", **WHAT},
    "gradient_prune": {"method": "gradient_prune", **WHAT},
    "dwp": {"method": "dwp", **WHAT},
    "adaptive_sparsity": {"method": "adaptive_sparsity", "starget": 0.8, **WHAT},
    "prune_iterative": {"method": "prune_iterative", **WHAT},
    "regrow": {"method": "regrow", **WHAT},
    "regrow_iterative": {"method": "regrow_iterative", **WHAT},
    "single_layer": {"method": "single_layer", **WHAT},
}

# These names stand in people's results. A change that renames one makes every finished trial of that kind unknown: it
# would run again, and its rows would no longer be found. If results of equal configs really cease to be comparable,
# raise trials.config.SCHEMA and write down why; otherwise the change is wrong, not the pin.
PINNED = [
    ("dense-b76648be394b", SMALLEST["dense"]),
    ("one_shot-e0f85616d4c2", SMALLEST["one_shot"]),
    ("imp-b76648be394b", SMALLEST["imp"]),
    ("bip-e0f85616d4c2", SMALLEST["bip"]),
    ("hydra-e0f85616d4c2", SMALLEST["hydra"]),
    ("l1-95edca19a594", SMALLEST["l1"]),
    ("greg1-95edca19a594", SMALLEST["greg1"]),
    ("greg2-95edca19a594", SMALLEST["greg2"]),
    ("oracle-12b3ef211869", SMALLEST["oracle"]),
    (
        "greg1-08e5f30f2fc0",
        {
            "method": "greg1",
            "dataset": "cifar10",
            "model": "resnet56s",
            "stage_pr": "[0,0.75,0.75,0.32,0]",
            "skip_layers": "[1.0]",
            "lr_ft": "{0:0.01,60:0.001,90:0.0001}",
            "update_reg_interval": 10,
        },
    ),
    ("global_prune-b76648be394b", SMALLEST["global_prune"]),
    ("layer_prune-b76648be394b", SMALLEST["layer_prune"]),
    ("gradient_prune-b76648be394b", SMALLEST["gradient_prune"]),
    ("dwp-b76648be394b", SMALLEST["dwp"]),
    (
        "gradient_prune-92101345b4ed",
        {**SMALLEST["gradient_prune"], "train": {"epochs": 3, "backward": {"p_prune": 0.5, "p_bern": 0.5}}},
    ),
    ("adaptive_sparsity-bbdc13edef78", SMALLEST["adaptive_sparsity"]),
    ("prune_iterative-b76648be394b", SMALLEST["prune_iterative"]),
    ("regrow-b76648be394b", SMALLEST["regrow"]),
    ("regrow_iterative-b76648be394b", SMALLEST["regrow_iterative"]),
    ("single_layer-b76648be394b", SMALLEST["single_layer"]),
    (
        "bip-b108f4ab7b3e",
        {
            **SMALLEST["bip"],
            "seed": 7,
            "mask_lr": 0.01,
            "implicit_gradient": "none",
            "pretrain": {"epochs": 3},
            "prune": {"epochs": 2, "lr": 0.05},
            "finetune": {},
        },
    ),
    (
        "imp-ac4aac4adf80",
        {**SMALLEST["imp"], "model": "resnet20s", "dataset": "cifar10", "rewind_epoch": 2, "levels": 3},
    ),
    (
        "one_shot-92c956bbfd0a",
        {**SMALLEST["one_shot"], "pattern": "filter", "distribution": "uniform", "finetune": None},
    ),
    (
        "dense-d07e6011aa0d",
        {**SMALLEST["dense"], "precision": "float64", "train": {"schedule": "step"}, "snapshots": [1, 5]},
    ),
]

OTHER: dict[str, Any] = {  # a value for each field that is neither its default nor what SMALLEST says
    "dataset": "cifar10",
    "model": "resnet20s",
    "seed": 1,
    "val_fraction": 0.2,
    "split_seed": 1,
    "augment": False,
    "normalise": "imagenet",
    "precision": "float64",
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
    *("dwp", "global_prune", "greg1", "greg2", "layer_prune", "regrow", "regrow_iterative", "single_layer"),
)
ADAMW = ("prune.finetune", "episode", "finetune")  # recipes of methods that regrow
INSTEAD = {"base_pr_model": "stage_pr"}  # fields that are given in the place of another
ONE_VALUE = {  # that may only be what it is, until there is a second one
    *(("imp", name) for name in ("pattern", "source_net")),
    *((method, "inherit_pruned") for method in ("greg2", "oracle")),
    ("gradient_prune", "compile"),
    ("prune_iterative", "finetune.warmup_epochs"),
    ("prune_iterative", "finetune.warmup_lr"),
    ("regrow_iterative", "allocation"),
    *(
        (method, f"{path}.{name}")
        for method in ("regrow", "regrow_iterative", "single_layer")
        for path in ADAMW
        for name in ("warmup_epochs", "warmup_lr")
    ),
    *(
        (method, "until_epoch")
        for method in (
            "dwp",
            "global_prune",
            "greg1",
            "greg2",
            "layer_prune",
            "regrow",
            "regrow_iterative",
            "single_layer",
        )
    ),
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
    """The value in ``OTHER``: by method and path, by the last two names, by method and last name, or by last name."""
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


@pytest.mark.parametrize(("name", "content"), PINNED, ids=[name for name, _ in PINNED])
def test_pinned_names(name: str, content: dict[str, Any]) -> None:
    assert parse(content).id == name


def test_every_method_has_a_pin() -> None:
    assert {content["method"] for _, content in PINNED} == set(METHODS) == set(SMALLEST)


@pytest.mark.parametrize("method", METHODS)
def test_writing_out_the_defaults_does_not_rename(method: str) -> None:
    config = parse(SMALLEST[method])
    written_out = config.model_dump(mode="json")
    assert len(written_out) > len(SMALLEST[method])
    assert parse(written_out) == config
    assert parse(written_out).id == config.id
    assert parse(json.loads(json.dumps(written_out))).id == config.id


@pytest.mark.parametrize("method", METHODS)
def test_where_it_runs_does_not_rename(method: str) -> None:
    elsewhere = {"data_dir": "/elsewhere", "device": "cpu", "checkpoint_every_s": 0.5, "measure_latency": True}
    assert elsewhere.keys() == WHERE
    assert parse({**SMALLEST[method], **elsewhere}).id == parse(SMALLEST[method]).id


@pytest.mark.parametrize(("method", "path"), NAMING, ids=[f"{method}-{'.'.join(path)}" for method, path in NAMING])
def test_every_other_field_renames(method: str, path: tuple[str, ...]) -> None:
    base = SMALLEST[method]
    if len(path) > 1:  # give the optional recipes, so that only the field differs
        base = setting(base, path[:-1], {})
    changed = {key: value for key, value in base.items() if key != INSTEAD.get(path[0])}
    changed = setting(changed, path, other(method, path))
    assert parse(changed) != parse(base)
    assert parse(changed).id != parse(base).id


def test_the_method_is_part_of_the_name() -> None:
    names = [parse(content).id for content in SMALLEST.values()]
    assert [name.rpartition("-")[0] for name in names] == list(SMALLEST)


def test_no_recipe_at_all_is_not_the_default_recipe() -> None:
    ids = {parse({**SMALLEST["one_shot"], "finetune": value}).id for value in (None, {}, {"epochs": 3})}
    assert len(ids) == 3


def test_a_new_field_with_a_default_does_not_rename() -> None:
    class Later(BipConfig):
        brand_new: float = 3.0
        another: BaseModel | None = Field(default=None)

    before = parse({**SMALLEST["bip"], "seed": 3})
    assert Later(**before.model_dump()).id == before.id
    assert Later(**before.model_dump(), brand_new=4.0).id != before.id


def test_the_schema_is_part_of_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_hash({"a": 1})
    monkeypatch.setattr("trials.config.SCHEMA", 2)
    assert content_hash({"a": 1}) != before


def test_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": {"c": 2, "d": 3}}) == content_hash({"b": {"d": 3, "c": 2}, "a": 1})


def test_whole_numbers_are_the_same_name_as_floats() -> None:
    assert parse({**SMALLEST["bip"], "density": 1}).id == parse({**SMALLEST["bip"], "density": 1.0}).id


@pytest.mark.parametrize("method", ["one_shot", "imp", "bip"])
def test_methods_share_the_network_they_start_from(method: str) -> None:
    recipe = {"epochs": 3, "lr": 0.05}
    dense = parse({**SMALLEST["dense"], "train": recipe})
    source = METHODS[method](parse({**SMALLEST[method], "pretrain": recipe})).source()
    assert source is not None
    if method == "imp":  # rewinding to initialisation keeps its own copy of it
        assert METHODS["imp"](parse({**SMALLEST["imp"], "rewind_epoch": 2})).source() != source
    assert source.id == dense.id


def test_a_source_is_named_by_what_influences_it_and_by_nothing_else() -> None:
    def source(**fields: object) -> str:
        config = parse({**SMALLEST["bip"], **fields})
        assert isinstance(config, BipConfig)
        return dense_source(config).id

    assert source() == source(density=0.5, mask_lr=0.3, prune={"epochs": 1}, finetune={}, device="cpu")
    changes: list[dict[str, object]] = [
        {"seed": 1},
        {"augment": False},
        {"model": "resnet20s"},
        {"pretrain": {"lr": 0.2}},
    ]
    assert len({source(), *(source(**change) for change in changes)}) == 5


def test_configs_are_frozen() -> None:
    config = parse(SMALLEST["bip"])
    with pytest.raises(ValidationError):
        config.seed = 3  # type: ignore[misc]


def test_imp_trains_on_at_a_constant_rate_however_much_of_the_recipe_is_given() -> None:
    for finetune in ({}, {"epochs": 3}, {"lr": 0.02}):
        config = parse({**SMALLEST["imp"], "rewind": "none", "finetune": finetune})
        assert config.model_dump()["finetune"]["schedule"] == "constant"


METHOD_NAMES = ", ".join(sorted(METHODS))
BIP, L1 = SMALLEST["bip"], SMALLEST["l1"]
WRONG: list[tuple[object, list[str]]] = [
    ({**BIP, "density": 0}, ["density is 0", "greater than 0"]),
    ({**BIP, "density": 1.5}, ["density is 1.5", "less than or equal to 1"]),
    ({**BIP, "density": -1}, ["density is -1", "greater than 0"]),
    ({**BIP, "density": "0.2"}, ["density is '0.2'", "must be a valid number"]),
    ({**BIP, "density": True}, ["density is True", "must be a valid number"]),
    ({**BIP, "density": float("nan")}, ["density is nan", "finite"]),
    ({**BIP, "density": None}, ["density is None", "must be a valid number"]),
    ({"method": "bip", **WHAT}, ["density is missing", "add it"]),
    ({**BIP, "densty": 0.2}, ["'densty', but must be one of", "did you mean 'density'?"]),
    ({**BIP, "prune": {"epoch": 3}}, ["prune", "'epoch', but must be one of", "did you mean 'epochs'?"]),
    ({**BIP, "finetune": {"shedule": "step"}}, ["finetune", "'shedule'", "did you mean 'schedule'?"]),
    ({**BIP, "prune": {"lr": "fast"}}, ["prune.lr is 'fast'", "must be a valid number"]),
    ({**BIP, "prune": {"epochs": 1.5}}, ["prune.epochs is 1.5", "integer"]),
    ({**BIP, "prune": {"momentum": 1}}, ["prune.momentum is 1", "less than 1"]),
    ({**BIP, "prune": 3}, ["prune is 3", "dictionary"]),
    ({**BIP, "seed": -1}, ["seed is -1", "greater than or equal to 0"]),
    ({**BIP, "seed": 1.0}, ["seed is 1.0", "integer"]),
    ({**BIP, "seed": True}, ["seed is True", "integer"]),
    ({**BIP, "val_fraction": 0}, ["val_fraction is 0", "greater than 0"]),
    ({**BIP, "precision": "fp16"}, ["precision is 'fp16'", "'bf16'", "'float64'"]),
    ({**BIP, "pattern": "kernel"}, ["pattern is 'kernel'", "'weight'"]),
    ({**BIP, "method": "bipp"}, ["method is 'bipp'", METHOD_NAMES, "did you mean 'bip'?"]),
    ({**BIP, "method": ["bip"]}, ["method is ['bip']", METHOD_NAMES]),
    ({**BIP, "method": None}, ["method is None", METHOD_NAMES]),
    ({**BIP, "model": "tinny"}, ["model is 'tinny'", "resnet20s", "did you mean 'tiny'?"]),
    ({**BIP, "dataset": "cifar"}, ["dataset is 'cifar'", "cifar10", "digits"]),
    ({**BIP, "mask_schedule": "cosin"}, ["mask_schedule is 'cosin'", "constant", "did you mean 'cosine'?"]),
    ({**BIP, "prune": {"schedule": "steps"}}, ["prune.schedule", "'steps'", "did you mean 'step'?"]),
    ({**SMALLEST["one_shot"], "score": "magnitud"}, ["score is 'magnitud'", "random", "did you mean 'magnitude'?"]),
    ({**SMALLEST["one_shot"], "distribution": "erd"}, ["distribution is 'erd'", "erk, global, uniform"]),
    ({**SMALLEST["one_shot"], "pattern": "weights"}, ["pattern is 'weights'", "did you mean 'weight'?"]),
    ({**SMALLEST["imp"], "pattern": "filter"}, ["pattern is 'filter'", "use one_shot"]),
    ({**SMALLEST["imp"], "rewind": "weight"}, ["rewind is 'weight'", "'learning_rate'"]),
    ({**SMALLEST["imp"], "prune_fraction": 1}, ["prune_fraction is 1", "less than 1"]),
    ({**SMALLEST["imp"], "rewind_epoch": 200}, ["rewind_epoch is 200", "less than pretrain's 200"]),
    ({**SMALLEST["imp"], "rewind": "none", "rewind_epoch": 1}, ["rewind_epoch is 1", "leave rewind_epoch out"]),
    ({**SMALLEST["adaptive_sparsity"], "starget": 1}, ["starget is 1", "less than 1"]),
    ({**SMALLEST["adaptive_sparsity"], "mode": "budget"}, ["mode is 'budget'", "'one_sided'"]),
    ({**SMALLEST["adaptive_sparsity"], "lv": -1}, ["lv is -1", "greater than or equal to 0"]),
    ({**SMALLEST["adaptive_sparsity"], "initial_threshold": 5.5}, ["initial_threshold is 5.5", "equal to 5"]),
    ({**SMALLEST["adaptive_sparsity"], "variant": "original", "train": 3}, ["train is 3", "dictionary"]),
    ({**SMALLEST["dense"], "snapshots": [0]}, ["snapshots has 0", "between 1 and 200"]),
    ({**L1, "stage_pr": None}, ["stage_pr and base_pr_model are both missing", "from one of them"]),
    ({**L1, "base_pr_model": "x"}, ["stage_pr and base_pr_model are both given", "from one of them"]),
    ({**L1, "stage_pr": 1.5}, ["stage_pr is 1.5", "from 0 to 1"]),
    ({**L1, "stage_pr": "{0:0.5}"}, ["stage_pr is '{0:0.5}'", "no braces"]),
    ({**L1, "stage_pr": "[0:0.5,]"}, ["stage_pr is '[0:0.5,]'", "first-last:ratio"]),
    ({**L1, "stage_pr": "[2-1:0.5]"}, ["2-1 ends before it begins"]),
    ({**L1, "stage_pr": "[7:0.5]"}, ["stage_pr has layer 7", "layers 0 to 3"]),
    ({**L1, "stage_pr": [0, 0.5, 0]}, ["one per stage", "not residual", "1-15:0.7"]),
    ({**L1, "stage_pr": "1:0.5", "model": "resnet20s"}, ["by layer", "residual", "each of its 5"]),
    ({**L1, "stage_pr": [0, 0.5], "model": "resnet20s"}, ["stage_pr has 2 ratios", "takes 5: stem, 3 stages"]),
    ({**L1, "stage_pr": [0, 0.5, 0, 0, 0, 0.1], "model": "resnet20s"}, ["stage_pr has 6 ratios", "takes 5"]),
    (
        {**L1, "stage_pr": [0.5] * 5, "model": "resnet20s"},
        ["cannot prune the first layer, whose filters enter a sum", "conv1 the ratio 0"],
    ),
    ({**L1, "stage_pr": "0-2:0.5", "pattern": "channel"}, ["channels are the image's", "conv1 the ratio 0"]),
    ({**L1, "skip_layers": [3.1]}, ["skip_layers has the number 3.1", "put it in quotes"]),
    ({**L1, "skip_layers": "[one]"}, ["skip_layers has 'one'", "stage.block.conv"]),
    ({**L1, "skip_layers": "[9]"}, ["skip_layers has '9'", "no layer is called so", "0 to 3 are"]),
    ({**L1, "stage_pr": None, "base_pr_model": "x", "skip_layers": "1"}, ["skip_layers is ['1']", "leave it out"]),
    ({**L1, "finetune": {"lr_steps": "0.1"}}, ["finetune.lr_steps is '0.1'", "epoch:rate pairs"]),
    ({**L1, "finetune": {"lr_steps": "0:0.1,0:0.2"}}, ["lr_steps is '0:0.1,0:0.2'", "each once"]),
    ({**L1, "finetune": {"lr_steps": "0:0.1", "lr": 0.5}}, ["lr is 0.5", "lr_steps says every rate"]),
    ({**L1, "lr_ft": "0:0.1", "finetune": None}, ["lr_ft is '0:0.1'", "finetune is None"]),
    ({**L1, "pick_pruned": "least"}, ["pick_pruned is 'least'", "'min'"]),
    ({**SMALLEST["greg1"], "reg_granularity_prune": 1e-9}, ["reg_granularity_prune is 1e-09", "raise it"]),
    (
        {**SMALLEST["greg2"], "reg_granularity_pick": 1e-9},
        ["reg_granularity_pick is 1e-09", "reg_upper_limit_pick 0.01"],
    ),
    ({**SMALLEST["greg2"], "pick_pruned": "max"}, ["'pick_pruned'", "must be one of"]),
    ({**SMALLEST["greg1"], "prune": {"epochs": 3}}, ["prune: key is 'epochs'", "batch_size"]),
    (
        {**SMALLEST["oracle"], "stage_pr": 0.5},
        ["max_candidates is 10000", "more than 10^22", "of conv3 alone, 24 of 48 groups"],
    ),
    ({**BIP, 3: 4}, ["3 is not a known key"]),
    ({**SMALLEST["global_prune"], "p_prune": 1}, ["p_prune is 1", "less than 1"]),
    ({**SMALLEST["global_prune"], "p_bern": 1.5}, ["p_bern is 1.5", "less than or equal to 1"]),
    ({**SMALLEST["global_prune"], "pattern": "filter"}, ["pattern is 'filter'", "'filter_l1'"]),
    ({**SMALLEST["global_prune"], "pattern": "filter_l1", "keep_one": True}, ["keep_one is True", "leave it out"]),
    ({**SMALLEST["layer_prune"], "score": "magnitude"}, ["score is 'magnitude'", "'taylor'", "'l1'"]),
    ({**SMALLEST["gradient_prune"], "compile": True}, ["compile is True", "leave one of them out"]),
    (
        {**SMALLEST["gradient_prune"], "train": {"backward": {"linear": True, "pattern": "kernel"}}},
        ["train.backward", "linear is true", "use 'weight'"],
    ),
    ({**BIP, "prune": {"backward": {"p_prun": 0.5}}}, ["prune.backward", "'p_prun'", "did you mean 'p_prune'?"]),
    ({**SMALLEST["dwp"], "victim_seed": 0}, ["victim_seed is 0", "another network"]),
    ({**SMALLEST["dwp"], "victim_model": "tinny"}, ["victim_model is 'tinny'", "did you mean 'tiny'?"]),
    (
        {**SMALLEST["prune_iterative"], "finetune": {"warmup_epochs": 1}},
        ["finetune.warmup_epochs is 1", "give warmup_share"],
    ),
    ({**SMALLEST["regrow_iterative"], "budget_max": 0.0005}, ["budget_max is 0.0005", "at least budget_min, 0.001"]),
    ({**SMALLEST["regrow"], "layers": []}, ["layers is empty", "leave it out"]),
    ({**SMALLEST["regrow"], "layers": ["conv_2"]}, ["layers is 'conv_2'", "did you mean 'conv2'?"]),
    ({**SMALLEST["regrow"], "initial": "zeros"}, ["initial is 'zeros'", "did you mean 'zero'?"]),
    ({**SMALLEST["regrow"], "prune": {"score": "lamb"}}, ["score is 'lamb'", "did you mean 'lamp'?"]),
    (
        {**SMALLEST["regrow"], "controller": {"episodes": 2, "episodes_in_flight": 3}},
        ["episodes_in_flight is 3", "at most the 2"],
    ),
    (WHAT, ["method is missing", METHOD_NAMES]),
    ([BIP], ["must be a mapping"]),
    (None, ["a trial is None", "must be a mapping"]),
    ("bip", ["a trial is 'bip'", "must be a mapping"]),
]


@pytest.mark.parametrize(("content", "says"), WRONG, ids=[says[0] for _, says in WRONG])
def test_what_is_wrong_is_one_line_with_value_and_rule(content: object, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse(content)
    line = str(caught.value)
    assert "\n" not in line
    for part in says:
        assert part in line


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(UserError, match=r"seed is -1, .*; density is 2, "):
        parse({**BIP, "density": 2, "seed": -1})


def test_names_far_from_all_others_get_no_hint() -> None:
    assert unknown_name("model", "zzz", ["b", "a"]) == "model is 'zzz', but must be one of: a, b"


def test_every_config_is_a_trial_config() -> None:
    assert all(issubclass(method.Config, TrialConfig) for method in METHODS.values())
    assert all(method.Config.model_fields["method"].default == name for name, method in METHODS.items())
