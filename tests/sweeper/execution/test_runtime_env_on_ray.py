"""A run's ``--runtime-env`` reaches the workers, beside what is sent and a job's; what cannot be made is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeper.execution.on_ray import kept, shipping, worker_environment
from tests.sweeper.on_ray import ROOT
from trials.errors import UserError

NET = """
import os
from pathlib import Path

from torch import nn

def build(num_classes, in_channels):
    (Path(os.environ["SEEN_IN"]) / f"seen-{os.getpid()}").write_text(os.environ.get("MINE", "nothing"))
    last = nn.Linear(4, num_classes)
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
"""


def test_variables_reach_the_trials_of_a_ray_that_is_started(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    trial = "{method: dense, dataset: digits, model: 'net:build', train: {epochs: 1}}"
    (tmp_path / "small.yaml").write_text(f"plugins: [./net.py]\ntrial: {trial}\ngrid: {{seed: [0]}}\n")
    (tmp_path / "env.yaml").write_text("env_vars: {MINE: reached}")
    words = ["--space", "small.yaml", "--address", "local", "--runtime-env", "env.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SEEN_IN": str(tmp_path)}
    command = [sys.executable, str(ROOT / "sweep.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = [path.read_text() for path in tmp_path.glob("seen-*")]
    assert sorted(set(seen)) == ["nothing", "reached"], "the driver has not got it, the worker has"


def test_it_comes_beside_what_is_sent_and_before_what_a_job_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shipping.JOB_CONFIG, raising=False)
    given = {"env_vars": {"MINE": "x", "AWS_REGION": "here"}, "pip": {"packages": ["a"]}}
    with shipping.shipment({"AWS_REGION": "here"}, (), given) as found:
        assert found["env_vars"] == {"MINE": "x", "AWS_REGION": "here"}
        assert found["pip"] == {"packages": ["a"]}
        assert found["py_modules"] == shipping.packages()
    with (
        pytest.raises(UserError, match=r"--runtime-env sets AWS_REGION, but the driver has another, by which it"),
        shipping.shipment({"AWS_REGION": "there"}, (), given),
    ):
        pass
    monkeypatch.setenv(shipping.JOB_CONFIG, json.dumps({"runtime_env": {"uv": ["b"], "env_vars": {"OF_JOB": "y"}}}))
    with (
        pytest.raises(UserError, match=r"has pip, but the job was submitted with uv, .*put all packages under uv"),
        shipping.shipment({}, (), given),
    ):
        pass


def test_a_job_keeps_what_the_run_does_not_set(ray: Any) -> None:
    job = {"env_vars": {"OF_JOB": "kept", "BOTH": "job"}, "py_modules": [], "working_dir": "gcs://_ray_pkg_of_job.zip"}
    env = {**os.environ, shipping.JOB_CONFIG: json.dumps({"runtime_env": job, "metadata": {}})}
    code = (
        "import json, sys; from sweeper.execution.on_ray import cluster;"
        "cluster.connect(sys.argv[1], runtime_env={'env_vars': {'BOTH': 'run', 'MINE': 'x'}});"
        "print(json.dumps(dict(cluster.ray.get_runtime_context().runtime_env)))"
    )
    command = [sys.executable, "-c", code, ray.get_runtime_context().gcs_address]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["env_vars"] == {"OF_JOB": "kept", "BOTH": "run", "MINE": "x"}


def test_a_ray_that_the_process_has_joined_keeps_what_it_has(ray: Any) -> None:
    with pytest.raises(
        UserError, match=r"--runtime-env has env_vars, but this process has joined the Ray at .* itself"
    ):
        kept.connected(None, runtime_env={"env_vars": {"A": "b"}})
    assert ray.is_initialized()


def test_a_kept_ray_is_not_used_with_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    alive = [False]

    def connect(address: str | None, storage: Any, plugins: Any, runtime_env: Any, note: Any) -> bool:
        calls.append(runtime_env)
        alive[0] = True
        return True

    monkeypatch.setattr(kept, "_kept", None)
    monkeypatch.setattr(kept, "connect", connect)
    monkeypatch.setattr(kept, "_session", lambda: "mine")
    monkeypatch.setattr(kept.ray, "is_initialized", lambda: alive[0])
    monkeypatch.setattr(kept.ray, "shutdown", lambda: alive.__setitem__(0, False))
    first, other = {"env_vars": {"A": "b"}}, {"env_vars": {"A": "c"}}
    for asked in (first, dict(first), other, None, None):
        assert kept.connected(None, runtime_env=asked)
    assert calls == [first, other, None]


class FakeRay:
    """A Ray of one machine whose workers cannot start in their environment."""

    def __init__(self, error: Exception) -> None:
        import ray

        self._private = ray._private
        self.exceptions, self.error, self.left = ray.exceptions, error, False
        self.now = 0.0

    def remote(self, **_: Any) -> Any:
        return lambda task: self

    def options(self, **_: Any) -> Any:
        return type("Task", (), {"remote": staticmethod(lambda: "asked")})

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": "ab" * 28, "Alive": True, "NodeManagerHostname": "one", "NodeManagerAddress": "192.0.2.1"}]

    def wait(self, asked: Any, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        if isinstance(self.error, self.exceptions.GetTimeoutError):
            self.now += 1
            return [], asked
        return asked, []

    def monotonic(self) -> float:
        return self.now

    def get(self, asked: Any, timeout: float) -> None:
        raise self.error


PIP = """Failed to set up runtime environment.
Traceback (most recent call last):
  File "pip.py", line 1, in run
ray._private.runtime_env.utils.SubprocessCalledProcessError: Run cmd[7] failed with the following details.
Command '['python', '-m', 'pip', 'install']' returned non-zero exit status 1.
Last 50 lines of stdout:
    ERROR: Could not find a version that satisfies the requirement no-such==9.9 (from versions: none)
    ERROR: No matching distribution found for no-such==9.9
"""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pip", "ERROR: No matching distribution found for no-such==9.9"),
        (
            "hangs",
            "no worker has started in it within 150 s (waiting for pip to install its packages); config: "
            "{setup_timeout_seconds: N} gives it longer",
        ),
    ],
)
def test_an_environment_that_cannot_be_made_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, kind: str, said: str
) -> None:
    from ray.exceptions import GetTimeoutError, RuntimeEnvSetupError

    fake = FakeRay(RuntimeEnvSetupError(PIP) if kind == "pip" else GetTimeoutError("Get timed out"))
    monkeypatch.setattr(worker_environment, "ray", fake)
    monkeypatch.setattr(worker_environment, "time", fake)
    monkeypatch.setattr(worker_environment, "disconnect", lambda: setattr(fake, "left", True))
    notes: list[str] = []
    given = {"pip": {"packages": ["no-such==9.9"]}, "config": {"setup_timeout_seconds": 30}}
    with pytest.raises(UserError) as found:
        worker_environment.require_environment(given, notes.append, lambda: False)
    assert str(found.value) == f"--runtime-env cannot be made on one (192.0.2.1): {said}"
    assert notes[0] == "--runtime-env: pip makes the workers' environment; the first time, this takes a while"
    waiting = "no worker has started yet on one (192.0.2.1); waiting for pip to install its packages, at most 150 s"
    assert notes[1:] == ([] if kind == "pip" else [f"--runtime-env: {waiting}"])
    assert fake.now == (0 if kind == "pip" else 30 + worker_environment.WORKER_S)
    assert fake.left, "Ray would not try it again at once"


@pytest.mark.parametrize("limit", [{}, {"config": {"setup_timeout_seconds": -1}}])
def test_without_an_installer_a_worker_is_waited_for_only_as_long_as_one_takes_to_start(
    monkeypatch: pytest.MonkeyPatch, limit: dict[str, Any]
) -> None:
    from ray.exceptions import GetTimeoutError

    fake = FakeRay(GetTimeoutError("Get timed out"))
    for name in ("ray", "time"):
        monkeypatch.setattr(worker_environment, name, fake)
    monkeypatch.setattr(worker_environment, "disconnect", lambda: None)
    with pytest.raises(UserError, match=r"within 120 s \(waiting for py_executable './no' to run\)$"):
        worker_environment.require_environment({"py_executable": "./no", **limit}, lambda _: None, lambda: False)
    assert fake.now == worker_environment.WORKER_S


def test_a_stop_ends_the_wait_and_leaves_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import GetTimeoutError

    fake = FakeRay(GetTimeoutError("Get timed out"))
    for name in ("ray", "time"):
        monkeypatch.setattr(worker_environment, name, fake)
    monkeypatch.setattr(worker_environment, "disconnect", lambda: setattr(fake, "left", True))
    given = {"pip": {"packages": ["a"]}, "config": {"setup_timeout_seconds": -1}}
    worker_environment.require_environment(given, lambda _: None, lambda: fake.now >= 1000)
    assert (fake.now, fake.left) == (1000, True)


def test_why_a_worker_has_died_is_the_one_line(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text("")
    (tmp_path / "small.yaml").write_text("trial: {method: dense, dataset: digits, model: tiny}\ngrid: {seed: [0]}\n")
    (tmp_path / "env.yaml").write_text("worker_process_setup_hook: hooks.prepare")
    words = ["--space", "small.yaml", "--address", "local", "--runtime-env", "env.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / "sweep.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "AttributeError: module 'hooks' has no attribute 'prepare'" in line
