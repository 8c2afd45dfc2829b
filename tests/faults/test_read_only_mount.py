"""A storage that is mounted read-only, in a mount namespace of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeper.test_watching import swept

pytestmark = [pytest.mark.fault("read-only-storage"), pytest.mark.slow, pytest.mark.slow_faults]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("storage")
    swept(found / "s", 2)
    return found


def on_read_only(storage: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, with the storage mounted read-only for it alone."""
    command = shlex.join([sys.executable, "sweep.py", "--storage", str(storage), *words])
    mount = f"mount --bind {storage} {storage} && mount -o remount,bind,ro {storage} || exit 99; exec {command}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode in (1, 99) and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip("needs the right to mount")
    return done


@pytest.mark.parametrize("words", [["--list"], ["--show", "s"], ["--compare", "s", "s"]], ids=" ".join)
def test_what_only_reads_shows_it(storage: Path, words: list[str]) -> None:
    done = on_read_only(storage, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "s" in done.stdout


@pytest.mark.parametrize("words", [["--report", "s"], ["--resume", "s"], ["--space", "oracle"]], ids=" ".join)
def test_what_writes_is_refused_in_one_line(storage: Path, words: list[str]) -> None:
    done = on_read_only(storage, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_report_can_be_written_elsewhere(storage: Path, tmp_path: Path) -> None:
    done = on_read_only(storage, "--report", "s", "--to", str(tmp_path / "s.html"))
    assert done.returncode == 0
    assert os.fspath(tmp_path / "s.html") in done.stdout
    assert (tmp_path / "s.html").stat().st_size > 10_000
