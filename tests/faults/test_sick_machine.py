"""A machine whose card kills every process that uses it: its trials lose nothing, and it gets no more work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper.cli import COMPLETE, STOPPED, main
from sweeper.search.sick_machines import IN_A_ROW
from tests.faults.drivers import ROOT
from tests.faults.sick_cards import SickCards
from tests.machines import several_machines

pytestmark = [pytest.mark.fault("machine-sick"), pytest.mark.slow, pytest.mark.slow_faults]

SPACE = """
about: trials that need no shared one
trial: {method: adaptive_sparsity, starget: 0.5, dataset: digits, model: tiny, train: {epochs: 2}}
grid: {seed: [0, 1, 2, 3, 4, 5]}
"""


@pytest.fixture
def cards(tmp_path: Path) -> SickCards:
    return SickCards(tmp_path)


@pytest.fixture
def machines(cards: SickCards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[str]]]:
    """Starts so many machines of one core, which this process joins; returns their node ids."""
    from sweeper.execution.on_ray import cluster

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "small.yaml").write_text(SPACE)
    started: list[Any] = []

    def start(number: int) -> list[str]:
        started.append(several_machines({"num_cpus": 1, "include_dashboard": False}))
        for _ in range(number - 1):
            started[0].add_node(num_cpus=1)
        cluster.ray.init(
            address=started[0].address, log_to_driver=False, logging_level="ERROR", runtime_env=cards.options()
        )
        return [node["NodeID"] for node in cluster.ray.nodes()]

    yield start
    cluster.ray.shutdown()
    for one in started:
        one.shutdown()


def assert_all_complete() -> None:
    trials = sweeper.load("results/small").trials
    assert set(trials["status"]) == {"complete"}
    assert set(trials["failures"]) == {0}
    assert len(trials) == 6


def test_a_sick_machine_gets_no_more_work(
    machines: Callable[[int], list[str]], cards: SickCards, capsys: pytest.CaptureFixture[str]
) -> None:
    sick, healthy = machines(2)
    cards.sick.write_text(sick)
    assert main(["--space", "small.yaml"]) == COMPLETE
    assert_all_complete()
    out = capsys.readouterr().out
    assert out.count("gets no more trials") == 1
    assert out.count("failed: DeadDevice: its process can no longer use cpu after RuntimeError: CUDA error") == IN_A_ROW
    died = cards.epochs_on(sick)
    assert len(died) == len(set(died)) == IN_A_ROW  # a process each, and none after that
    assert len(cards.epochs_on(healthy)) == 6 * 2


def test_a_sweep_whose_machines_are_all_sick_ends_and_resumes(
    machines: Callable[[int], list[str]], cards: SickCards, capsys: pytest.CaptureFixture[str]
) -> None:
    (sick,) = machines(1)
    cards.sick.write_text(sick)
    assert main(["--space", "small.yaml"]) == STOPPED
    out = capsys.readouterr().out
    assert out.count("gets no more trials") == 1
    assert out.count("no machine is left that may run trials") == 1
    assert len(cards.epochs_on(sick)) == IN_A_ROW
    cards.sick.write_text("")
    assert main(["--space", "small.yaml"]) == COMPLETE
    assert_all_complete()
