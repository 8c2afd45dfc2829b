"""Where a lease's owner is written: a file under a lock of the kernel, or claims in an object store, which has none.

In an object store everybody writes an object of their own, and nobody another's. Whoever wants the lease writes a claim
and then lists all claims; who finds no other has won. Two can never both win: had the first not seen the second's
claim, it was written after the first had listed, hence after the first's own claim, which the second then sees. This
holds where a list shows every write that ended before it began (S3 since December 2020, MinIO, Ceph).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from trials.storage import files
from trials.storage.owner import Owner
from trials.storage.place import ObjectPath

Gone = Callable[[Owner], bool]

LOOKS, CLAIMS_POLL_S = 20, 0.1
"""So often a claimant looks whether the later ones have withdrawn."""


class LeaseStore(Protocol):
    """What a lease needs of the place it lies in."""

    def owner(self) -> Owner | None:
        """Who is written there."""

    def take(self, me: Owner, gone: Gone) -> bool:
        """Write me there, if nobody is or who is there is gone."""

    def renew(self, mine: Owner) -> bool:
        """Write my heartbeat; False if somebody else is there now."""

    def leave(self, mine: Owner) -> None:
        """Nobody is there, unless somebody else is."""


class FileLeaseStore:
    """``lease.json``, changed under a lock that the kernel drops with its holder. On NFS that is the server's (v4, or
    v3 with lockd); Lustre needs the mount option ``flock``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lease.json"
        self._guard = FileLock(str(folder / "lease.guard"))

    def owner(self) -> Owner | None:
        try:
            return Owner(**json.loads(self.path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def take(self, me: Owner, gone: Gone) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._guard:
            holder = self.owner()
            if holder is not None and not gone(holder):
                return False
            self._write(me)
        return True

    def renew(self, mine: Owner) -> bool:
        with self._guard:
            if not self._is(mine):
                return False
            self._write(mine)
        return True

    def leave(self, mine: Owner) -> None:
        with self._guard:
            if self._is(mine):
                self.path.unlink(missing_ok=True)

    def _is(self, mine: Owner) -> bool:
        holder = self.owner()
        return holder is not None and holder.token == mine.token

    def _write(self, owner: Owner) -> None:
        files.write(self.path, json.dumps(owner.document()).encode())


@dataclass(frozen=True)
class _Claim:
    """``term`` is higher than that of every claim it followed; ``held`` once it has won."""

    owner: Owner
    term: int
    held: bool


class ObjectLeaseStore:
    """``claims/<token>.json``: one for the owner, and for a moment one for each who would be."""

    def __init__(self, folder: ObjectPath) -> None:
        self.folder = folder / "claims"
        self._term = 0

    def owner(self) -> Owner | None:
        held = [claim for claim in self._claims() if claim.held]
        return max(held, key=lambda claim: claim.term).owner if held else None

    def take(self, me: Owner, gone: Gone) -> bool:
        claims = self._others(me, gone)
        if claims is None:
            return False
        self._term = max((self._term, 1, *(claim.term + 1 for claim in claims)))
        self._write(me, held=False)
        for _ in range(LOOKS):
            others = self._others(me, gone)
            if others is None or any(claim.owner.token < me.token for claim in others):
                break
            if not others:
                self._write(me, held=True)
                return self._is_last(me)
            time.sleep(CLAIMS_POLL_S)  # the others see me and withdraw
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
        """Living claims but mine, those of the gone removed; None where one of them holds the lease."""
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
        """Whether my claim is there and none that holds followed it. A claim that was removed while its owner was
        frozen in the midst of a heartbeat may come back: it is older, and goes."""
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
                content = json.loads(path.read_bytes())
                found.append(_Claim(Owner(**content["owner"]), int(content["term"]), bool(content["held"])))
            except (FileNotFoundError, ValueError, TypeError, KeyError):
                continue  # withdrawn meanwhile, or the marker of a folder
        return found

    def _path(self, owner: Owner) -> ObjectPath:
        return self.folder / f"{owner.token}.json"

    def _write(self, owner: Owner, *, held: bool) -> None:
        content = {"owner": owner.document(), "term": self._term, "held": held}
        files.write(self._path(owner), json.dumps(content).encode())

    def _remove(self, owner: Owner) -> None:
        self._path(owner).unlink(missing_ok=True)
