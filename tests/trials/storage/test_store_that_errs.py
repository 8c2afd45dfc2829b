"""An object store that answers 503, or whose keys have expired, for a while: a trial waits and loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import DomainDispatcherApplication

from tests.trials.buckets import prefix, served
from trials.errors import StorageError
from trials.storage import files, outages
from trials.storage import place as store_client
from trials.storage.outages import StoragePatience, errs, is_by_hand
from trials.storage.place import ObjectPath
from trials.storage.trial_folder import TrialFolder

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message><RequestId>1</RequestId></Error>"


class Door:
    """Lets requests through to a store, or answers them with an error.

    Attributes:
        left: how many more requests are answered with 503.
        valid: only requests signed with this key are let through; empty: all.
        refused: how many were not.
    """

    def __init__(self) -> None:
        self.valid, self.left, self.refused = "", 0, 0

    def error(self, authorization: str) -> tuple[str, str] | None:
        """Status and code of the answer; None for a request that is let through."""
        if self.valid and f"Credential={self.valid}/" not in authorization:
            self.refused += 1
            return "400 Bad Request", "ExpiredToken"
        if self.left > 0:
            self.left, self.refused = self.left - 1, self.refused + 1
            return "503 Service Unavailable", "ServiceUnavailable"
        return None


@pytest.fixture(scope="module")
def store() -> Iterator[Door]:
    door, real = Door(), DomainDispatcherApplication.__call__

    def answer(self: Any, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        error = door.error(environ.get("HTTP_AUTHORIZATION", ""))
        if error is None:
            return real(self, environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        content = ERROR.format(code=error[1]).encode()
        start_response(error[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))])
        return [content]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DomainDispatcherApplication, "__call__", answer)
        patch.setattr(store_client, "STORE_TRIES", 1)
        store_client._client_of.cache_clear()
        with served():
            yield door
    store_client._client_of.cache_clear()


@pytest.fixture
def where(store: Door, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectPath:
    monkeypatch.setattr(outages, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outages, "LONGEST_PAUSE_S", 0.02)
    store.left = store.refused = 0
    store.valid = ""
    return prefix(request.node.name.partition("[")[0])


def commit_twice(where: ObjectPath) -> None:
    attempt, _ = TrialFolder(where).begin()
    for epoch in (1, 2):
        rows = {"epochs": [{"epoch": n} for n in range(1, epoch + 1)]}
        attempt.commit(checkpoint={"position": epoch}, rows=rows, progress={}, seconds=0.0)
    attempt.end("complete")


@pytest.mark.fault("storage-errs")
def test_a_store_that_answers_503_is_waited_for(store: Door, where: ObjectPath) -> None:
    said: list[str] = []
    store.left = 12
    with StoragePatience(lambda text, errs: said.append(text)).active():
        commit_twice(where)
    assert store.refused == 12
    first, again = said
    assert first.startswith("the storage does not work (")
    assert f"in {where}" in first
    assert "\n" not in first
    assert "works again" in again
    state = TrialFolder(where).state()
    assert state is not None
    assert (state.status, state.attempt, len(state.commits)) == ("complete", 1, 2)
    assert TrialFolder(where).verify(checkpoint=True) == []


@pytest.mark.fault("storage-errs-for-good")
def test_a_store_that_never_answers_is_given_up(store: Door, where: ObjectPath) -> None:
    files.write(where / "state.json", b"{}")
    store.left = 10**9
    with (
        StoragePatience(lambda text, errs: None, limit_s=0.01).active(),
        pytest.raises(StorageError, match=r"503|SERVICE"),
    ):
        TrialFolder(where).state()
    store.left = 0
    assert files.names(where) == ["state.json"]


@pytest.mark.fault("keys-expired")
def test_new_keys_are_used_once_the_old_ones_have_expired(
    store: Door, where: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    files.write(where / "before", b"x")
    store.valid = "new"
    with pytest.raises(OSError, match=r"ExpiredToken|EXPIRED_TOKEN") as expired:
        files.write(where / "after", b"x")
    assert errs(expired.value)
    assert is_by_hand(expired.value)
    said: list[str] = []

    def tell(text: str, errs: bool) -> None:
        said.append(text)
        if errs:  # somebody renews them
            keys.write_text("[default]\naws_access_key_id = new\naws_secret_access_key = secret\n")

    with StoragePatience(tell).active():
        files.write(where / "after", b"y")
        assert (where / "after").read_bytes() == b"y"
    assert len(said) == 2
