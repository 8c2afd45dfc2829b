"""docs/security.md: each test that it names exists, and promises that have no other place are tested here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sweeper.run_options import RunOptions
from sweeper.space.options.callbacks import read_callbacks
from trials.errors import UserError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w./]+)(?:::(\w+))?`", PAGE)))


def test_every_promise_names_tests_that_exist() -> None:
    assert len(NAMED) > 30
    missing = []
    for file, function in NAMED:
        path = ROOT / file
        if not path.exists():
            missing.append(file)
        elif function:
            names = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
            missing += [f"{file}::{function}"] if function not in names else []
    assert missing == []


def test_every_row_names_a_test() -> None:
    rows = PAGE.partition("## Promises and their tests")[2].strip().splitlines()[2:]
    assert len(rows) > 15
    assert [row for row in rows if "`tests/" not in row.split("|")[2]] == []


@pytest.mark.parametrize(
    "options",
    [
        {"name": "mlflow", "tracking_token": "secret"},
        {"name": "wandb", "api_key": "secret"},
        {"name": "comet", "api_key": "secret"},
        {"name": "mlflow", "tracking_uri": "https://anna:secret@mlflow.example/x"},
        {"name": "mlflow", "registry_uri": "postgresql://:secret@db/x"},
    ],
)
def test_keys_and_passwords_of_trackers_are_refused(options: dict[str, str]) -> None:
    (callback,) = read_callbacks([options])
    with pytest.raises(UserError, match="no place for") as raised:
        callback.check()
    assert "secret" not in str(raised.value)


def test_the_recorded_command_has_no_runtime_environment() -> None:
    options = RunOptions(space="oracle", runtime_env={"env_vars": {"KEY": "secret"}}, set=("samples=2",))
    for from_python in (False, True):
        said = options.command(from_python=from_python)
        assert "secret" not in said
        assert "samples=2" in said
