"""Objects of plug-ins on their way to another process, which must admit their modules before it unpickles them."""

from __future__ import annotations

from typing import Any

from trials.plugins.importing import admit_those_here, admitted, sent


class Carried:
    """An object that admits this process's plug-ins wherever it is unpickled, before its content is.

    Attributes:
        content: the object.
    """

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (_Admission(), self.content)


class _Admission:
    """Stands before the content in the pickle, which is read in order."""

    def __reduce__(self) -> tuple[Any, ...]:
        return admit_those_here, (sent(plug_in.listed for plug_in in admitted()),)


def _unpack(_: None, content: Any) -> Carried:
    return Carried(content)
