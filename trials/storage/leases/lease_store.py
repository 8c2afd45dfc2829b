"""Storage of a lease's owner: a file guarded by a kernel lock, or claim objects in an object store, which has no locks.

In an object store every process writes only its own object. A claimant writes its claim, then lists all claims; it wins
if it finds no other. Two claimants cannot both win: if A's listing did not show B's claim, B wrote its claim after A
listed, hence after A wrote its claim, so B's listing shows A's claim. This requires that a listing shows every write
that finished before the listing began (S3 since December 2020, MinIO, Ceph).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trials.errors import DamagedFile, StorageError, UserError
from trials.storage import files
from trials.storage.leases.owner import OWNER_KEYS, Owner, new_token
from trials.storage.outages import errs
from trials.storage.place import ObjectPath, Place
from trials.storage.sealed import read_sealed, seal
from trials.system.kernel_lock import LACKING, FileLocked, locked

Gone = Callable[[Owner], bool]

GUARD = "lease.guard"
"""The file whose kernel lock is held for each change of a lease on a path."""

GUARD_S = 20.0
"""Seconds to wait for that lock, which is held for some milliseconds: a process that was stopped in between, or a file
server that has lost its holder, then counts as a storage that errs."""

LOOKS, CLAIMS_POLL_S = 20, 0.1
"""Maximum number of listings, and seconds between them, while a claimant waits for other claims to be withdrawn."""


class LeaseStore(Protocol):
    """Stores the owner of a lease. Where the storage errs, each method raises OSError."""

    def owner(self) -> Owner | None:
        """Return the stored owner, or None."""

    def take(self, me: Owner, gone: Gone) -> bool:
        """Store ``me`` as owner if there is none or ``gone`` says it has died; return whether it was stored."""

    def renew(self, mine: Owner) -> bool:
        """Store the owner's new heartbeat; False if the lease has another owner by now."""

    def leave(self, mine: Owner) -> None:
        """Remove the owner, unless the lease has another one by now."""


class FileLeaseStore:
    """``lease.json``, changed under a file lock that the kernel releases when its holder dies.

    A damaged file, or one that is no file, has no owner; the owner that lives writes it anew at its next heartbeat.

    On NFS the lock is the server's (v4, or v3 with lockd); Lustre needs the mount option ``flock``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lease.json"

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        guard = self.path.parent / GUARD
        files.create_shared(guard)
        lock = FileLocked(guard)
        try:
            lock.acquire(GUARD_S)
        except OSError as error:
            if error.errno not in LACKING or errs(error):
                raise
            raise StorageError(_no_locks(guard.parent, error)) from None  # no fault of the trial that needs the lease
        try:
            yield
        finally:
            lock.release()

    def owner(self) -> Owner | None:
        try:
            return self._read()
        except DamagedFile:
            return None

    def _read(self) -> Owner | None:
        """Return the stored owner; raises DamagedFile or OSError if it cannot be read."""
        try:
            content, _ = read_sealed(self.path, OWNER_KEYS)
            return Owner.read(content)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise DamagedFile(f"{self.path.parent} is no folder") from None
        except (ValueError, TypeError) as error:
            raise DamagedFile(f"{self.path} is damaged: {error}") from None

    def take(self, me: Owner, gone: Gone) -> bool:
        files.make_folder(self.path.parent)
        with self._guarded():
            holder = self.owner()
            if holder is not None and holder.token != me.token and not gone(holder):
                return False
            self._write(me)
        return True

    def renew(self, mine: Owner) -> bool:
        with self._guarded():
            if not self._is(mine):
                return False
            self._write(mine)
        return True

    def leave(self, mine: Owner) -> None:
        with self._guarded():
            if self._is(mine):
                self.path.unlink(missing_ok=True)

    def _is(self, mine: Owner) -> bool:
        try:
            holder = self._read()
        except DamagedFile:
            return True  # whoever takes the lease over writes a whole file
        return holder is not None and holder.token == mine.token

    def _write(self, owner: Owner) -> None:
        files.write(self.path, seal(owner.document()))


def require_locks(folder: Place) -> None:
    """Check that leases on a folder can work: files there must have kernel locks. Makes the folder.

    Raises:
        UserError: they have none.
        OSError: the folder cannot be written.
    """
    if isinstance(folder, ObjectPath):
        return
    files.make_folder(folder)
    probe = files.temporary_of(folder / GUARD, new_token())  # nothing stays beside the shared trials
    try:
        try:
            with locked(probe):
                pass
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in LACKING:
            raise
        raise UserError(
            f"{_no_locks(folder, error)}, or give another --storage, on another file system or s3://BUCKET/PREFIX"
        ) from None


def _no_locks(folder: Path, error: OSError) -> str:
    return (
        f"the file system of {folder} has no locks (flock: {error.strerror}), which keep two processes from the same "
        "work: mount Lustre with -o flock, NFS as version 4 or with lockd"
    )


@dataclass(frozen=True)
class _Claim:
    """One process's claim to a lease.

    Attributes:
        term: higher than the term of every claim that was there before it.
        held: whether the claim has won the lease.
    """

    owner: Owner
    term: int
    held: bool


class ObjectLeaseStore:
    """``claims/<token>.json``: one object for the owner, and briefly one for each other claimant."""

    def __init__(self, folder: ObjectPath) -> None:
        self.folder = folder / "claims"
        self._term = 0

    def owner(self) -> Owner | None:
        held = [claim for claim in self._claims() if claim.held]
        return max(held, key=lambda claim: claim.term).owner if held else None

    def take(self, me: Owner, gone: Gone) -> bool:
        try:
            return self._take(me, gone)
        except BaseException:
            with suppress(OSError):  # else others wait for this claim until they see that it is dead
                self._remove(me)
            raise

    def _take(self, me: Owner, gone: Gone) -> bool:
        claims = self._others(me, gone)
        if claims is None:
            return False
        self._term = max((self._term, 1, *(claim.term + 1 for claim in claims)))
        self._write(me, held=False)
        # Of simultaneous claimants the one with the lowest token wins; the others withdraw.
        for _ in range(LOOKS):
            others = self._others(me, gone)
            if others is None or any(claim.owner.token < me.token for claim in others):
                break
            if not others:
                self._write(me, held=True)
                return self._is_last(me)
            time.sleep(CLAIMS_POLL_S)
        self._remove(me)
        return False

    def renew(self, mine: Owner) -> bool:
        if not self._is_last(mine):
            return False
        self._write(mine, held=True)
        return True

    def leave(self, mine: Owner) -> None:
        self._remove(mine)

    def _others(self, me: Owner, gone: Gone) -> list[_Claim] | None:
        """Return living claims other than ``me``'s and remove dead ones; None if a living claim holds the lease."""
        others = [claim for claim in self._claims() if claim.owner.token != me.token]
        dead = [claim for claim in others if gone(claim.owner)]
        living = [claim for claim in others if claim not in dead]
        if any(claim.held for claim in living):
            return None
        self._term = max((self._term, *(claim.term + 1 for claim in dead)))
        for claim in dead:
            self._remove(claim.owner)
        return living

    def _is_last(self, mine: Owner) -> bool:
        """Whether this claim still exists and no held claim has a higher term; otherwise remove this claim.

        An owner that was frozen during a heartbeat may write its claim again after it was removed. The claim then has a
        lower term than its successor's, so it is removed here.
        """
        claims = self._claims()
        last = any(claim.owner.token == mine.token for claim in claims) and not any(
            claim.held and claim.term > self._term for claim in claims
        )
        if not last:
            self._remove(mine)
        return last

    def _claims(self) -> list[_Claim]:
        found = []
        for path in self.folder.iterdir():
            try:
                content, _ = read_sealed(path, ("owner", "term", "held"))
                found.append(_Claim(Owner.read(content["owner"]), int(content["term"]), bool(content["held"])))
            except (FileNotFoundError, ValueError, TypeError, KeyError, DamagedFile):
                continue  # withdrawn since the listing, or a folder marker
        return found

    def _path(self, owner: Owner) -> ObjectPath:
        return self.folder / f"{owner.token}.json"

    def _write(self, owner: Owner, *, held: bool) -> None:
        content = {"owner": owner.document(), "term": self._term, "held": held}
        files.write(self._path(owner), seal(content))

    def _remove(self, owner: Owner) -> None:
        self._path(owner).unlink(missing_ok=True)
