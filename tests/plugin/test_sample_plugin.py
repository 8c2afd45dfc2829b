"""A distribution with a network, a data set and a method: as a wheel that is installed, and as a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweeper
from sweeper.cli import COMPLETE, main
from trials.config.trial_config import TrialConfig
from trials.data import DATASETS
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.plugins import importing
from trials.running.environment import plugins_used
from trials.testing import check_dataset, check_method, check_model

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TRAIN = {"epochs": 2, "batch_size": 32}
SNIP: dict[str, Any] = {"method": "snip", "model": "sample_net", "dataset": "sample_shapes", "train": TRAIN}
IN_MODULES = {
    **SNIP,
    "method": "sample_plugin.snip:Snip",
    "model": "sample_plugin.networks:SampleNet",
    "dataset": "sample_plugin.shapes:shapes",
}


def pip(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the distribution's wheel is installed."""
    folder = tmp_path_factory.mktemp("sample")
    shutil.copytree(HERE / "sample_plugin", folder / "tree" / "sample_plugin")
    shutil.copy(HERE / "pyproject.toml", folder / "tree")
    alone = ("--no-deps", "--no-index")
    pip("wheel", *alone, "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "tree"))
    (wheel,) = folder.glob("*.whl")
    pip("install", *alone, "--target", str(folder / "site"), str(wheel))
    return folder / "site"


@pytest.fixture
def nothing_admitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plug-in is admitted, before and after a test, nor imported."""
    monkeypatch.setattr(importing, "_admitted", {})
    importing._drop("sample_plugin")
    yield
    importing._drop("sample_plugin")


@pytest.fixture
def installed(site: Path, nothing_admitted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution is on this process's path."""
    monkeypatch.syspath_prepend(site)


def without_site() -> list[str]:
    """This process's path without the installed distribution."""
    return [path for path in sys.path if Path(path).name != "site"]


def config(fields: dict[str, Any], *plugins: str) -> TrialConfig:
    listed = {"plugins": list(plugins)} if plugins else {}
    return parse(importing.admit_listed({**fields, "density": 0.2, **listed}, HERE))


def test_without_it_its_names_are_unknown(nothing_admitted: None) -> None:
    assert not {"snip"} & {*METHODS.names()}
    with pytest.raises(UserError, match="method is 'snip', but must be one of"):
        config(SNIP)


def test_its_entry_points_are_names_of_their_kinds(installed: None) -> None:
    assert ["snip" in METHODS.names(), "sample_net" in MODELS.names(), "sample_shapes" in DATASETS.names()] == [
        True
    ] * 3
    assert "snip" not in list(METHODS)
    assert config(SNIP).plugins == ()
    assert plugins_used(config(SNIP)).startswith("sample_plugin=")  # told to workers, and in each trial's environment


def test_it_keeps_the_contracts_by_its_names(installed: None) -> None:
    check_model("sample_net", image_shape=(1, 10, 10))
    check_dataset("sample_shapes")
    check_method("snip", {"density": 0.2, "train": {"epochs": 2, "batch_size": 16}, "model": "sample_net"})


def test_names_of_trials_hold_the_names_of_objects_and_not_where_they_lie(
    installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_entry_point, by_module = config(SNIP).id, config(IN_MODULES, "sample_plugin").id
    importing._drop("sample_plugin")
    monkeypatch.setattr(importing, "_admitted", {})
    monkeypatch.setattr(sys, "path", without_site())
    by_path = config(IN_MODULES, "./sample_plugin").id
    assert by_entry_point == "snip-9fb14c954f54"
    assert by_module == by_path == "Snip-d00f80921f80"


def test_a_revision_renames_what_uses_it(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = config(SNIP).id
    monkeypatch.setattr(METHODS["snip"], "revision", 2, raising=False)
    assert config(SNIP).id != before


@pytest.mark.parametrize("listed", ["sample_plugin", "./sample_plugin"])
def test_a_space_names_its_modules(
    listed: str, installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(HERE / "sample_plugin", tmp_path / "sample_plugin")
    if listed.startswith("."):
        monkeypatch.setattr(sys, "path", without_site())
    space = {"plugins": [listed], "trial": IN_MODULES, "grid": {"density": [0.5, 0.2]}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(space))
    monkeypatch.chdir(tmp_path)
    assert main(["--space", "own.yaml", "--dry-run"]) == COMPLETE
    assert "2 trials" in capsys.readouterr().out


def test_a_sweep_on_ray_uses_its_names(site: Path, tmp_path: Path) -> None:
    """By entry points, which need no ``plugins``, and by its module; installed, as on each machine of a cluster."""
    space = {
        "plugins": ["sample_plugin"],
        "trial": {**SNIP, "density": 0.2},
        "grid": {"method": ["snip", "sample_plugin.snip:Snip"]},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(space))
    done = subprocess.run(
        [sys.executable, "-m", "sweeper", "--space", "own.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == COMPLETE, done.stdout + done.stderr
    trials = sweeper.load(tmp_path / "results" / "own").trials
    assert sorted(trials["status"]) == ["complete"] * 2
    assert trials["density"].tolist() == pytest.approx([0.2] * 2, abs=1e-4)
    assert trials["val_accuracy"].nunique() == 1
