"""The file of Ray's token: nobody else may read it, not even for a moment."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray._private.authentication import authentication_token_setup as setup

from sweeper.execution.on_ray import token_file
from sweeper.execution.on_ray.token_file import make_private_tokens, make_token, narrowed_token


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.fault("token-readable")
def test_a_new_token_is_private_from_its_first_moment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    link = token_file._link
    monkeypatch.setattr(token_file, "_link", lambda new, path: (modes.append(mode(new)), link(new, path))[1])
    before = os.umask(0)
    try:
        make_token()
    finally:
        os.umask(before)
    token = home / ".ray" / "auth_token"
    assert (modes, mode(token), len(token.read_text())) == ([0o600], 0o600, 64)
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]


@pytest.mark.fault("token-readable")
def test_processes_that_start_at_once_agree_on_one_token(home: Path) -> None:
    threads = [threading.Thread(target=make_token) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = (home / ".ray" / "auth_token").read_text()
    make_token()
    assert (home / ".ray" / "auth_token").read_text() == first
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.fault("token-readable")
def test_ray_makes_its_token_by_this_function(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "generate_and_save_token", setup.generate_and_save_token)
    loader = SimpleNamespace(has_token=lambda **_: False, reset_cache=lambda: None)
    monkeypatch.setattr(setup, "AuthenticationTokenLoader", SimpleNamespace(instance=lambda: loader))
    monkeypatch.setattr(setup, "get_authentication_mode", lambda: setup.AuthenticationMode.TOKEN)
    make_private_tokens()
    before = os.umask(0)
    try:
        setup.ensure_token_if_auth_enabled(create_token_if_missing=True)
    finally:
        os.umask(before)
    assert mode(home / ".ray" / "auth_token") == 0o600


@pytest.mark.fault("no-account")
def test_without_a_home_the_environment_holds_the_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("HOME", str(home / "file"))
    make_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert [path.name for path in home.iterdir()] == ["file"]


@pytest.mark.fault("token-readable")
@pytest.mark.parametrize("wide", [0o644, 0o640, 0o666, 0o604])
def test_a_token_that_others_may_read_is_narrowed_and_said(home: Path, wide: int) -> None:
    make_token()
    token = home / ".ray" / "auth_token"
    token.chmod(wide)
    said = narrowed_token()
    assert said is not None
    assert f"{token} had mode {wide:o}" in said
    assert mode(token) == 0o600
    assert narrowed_token() is None


def test_a_named_token_may_be_shared_with_a_group(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = home / "shared"
    shared.write_text("t" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(shared))
    shared.chmod(0o640)
    assert narrowed_token() is None
    shared.chmod(0o644)
    assert "chmod 640" in (narrowed_token() or "")
    assert mode(shared) == 0o644


def test_without_tokens_nothing_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert narrowed_token() is None
    make_token()
    (home / ".ray" / "auth_token").chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert narrowed_token() is None
