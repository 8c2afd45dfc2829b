"""How many cores and how much memory a process may use: affinity, cgroups of both versions, SLURM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trials.system import machine
from trials.system.machine import usable_cores, usable_memory

pytestmark = pytest.mark.fault("few-cores")

FILES = {
    "v2": ("0::/slice/job\n", "slice/job/cpu.max", "250000 100000", 2),
    "v2, of a parent": ("0::/slice/job/step\n", "slice/cpu.max", "300000 100000", 3),
    "v2, without a limit": ("0::/slice\n", "slice/cpu.max", "max 100000", 128),
    "v2, in a container": ("0::/../host/path\n", "cpu.max", "400000 100000", 4),
    "v2, less than a core": ("0::/\n", "cpu.max", "50000 100000", 1),
    "hybrid": ("3:cpu:/\n0::/job\n", "unified/job/cpu.max", "500000 100000", 5),
    "damaged": ("nonsense\n", "cpu.max", "nonsense", 128),
}


@pytest.fixture(autouse=True)
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 128 cores and 1 TB without limits."""
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(128)), raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PHYS_PAGES": 10**9, "SC_PAGE_SIZE": 1000}[name])
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("kind", FILES)
def test_quotas_of_cgroups(kind: str, tmp_path: Path) -> None:
    own, file, text, cores = FILES[kind]
    write(tmp_path, {"own": own, file: text})
    assert usable_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("150000", 1), ("1600000", 16), ("-1", 128)])
def test_quotas_of_version_1(quota: str, cores: int, tmp_path: Path) -> None:
    folder = "cpu,cpuacct/slurm/job"
    files = {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    write(tmp_path, {"own": "4:cpu,cpuacct:/slurm/job\n3:memory:/slurm/job\n", **files})
    assert usable_cores() == cores


def test_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == 128
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(40, 56)), raising=False)
    assert usable_cores() == 16


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({"SLURM_CPUS_ON_NODE": "16"}, 16),
        ({"SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "4"}, 16),
        ({"SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "4", "SLURM_STEP_ID": "0"}, 4),
        ({"SLURM_CPUS_ON_NODE": "16(x2)"}, 128),
        ({"SLURM_CPUS_ON_NODE": "0"}, 128),
    ],
)
def test_slurm_where_it_binds_nothing(variables: dict[str, str], cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("own", "files", "memory"),
    [
        ("0::/job\n", {"job/memory.max": "max\n"}, 10**12),
        ("0::/job/step\n", {"job/memory.max": "5000\n", "job/step/memory.max": "max\n"}, 5000),
        ("7:memory:/job\n", {"memory/job/memory.limit_in_bytes": "6000\n"}, 6000),
        ("7:memory:/job\n", {"memory/job/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, 10**12),
        ("", {"memory.max": "7000\n"}, 7000),
    ],
)
def test_memory(own: str, files: dict[str, str], memory: int, tmp_path: Path) -> None:
    write(tmp_path, {"own": own, **files})
    assert usable_memory() == memory


def test_a_process_that_is_bound_to_a_core_counts_one() -> None:
    bind = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"{bind}; from trials.system.machine import usable_cores; print(usable_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"
