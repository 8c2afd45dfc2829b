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
}
ONE_VALUE = {("imp", "pattern"), ("imp", "source_net")}  # that may only be what it is, until there is a second one


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields, those of nested recipes included."""
    for name, field in model.model_fields.items():
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        nested = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        if nested:
            yield from leaves(nested[0], (*path, name))
        else:
            yield (*path, name)


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
    if path[0] not in (*WHERE, "method", "variant") and (method, path[0]) not in ONE_VALUE
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
    elsewhere = {"data_dir": "/elsewhere", "device": "cpu", "checkpoint_every_s": 0.5}
    assert elsewhere.keys() == WHERE
    assert parse({**SMALLEST[method], **elsewhere}).id == parse(SMALLEST[method]).id


@pytest.mark.parametrize(("method", "path"), NAMING, ids=[f"{method}-{'.'.join(path)}" for method, path in NAMING])
def test_every_other_field_renames(method: str, path: tuple[str, ...]) -> None:
    base = SMALLEST[method]
    if len(path) > 1:  # give the optional recipes, so that only the field differs
        base = setting(base, path[:-1], {})
    changed = setting(base, path, OTHER.get(f"{method}.{path[-1]}", OTHER[path[-1]]))
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


BIP = SMALLEST["bip"]
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
    ({**BIP, "method": "bipp"}, ["method is 'bipp'", "bip, dense, hydra, imp, one_shot", "did you mean 'bip'?"]),
    ({**BIP, "method": ["bip"]}, ["method is ['bip']", "bip, dense, hydra, imp, one_shot"]),
    ({**BIP, "method": None}, ["method is None", "bip, dense, hydra, imp, one_shot"]),
    ({**BIP, "model": "tinny"}, ["model is 'tinny'", "resnet20s", "did you mean 'tiny'?"]),
    ({**BIP, "dataset": "cifar"}, ["dataset is 'cifar'", "cifar10", "digits"]),
    ({**BIP, "mask_schedule": "cosin"}, ["mask_schedule is 'cosin'", "constant", "did you mean 'cosine'?"]),
    ({**BIP, "prune": {"schedule": "steps"}}, ["prune.schedule", "'steps'", "did you mean 'step'?"]),
    ({**SMALLEST["one_shot"], "score": "magnitud"}, ["score is 'magnitud'", "random", "did you mean 'magnitude'?"]),
    ({**SMALLEST["one_shot"], "distribution": "erk"}, ["distribution is 'erk'", "global, uniform"]),
    ({**SMALLEST["one_shot"], "pattern": "weights"}, ["pattern is 'weights'", "did you mean 'weight'?"]),
    ({**SMALLEST["imp"], "pattern": "filter"}, ["pattern is 'filter'", "use one_shot"]),
    ({**SMALLEST["imp"], "rewind": "weight"}, ["rewind is 'weight'", "'learning_rate'"]),
    ({**SMALLEST["imp"], "prune_fraction": 1}, ["prune_fraction is 1", "less than 1"]),
    ({**SMALLEST["imp"], "rewind_epoch": 200}, ["rewind_epoch is 200", "less than pretrain's 200"]),
    ({**SMALLEST["imp"], "rewind": "none", "rewind_epoch": 1}, ["rewind_epoch is 1", "leave rewind_epoch out"]),
    ({**SMALLEST["dense"], "snapshots": [0]}, ["snapshots has 0", "between 1 and 200"]),
    ({**BIP, 3: 4}, ["3 is not a known key"]),
    (WHAT, ["method is missing", "bip, dense, hydra, imp, one_shot"]),
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
