"""For all tests: one thread of torch, the same examples in every run, and the folder of the reference vectors."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from trials.plugins import importing
from trials.system import stop_signals

torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

VECTORS = Path(os.environ.get("SWEEPER_VECTORS") or Path(__file__).parent / "vectors")
"""Reference vectors, a folder per source. SWEEPER_VECTORS names another set of the same form."""


@pytest.fixture(autouse=True)
def warnings_of_one_test() -> Iterator[None]:
    """Forgets that a batch system has warned this process, which ignores further warnings then, as do its children."""
    yield
    for number in stop_signals._warned and stop_signals.BATCH_WARNINGS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    stop_signals._warned.clear()


@pytest.fixture
def not_under_nohup() -> Iterator[None]:
    """Takes SIGHUP as a process does that was not started by nohup, also if these tests were."""
    before = signal.getsignal(signal.SIGHUP)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def plug_ins_of_one_test() -> Iterator[None]:
    """Forgets what a test has admitted of users' code, which lies in its temporary folder."""
    before = dict(importing._admitted)
    yield
    if importing._admitted != before:
        for plug_in in set(importing._admitted.values()) - set(before.values()):
            if not plug_in.installed:
                importing._drop(plug_in.module)
        importing._admitted.clear()
        importing._admitted.update(before)
