"""What a driver leaves in the temporary folder, and what native code may print while Ray starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sweeper.execution.signals import without_stacks
from trials.errors import UserError
from trials.storage.scratch import PREFIX, YOUNG_S, remove_dead, scratch_folder

HOLD = """
import sys, time
from trials.storage.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "work").mkdir()
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def left(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob(f"{PREFIX}*"))


def test_the_folder_is_removed_at_the_end(tmp_path: Path) -> None:
    with scratch_folder() as folder:
        (folder / "copy").write_text("x")
        assert left(tmp_path) == [folder]
    assert left(tmp_path) == []


def test_that_of_a_killed_driver_is_removed_by_the_next_one_and_a_living_ones_stays(tmp_path: Path) -> None:
    holding = [subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        folders = [Path(one.stdout.readline().strip()) for one in holding if one.stdout]
        with scratch_folder():
            assert all(folder.exists() for folder in folders)
        holding[0].kill()
        holding[0].wait()
        with scratch_folder():
            assert [folder.exists() for folder in folders] == [False, True]
    finally:
        for one in holding:
            one.kill()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()


def test_only_what_is_ours_and_old_is_removed(tmp_path: Path) -> None:
    new, old, other = (tmp_path / name for name in (f"{PREFIX}new", f"{PREFIX}old", "sweeper-else"))
    for folder in (new, old, other):
        folder.mkdir()
    before = time.time() - 2 * YOUNG_S
    os.utime(old, (before, before))
    target = tmp_path / "kept"
    target.mkdir()
    (target / "alive").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(target)
    remove_dead()
    assert new.exists()
    assert other.exists()
    assert target.exists()
    assert not old.exists()


UNTIL_EXIT = """
import os, signal, sys
from trials.storage.scratch import scratch_until_exit
print(scratch_until_exit(), flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["ends", "killed"])
def test_a_folder_for_the_rest_of_a_process_goes_with_it_or_with_the_next_sweep(tmp_path: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", UNTIL_EXIT, how], capture_output=True, text=True, check=False)
    folder = Path(done.stdout.strip())
    assert folder.parent == tmp_path
    assert folder.exists() == (how == "killed")
    remove_dead()
    assert not folder.exists()


def test_a_temporary_folder_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(UserError, match=r"cannot be written.*set TMPDIR"), scratch_folder():
        pass


STACK = """
import os, signal, sys
from sweeper.execution.signals import without_stacks
with without_stacks():
    os.write(2, b"a warning\\n")
    if sys.argv[1] == "stack":
        os.write(2, b"*** SIGTERM received at time=1 on cpu 0 ***\\nPC: @ 0x7f  (unknown)  epoll_wait\\n")
print("ended", file=sys.stderr)
"""


@pytest.mark.parametrize("what", ["stack", "nothing"])
def test_the_stack_that_native_code_prints_at_a_signal_is_left_out(what: str) -> None:
    done = subprocess.run([sys.executable, "-c", STACK, what], capture_output=True, text=True, check=True)
    assert done.stderr == "a warning\nended\n"


def test_without_stderr_it_does_nothing() -> None:
    code = "import os\nfrom sweeper.execution.signals import without_stacks\nos.close(2)\nwith without_stacks(): pass"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_signals_still_arrive() -> None:
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        with without_stacks():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [1]
