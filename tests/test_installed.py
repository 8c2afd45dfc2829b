"""What pip installs: a wheel of this tree in a fresh environment, used in a folder without the checkout.

The environment has the libraries of the one that runs the tests, but for those of extras.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.test_optional import OPTIONAL
from trials.version import __version__

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("sweeper", "trials")
SMALLEST = [
    *("--space", "bip_unstructured", "--profile", "demo", "--samples", "1"),
    *("--set", "grid.density=[0.5]", "--set", "replicates.values.seed=[0]"),
    *("--set", "trial.pretrain.epochs=1", "--set", "trial.prune.epochs=1"),
]

TWO_MACHINES = """
import sys
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
from machines import several_machines
from sweeper.__main__ import main
from sweeper.execution.on_ray import cluster

two = several_machines({"num_cpus": 1, "include_dashboard": False})
two.add_node(num_cpus=1)
cluster.connect(two.address)

def place():
    import sweeper, trials
    return sweeper.__file__, trials.__file__

for node in ray.nodes():
    where = On(node["NodeID"], soft=False)
    print("imports", *ray.get(ray.remote(place).options(num_cpus=0, scheduling_strategy=where).remote()))
sys.argv[1:] += ["--address", two.address]
code = main()
ray.shutdown()
two.shutdown()
sys.exit(code)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of the tree, as setuptools leaves files where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns("__pycache__", "vectors")
    for path in REPOSITORY.iterdir():
        if path.name in (*PACKAGES, "benchmarks", "docs", "tests"):
            shutil.copytree(path, folder / "tree" / path.name, ignore=left_out)
        elif path.is_file():
            (folder / "tree").mkdir(exist_ok=True)
            shutil.copy(path, folder / "tree")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    built = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(folder / "tree")], capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and all libraries but those of the extras."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, "--disable-pip-version-check", str(wheel)], check=True, timeout=60)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({OPTIONAL}))\n")
    return folder


class Installed:
    """Runs commands of the environment in a folder of its own."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.bin, self.folder = environment / "bin", folder
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SWEEP", "RAY_JOB"))
        }
        self.variables = {**kept, "OMP_NUM_THREADS": "1", "PATH": f"{self.bin}{os.pathsep}{kept['PATH']}"}

    def run(self, name: str, *arguments: str, code: int = 0) -> str:
        """The output of a command; its errors if ``code`` is not 0."""
        done = subprocess.run(
            [self.bin / name, *arguments],
            cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=150,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Installed:
    folder = tmp_path / "empty"
    folder.mkdir()
    return Installed(environment, folder)


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    there = {
        path.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"sweeper/py.typed", "trials/py.typed", "sweeper/spaces/dwp.yaml"} <= there
    with zipfile.ZipFile(wheel) as file:
        assert {name for name in file.namelist() if ".dist-info/" not in name} == there
        licences = {name.partition(".dist-info/licenses/")[2] for name in file.namelist()} - {""}
    vendor = "sweeper/report/vendor"  # files of others, whose licences ask to be kept with them
    assert licences == {"LICENSE", f"{vendor}/LICENSE", f"{vendor}/THIRD_PARTY_LICENSES"}


def test_both_commands_know_their_name_and_version(installed: Installed) -> None:
    for words in (["sparsity-sweep"], ["sparsity-trial"], ["python", "-m", "sweeper"]):
        assert installed.run(*words, "--version") == f"sparsity-sweeper {__version__}\n"
    assert installed.run("sparsity-sweep", "--help").startswith("usage: sparsity-sweep [-h]")
    assert installed.run("python", "-m", "sweeper", "--help").startswith("usage: python -m sweeper [-h]")
    versions = (
        "import sweeper, trials, importlib.metadata as metadata;"
        "print(sweeper.__version__, trials.__version__, metadata.version('sparsity-sweeper'))"
    )
    assert installed.run("python", "-c", versions).split() == [__version__] * 3


def test_a_sweep_from_an_empty_folder(installed: Installed) -> None:
    listed = installed.run("sparsity-sweep", "--list-spaces").splitlines()
    assert [line.partition(":")[0] for line in listed] == sorted(
        path.stem for path in (REPOSITORY / "sweeper" / "spaces").glob("*.yaml")
    )
    ended = installed.run("sparsity-sweep", *SMALLEST, "--name", "demo", "--address", "local")
    assert "demo: 1 cells, 1 done; 1 trials, 1 done" in ended
    *_, summary, tables, report = ended.splitlines()
    assert installed.run("sparsity-sweep", "--show", "demo").splitlines()[-2:] == [summary, tables]
    assert report == f"report: {installed.folder / 'results' / 'demo' / 'report.html'}"
    assert "vega" in (installed.folder / "results" / "demo" / "report.html").read_text()
    installed.run("sparsity-sweep", "--report", "demo", "--to", "copy.html")
    (installed.folder / "copy.html").unlink()
    drawing = ("--report", "demo", "--figure", "accuracy_density", "--to", "a.svg")
    assert "pip install 'sparsity-sweeper[plots]'" in installed.run("sparsity-sweep", *drawing, code=2)
    loaded = (
        "import sweeper; t = sweeper.load('results/demo').trials; print(sweeper.__file__, *t['density'], *t['trial'])"
    )
    where, density, trial = installed.run("python", "-c", loaded).split()
    assert Path(where).is_relative_to(installed.bin.parent)
    assert float(density) == pytest.approx(0.5, abs=1e-3)
    folder = f"results/demo/trials/{trial}"
    said = installed.run("sparsity-trial", "export", folder, "--to", "net.onnx", "--form", "onnx", code=2)
    assert said == "error: --form onnx needs onnx, which is not installed: pip install 'sparsity-sweeper[export]'\n"
    assert {path.name for path in installed.folder.iterdir()} == {"results"}


def test_every_machine_of_a_cluster_runs_the_drivers_code(installed: Installed, tmp_path: Path) -> None:
    """Not what lies in the driver's working folder, which machines of a cluster may share."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "two_machines.py").write_text(TWO_MACHINES)
    shutil.copy(REPOSITORY / "tests" / "machines.py", scripts)
    (installed.folder / "trials").mkdir()
    (installed.folder / "trials" / "__init__.py").write_text("raise ImportError('other code')\n")
    several = ["--set", "grid.density=[0.5,0.2]", "--set", "replicates.values.seed=[0]"]
    said = installed.run("python", str(scripts / "two_machines.py"), *SMALLEST, *several, "--name", "demo")
    imports = [line.split()[1:] for line in said.splitlines() if line.startswith("imports ")]
    assert len(imports) == 2
    assert all("/py_modules_files/" in file for files in imports for file in files)
    assert "demo: 2 cells, 2 done; 2 trials, 2 done" in said
