"""Commands whose output goes to a program that reads only the first line, such as ``head -1``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.sweeper.test_watching import swept
from trials.called import reader_has_gone

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "words",
    [["-m", "sweeper", "--schema"], ["-m", "sweeper", "--storage", "{}", "--show", "s", "--watch", "0.5"],
     ["-m", "trials", "inspect", "{}/net.pt"]],
    ids=["schema", "watch", "trials"],
)  # fmt: skip
def test_a_reader_that_has_gone_ends_a_command_without_a_traceback(words: list[str], tmp_path: Path) -> None:
    swept(tmp_path / "s", 2)
    torch.save({"conv.weight": torch.ones(4, 4, 3, 3)}, tmp_path / "net.pt")
    command = [sys.executable, "-u", *(word.format(tmp_path) for word in words)]
    reads, writes = os.pipe()
    os.close(reads)
    try:
        done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, cwd=REPOSITORY, timeout=100)
    finally:
        os.close(writes)
    assert (done.stderr, done.returncode) == (b"", 1)


def test_another_pipe_is_no_reader() -> None:
    assert not reader_has_gone()
