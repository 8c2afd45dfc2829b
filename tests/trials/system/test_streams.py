"""Standard streams whose reader has gone, whose disk is full, that are closed, or that cannot encode a character."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trials.system.streams import READABLE, in_ascii, lasting

REPOSITORY = Path(__file__).resolve().parents[3]


class Failing(io.StringIO):
    """A stream that raises an error as long as it has one."""

    error: int | None = None

    def write(self, text: str) -> int:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        return super().write(text)


@pytest.mark.fault("output-gone")
@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO])
def test_a_run_goes_on_without_its_output_and_says_so_once(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    stream = Failing()
    out = lasting(stream)
    out.write("before")
    stream.error = number
    for _ in range(3):
        assert out.write("lost") == 4
        out.flush()
    assert stream.getvalue() == "before"
    said = capsys.readouterr().err
    assert said == f"note: standard output cannot be written ({os.strerror(number)}): the run goes on without it\n"


@pytest.mark.fault("output-full")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_output_goes_on_once_its_disk_has_room_again(number: int) -> None:
    stream = Failing()
    out = lasting(stream)
    stream.error = number
    out.write("no room")
    stream.error = None
    out.write("room")
    assert stream.getvalue() == "room"


@pytest.mark.fault("output-gone")
def test_what_stdout_and_stderr_lose_together_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Failing(), Failing()
    out.error = err.error = errno.EIO
    monkeypatch.setattr(sys, "stderr", err)
    lasting(out).write("lost")


def run(words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A shell's command in which ``sweep`` is the command line."""
    command = f'sweep() {{ "{sys.executable}" -m sweeper "$@"; }}; {words}'
    return subprocess.run(["sh", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=100, **options)


@pytest.mark.fault("output-closed")
@pytest.mark.parametrize(
    "words",
    ["sweep --list-spaces >&-", "sweep --list-spaces >&- 2>&- <&-", "sweep --list-spaces 2>&-"],
    ids=["stdout", "all", "stderr"],
)
def test_closed_streams_change_nothing(words: str) -> None:
    done = run(words)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.fault("output-closed")
def test_an_error_that_cannot_be_said_is_still_the_exit_code() -> None:
    assert run("sweep --nope 2>&-").returncode == 2
    if Path("/dev/full").exists():
        assert run("sweep --nope 2>/dev/full").returncode == 2


@pytest.mark.fault("output-full")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("option", ["--list-spaces", "--help"])
def test_a_report_that_cannot_be_written_is_an_error_in_one_line(option: str) -> None:
    done = run(f"sweep {option} >/dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output cannot be written (")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5 ± –", "0.5 +- -"), ("3 × 4 · µ", "3 x 4 - u"), ("naïve Ærø", "naive \\xc6r\\xf8"), ("α", "\\u03b1"),
     ("a\udcffb", "a\\udcffb"), ("½", "\\xbd"), ("…→≥", "...->>=")],
)  # fmt: skip
def test_text_in_ascii(text: str, expected: str) -> None:
    assert in_ascii(text) == expected


def test_frames_and_spinners_keep_their_width() -> None:
    drawn = "".join(map(chr, [*range(0x2500, 0x25A0), *range(0x2800, 0x2900)]))
    assert len(in_ascii(drawn)) == len(drawn)
    assert in_ascii("┏━┳━┓│┃╸") == "+-+-+||-"


@pytest.mark.fault("terminal-encoding")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_character_can_be_written(encoding: str) -> None:
    everything = "".join(map(chr, range(32, 0x3000))) + "\ud800\udcff\U0001f600"
    content = io.BytesIO()
    out = lasting(io.TextIOWrapper(content, encoding=encoding))
    out.write(everything)
    out.flush()
    assert content.getvalue().decode(encoding)
    assert everything.encode(encoding, READABLE).decode(encoding) == content.getvalue().decode(encoding)


@pytest.mark.fault("terminal-encoding")
def test_commands_write_to_a_pipe_in_any_encoding() -> None:
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = run("sweep --storage ./nowhere-é --list | cat", env=plain)
    assert done.stderr == ""
    assert done.stdout.endswith("nowhere-e\n")
