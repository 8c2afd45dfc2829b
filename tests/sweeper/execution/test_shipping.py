"""What the workers of a cluster get of the driver's code. With a cluster: tests/test_installed.py."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import _zip_files

from sweeper.execution.on_ray import shipping
from tests.sweeper.on_ray import ROOT


def test_the_packages_are_sent_whole_and_alone(tmp_path: Path) -> None:
    assert [Path(folder) for folder in shipping.packages()] == [ROOT / "sweeper", ROOT / "trials"]
    for package in map(Path, shipping.packages()):
        there = {
            path.relative_to(ROOT).as_posix()
            for path in package.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        to = tmp_path / f"{package.name}.zip"
        _zip_files(str(package), shipping.NOT_SHIPPED, str(to), include_gitignore=True, include_parent_dir=True)
        with zipfile.ZipFile(to) as file:
            assert {name for name in file.namelist() if not name.endswith("/")} == there


def test_only_folders_that_are_not_searched_anyway_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/of/the/user"]))
    shipping.extend_python_path()
    shipping.extend_python_path()
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/of/the/user"]
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(shipping.site, "getsitepackages", lambda: [str(tmp_path), str(ROOT)])
    shipping.extend_python_path()
    assert os.environ["PYTHONPATH"] == ""


def test_other_code_in_the_working_folder_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "sweep.py")])
    for folder in (tmp_path, ROOT, ROOT / "sweeper"):
        monkeypatch.chdir(folder)
        assert not shipping.are_hidden()
    (tmp_path / "trials").mkdir()  # as in a sweep's folder: Python prefers a package that lies further back
    monkeypatch.chdir(tmp_path)
    assert not shipping.are_hidden()
    (tmp_path / "trials" / "__init__.py").touch()
    assert shipping.are_hidden()
    monkeypatch.chdir(ROOT)
    assert not shipping.are_hidden()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "sweep.py")])
    assert shipping.are_hidden()


def test_what_a_job_brought_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shipping.JOB_CONFIG, raising=False)
    with shipping.shipment({"A": "b"}) as alone:
        assert list(Path(alone["working_dir"]).iterdir()) == []
        assert alone["py_modules"] == shipping.packages()
        assert alone["env_vars"] == {"A": "b"}
    given = {"working_dir": "gcs://job.zip", "py_modules": ["gcs://mine.zip"], "pip": ["x"]}
    monkeypatch.setenv(shipping.JOB_CONFIG, json.dumps({"runtime_env": given}))
    with shipping.shipment({}) as found:
        assert found["working_dir"] == "gcs://job.zip"
        assert found["py_modules"] == [*shipping.packages(), "gcs://mine.zip"]
    monkeypatch.setenv(shipping.JOB_CONFIG, json.dumps({"runtime_env": None, "metadata": {}}))
    with shipping.shipment({}) as found:
        assert found["py_modules"] == shipping.packages()
