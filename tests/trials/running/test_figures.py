"""Figures that a method's stages return: which names and values a trial takes, and that they come back equal."""

from __future__ import annotations

import datetime
import enum
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field

from sweeper.columns import ALWAYS, SOME
from sweeper.results.column_types import BESIDE
from tests.trials.configs import SMALLEST
from tests.trials.folders import rows_of
from tests.trials.small_trials import BASE
from trials.config.figure_names import require_reports
from trials.errors import UserError
from trials.extend import Method, Recipe, Stage, TrainStage, TrialConfig
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.running.figures import layer_columns, stage_columns
from trials.running.trial import TrialHost, run
from trials.storage.rows import BESIDE_ENDS, RESULT, TAKEN_COLUMNS
from trials.storage.trial_folder import State
from trials.testing.small_runs import known

OF_ENVIRONMENTS = {"plugin_sources", "tf32", "deterministic"}


def test_what_the_tables_write_themselves_is_taken() -> None:
    assert TAKEN_COLUMNS["trials"] == ALWAYS["trials"].keys() - set(RESULT) | OF_ENVIRONMENTS
    assert SOME["trials"].keys() >= OF_ENVIRONMENTS
    assert TAKEN_COLUMNS["epochs"] == ALWAYS["epochs"].keys() - set(RESULT) | {"best_epoch"}
    assert TAKEN_COLUMNS["layers"] == ALWAYS["layers"].keys() - set(RESULT)
    assert set(BESIDE_ENDS) == set(BESIDE)


@pytest.mark.parametrize("method", SMALLEST)
def test_methods_of_this_package_report_what_they_may(method: str) -> None:
    require_reports(METHODS[method].reports, parse(SMALLEST[method]))


def given(**columns: Any) -> dict[str, Any]:
    return stage_columns(SimpleNamespace(columns=lambda: columns), {"backward_nominal_ratio": 0.5})  # type: ignore[arg-type]


class Level(enum.IntEnum):
    HIGH = 3


EQUAL: list[Any] = [
    *(None, True, False, 0, -1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64 + 1, 10**400, Level.HIGH),
    *(
        0.5,
        -0.0,
        1e308,
        5e-324,
        math.inf,
        -math.inf,
        "",
        "text",
        "null",
        "a\nb\x00",
        [],
        [1, "a", None],
        [["a"], [0.5]],
    ),
    *({}, {"a": 1, "b": [1, {"c": True}]}, {"": None}),
    *(
        np.float64(0.1),
        np.float32(0.1),
        np.float16(0.1),
        np.int8(-3),
        np.uint64(2**64 - 1),
        np.bool_(True),
        np.str_("a"),
    ),
    *(np.array(3), torch.tensor(0.1), torch.tensor(7), torch.tensor(True), torch.tensor(0.1, dtype=torch.bfloat16)),
    [np.float32(0.5), torch.tensor(2)],
]
PLAIN = {type(None), bool, int, float, str, list, dict}


@pytest.mark.parametrize("value", EQUAL, ids=repr)
def test_a_value_is_kept_as_an_equal_one_of_plain_type(value: Any) -> None:
    found = given(own=value)["own"]
    assert type(found) in PLAIN
    assert found == value
    assert isinstance(found, bool) == (isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", 0) == torch.bool)


def test_tuples_become_lists_and_nan_stays() -> None:
    assert given(own=(1, (2,))) == {"own": [1, [2]]}
    assert math.isnan(given(own=float("nan"))["own"])
    assert math.isnan(given(own=np.float32("nan"))["own"])


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


WRONG: list[tuple[Any, str]] = [
    (Decimal("0.1"), "is Decimal('0.1') of type Decimal; convert it, for example by float()"),
    (Fraction(1, 3), "of type Fraction"),
    (1j, "of type complex"),
    (b"a", "of type bytes"),
    ({1}, "of type set"),
    (datetime.date(2026, 1, 1), "of type date"),
    (np.datetime64("2026-01-01"), "of type datetime64"),
    (np.longdouble(1) / 3, "of type longdouble"),
    (np.complex64(1), "of type complex64"),
    (object, "of type type"),
    (np.zeros(2), "is an array of shape (2,); write .tolist()"),
    (torch.zeros(2, 1), "is an array of shape (2, 1); write .tolist()"),
    ({1: 2}, "has the key 1, but keys must be text"),
    ([{"a": {2: 3}}], "has the key 2, but keys must be text"),
    (10**5000, "has more digits than files hold (16610 bits)"),
    ("\ud800", "is not valid Unicode"),
    ({"\udfff": 1}, "is not valid Unicode"),
    (circle(), "is nested too deeply"),
]


@pytest.mark.parametrize(("value", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_value_that_rows_cannot_hold_is_refused_in_a_line(value: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        given(own=value)
    text = str(caught.value)
    assert text.startswith("SimpleNamespace.columns() has the column 'own', which ")
    assert said in text
    assert text.endswith(": columns hold numbers, text, true, false, None, and lists and mappings of them")
    assert "\n" not in text


@pytest.mark.parametrize("name", [*sorted(TAKEN_COLUMNS["epochs"]), "backward_nominal_ratio", "a:json", "config.x"])
def test_a_column_with_a_taken_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"columns\(\) has the column '{name}', but .*: rename it$"):
        given(**{name: 1.0})


@pytest.mark.parametrize("name", ["density", "val_accuracy", "status", "number", "lr", "a.b", "a b", "x:y"])
def test_other_names_are_taken_as_they_are(name: str) -> None:
    assert given(**{name: 1}) == {name: 1}


@pytest.mark.parametrize("value", ["0.5", None, True, math.nan, math.inf, 2**64, [0.5]], ids=repr)
def test_only_a_number_takes_the_place_of_a_measured_figure(value: Any) -> None:
    """Reports divide by them."""
    with pytest.raises(UserError, match=r"has the column 'kept', which is .*: give a finite number, or rename it$"):
        given(kept=value)
    assert given(kept=np.int64(5), density=0.5) == {"kept": 5, "density": 0.5}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"fc.weight": {"own": Decimal(1)}}, r"layer_columns\(\) has the column 'own', which is Decimal"),
        ({"fc.weight": {"layer": "x"}}, r"layer_columns\(\) has the column 'layer', but the tables have that column"),
        ({"fc.weight": 3}, r"layer_columns\(\) returned 3: it must return a mapping of column names to values"),
        (None, r"layer_columns\(\) returned None: it must return a mapping of weight names to columns"),
    ],
)
def test_columns_of_layers_are_checked_likewise(found: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        layer_columns(SimpleNamespace(layer_columns=lambda: found))  # type: ignore[arg-type]


class Config(TrialConfig):
    train: Recipe = Recipe()
    gamma: float = 7.0


VALUES = [True, None, 0.5, 3, 2**64 + 1, "text", np.float32(0.25), {"a": [1]}, [1, 2], ["a"], math.inf, torch.tensor(2)]
"""The figure ``own``, epoch by epoch."""


class OwnStage(TrainStage):
    extra: dict[str, Any] = {}  # noqa: RUF012
    captures = False

    def begin_epoch(self, epoch: int) -> None:
        super().begin_epoch(epoch)
        self.epoch = epoch

    def columns(self) -> dict[str, Any]:
        return {**super().columns(), "own": VALUES[self.epoch % len(VALUES)], "big": 10**30 + 1, **self.extra}

    def layer_columns(self) -> dict[str, Any]:
        return {"linear.weight": {"mine": np.float64(0.5)}, "conv1.weight": {"mine": "text"}}


class Own(Method):
    Config = Config
    Stage: type[OwnStage] = OwnStage
    reports = ("own", "big")

    def stages(self) -> Iterator[Stage]:
        yield self.Stage("train", self.config.train)


def ran(folder: Path, method: type[Method], epochs: int = 1) -> State:
    with known(METHODS, "own", method):
        recipe = {"epochs": epochs, "batch_size": 360}
        config = parse({**BASE, "method": "own", "train": recipe})
        return run(config, folder / "trials" / "own", TrialHost(folder / "stages"))


class KeyedConfig(Config):
    weights: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)


class Keyed(Own):
    Config = KeyedConfig


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        *(({"weights": {f"a{end}": "b"}}, f"field 'weights.a{end}', but *{end} is for values") for end in BESIDE_ENDS),
        ({"weights": {"a.b": 1, "a": {"b": 2}}}, "two fields whose column in the table trials is 'weights.a.b'"),
        ({"config": {"precision": 1}}, "two fields whose column in the table trials is 'config.precision'"),
    ],
)
def test_keys_of_a_config_that_are_other_columns_are_refused(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(type(METHODS), "built_in", lambda self, name: False)
    recipe = {"epochs": 1, "batch_size": 360}
    with known(METHODS, "own", Keyed):
        content = {**BASE, "method": "own", "train": recipe}
        assert parse({**content, "weights": {"conv1.weight": 0.5, "a": {"text": 1}}}).weights["a"] == {"text": 1}
        assert parse({**content, "config": {"lr": 0.5}}).config == {"lr": 0.5}
        with pytest.raises(UserError, match=re.escape(said)):
            parse({**content, **fields})


@pytest.mark.usefixtures("few_digits")
def test_figures_come_back_equal_from_a_trials_files(tmp_path: Path) -> None:
    state = ran(tmp_path, Own, len(VALUES))
    assert state.status == "complete", state.error
    rows = rows_of(tmp_path / "trials" / "own")
    assert [row["own"] for row in rows["epochs"]] == VALUES
    assert [type(row["own"]) is bool for row in rows["epochs"]] == [value is True for value in VALUES]
    assert {row["big"] for row in rows["epochs"]} == {10**30 + 1} == {state.result["big"]}
    assert (state.result["own"], type(state.result["own"])) == (2, int)
    own = {row["layer"]: row["mine"] for row in rows["layers"]}
    assert own == {"conv1": "text", "conv2": None, "conv3": None, "linear": 0.5}
    assert not [name for table in rows.values() for row in table for name in row if ":" in name]


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("attributes", "extra", "said"),
    [
        ({}, {"seconds": 1.0}, "Broken.columns() has the column 'seconds', but the tables have that column already"),
        ({}, {"price": Decimal(1)}, "Broken.columns() has the column 'price', which is Decimal('1') of type Decimal"),
        ({"reports": ("gamma",)}, {"gamma": 1.5}, "names 'gamma', but a field of its config has that column"),
        ({"reports": ("status",)}, {"status": 5}, "names 'status', but the tables have that column already"),
        ({"reports": ("lost",)}, {}, "own reports lost, but columns() of its stage 'train' returned no such column"),
    ],
)
def test_a_trial_fails_with_a_line_that_names_the_column(
    tmp_path: Path, attributes: dict[str, Any], extra: dict[str, Any], said: str
) -> None:
    stage = type("Broken", (OwnStage,), {"extra": extra})
    state = ran(tmp_path, type("OwnBroken", (Own,), {"Stage": stage, **attributes}))
    assert state.status == "failed"
    assert state.error is not None
    assert state.error["type"] == "UserError"
    assert said in state.error["message"]
    assert "\n" not in state.error["message"]
