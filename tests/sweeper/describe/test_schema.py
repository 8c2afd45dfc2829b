"""``--schema``: accepts what the program accepts, and refuses typos, as an editor would show them."""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sweeper.cli import COMPLETE, main
from sweeper.describe.schema import SCHEMA_FILE, space_schema
from sweeper.space.load import from_document
from sweeper.space.space_files import SPACES, read_space
from tests.trials.configs import SMALLEST
from trials.dotted_paths import leaves
from trials.errors import UserError
from trials.methods.registry import METHODS

SHIPPED = sorted(SPACES.glob("*.yaml"))

SPACE: dict[str, Any] = {
    "trial": {"method": "one_shot", "model": "tiny", "dataset": "digits"},
    "grid": {"density": [0.5, 0.2]},
    "search": {"finetune.lr": {"loguniform": [0.01, 0.1]}},
    "samples": 4,
}


@cache
def validator() -> Draft202012Validator:
    schema = space_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def accepted(space: object) -> bool:
    return bool(validator().is_valid(space))


def changed(path: str, value: Any) -> dict[str, Any]:
    """SPACE with a value at ``a/b``; in grid and search, b is a dotted path."""
    space = copy.deepcopy(SPACE)
    *outer, last = path.split("/")
    inside = space
    for key in outer:
        inside = inside.setdefault(key, {})
    inside[last] = value
    return space


def test_the_file_beside_the_spaces_is_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schema"]) == COMPLETE
    printed = capsys.readouterr().out
    assert printed == (SPACES / SCHEMA_FILE).read_text(), (
        "write it anew: python sweep.py --schema > .../space.schema.json"
    )
    assert json.loads(printed)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_spaces_are_accepted_and_name_the_schema(path: Any) -> None:
    errors = [
        f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in validator().iter_errors(read_space(path))
    ]
    assert errors == []
    assert path.read_text().splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA_FILE}"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_typo_in_any_field_of_a_shipped_space_is_refused(path: Any) -> None:
    content = read_space(path)
    for section in ("trial", "grid", "search"):
        for field in list(content.get(section) or {}):
            typo = copy.deepcopy(content)
            typo[section][f"{field}x"] = typo[section].pop(field)
            assert not accepted(typo), (section, field)
    for field, value in leaves(content["trial"]):
        if "." in field:
            assert not accepted({**content, "trial": {**content["trial"], field.partition(".")[0]: {"epoch": value}}})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_accepted_with_its_own_fields_only(method: str) -> None:
    trial = {"model": "tiny", "dataset": "digits", **SMALLEST[method], "method": method}
    assert accepted({"trial": trial}), list(validator().iter_errors({"trial": trial}))
    assert not accepted({"trial": {**trial, "of_no_method": 1}})
    foreign = "implicit_step" if method != "bip" else "levels"
    assert not accepted({"trial": {**trial, foreign: 1}})
    assert not accepted({"trial": trial, "grid": {foreign: [1]}})
    assert accepted({"trial": {"model": "tiny"}, "grid": {"method": [method], "seed": [0, 1]}})


ALLOWED: dict[str, tuple[str, Any]] = {
    "name of a sampler": ("sampler", "cmaes"),
    "sampler with options": ("sampler", {"name": "tpe", "multivariate": False}),
    "pruner within a pruner": ("pruner", {"name": "patient", "patience": 2, "wrapped": {"name": "median"}}),
    "ladder": ("grid/density", "lth"),
    "grid with condition": ("grid/score", {"values": ["magnitude", "lamp"], "when": {"density": 0.5}}),
    "alternatives": (
        "search/finetune.lr",
        [{"uniform": [1, 2], "when": {"density": 0.5}}, {"uniform": [2, 3], "when": {"density": 0.2}}],
    ),
    "integers": ("search/finetune.epochs", {"int": [1, 4], "log": True}),
    "numbers in steps": ("search/finetune.lr", {"uniform": [0.1, 0.9], "step": 0.1}),
    "integers in steps": (
        "search/finetune.epochs",
        {"int": [10, 100], "step": 10, "when": {"density": {"below": 0.3}}},
    ),
    "conditions": (
        "cases",
        {
            "c": {"when": {"density": {"between": [0.3, 0.6], "not": 0.4}}, "trial": {"finetune": {"epochs": 3}}},
            "d": {"when": {"density": {"at_least": 0.3}}, "trial": {"finetune": {"epochs": 3}}},
            "e": {"when": {"density": {"not": [0.2]}}, "trial": {"finetune": {"epochs": 3}}},
        },
    ),
    "choice": ("search/score", {"choice": ["magnitude", "random"]}),
    "rates as text": ("trial/pretrain", {"epochs": 2, "lr_steps": "0:0.1,1:0.01"}),
    "nm as text in a grid": ("grid/nm", ["2:4", "1:4"]),
    "no normalisation": ("trial/normalise", False),
    "objectives": ("objectives", [{"column": "flops", "direction": "minimize"}]),
    "constraint": ("constraints", [{"column": "density", "target": {"field": "density"}, "tolerance": 0.1}]),
    "warm start": ("from_sweep", {"sweep": "earlier", "points": 2}),
    "confirm": ("confirm", {"seed": [1, 2]}),
    "profile that removes": ("profiles", {"demo": {"grid": {"density": None}, "trial": {"pretrain": {"epochs": 1}}}}),
    "case": ("cases", {"c": {"when": {"density": 0.5}, "trial": {"finetune": {"epochs": 3}}}}),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_the_program_takes_is_accepted(case: str) -> None:
    path, value = ALLOWED[case]
    space = changed(path, value)
    assert accepted(space), [error.message[:300] for error in validator().iter_errors(space)]


REFUSED: dict[str, tuple[str, Any]] = {
    "section": ("sample", 3),
    "field": ("trial/modle", "tiny"),
    "nested field": ("trial/finetune", {"epoch": 3}),
    "field of the grid": ("grid/densty", [0.5]),
    "field of the search": ("search/finetune.rate", {"uniform": [0, 1]}),
    "method": ("trial/method", "one_shoot"),
    "model": ("trial/model", "resnet21"),
    "model in a grid": ("grid/model", ["tiny", "resnet21"]),
    "score in a choice": ("search/score", {"choice": ["magnitude", "magnitud"]}),
    "share above 1": ("trial/val_fraction", 1.5),
    "density of 0 in a grid": ("grid/density", [0.5, 0]),
    "type": ("trial/finetune", {"epochs": "many"}),
    "sampler": ("sampler", "tpes"),
    "option of a sampler": ("sampler", {"name": "tpe", "multivariat": True}),
    "pruner": ("pruner", {"name": "halving", "min_resource": 0}),
    "distribution": ("search/finetune.lr", {"log_uniform": [0.1, 0.2]}),
    "three bounds": ("search/finetune.lr", {"uniform": [1, 2, 3]}),
    "key beside a distribution": ("search/finetune.lr", {"uniform": [1, 2], "log": True}),
    "step of a loguniform": ("search/finetune.lr", {"loguniform": [0.1, 0.9], "step": 0.1}),
    "step of 0": ("search/finetune.lr", {"uniform": [0.1, 0.9], "step": 0}),
    "broken step of integers": ("search/finetune.epochs", {"int": [10, 100], "step": 0.5}),
    "bound of a condition": ("search/finetune.lr", {"uniform": [0.1, 0.9], "when": {"density": {"under": 0.3}}}),
    "bound that is text": ("search/finetune.lr", {"uniform": [0.1, 0.9], "when": {"density": {"below": "0.3"}}}),
    "ladder": ("grid/density", "lht"),
    "column": ("objective", "val_acuracy"),
    "column of the test set": ("objective", "test_accuracy"),
    "direction": ("direction", "max"),
    "samples": ("samples", 0),
    "resources": ("resources", {"gpus": 1}),
    "negative seed": ("confirm", {"seed": [-1]}),
    "case": ("cases", {"c": {"when": {"density": 0.5}, "trial": {"finetun": {}}}}),
    "profile": ("profiles", {"demo": {"trail": {}}}),
    "field in a profile": ("profiles", {"demo": {"trial": {"modl": "tiny"}}}),
    "path in a profile": ("profiles", {"demo": {"grid": {"densty": [0.1]}}}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_typos_are_refused_as_the_program_does(case: str) -> None:
    path, value = REFUSED[case]
    space = changed(path, value)
    assert accepted(SPACE)
    assert not accepted(space)
    if "profile" in case:
        return
    with pytest.raises(UserError):
        read_whole(space)


def read_whole(space: dict[str, Any]) -> None:
    read = from_document({"name": "s", **space})
    for cell in read.cells():
        list(read.corner_configs(cell))


FOREIGN = "mylab.pruning:Sharpness"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trial/model", "mynets.wide:MyNet"),
        ("trial/model", "timm:resnet18"),
        ("trial/dataset", "hf:owner/name"),
        ("trial/score", FOREIGN),
        ("trial/distribution", FOREIGN),
        ("trial/pattern", FOREIGN),
        ("grid/model", ["tiny", "mynets.wide:MyNet"]),
        ("search/score", {"choice": ["magnitude", FOREIGN]}),
        ("sampler", FOREIGN),
        ("sampler", {"name": FOREIGN, "anything": 1}),
    ],
)
def test_names_with_a_colon_are_accepted(path: str, value: Any) -> None:
    space = {**changed(path, value), "plugins": ["./mynets", "mylab.pruning"]}
    assert accepted(space)
    assert accepted({**changed(path, value), "trial": {**changed(path, value)["trial"], "plugins": ["mylab"]}})
    assert not accepted({**space, "plugins": "mylab"})


def test_fields_of_a_method_of_a_plug_in_are_its_own() -> None:
    trial = {**SPACE["trial"], "method": FOREIGN, "sharpness": 3}
    assert accepted({"plugins": ["mylab.pruning"], "trial": trial, "grid": {"sharp.rate": [1]}})
    assert not accepted({"plugins": ["mylab.pruning"], "trial": {**trial, "model": "resnet21"}})
    assert accepted({"plugins": ["m"], "trial": {"model": "tiny", "x": 1}, "grid": {"method": [FOREIGN, "imp"]}})
    assert not accepted({"plugins": ["m"], "trial": {**SPACE["trial"], "finetun": {}}})  # a method of this package


def test_fields_have_descriptions() -> None:
    schema = space_schema()
    assert all(section["description"] for section in schema["properties"].values())
    assert schema["$defs"]["BipConfig"]["properties"]["mask_lr"]["description"].startswith(
        "learning rate of the scores"
    )
    assert schema["$defs"]["BipRecipe"]["properties"]["epochs"]["default"] == 100


def test_every_reference_has_a_target() -> None:
    schema = space_schema()
    text = json.dumps(schema)
    for path in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found: Any = schema
        for part in path.split("/"):
            found = found[part]


def test_callbacks_are_names_or_mappings() -> None:
    for callbacks in (["tensorboard"], [{"name": "wandb", "project": "x"}], ["track:Watch"], None, []):
        assert accepted({**SPACE, "callbacks": callbacks})
    for callbacks in ("tensorboard", [{"project": "x"}], [3]):
        assert not accepted({**SPACE, "callbacks": callbacks})
