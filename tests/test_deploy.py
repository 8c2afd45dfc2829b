"""deploy/: the manifests for KubeRay and the image, and that they agree with the project and with each other."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.execution.signals import GRACE_S
from sweeper.options import parser, read_options
from sweeper.space.space_files import list_spaces
from tests.deploy.check_crd import MANIFESTS, NOTED, fields_of, manifests, schema_of, wrong
from trials.version import __version__

ROOT = Path(__file__).resolve().parents[1]
SHELL = re.compile(r"[A-Za-z0-9_./:=,@+~%^\[\]-]+")
RAY = dict(re.findall(r"^(\S+)==(\S+?)(?: ;.*)?$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))["ray"]
CLUSTERS = [(name, document) for name, document in manifests() if document["kind"] in ("RayJob", "RayCluster")]
JOBS = [document for _, document in CLUSTERS if document["kind"] == "RayJob"]


def cluster_of(document: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["spec"].get("rayClusterSpec", document["spec"])
    return found


def groups_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    cluster = cluster_of(document)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


GROUPS = [
    pytest.param(group, id=f"{name}-{group.get('groupName', 'head')}")
    for name, document in CLUSTERS
    for group in groups_of(document)
]


def container_of(group: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = group["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize(("name", "document"), CLUSTERS)
def test_kuberay_knows_every_field_and_its_type(name: str, document: dict[str, Any]) -> None:
    noted = json.loads(NOTED.read_text())
    assert "1.5.1" in noted["versions"], "the oldest version that the documentation promises"
    known = noted["fields"][document["kind"]]
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "quantity": (str, int)}
    for path, value in fields_of(document):
        if path[0] != "spec":
            continue
        said = known.get(".".join(path))
        assert said, f"{'.'.join(path)} of {name} is unknown: check it with python -m tests.deploy.check_crd ... --note"
        if isinstance(said, list):
            assert value in said, path
        else:
            assert isinstance(value, types[said]), (path, said)
            assert isinstance(value, bool) == (said == "boolean"), (path, said)


def test_names_are_unique_and_short_enough_for_kuberay() -> None:
    names = [document["metadata"]["name"] for _, document in manifests()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", name) for name in names)  # RayJob: 47 characters
    for _, document in CLUSTERS:
        groups = [group["groupName"] for group in cluster_of(document)["workerGroupSpecs"]]
        assert len(groups) == len(set(groups))


@pytest.mark.parametrize(("name", "document"), CLUSTERS)
def test_every_cluster_requires_the_token_and_none_is_written_down(name: str, document: dict[str, Any]) -> None:
    assert document["apiVersion"] == "ray.io/v1"
    assert cluster_of(document)["authOptions"] == {"mode": "token"}
    assert not re.search(r"token: [^}]|RAY_AUTH|secret|ACCESS_KEY|stringData|password", yaml.safe_dump(document), re.I)


@pytest.mark.parametrize(("name", "document"), CLUSTERS)
def test_versions_are_those_of_the_project(name: str, document: dict[str, Any]) -> None:
    assert cluster_of(document)["rayVersion"] == RAY
    for group in groups_of(document):
        kind = "cpu" if group.get("groupName") == "cpu" or document["kind"] == "RayCluster" else "cuda"
        kind = "cuda" if group.get("groupName") == "gpu" else kind
        assert container_of(group)["image"] == f"sparsity-sweeper:{__version__}-ray{RAY}-{kind}"
    tags = set(re.findall(r"sparsity-sweeper:(\S+)", (MANIFESTS / "Dockerfile").read_text()))
    assert tags == {f"{__version__}-ray{RAY}-{kind}" for kind in ("cpu", "cuda")}


@pytest.mark.parametrize("group", GROUPS)
def test_a_pod_has_time_to_commit_and_uses_it(group: dict[str, Any]) -> None:
    pod = group["template"]["spec"]
    program, patience_s = container_of(group)["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "/opt/sweep/pre_stop.sh"
    assert GRACE_S < int(patience_s) < pod["terminationGracePeriodSeconds"]
    assert pod.get("restartPolicy", "Never") == "Never"  # what autoscaler v2 requires


@pytest.mark.parametrize("group", GROUPS)
def test_cards_are_what_ray_is_told(group: dict[str, Any]) -> None:
    resources = container_of(group)["resources"]
    cards = resources["limits"].get("nvidia.com/gpu", "0")
    assert group["rayStartParams"].get("num-gpus", "0") == cards
    assert (cards != "0") == (group.get("groupName") == "gpu")
    for amount in ("cpu", "memory"):
        assert resources["requests"][amount] == resources["limits"][amount]
    if "groupName" in group:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    else:
        assert group["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("group", GROUPS)
def test_a_pod_is_no_root_and_has_its_volumes(group: dict[str, Any]) -> None:
    pod, container = group["template"]["spec"], container_of(group)
    assert pod["securityContext"]["runAsNonRoot"] is True
    user = re.search(r"^USER (\d+)$", (MANIFESTS / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert pod["securityContext"]["runAsUser"] == int(user[1]) != 0
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    environment = {one["name"]: one["value"] for one in container["env"]}
    storage = environment["SWEEP_STORAGE"]
    if storage.startswith("s3://"):
        assert pod["serviceAccountName"]  # whose role may use the bucket
        assert mounts.keys() == {"/dev/shm"}
    else:
        claim = mounts["/" + storage.split("/")[1]]["persistentVolumeClaim"]["claimName"]
        (stored,) = [document for _, document in manifests() if document["kind"] == "PersistentVolumeClaim"]
        assert claim == stored["metadata"]["name"]
        assert stored["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: str(job["metadata"]["name"]))
def test_a_job_is_a_command_of_ours_that_is_given_again_until_the_sweep_has_ended(job: dict[str, Any]) -> None:
    spec = job["spec"]
    program, *words = shlex.split(spec["entrypoint"])
    assert program == "sparsity-sweep"
    assert all(SHELL.fullmatch(word) for word in words)  # KubeRay joins them, and a shell splits them again
    options = read_options(words)
    assert options.space in {name for name, _, _ in list_spaces()}
    assert options.exit_zero_on_failed_trials
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True  # a retry, and spec.suspend, need it
    assert "activeDeadlineSeconds" not in spec
    assert parser().parse_args([]).space is None


def test_the_image_has_what_the_dockerfile_copies_and_nothing_else() -> None:
    dockerfile = (MANIFESTS / "Dockerfile").read_text()
    copied = {
        name
        for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE)
        for name in line.split()
        if not name.startswith("--")
    }
    assert all((ROOT / name).exists() for name in copied)
    ignore = (MANIFESTS / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {line[1:] for line in rules if line.startswith("!")} == copied
    assert not re.search(r"(?i)token=|password|secret|AWS_", dockerfile)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Stand-ins of a pod's processes: each writes its name into a file when it gets SIGTERM, and ends 0.5 s later."""
    code = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n    time.sleep(0.5); pathlib.Path(sys.argv[-1]).touch(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); pathlib.Path(sys.argv[-1] + '.ready').touch(); time.sleep(60)\n"
    )
    (tmp_path / "sweep.py").write_text(code)
    (tmp_path / "other.py").write_text(code)
    python = sys.executable
    lines = {
        "driver": [python, str(tmp_path / "sweep.py"), "--space", "x"],
        "shell": ["sh", "-c", f"{python} {tmp_path}/other.py sweep.py $0; true"],
        "other": [python, str(tmp_path / "other.py"), "sweep.py"],
        "trial": ["bash", "-c", f"exec -a 'ray::TrialWorker.train()' {python} {tmp_path}/other.py $0"],
    }
    started = {}
    for name, line in lines.items():
        started[name] = subprocess.Popen([*line, str(tmp_path / name)], start_new_session=True)
    while not all((tmp_path / f"{name}.ready").exists() for name in lines):
        time.sleep(0.05)
    yield started
    for process in started.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.fault("pod-ends")
def test_a_pod_that_ends_tells_its_driver_or_its_trials_and_waits(
    tmp_path: Path, processes: dict[str, subprocess.Popen[bytes]]
) -> None:
    def ended(name: str) -> bool:
        return (tmp_path / name).exists()

    (tmp_path / "proc").mkdir()  # these processes alone: others may run sweeps on this machine
    for process in processes.values():
        (tmp_path / "proc" / str(process.pid)).symlink_to(f"/proc/{process.pid}")
    for name in ("driver", "trial"):  # Ray reaps its children; a zombie would seem to live
        threading.Thread(target=processes[name].wait, daemon=True).start()

    def stop() -> None:
        line = ["bash", str(MANIFESTS / "pre_stop.sh"), "20"]
        subprocess.run(line, env={**os.environ, "PROC": str(tmp_path / "proc")}, check=True, timeout=30)

    stop()
    assert ended("driver")
    assert not any(map(ended, ("trial", "shell", "other")))  # the driver lets its trials commit
    stop()
    assert ended("trial")
    assert not any(map(ended, ("shell", "other")))


def test_all_manifests_are_read() -> None:
    assert {name for name, _ in manifests()} == {"raycluster.yaml", "rayjob.yaml", "rayjob-s3.yaml", "storage.yaml"}
    assert yaml.safe_load((ROOT / "deploy/kuberay/storage.yaml").read_text())["apiVersion"] == "v1"


SMALL_CRD: dict[str, Any] = {
    "spec": {
        "names": {"kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "apiVersion": {"type": "string"},
                            "kind": {"type": "string"},
                            "metadata": {"type": "object"},
                            "spec": {
                                "type": "object",
                                "required": ["mode"],
                                "properties": {
                                    "mode": {"type": "string", "enum": ["token"]},
                                    "count": {"type": "integer", "format": "int32"},
                                    "limits": {
                                        "type": "object",
                                        "additionalProperties": {
                                            "anyOf": [{"type": "integer"}, {"type": "string"}],
                                            "x-kubernetes-int-or-string": True,
                                        },
                                    },
                                },
                            },
                        },
                    }
                },
            }
        ],
    }
}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"mode": "token", "count": 1, "limits": {"cpu": "1", "nvidia.com/gpu": 1}}, ""),
        ({"mode": "token", "counts": 1}, "'counts' was unexpected"),
        ({"mode": "tokens"}, "spec.mode"),
        ({"mode": "token", "count": "1"}, "spec.count"),
        ({"mode": "token", "limits": {"cpu": 0.5}}, "spec.limits.cpu"),
        ({"count": 1}, "'mode' is a required property"),
    ],
)
def test_the_check_against_definitions_finds_what_is_wrong(spec: dict[str, Any], said: str) -> None:
    kind, schema = schema_of(SMALL_CRD)
    assert kind == "Thing"
    found = wrong({"apiVersion": "x/v1", "kind": kind, "metadata": {"name": "a"}, "spec": spec}, schema)
    assert len(found) == bool(said)
    assert said in "".join(found)
