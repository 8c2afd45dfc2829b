"""What a driver shows of a storage that errs: one line for all that wait for it, and one when it works again."""

from __future__ import annotations

from collections.abc import Callable


class StorageNews:
    """Collapses what the driver and the running trials say of their storage.

    Args:
        note: shows a line.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._waiting = set[str]()

    def heard(self, who: str, text: str, *, errs: bool) -> None:
        """Take note that ``who`` waits for the storage, or that it works again for them."""
        before = bool(self._waiting)
        (self._waiting.add if errs else self._waiting.discard)(who)
        if before != bool(self._waiting):
            self._note(text)

    def gone(self, who: str) -> None:
        """Forget one that has ended, whether or not the storage works."""
        self._waiting.discard(who)
