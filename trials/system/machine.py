"""How much of this machine its process may use: cores and memory, as a batch system or a container limits them.

And which of its disks are nearly full.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows the limits of containers and jobs."""

OWN_CGROUPS = Path("/proc/self/cgroup")
"""Which cgroups this process belongs to: lines ``0::/path`` (v2) or ``4:memory:/path`` (v1)."""

LITTLE = 2**20
"""A disk with fewer bytes free is named as the one that may be full."""


def usable_cores() -> int:
    """Number of cores that this process may use, at least 1.

    The least of: the machine's, those that the process is bound to (``taskset``, SLURM's task/affinity, cpusets), what
    the CPU quota of its cgroups comes to (``docker --cpus``, Kubernetes limits), and what SLURM says that the job has
    here (``SLURM_CPUS_ON_NODE``) or a task of ``srun`` (``SLURM_CPUS_PER_TASK``), since not every cluster binds them.
    """
    found: list[float] = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        found.append(len(os.sched_getaffinity(0)))
    found.extend(_quotas())
    found.extend(_of_slurm())
    return max(1, int(min(found)))


def usable_memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or the least limit of its cgroups; None if unknown."""
    found = []
    with suppress(AttributeError, ValueError, OSError):  # not everywhere
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for folder in _folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # absent, or "max"
                found.append(int((folder / name).read_text()))
    return min((bytes_ for bytes_ in found if bytes_ > 0), default=None)


def _quotas() -> Iterator[float]:
    """Cores that each cgroup of this process may use at once."""
    for folder in _folders("cpu"):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)  # "max" is none
        with suppress(OSError, ValueError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:
                yield int(quota) / int(period)


def _of_slurm() -> Iterator[int]:
    """Cores that SLURM gives the job on this machine; within ``srun``, each task."""
    in_task = "SLURM_STEP_ID" in os.environ  # in the script of sbatch, SLURM_CPUS_PER_TASK is of each later srun
    for name in ("SLURM_CPUS_ON_NODE", *(["SLURM_CPUS_PER_TASK"] if in_task else [])):
        text = os.environ.get(name, "")
        if text.isdecimal() and int(text):
            yield int(text)


def _folders(controller: str) -> Iterator[Path]:
    """Folders with the limits of a controller: of the cgroups of this process and of those around them."""
    with suppress(OSError, ValueError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            names = controllers.split(",")
            if controller not in names and controllers:
                continue
            roots = [CGROUPS, CGROUPS / "unified"] if not controllers else [CGROUPS / controllers, CGROUPS / controller]
            for root in roots:
                folder = root / path.lstrip("/")
                yield from (above for above in (folder, *folder.parents) if above == root or root in above.parents)
    yield from (CGROUPS, CGROUPS / controller)  # in a container, the paths may be those of the host


def usable_threads() -> int:
    """Threads that torch would take, but at most as many as this process may use cores."""
    import torch  # here: commands that compute nothing start without it

    return min(torch.get_num_threads(), usable_cores())


def nearly_full(where: object) -> str:
    """A storage, and the temporary folder, if their disks have next to nothing left, as part of a message."""
    there = []
    for folder in (where, Path(tempfile.gettempdir())):
        with suppress(OSError):
            if isinstance(folder, Path) and (free := shutil.disk_usage(folder).free) < LITTLE:
                there.append(f"{folder} has {free // 1024} KB free")
    return "".join(f", {text}" for text in there)
