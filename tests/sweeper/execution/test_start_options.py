"""With what Ray is started here: cores, memory and a temporary folder that it can use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ray._private import services

from sweeper.execution.on_ray import start_options
from sweeper.execution.on_ray.start_options import SOCKET_B, options_of_start
from trials.errors import UserError


@pytest.fixture(autouse=True)
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_options, "get_num_cpus", lambda **_: 128)
    monkeypatch.setattr(start_options, "usable_cores", lambda: 128)
    monkeypatch.setattr(start_options, "get_system_memory", lambda: 1000)
    monkeypatch.setattr(start_options, "usable_memory", lambda: 1000)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)


@pytest.mark.fault("few-cores")
def test_ray_gets_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options_of_start(pytest.fail) == {}
    monkeypatch.setattr(start_options, "usable_cores", lambda: 16)
    monkeypatch.setattr(start_options, "usable_memory", lambda: 100)
    assert options_of_start(pytest.fail) == {"num_cpus": 16, "_memory": 70}


@pytest.mark.fault("tmp-unfit")
@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("kind", ["long", "absent", "a file", "relative"])
def test_another_temporary_folder_is_taken_and_said(
    kind: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    long = tmp_path / ("x" * 80)
    long.mkdir()
    path = {"long": long, "absent": tmp_path / "absent", "a file": tmp_path / "file", "relative": Path("here")}[kind]
    monkeypatch.setenv(variable, str(path))
    said: list[str] = []
    found = options_of_start(said.append)["_temp_dir"]
    assert len(found) < 40
    assert not found.startswith(str(path))
    (line,) = said
    assert line.startswith(f"Ray cannot have its files in {path}/ray (")
    assert line.endswith(f"they lie in {found}")


@pytest.mark.fault("tmp-unfit")
def test_a_folder_of_another_user_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        (Path(short) / "ray").mkdir()
        monkeypatch.setenv("TMPDIR", short)
        assert options_of_start(pytest.fail) == {}
        make = tempfile.TemporaryDirectory

        def of_another(dir: Path) -> tempfile.TemporaryDirectory[str]:
            if str(dir).endswith("/ray"):
                raise PermissionError(13, "Permission denied")
            return make(dir=dir)

        monkeypatch.setattr(start_options.tempfile, "TemporaryDirectory", of_another)
        monkeypatch.setattr(start_options.os, "geteuid", lambda: 987654)
        monkeypatch.setattr(start_options.tempfile, "gettempdir", lambda: short)
        said: list[str] = []
        assert options_of_start(said.append)["_temp_dir"] == f"{short}/ray-987654"
        assert "Permission denied" in said[0]


@pytest.mark.fault("tmp-unfit")
def test_no_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_options, "_others", lambda: iter([tmp_path / "absent" / "ray"]))
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(UserError, match="set RAY_TMPDIR to a folder that can be written and whose path has at most 3"):
        options_of_start(pytest.fail)
    assert SOCKET_B == 107


IGNORED = "import signal; print([signal.getsignal(n) is signal.SIG_IGN for n in (1, 10, 12, 24, 15)])"


@pytest.mark.fault("batch-warning")
@pytest.mark.usefixtures("no_stray_handlers")
def test_processes_of_ray_ignore_a_warning_that_their_driver_gets() -> None:
    before, plain = signal.getsignal(signal.SIGUSR1), services.ConsolePopen
    came, called = [], []
    signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    try:
        with start_options.survive_warnings():
            signal.raise_signal(signal.SIGUSR1)
            command, read, write = [sys.executable, "-c", IGNORED], *os.pipe()
            started = services.ConsolePopen(
                command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.write(write, b"x")
            )
            said, _ = started.communicate(timeout=60)
            called.append(os.read(read, 1))
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.close(read)
        os.close(write)
    assert came == [signal.SIGUSR1]
    assert said == "[True, True, True, True, False]\n"
    assert called == [b"x"]
    assert services.ConsolePopen is plain
