"""cluster.yaml and cluster-aws.yaml: Ray accepts them, and they do what docs/cluster.md and docs/security.md state."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.options import parser

ROOT = Path(__file__).resolve().parent.parent
FILES = ("cluster.yaml", "cluster-aws.yaml")


@pytest.fixture(params=FILES)
def content(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / request.param).read_text()))


def starts(content: dict[str, Any]) -> list[str]:
    lines = content["head_start_ray_commands"] + content["worker_start_ray_commands"]
    return [line for line in lines if "ray start" in line]


def test_ray_takes_it(content: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(content))


def test_every_start_requires_the_token_and_disables_usage_reports(content: dict[str, Any]) -> None:
    assert len(starts(content)) == 2
    for line in starts(content):
        assert "RAY_AUTH_MODE=token" in line
        assert "--disable-usage-stats" in line
        assert "--node-ip-address=" in line
    assert "--dashboard-host=127.0.0.1" in starts(content)[0]
    assert content["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in content["setup_commands"]
    assert any("RAY_AUTH_MODE=token" in line and ".bashrc" in line for line in content["setup_commands"])


def test_threads_are_not_limited_to_one(content: dict[str, Any]) -> None:
    assert all("unset OMP_NUM_THREADS" in line for line in starts(content))


def test_the_package_and_its_requirements_are_installed(content: dict[str, Any]) -> None:
    mounts = {there: here for there, here in content["file_mounts"].items() if there.startswith("~/sweep/")}
    assert mounts == {f"~/sweep/{name}": f"./{name}" for name in ("sweeper", "trials", "sweep.py", "requirements.lock")}
    assert all((ROOT / here).exists() for here in mounts.values())
    assert any("-r ~/sweep/requirements.lock" in line for line in content["setup_commands"])
    assert any("SWEEP_STORAGE=" in line for line in content["setup_commands"])


def test_the_local_provider_starts_its_workers() -> None:
    content = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert "RAY_enable_autoscaler_v2=0 ray start --head" in starts(content)[0]


def test_three_places_to_edit() -> None:
    assert set(re.findall(r"<-- (\d)\.", (ROOT / "cluster.yaml").read_text())) == {"1", "2", "3"}


def test_ray_submit_takes_none_of_our_options() -> None:
    from ray.scripts.scripts import submit

    taken = {name for parameter in submit.params for name in (*parameter.opts, *parameter.secondary_opts)}
    ours = {name for action in parser()._actions for name in action.option_strings} - {"-h", "--help"}
    assert "--tmux" in taken
    assert "--space" in ours
    assert not taken & ours
