"""The wheel, and the files that Ray and rsync copy to a cluster, hold every module."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("sweeper", "trials")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel, built from a copy of the tree, as setuptools leaves files where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build")

    def ignored(parent: str, names: list[str]) -> set[str]:
        at_the_top = {"results", "tests"} if Path(parent) == REPOSITORY else set()
        return at_the_top | set(left_out(parent, names))

    shutil.copytree(REPOSITORY, folder / "tree", ignore=ignored)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=folder / "tree", capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def test_it_holds_every_module_and_no_other(wheel: set[str]) -> None:
    """setuptools leaves out a folder without __init__.py."""
    paths = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    assert {name for name in wheel if name.endswith(".py")} == {
        "sweep.py",
        *(path.relative_to(REPOSITORY).as_posix() for path in paths),
    }


def test_it_holds_what_describe_reads(wheel: set[str]) -> None:
    assert "sweeper/describe/refusals.json" in wheel


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_marks_its_packages_as_typed(wheel: set[str], package: str) -> None:
    assert f"{package}/py.typed" in wheel


def modules() -> set[str]:
    return {path.relative_to(REPOSITORY).as_posix() for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py")}


def test_a_cluster_that_is_joined_gets_every_module_and_no_results(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import _zip_files

    from sweeper.execution.on_ray.cluster import NOT_SHIPPED

    for path in (
        *modules(),
        "results/s/trials/x/state.json",
        "tests/test_x.py",
        ".git/HEAD",
        "sweeper/__pycache__/x.pyc",
    ):
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).touch()
    shutil.copy(REPOSITORY / ".gitignore", tmp_path / "tree")
    _zip_files(str(tmp_path / "tree"), NOT_SHIPPED, str(tmp_path / "package.zip"), include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "package.zip") as file:
        assert {name for name in file.namelist() if not name.endswith("/")} == {".gitignore", *modules()}


@pytest.mark.parametrize("file", ["cluster.yaml", "cluster-aws.yaml"])
def test_rsync_brings_every_module(file: str) -> None:
    """An exclude pattern without a leading slash matches folders at any depth."""
    patterns = yaml.safe_load((REPOSITORY / file).read_text())["rsync_exclude"]
    parts = {part for module in modules() for part in Path(module).parts}
    assert not parts & set(patterns)
