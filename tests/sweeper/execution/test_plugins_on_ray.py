"""Users' code on the workers of Ray: of one that is started here, and of a cluster of two machines that is joined."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweeper
from sweeper.execution.on_ray import shipping
from tests.sweeper.on_ray import ROOT
from tests.trials.plugins.code import write_code
from tests.trials.plugins.conftest import nothing_admitted
from trials.plugins.importing import admit

__all__ = ["nothing_admitted"]

SPACE: dict[str, Any] = {
    "plugins": ["./code/mynets", "./code/bare"],
    "trial": {
        "method": "regrow",
        "dataset": "bare.pruning:few",
        "model": "mynets.wide:MyNet",
        "pretrain": {"epochs": 1},
        "prune": {"prune_fraction": 0.9, "finetune": {"epochs": 1}},
        "controller": {"episodes": 2, "episodes_in_flight": 2},
        "episode": {"epochs": 1, "data_fraction": 0.2},
        "finetune": None,
    },
}

JOINED = """
import sys
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

from sweeper.cli import main
from sweeper.execution.on_ray import cluster, requirements
from tests.machines import several_machines
from trials.errors import UserError
from trials.plugins.importing import admit, load, sent
from trials.plugins.source import digest_of

if __name__ == "__main__":
    two = several_machines({"num_cpus": 1, "include_dashboard": False})
    two.add_node(num_cpus=1)
    code = Path("code").resolve()
    listed = [str(code / name) for name in ("mynets", "bare", "one_file.py")]
    sys.path.append(str(code / "here_alone"))
    admit([*listed, "installed_here"])
    cluster.connect(two.address, plugins=listed)

    def place(described):
        from trials.plugins.importing import admit_sent, admitted

        admit_sent(described)
        load("mynets.wide:MyNet", "model")
        return [str(plug_in.source) for plug_in in admitted()]

    described = sent(listed)
    code.rename(code.with_name("gone"))
    for node in ray.nodes():
        where = On(node["NodeID"], soft=False)
        print("found", *ray.get(ray.remote(place).options(num_cpus=0, scheduling_strategy=where).remote(described)))
    requirements.require_plugins(listed)
    try:
        requirements.require_plugins(["installed_here"])
    except UserError as error:
        print("refused", error)
    code.with_name("gone").rename(code)
    ended = main(["--space", "own.yaml", "--address", two.address])
    ray.shutdown()
    two.shutdown()
    sys.exit(ended)
"""


@pytest.fixture
def folder(tmp_path: Path, nothing_admitted: None) -> Path:
    """A folder with users' code in ``code`` and a space that lists it."""
    write_code(tmp_path / "code")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(SPACE))
    return tmp_path


def run(folder: Path, *words: str) -> str:
    """The output of a Python process in the folder."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_workers_of_a_ray_here_use_the_code_where_it_lies(folder: Path) -> None:
    """Also the tasks of a trial's pieces, which get its objects pickled."""
    space = {**SPACE, "resources": {"cpu": 1}}
    (folder / "own.yaml").write_text(yaml.safe_dump(space))
    said = run(folder, "-m", "sweeper", "--space", "own.yaml", "--address", "local")
    assert "own: 1 cells, 1 done; 1 trials, 1 done" in said
    assert list(sweeper.load(folder / "results/own").trials["model"]) == ["mynets.wide:MyNet"]


def test_machines_of_a_joined_cluster_get_copies_of_what_is_listed_by_path(folder: Path) -> None:
    (folder / "code/here_alone").mkdir()
    (folder / "code/here_alone/installed_here.py").write_text("x = 1\n")
    (folder / "code/mynets/.gitignore").write_text("blocks.py\n")  # Ray would leave out what it names
    (folder / "two.py").write_text(JOINED)
    said = run(folder, "two.py")
    found = [line.split()[1:] for line in said.splitlines() if line.startswith("found ")]
    assert len(found) == 2
    for places in found:
        assert [Path(place).name for place in places] == ["mynets", "bare", "one_file.py"]
        assert all("/py_modules_files/" in place for place in places)
    (refused,) = (line for line in said.splitlines() if line.startswith("refused "))
    assert refused.startswith("refused on ")
    assert "the plug-in installed_here has the digest" in refused
    assert "there is no module installed_here here: install it on every machine, or list its path" in refused
    assert "own: 1 cells, 1 done; 1 trials, 1 done" in said


def test_copies_leave_out_nothing_that_is_imported(folder: Path) -> None:
    (folder / "code/mynets/.gitignore").write_text("*\n")
    (folder / "code/mynets/__pycache__").mkdir()
    plug_ins = admit([str(folder / "code" / name) for name in ("mynets", "one_file.py")])
    with shipping.shipment({}, plug_ins) as found:
        *packages, package, file = found["py_modules"]
        assert packages == shipping.packages()
        assert {path.name for path in Path(package).iterdir()} == {
            path.name for path in (folder / "code/mynets").glob("*.py")
        }
        assert Path(file).read_text() == (folder / "code/one_file.py").read_text()
    assert not Path(package).exists()
