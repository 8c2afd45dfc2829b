"""The floor plan of docs/architecture.md: who may import whom, where a library is known, how large things may be."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

FLOORS = {
    "trials": [
        {"aliases"},
        {"errors", "seeding", "called", "version"},
        {"frozen", "yaml_text", "data_header", "optional", "plugins", "system"},
        {"registry"},
        {"dotted_paths", "storage", "data", "models"},
        {"config", "compact"},
        {"training"},
        {"sparsity", "networks"},
        {"regrowth"},
        {"methods"},
        {"running", "analysis", "extend"},
        {"preparing"},
        {"single", "testing"},
        {"hub"},
        {"commands"},
        {"__main__", ""},
    ],
    "sweeper": [
        {"columns", "options", "screen", "doors", "runtime_env", "means"},
        {"console"},
        {"run_options"},
        {"space"},
        {"folder", "describe"},
        {"results", "estimate"},
        {"search", "paired", "packing"},
        {"report"},
        {"execution", "sweep"},
        {"before_run", "continuing"},
        {"driver", "dashboard", "control"},
        {"api"},
        {"cli", "comparison_plot", "lineage_plot", "regrowth_plot", "single_layer_plot", ""},
        {"__main__"},
    ],
}
"""The rooms of each package, from the ground up: a room imports only rooms below it. "" is the package's own face."""

KNOWN_ONLY_IN = {
    "ray": ("sweeper.execution.on_ray",),
    "optuna": ("sweeper.space", "sweeper.search", "sweeper.report", "sweeper.dashboard", "sweeper.sweep"),
    "pandas": (
        "sweeper.results",
        "sweeper.report",
        "sweeper.paired",
        "sweeper.sweep",
        *(f"sweeper.{kind}_plot" for kind in ("comparison", "lineage", "regrowth", "single_layer")),
    ),
    "torch": ("trials",),
    "sweeper": ("sweeper",),
}
"""Where a library, or a package, may be imported, anywhere in a module."""

SHARED_NAMES = {
    # model files: each builds one family of architectures, with blocks named as in its paper
    "BUILDERS", "BasicBlock", "Bottleneck", "LAYERS", "conv",
    # data set files: how one data set lies on disk
    "LAYOUT", "TEST_SPLITS",
    # functions that a registry names: distributions, rules of regrowth
    "uniform",
    # configs of two methods; class names stand in schemas
    "FinetuneRecipe",
    # the field's own word twice: how density is shared out over layers, and what Optuna draws from
    "Distribution",
    # public faces, always used with their module: trials.compact.load and save, sweeper.load, commands of two packages
    "load", "save", "main", "COMMANDS", "run",
    # figures of a report: a file each, all with the same function
    "draw",
    # sweeper.Space is the space with what only Python programs call
    "Space",
}  # fmt: skip
"""Public top-level names that may stand in more than one module."""

MOST_FILES, MOST_LINES, MOST_FUNCTION_LINES = 20, 330, 45


def modules(package: str) -> dict[str, ast.Module]:
    """Every module of a package by its dotted name, parsed."""
    found = {}
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), str(path))
    return found


PARSED = {package: modules(package) for package in FLOORS}


def imported(tree: ast.AST) -> Iterator[str]:
    """Names that a piece of code imports, wherever in it, also by importlib and __import__ with a literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write the whole name"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


@pytest.mark.parametrize(
    "code",
    [
        "import ray",
        "from ray import tune",
        "def f():\n    import ray.tune as t",
        "class C:\n    from ray import tune",
        "if TYPE_CHECKING:\n    import ray",
        "import_module('ray')",
    ],
)
def test_the_check_sees_every_kind_of_import(code: str) -> None:
    assert "ray" in {target.partition(".")[0] for target in imported(ast.parse(code))}


def edges(package: str) -> dict[str, set[str]]:
    """Which module imports which of its package, wherever in it: at the top, in functions, for type checking."""
    trees = PARSED[package]
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        found[name] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in trees}
            elif isinstance(node, ast.ImportFrom):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                found[name] |= {target if target in trees else str(node.module) for target in whole} & trees.keys()
    return found


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """The names on some path that leads back to where it began; empty where there is none."""
    for start in graph:
        seen: set[str] = set()
        frontier = list(graph[start])
        while frontier:
            name = frontier.pop()
            if name == start:
                return [start, *sorted(seen)]
            if name not in seen:
                seen.add(name)
                frontier += graph[name]
    return []


@pytest.mark.parametrize("package", FLOORS)
def test_no_module_imports_itself_by_any_detour(package: str) -> None:
    graph = edges(package)
    assert any(graph.values())
    assert circle_in(graph) == []


def test_the_check_finds_a_circle() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def room_of(module: str) -> str:
    """The file or folder right inside the package; "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


@pytest.mark.parametrize("package", FLOORS)
def test_a_room_imports_only_rooms_below_it(package: str) -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS[package]) for room in rooms}
    there = {room_of(module) for module in PARSED[package]}
    assert floor.keys() == there, "a room was added or removed: give it a floor"
    wrong = [
        f"{module} -> {target}"
        for module, targets in edges(package).items()
        for target in targets
        if room_of(module) != room_of(target) and floor[room_of(target)] >= floor[room_of(module)]
    ]
    assert wrong == []


@pytest.mark.parametrize("library", KNOWN_ONLY_IN)
def test_a_library_is_known_only_where_it_belongs(library: str) -> None:
    """But for ``import torch`` in a driver that asks whether trials can be made: it comes with trials.methods."""
    users = {
        module
        for trees in PARSED.values()
        for module, tree in trees.items()
        if library in {target.partition(".")[0] for target in imported(tree)}
    }
    assert users
    places = KNOWN_ONLY_IN[library]
    assert {module for module in users if not f"{module}.".startswith(tuple(f"{place}." for place in places))} == set()


def test_methods_know_nothing_of_data_sets_storage_or_runs() -> None:
    for name, tree in PARSED["trials"].items():
        if name.startswith("trials.methods"):
            above = ("trials.data", "trials.storage", "trials.running")
            targets = {target for target in imported(tree) if not target.startswith("trials.data_header")}
            assert {target for target in targets if target.startswith(above)} == set(), name


def loaded_by(code: str, names: list[str]) -> set[str]:
    """Those of ``names`` that are loaded once ``code`` has run in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    code = f"import sys\n{code}\nprint(*(name for name in {names} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import sweeper, sweeper.cli, trials", ["torch", "optuna", "ray", "pandas", "pyarrow", "rich", "pydantic"]),
        ("import sweeper.space.space_files", ["torch", "optuna", "ray", "pandas"]),
        ("import sweeper.results.report, sweeper.control, sweeper.sweep", ["torch", "optuna", "ray"]),
        ("import sweeper.driver", ["ray", "pandas", "scipy", "cmaes", "torchvision", "sklearn"]),
        (
            "from trials.data import published_header as header\n"
            "from trials.methods.parsing import parse\n"
            "from trials.methods.preconditions import require_runnable as check\n"
            "for model in ('resnet20s', 'vgg16', 'bip_vgg2'):\n"
            "    fields = {'method': 'bip', 'density': 0.5, 'model': model, 'dataset': 'cifar10'}\n"
            "    check(parse(fields), header('cifar10'))",
            ["torch._dynamo", "torch._inductor", "sympy"],  # torch's compiler
        ),
        ("import trials.storage.trial_folder", ["torch"]),
        (
            "import trials.running.trial, trials.methods.registry, trials.__main__",
            ["ray", "optuna", "pandas", "sweeper"],
        ),
        (
            "import trials.running.trial",
            [
                "scipy",
                "sklearn",
                "pyarrow.dataset",
                "torchvision",
                "onnx",
                "onnxruntime",
                "matplotlib",
                "pytorch_msssim",
            ],
        ),
    ],
)
def test_what_takes_long_to_import_waits_until_it_is_needed(code: str, unwanted: list[str]) -> None:
    """(pyarrow loads pandas when it first makes a table, if it is installed; importing trials does not.)"""
    assert loaded_by(code, unwanted) == set()


def test_the_check_sees_what_is_loaded() -> None:
    assert loaded_by("import trials.running.trial", ["torch", "ray"]) == {"torch"}


def test_no_folder_is_crowded() -> None:
    folders = Counter(path.parent for package in FLOORS for path in (REPOSITORY / package).rglob("*.py"))
    assert {str(folder): count for folder, count in folders.items() if count > MOST_FILES} == {}


def test_files_and_functions_stay_short() -> None:
    paths = [path for package in FLOORS for path in (REPOSITORY / package).rglob("*.py")]
    lines = {path.name: len(path.read_text().splitlines()) for path in paths}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
    functions = [
        (module, node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for trees in PARSED.values()
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [found for found in functions if found[-1] > MOST_FUNCTION_LINES] == []


def public_names(tree: ast.Module) -> set[str]:
    """Names that a module defines at its top and that do not begin with an underscore."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            found |= {name.id for name in names}
    return {name for name in found if not name.startswith("_")}


def test_no_public_name_has_two_meanings() -> None:
    places: dict[str, list[str]] = {}
    for trees in PARSED.values():
        for module, tree in trees.items():
            for name in public_names(tree):
                places.setdefault(name, []).append(module)
    several = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in several.items() if name not in SHARED_NAMES} == {}
    assert SHARED_NAMES - several.keys() == set(), "these names stand in one module now: take them off the list"


def all_names(tree: ast.Module) -> set[str]:
    """What other modules can import from a module, also inside ``if`` and ``try``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_what_is_imported_exists() -> None:
    """Also in modules that ``make test`` does not run: tests/products, tests/cluster and benchmarks."""
    trees = {name: tree for top in (*FLOORS, "tests", "benchmarks") for name, tree in modules(top).items()}
    names = {module: all_names(tree) for module, tree in trees.items()}
    missing = [
        f"{module}: {node.module}.{alias.name}"
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in trees
        for alias in node.names
        if alias.name not in names[node.module] and f"{node.module}.{alias.name}" not in trees
    ]
    assert len(trees) > 500
    assert missing == []
