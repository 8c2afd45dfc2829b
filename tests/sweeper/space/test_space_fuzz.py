"""Any content of a space file gives a space or a one-line error."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeper.space.checks import check_space
from sweeper.space.load import from_document, load_space
from sweeper.space.space import Space
from sweeper.space.space_files import SPACES
from trials.errors import UserError
from trials.yaml_text import parse_yaml, read_yaml

SEARCHING = """
trial: {method: one_shot, dataset: digits, model: tiny, finetune: {epochs: 9}}
grid: {density: [0.5, 0.2]}
search:
  score: {choice: [magnitude, random]}
  finetune.lr: {loguniform: [1e-3, 1.0]}
  finetune.momentum: {uniform: [0.0, 0.95], when: {score: [magnitude], density: 0.5}}
  finetune.batch_size: {int: [16, 256], log: true, when: {score: random}}
  pretrain.momentum: {uniform: [0.1, 0.9], step: 0.1}
  pretrain.lr: {uniform: [0.1, 0.9], when: {pretrain.momentum: {between: [0.2, 0.5], not: 0.3}, density: {below: 0.3}}}
enqueue: [{score: magnitude, finetune.lr: 0.1}, {finetune.lr: 0.5}]
sampler: {name: tpe, n_startup_trials: 3, multivariate: true, constant_liar: false}
pruner: {name: patient, patience: 2, wrapped: {name: halving, min_resource: 2, reduction_factor: 2}}
objectives: [{column: val_accuracy, direction: maximize}]
constraints: [{column: density, target: {field: density}, tolerance: 0.005}, {column: flops, at_most: 1.0e+6}]
from_sweep: {sweep: results/earlier, points: 2}
samples: 20
max_epochs: 1000
max_hours: 1.5
"""
CONDITIONAL = """
trial: {dataset: digits, model: tiny, measure_latency: true}
grid:
  method: [one_shot, l1, imp]
  density: {values: [0.5, 0.2], when: {method: one_shot}}
  stage_pr: {values: [0.5, 0.9], when: {method: [l1, greg1]}}
  finetune.lr: {values: [0.1], when: {stage_pr: 0.9, seed: [0, 1]}}
  seed: [0, 1]
cases:
  short: {when: {method: [one_shot, l1]}, trial: {finetune: {epochs: 3}}}
  dense: {when: {density: {at_least: 0.3}}, trial: {pretrain: {epochs: 9}}}
  sparse: {when: {stage_pr: 0.9, method: l1}, trial: {finetune: {epochs: 7}, pattern: weight}}
search: {pretrain.lr: {uniform: [0.1, 0.2], when: {density: 0.5}}}
samples: 2
objectives: [{column: latency_ms_1, direction: minimize}]
constraints: [{column: latency_ms_128, at_most: 3.0}]
"""
SHIPPED = [read_yaml(path) for path in sorted(SPACES.glob("*.yaml"))]
SEARCHED = [parse_yaml(SEARCHING, "searching"), parse_yaml(CONDITIONAL, "conditional")]  # most features of a space
SHIPPED += SEARCHED
KEYS = [
    "grid",
    "search",
    "trial",
    "samples",
    "density",
    "seed",
    "method",
    "epochs",
    "profiles",
    "demo",
    "choice",
    "int",
    "log",
    "when",
    "step",
    "not",
    "between",
    "above",
    "values",
    "cases",
    "name",
    "column",
    "field",
    "target",
    "at_least",
    "objective",
    "wrapped",
    "pbt",
    "population",
    "interval",
    "generations",
    "perturb",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**400, -(2**70), 2**62, float("nan"), float("inf"), -0.0, 1e-320, 1e308, 0.5]),
    st.sampled_from(
        [
            "",
            "lth",
            "bip",
            "tiny",
            "cmaes",
            "grid",
            "nsga2",
            "hyperband",
            "median",
            "val_loss",
            "device",
            "test_accuracy",
            "a.b",
            "\n",
            "\x00",
            "\ud800".encode("utf-8", "replace").decode(),
        ]
    ),
    st.dates(),
    st.binary(max_size=3),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.sampled_from(KEYS), st.sampled_from(KEYS), st.text(max_size=3), st.integers()),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)
OVERRIDES = [
    [],
    [],
    [],
    ["grid.seed=[4]"],
    ["trial.pretrain.epochs=1"],
    ["search={}", "samples=1"],
    ["grid.density=null"],
]


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in nested mappings and lists."""
    found: list[tuple[Any, Any]] = []
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        found += [(content, key), *places(value)]
    return found


@st.composite
def mutated(draw: st.DrawFn, spaces: Sequence[Any] = SHIPPED) -> Any:
    """One of ``spaces`` with up to three entries changed, removed or moved."""
    content = copy.deepcopy(draw(st.sampled_from(spaces)))
    for _ in range(draw(st.integers(1, 3))):
        spots = places(content)
        if not spots:
            return draw(VALUES)
        container, key = draw(st.sampled_from(spots))
        action = draw(st.sampled_from(["value", "value", "remove", "key", "move"]))
        if action == "remove":
            del container[key]
        elif action == "key" and isinstance(container, dict):
            container[draw(st.one_of(st.sampled_from(KEYS), st.text(max_size=3)))] = container.pop(key)
        elif action == "move":
            source, name = draw(st.sampled_from(spots))
            container[key] = copy.deepcopy(source[name])
        else:
            container[key] = draw(VALUES)
    return draw(VALUES) if draw(st.integers(0, 30)) == 30 else content


def load_and_check(content: str, profile: str | None = None, overrides: list[str] | None = None) -> Space | str:
    """The space of a file with this content, or the error message."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz.yaml"
        path.write_text(content)
        try:
            space = load_space(str(path), profile=profile, overrides=overrides or [])
            check_space(space)
        except UserError as error:
            return str(error)
        return space


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated(), profile=st.sampled_from([None, None, "demo"]), overrides=st.sampled_from(OVERRIDES))
def test_a_file_is_a_space_or_one_line(content: Any, profile: str | None, overrides: list[str]) -> None:
    assert_space_or_line(load_and_check(yaml.safe_dump(content, allow_unicode=True), profile, overrides))


@settings(max_examples=1_800, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated(SEARCHED), overrides=st.sampled_from(OVERRIDES))
def test_what_a_file_holds_is_a_space_or_one_line(content: Any, overrides: list[str]) -> None:
    """Without parsing YAML, which would take most of the time."""
    with mock.patch("sweeper.space.space_files.read_yaml", return_value=content):
        try:
            space = load_space("fuzz.yaml", overrides=overrides)
            check_space(space)
        except UserError as error:
            assert_space_or_line(str(error))
        else:
            assert_space_or_line(space)


def assert_space_or_line(outcome: Space | str) -> None:
    if isinstance(outcome, str):
        assert outcome
        assert "\n" not in outcome
        assert len(outcome) < 3000
    else:
        assert from_document(outcome.document()) == outcome
        assert len({cell.key for cell in outcome.cells()}) == len(outcome.cells())


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="&*!|>{}[],:-?'\"#%@ \n\tab01.~<=", max_size=40))
def test_any_text_is_refused_in_one_line(text: str) -> None:
    outcome = load_and_check(f"trial: {text}")
    assert isinstance(outcome, str)
    assert "\n" not in outcome
