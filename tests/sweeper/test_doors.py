"""The line that forwards a port over ssh."""

from __future__ import annotations

import socket

import pytest

from sweeper.doors import forwarding_line


@pytest.fixture
def anna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu7")
    monkeypatch.setenv("LOGNAME", "anna")


@pytest.mark.usefixtures("anna")
@pytest.mark.parametrize(
    ("connection", "line"),
    [
        ("10.0.0.1 50000 10.0.0.2 22", "ssh -L 8080:127.0.0.1:8080 anna@gpu7"),
        ("fe80::1 50000 fe80::2 2222", "ssh -p 2222 -L 8080:127.0.0.1:8080 anna@gpu7"),
        ("10.0.0.1", "ssh -L 8080:127.0.0.1:8080 anna@gpu7"),
        ("", None),
    ],
)
def test_the_command_names_port_user_and_host(
    monkeypatch: pytest.MonkeyPatch, connection: str, line: str | None
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", connection)
    assert forwarding_line(8080) == line


def test_without_ssh_there_is_nothing_to_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert forwarding_line(8080) is None


@pytest.mark.usefixtures("anna")
def test_a_user_id_without_a_name_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    monkeypatch.setattr("getpass.getuser", nameless)
    assert forwarding_line(80) == "ssh -L 80:127.0.0.1:80 gpu7"
