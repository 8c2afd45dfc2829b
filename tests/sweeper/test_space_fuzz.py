"""Whatever a space file holds, it is a space or one line that says why not."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeper.space import SPACES, Space, load_space
from trials.errors import UserError
from trials.reading import read_yaml

SHIPPED = [read_yaml(path) for path in sorted(SPACES.glob("*.yaml"))]
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
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**400, -(2**70), 2**62, float("nan"), float("inf"), -0.0, 1e-320, 1e308, 0.5]),
    st.sampled_from(
        ["", "lth", "bip", "tiny", "test_accuracy", "a.b", "\n", "\x00", "\ud800".encode("utf-8", "replace").decode()]
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
def mutated(draw: st.DrawFn) -> Any:
    """A shipped space with up to three places changed, removed or put elsewhere."""
    content = copy.deepcopy(draw(st.sampled_from(SHIPPED)))
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
    """The space of a file with this content, or what is said instead."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz.yaml"
        path.write_text(content)
        try:
            space = load_space(str(path), profile=profile, overrides=overrides or [])
            space.check()
        except UserError as error:
            return str(error)
        return space


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated(), profile=st.sampled_from([None, None, "demo"]), overrides=st.sampled_from(OVERRIDES))
def test_a_space_or_one_line(content: Any, profile: str | None, overrides: list[str]) -> None:
    outcome = load_and_check(yaml.safe_dump(content, allow_unicode=True), profile, overrides)
    if isinstance(outcome, str):
        assert outcome
        assert "\n" not in outcome
        assert len(outcome) < 3000
    else:
        assert Space.from_document(outcome.document()) == outcome
        assert len({cell.key for cell in outcome.cells()}) == len(outcome.cells())


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="&*!|>{}[],:-?'\"#%@ \n\tab01.~<=", max_size=40))
def test_any_text_is_refused_in_one_line(text: str) -> None:
    outcome = load_and_check(f"trial: {text}")
    assert isinstance(outcome, str)
    assert "\n" not in outcome
