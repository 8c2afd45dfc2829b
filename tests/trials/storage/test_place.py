"""An object store as a place: commits, their number of requests, and leases."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trials.buckets import Requests, prefix, served
from tests.trials.folders import assert_same_outcome
from tests.trials.processes import wait_for
from tests.trials.small_trials import config_of, run_in
from trials.errors import DamagedFile, Superseded, UserError
from trials.storage import files
from trials.storage.leases.lease import Lease
from trials.storage.leases.lease_store import ObjectLeaseStore
from trials.storage.leases.owner import Owner
from trials.storage.place import ObjectPath, environment, place
from trials.storage.rows import Rows
from trials.storage.trial_folder import TrialFolder


@pytest.fixture(scope="module")
def store() -> Iterator[Requests]:
    with served() as requests:
        yield requests


@pytest.fixture
def where(store: Requests, request: pytest.FixtureRequest) -> ObjectPath:
    store.take()
    return prefix(request.node.name.partition("[")[0])


def rows(last: int) -> Rows:
    return {"epochs": [{"epoch": n, "loss": 1 / n} for n in range(1, last + 1)], "layers": [{"layer": "fc"}]}


def test_a_file_replaced_during_reading_is_read_whole(where: ObjectPath) -> None:
    contents, over, failures = {size: b"x" * size for size in (10, 1000, 100)}, threading.Event(), []
    files.write(where / "file", contents[10])

    def read() -> None:
        while not over.is_set():
            try:
                content = (where / "file").read_bytes()
                assert content == contents[len(content)]
            except BaseException as error:  # noqa: BLE001  passed to the test
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(30):
        files.write(where / "file", list(contents.values())[n % 3])
        time.sleep(0.03)
    over.set()
    for reader in readers:
        reader.join()
    assert not failures


def puts(requests: Requests, where: ObjectPath) -> list[str]:
    """Names of the written objects, relative to a place."""
    start = f"/{where.key}/"
    return [path[len(start) :] for method, path in requests.take() if method == "PUT" and not path.endswith("/")]


def test_places_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place("results") == tmp_path / "results"
    assert place(str(tmp_path)) == place(tmp_path) == tmp_path
    there = place("s3://bucket/some/prefix/")
    assert there == ObjectPath("bucket/some/prefix") == place(there) == place(str(there))
    assert (there / "a.json").name == "a.json"
    assert (there / "a.json").parent == there
    assert (there / "a").with_name("b") == there / "b"


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://B", "gs://bucket/x", "s3://bucket/../x", "s3://bucket//x", "s3://bucket/a b", "s3://k:s@b/x"]
)
def test_invalid_places_are_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"s3://BUCKET/PREFIX"):
        place(uri)


def test_reading_writing_listing_and_deleting(where: ObjectPath) -> None:
    path = where / "folder" / "file.json"
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
    assert files.names(where) == []
    assert not where.is_dir()
    for content in (b"old", b"new"):
        files.write(path, content)
        assert path.read_bytes() == content
    files.write(where / "folder" / "other", b"")
    assert files.names(where) == ["folder"]
    assert files.names(where / "folder") == ["file.json", "other"]
    assert (path.exists(), path.is_file(), path.is_dir()) == (True, True, False)
    assert (where.exists(), where.is_file(), where.is_dir()) == (True, False, True)
    assert {name: size for name, (_, size) in where.stamps().items()} == {"folder/file.json": 3, "folder/other": 0}
    assert files.set_aside(path) == path.with_name("file.json.damaged")
    assert not path.exists()
    assert (where / "folder" / "file.json.damaged").read_text() == "new"
    path.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        path.unlink()
    files.require_writable(where)
    assert files.names(where) == ["folder"]


def test_a_missing_bucket_is_refused(store: Requests) -> None:
    with pytest.raises(OSError, match="no-such-bucket"):
        files.require_writable(ObjectPath("no-such-bucket/x"))


def test_workers_get_the_settings_to_reach_it(store: Requests, tmp_path: Path) -> None:
    told = environment(prefix("x"))
    assert set(told) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"}
    assert environment(tmp_path) == {}


def test_a_commit_is_one_put_each_checkpoint_rows_state(store: Requests, where: ObjectPath) -> None:
    attempt, _ = TrialFolder(where).begin()
    assert puts(store, where) == ["state.json"]
    attempt.commit(checkpoint={"w": torch.zeros(1000)}, rows=rows(1), progress={}, seconds=0.0)
    kinds = [name.partition("/")[0] for name in puts(store, where)]
    assert kinds == ["checkpoint", "rows", "state.json"], "all tables lie in one object"


def test_a_large_checkpoint_is_written_whole_or_not_at_all(where: ObjectPath) -> None:
    folder = TrialFolder(where)
    attempt, _ = folder.begin()
    large = {"w": torch.arange(3_000_000)}  # 24 MB: three parts
    attempt.commit(checkpoint=large, rows=rows(1), progress={}, seconds=0.0)
    state = folder.state()
    assert state is not None
    assert torch.equal(folder.checkpoint(state.commits[-1])["w"], large["w"])


def test_two_commits_are_kept_and_damage_goes_back_one(where: ObjectPath) -> None:
    folder = TrialFolder(where)
    attempt, _ = folder.begin()
    for n in (1, 2, 3):
        attempt.commit(checkpoint={"n": torch.tensor(n)}, rows=rows(n), progress={"n": n}, seconds=0.0)
    state = folder.state()
    assert state is not None
    assert [commit.number for commit in state.commits] == [2, 3]
    assert len(files.names(where / "checkpoint")) == 2
    assert len(files.names(where / "rows")) == 2
    last = state.commits[-1]
    assert last.checkpoint is not None
    (where / "checkpoint" / last.checkpoint).write_bytes(b"rot")
    (where / "rows" / state.commits[0].rows["epochs"]).write_bytes(b"rot")
    with pytest.raises(DamagedFile):
        folder.checkpoint(last)
    lines = folder.verify(checkpoint=True)
    assert len(lines) == 2
    successor, checkpoint = folder.begin()
    assert int(checkpoint["n"]) == 2
    now = folder.state()
    assert now is not None
    assert folder.rows(now.commits[-1]) == rows(2)
    with pytest.raises(Superseded):
        attempt.commit(checkpoint={}, rows=rows(4), progress={}, seconds=0.0)
    successor.commit(checkpoint={"n": torch.tensor(3)}, rows=rows(3), progress={}, seconds=0.0)
    assert f"{last.checkpoint}.damaged" in files.names(where / "checkpoint")


def test_a_trial_in_a_bucket_is_the_trial_on_a_path(where: ObjectPath, tmp_path: Path) -> None:
    config = config_of("one_shot", dataset="digits")
    answers = iter([False, True])
    stopped = run_in(where, config, should_stop=lambda: next(answers, True))  # type: ignore[arg-type]
    assert stopped.status in ("preempted", "complete")
    assert run_in(where, config).status == "complete"  # type: ignore[arg-type]
    run_in(tmp_path, config)
    name = Path("sweep") / "trials" / config.id
    assert_same_outcome(where / str(name), tmp_path / name)  # type: ignore[arg-type]


def claim(where: ObjectPath, *, term: int = 1, held: bool = True, **fields: object) -> Owner:
    """A claim as another process writes it."""
    owner = replace(Owner.me(), **fields)  # type: ignore[arg-type]
    content = {"owner": owner.document(), "term": term, "held": held}
    (where / "claims" / f"{owner.token}.json").write_bytes(json.dumps(content).encode())
    return owner


def test_a_lease_is_exclusive_and_free_again(where: ObjectPath) -> None:
    first, second = Lease(where), Lease(where)
    assert first.owner() is None
    assert first.acquire()
    owner = second.owner()
    assert owner is not None
    assert owner.is_this_process
    assert not second.acquire()
    first.release()
    assert second.owner() is None
    assert second.acquire()
    assert not first.acquire()
    second.release()
    assert files.names(where / "claims") == []


def test_the_owner_sends_heartbeats_and_a_silent_owner_is_succeeded(where: ObjectPath) -> None:
    with Lease(where, heartbeat_s=0.05) as living:
        assert living.acquire()
        impatient = Lease(where, patience_s=1.0)
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            assert not impatient.acquire()
        assert (living.owner() or Owner.me()).beat > 3
    silent = claim(where, host="elsewhere", pid=1)
    successor = Lease(where, patience_s=0.3)
    assert not successor.acquire()
    wait_for(successor.acquire, "the lease of one who says nothing")
    now = successor.owner()
    assert now is not None
    assert now.token != silent.token
    successor.release()


def test_a_dead_owner_of_this_machine_is_succeeded_at_once(where: ObjectPath) -> None:
    claim(where, started="12345")
    lease = Lease(where)
    assert lease.acquire()
    lease.release()


def test_an_owner_that_wakes_during_a_heartbeat_yields(where: ObjectPath) -> None:
    """Its claim was removed while it was frozen between reading and writing; its late write is withdrawn."""
    me, sleeper = Owner.me(), ObjectLeaseStore(where)
    assert sleeper.take(me, lambda _: False)
    successor = Lease(where, heartbeat_s=0.05, patience_s=0.1)
    wait_for(successor.acquire, "the lease")
    sleeper._write(replace(me, beat=1), held=True)
    owner = successor.owner()
    assert owner is not None
    assert owner.token != me.token
    time.sleep(0.3)
    assert not successor.lost
    assert not sleeper.renew(replace(me, beat=2))
    assert files.names(where / "claims") == [f"{owner.token}.json"]
    successor.release()


def test_an_owner_that_was_succeeded_learns_of_it(where: ObjectPath) -> None:
    lease = Lease(where, heartbeat_s=0.05)
    assert lease.acquire()
    claim(where, term=7, host="elsewhere", pid=1)
    wait_for(lambda: lease.lost, "the news")
    lease.release()


def test_an_earlier_claimant_that_has_not_won_yet_is_given_way(where: ObjectPath) -> None:
    claim(where, token="0" * 32, held=False, host="elsewhere", pid=1)
    assert not Lease(where).acquire()
    assert files.names(where / "claims") == [f"{'0' * 32}.json"]


def test_threads_that_race_never_both_hold_it(where: ObjectPath) -> None:
    turns, holders, most, failures = 4, 0, 0, []

    def race() -> None:
        nonlocal holders, most
        try:
            for _ in range(turns):
                lease = Lease(where)
                wait_for(lease.acquire, "a lease")
                with lease:
                    holders += 1
                    most = max(most, holders)
                    time.sleep(0.002)
                    holders -= 1
        except BaseException as error:  # noqa: BLE001  passed to the test
            failures.append(error)

    threads = [threading.Thread(target=race) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert most == 1


def test_checkpoints_are_loaded_as_tensors_only(where: ObjectPath) -> None:
    buffer = io.BytesIO()
    torch.save({"i": Path("x")}, buffer)
    name = f"000001-a1-{files.digest(buffer.getvalue())}.pt"
    (where / "checkpoint" / name).write_bytes(buffer.getvalue())
    (commit,) = TrialFolder(where)._scan()
    with pytest.raises(Exception, match="weights_only"):
        TrialFolder(where).checkpoint(commit)
