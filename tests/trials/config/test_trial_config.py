"""Names of trials, and of the networks that they start from."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from tests.trials.configs import SMALLEST
from trials.config.trial_config import WHERE, TrialConfig, content_hash
from trials.methods.bip.bip import BipConfig
from trials.methods.dense import dense_source
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.plugins.importing import admit

# These names are in stored results. A change that renames one makes every finished trial of that kind unknown: it would
# run again, and its rows would no longer be found. If equal configs now compute something else, raise the revision of
# exactly those (trials/config/revisions.py) and say why; otherwise the change is wrong, not the pin.
RELEASED = {"rounding": "released"}  # what these methods computed before they had the field
PINNED = [
    ("dense-b76648be394b", SMALLEST["dense"]),
    ("one_shot-e0f85616d4c2", {**SMALLEST["one_shot"], **RELEASED}),
    ("imp-b76648be394b", {**SMALLEST["imp"], **RELEASED}),
    ("bip-e0f85616d4c2", {**SMALLEST["bip"], **RELEASED}),
    ("hydra-e0f85616d4c2", {**SMALLEST["hydra"], **RELEASED}),
    ("finetune-1e442aa8df0b", SMALLEST["finetune"]),
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
            **RELEASED,
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
        {**SMALLEST["imp"], **RELEASED, "model": "resnet20s", "dataset": "cifar10", "rewind_epoch": 2, "levels": 3},
    ),
    (
        "one_shot-92c956bbfd0a",
        {**SMALLEST["one_shot"], **RELEASED, "pattern": "filter", "distribution": "uniform", "finetune": None},
    ),
    (
        "dense-d07e6011aa0d",
        {**SMALLEST["dense"], "precision": "float64", "train": {"schedule": "step"}, "snapshots": [1, 5]},
    ),
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
    admit(["yaml"])
    elsewhere = {
        "plugins": ["yaml"],
        "data_dir": "/elsewhere",
        "device": "cpu",
        "checkpoint_every_s": 0.5,
        "measure_latency": True,
        "capture": False,
    }
    assert elsewhere.keys() == WHERE
    assert parse({**SMALLEST[method], **elsewhere}).id == parse(SMALLEST[method]).id


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


@pytest.mark.parametrize("method", METHODS)
def test_the_folders_schema_is_no_part_of_names(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    before = parse(SMALLEST[method]).id
    known = [module for name, module in sys.modules.items() if name.split(".")[0] in ("trials", "sweeper")]
    for module in known:
        if hasattr(module, "SCHEMA"):
            monkeypatch.setattr(module, "SCHEMA", 2)
    assert parse(SMALLEST[method]).id == before


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
    if method == "imp":  # only rewinding to initialisation shares it
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


def test_every_config_is_a_trial_config() -> None:
    assert all(issubclass(method.Config, TrialConfig) for method in METHODS.values())
    assert all(method.Config.model_fields["method"].default == name for name, method in METHODS.items())


@pytest.mark.parametrize(("method", "recipe"), [("bip", "prune"), ("hydra", "prune"), ("adaptive_sparsity", "train")])
def test_the_released_schedule_leaves_a_recipes_own_rates_alone(method: str, recipe: str) -> None:
    released = {**SMALLEST[method], "variant": "original"}
    own = getattr(parse({**released, recipe: {"lr_steps": "0:0.1,2:0.01"}}), recipe)
    assert [own.lr_schedule()(epoch) for epoch in (0, 1, 2)] == [0.1, 0.1, 0.01]
    assert getattr(parse(released), recipe).schedule.endswith("_released")
