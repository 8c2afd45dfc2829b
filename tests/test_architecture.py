"""The house stands as docs/architecture.md draws it: who may know whom."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FORBIDDEN = {"trials": {"ray", "optuna", "pandas", "sweeper"}, "sweeper": {"torch"}}


def modules(package: str) -> dict[str, ast.Module]:
    """Every module of a package by its dotted name, parsed."""
    found = {}
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), str(path))
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Names that a piece of code imports, wherever in it, also by importlib and __import__ with a literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: say the whole name"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_nothing_that_is_not_theirs_to_know(package: str) -> None:
    names = modules(package)
    assert len(names) > 1
    for name, tree in names.items():
        found = {target.partition(".")[0] for target in imported(tree)} & FORBIDDEN[package]
        assert not found, f"{name} imports {sorted(found)}"


@pytest.mark.parametrize(
    "code", ["import ray", "from ray import tune", "def f():\n    import ray.tune as t", "import_module('ray')"]
)
def test_the_check_sees_every_kind_of_import(code: str) -> None:
    assert "ray" in {target.partition(".")[0] for target in imported(ast.parse(code))}


def test_what_few_trials_need_is_imported_by_those() -> None:
    """Every worker imports every method: what takes long to import and serves one of them must wait."""
    slow = {"scipy", "sklearn", "pyarrow.dataset", "torchvision", "onnx", "onnxruntime", "matplotlib", "pytorch_msssim"}
    names = ["trials.trial", "trials.config", "trials.methods", *sorted(slow)]
    code = f"import sys, trials.trial; print(*(name for name in {names} if name in sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"trials.trial", "trials.config", "trials.methods"}


def test_nothing_comes_in_through_something_else() -> None:
    """At run time. (pyarrow loads pandas when it first makes a table, if it is there; importing trials does not.)"""
    names = sorted(FORBIDDEN["trials"])
    code = f"import trials.trial, trials.methods, trials.__main__, sys\nprint([n for n in {names} if n in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def edges(package: str) -> dict[str, set[str]]:
    """Which module imports which of its package when it is itself imported; what functions import is left out."""
    trees = modules(package)
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        found[name] = set()
        for node in ast.walk(outside_functions(tree)):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in trees}
            elif isinstance(node, ast.ImportFrom):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                found[name] |= {target if target in trees else str(node.module) for target in whole} & trees.keys()
    return found


def outside_functions(tree: ast.Module) -> ast.Module:
    """What runs when a module is imported."""
    return ast.Module([node for node in tree.body if not _is_later(node)], [])


def _is_later(node: ast.stmt) -> bool:
    typing_only = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_run_one_way(package: str) -> None:
    """No module needs itself to be imported, by whatever detour; a package's __init__ may gather its own modules."""
    graph = edges(package)
    assert any(graph.values())
    for start in graph:
        seen: set[str] = set()
        frontier = list(graph[start])
        while frontier:
            name = frontier.pop()
            if name not in seen and name != start:
                seen.add(name)
                frontier += graph[name]
            assert name != start, f"{start} imports itself by way of {sorted(seen)}"


@pytest.mark.parametrize(
    "lower", ["trials.sparsity", "trials.training", "trials.models", "trials.data", "trials.ledger"]
)
def test_nothing_below_knows_methods_or_trials(lower: str) -> None:
    names = {name: tree for name, tree in modules("trials").items() if f"{name}.".startswith(f"{lower}.")}
    assert names
    for name, tree in names.items():
        above = {t for t in imported(tree) if t.startswith(("trials.methods", "trials.trial", "trials.sources"))}
        assert not above, f"{name} imports {above}"


def test_a_method_knows_nothing_of_data_loading_checkpoints_or_rows() -> None:
    below = ("trials.data", "trials.ledger", "trials.lease", "trials.files", "trials.trial", "trials.sources")
    for name, tree in modules("trials").items():
        if name.startswith("trials.methods."):
            known = {target for target in imported(tree) if target.startswith(below)}
            assert not known, f"{name} imports {known}"
