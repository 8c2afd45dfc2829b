"""The wheel holds every module of the two packages, and says that they are typed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("sweeper", "trials")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel that is built from a copy of the tree: setuptools leaves files where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    elsewhere = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "results", "tests")
    shutil.copytree(REPOSITORY, folder / "tree", ignore=elsewhere)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=folder / "tree", capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def test_it_holds_every_module_and_no_other(wheel: set[str]) -> None:
    """A folder without __init__.py would be left out."""
    paths = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    assert {name for name in wheel if name.endswith(".py")} == {
        "sweep.py",
        *(path.relative_to(REPOSITORY).as_posix() for path in paths),
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_it_says_that_its_packages_are_typed(wheel: set[str], package: str) -> None:
    assert f"{package}/py.typed" in wheel
