"""deploy/slurm/sweep.sbatch, with stand-ins for SLURM and Ray: what is queued again, who gets signals.

tests/cluster/slurm.sh runs it with Ray, on two machines.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.execution.signals import GRACE_S

SCRIPT = Path(__file__).resolve().parents[1] / "deploy" / "slurm" / "sweep.sbatch"

SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
setsid "$@" &
trap 'kill -TERM $!' USR2
while kill -0 $! 2>/dev/null; do wait $!; code=$?; done
exit $code
"""
RAY = """#!/usr/bin/env bash
[ "$1" = symmetric-run ] || exit 0
echo "$*" >ray
[ ! -e no_ray ] || exit 0  # so ends the real one if it cannot start Ray
[ ! -e slow_ray ] || sleep 2
while [ "$1" != -- ]; do shift; done
"${@:2}"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$*" >>scontrol
[ ! -e no_requeue ] || exit 1
kill -KILL $PPID
"""
DRIVER = """
import json, os, pathlib, signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
umask = os.umask(0)
os.umask(umask)
seen = {"arguments": sys.argv[1:], "environment": dict(os.environ), "umask": umask}
seen["token"] = oct(os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode & 0o777)
pathlib.Path("driver.part").write_text(json.dumps(seen))
os.rename("driver.part", "driver")
code = os.environ["CODE"]
end = time.monotonic() + 60
while code == "wait" and not told and time.monotonic() < end:
    time.sleep(0.05)
if code == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(0.3 if told else 0)
pathlib.Path("told").write_text(str(len(told)))
sys.exit(130 if told else int(code))
"""


class Job:
    """A folder with the stand-ins, in which the batch script runs as a job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        (folder / "bin").mkdir()
        (folder / "sweep.py").write_text(DRIVER)
        for name, content in {"srun": SRUN, "ray": RAY, "scontrol": SCONTROL}.items():
            (folder / "bin" / name).write_text(content)
            (folder / "bin" / name).chmod(0o755)
        (folder / "bin" / "python").symlink_to(sys.executable)

    def start(self, code: int | str, *words: str, **more: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "SWEEP_SCRATCH": str(self.folder / "tmp"),
            "SLURM_JOB_ID": "4711",
            "OMP_NUM_THREADS": "1",
            "SWEEP_PAUSE_S": "0.1",
            "CODE": str(code),
            **more,
        }
        (self.folder / "tmp").mkdir(exist_ok=True)
        line = ["bash", str(SCRIPT), *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started = subprocess.Popen(line, cwd=self.folder, env=environment, text=True, start_new_session=True, **pipes)
        self.processes.append(started)
        return started

    def end(self, code: int | str, *words: str, **more: str) -> int:
        process = self.start(code, *words, **more)
        process.communicate(timeout=60)
        return process.returncode

    def wait_for(self, name: str) -> None:
        end = time.monotonic() + 60
        while not (self.folder / name).exists():
            assert time.monotonic() < end, name
            time.sleep(0.05)

    @property
    def requeued(self) -> list[str]:
        asked = self.folder / "scontrol"
        return asked.read_text().splitlines() if asked.exists() else []

    @property
    def kept(self) -> list[str]:
        """What the job has left behind in the home and temporary folders."""
        found = [*(self.folder / "home").rglob("*"), *(self.folder / "tmp").iterdir()]
        return sorted(path.name for path in found if path.is_file())


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    for process in job.processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def directives() -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", SCRIPT.read_text(), re.MULTILINE)
    assert len(found) == SCRIPT.read_text().count("#SBATCH")
    return dict(found)


def test_directives_come_first_and_agree_with_the_driver() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True).stderr == b""
    asked = directives()
    assert asked["ntasks-per-node"] == "1"
    assert asked.keys() >= {"exclusive", "requeue", "gpus-per-node", "cpus-per-task", "time"}
    assert asked["open-mode"] == "append"  # a job that is queued again keeps its log
    warned = re.fullmatch(r"B:USR1@(\d+)", asked["signal"])
    assert warned is not None
    assert int(warned[1]) > 2 * GRACE_S  # trials commit, tables are written, the job is queued again
    before, _, _ = SCRIPT.read_text().rpartition("#SBATCH")
    assert all(line.startswith("#") for line in before.splitlines())  # SLURM stops reading at the first command


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_sweep_that_has_ended_is_not_queued_again(job: Job, code: int) -> None:
    assert job.end(code, "--space", "x") == code
    assert job.requeued == []
    assert job.kept == []


def test_what_the_driver_sees(job: Job) -> None:
    assert job.end(0, "--set", "about=two words; $HOME *", "--name=a") == 0
    seen = json.loads((job.folder / "driver").read_text())
    *words, option, address = seen["arguments"]
    assert words == ["--set", "about=two words; $HOME *", "--name=a"]
    assert option == "--address"
    host, _, port = address.rpartition(":")
    assert host
    assert 20000 <= int(port) < 32768  # below the ports that Linux gives away
    environment = seen["environment"]
    assert environment["RAY_AUTH_MODE"] == "token"
    assert seen["token"] == "0o600"
    assert environment["TMPDIR"] == environment["RAY_TMPDIR"]
    assert "OMP_NUM_THREADS" not in environment
    assert "RAY_ADDRESS" not in environment
    assert seen["umask"] != 0o077  # others may read results, though not the token
    started = (job.folder / "ray").read_text()
    assert f"--address {address} --min-nodes 1" in started
    assert job.end(0, SLURM_JOB_ID="4712") == 0
    assert f"--address {address} " not in (job.folder / "ray").read_text()  # another job on the same machine


@pytest.mark.fault("job-outage")
@pytest.mark.parametrize(("code", "ends"), [(74, 74), ("kill", 137), ("no ray", 75)])
def test_outages_are_queued_again_a_limited_number_of_times(job: Job, code: int | str, ends: int) -> None:
    if code == "no ray":
        (job.folder / "no_ray").touch()
    assert job.end(code, SWEEP_OUTAGES="1") == -signal.SIGKILL  # as scontrol ends it
    assert job.requeued == ["requeue 4711"]
    assert job.end(code, SWEEP_OUTAGES="1") == ends
    assert job.requeued == ["requeue 4711"]
    assert job.kept == []


@pytest.mark.fault("job-time")
def test_a_warning_reaches_the_driver_once_and_the_job_is_queued_again(job: Job) -> None:
    process = job.start("wait")
    job.wait_for("driver")
    for _ in range(2):
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.15)  # the driver takes 0.3 s to end; signals at the same time are one
    process.communicate(timeout=60)
    assert job.requeued == ["requeue 4711"]
    assert (job.folder / "told").read_text() == "1"


def test_a_job_that_may_not_be_queued_again_says_so(job: Job) -> None:
    (job.folder / "no_requeue").touch()
    process = job.start("wait")
    job.wait_for("driver")
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "give the same command" in said
    assert job.kept == []


def test_a_warning_before_the_driver_is_there_is_not_lost(job: Job) -> None:
    (job.folder / "slow_ray").touch()
    process = job.start("wait")
    job.wait_for("ray")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=60)
    assert job.requeued == ["requeue 4711"]


@pytest.mark.fault("job-cancelled")
@pytest.mark.parametrize("to", ["tasks", "batch"])
def test_a_job_that_is_cancelled_commits_and_is_not_queued_again(job: Job, to: str) -> None:
    process = job.start("wait")
    job.wait_for("driver")
    if to == "batch":
        process.send_signal(signal.SIGTERM)
    else:
        (srun,) = [
            int(pid.name)
            for pid in Path("/proc").glob("[0-9]*")
            if int(pid.name) != process.pid and _is(pid, str(job.folder / "bin" / "srun"))
        ]
        os.kill(srun, signal.SIGUSR2)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert job.requeued == []
    assert (job.folder / "told").read_text() == "1"


def _is(process: Path, program: str) -> bool:
    try:
        return program.encode() in (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
