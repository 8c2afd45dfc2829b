"""Objects of plug-ins on their way to another process, which must admit their modules before it unpickles them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from trials.plugins.importing import admit_sent, admitted, sent


class Carried:
    """An object that admits this process's plug-ins wherever it is unpickled, before its content is.

    Attributes:
        content: the object.
    """

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        if not admitted():
            return Carried, (self.content,)
        return _unpack, (sent(plug_in.listed for plug_in in admitted()), pickle.dumps(self.content))


def _unpack(plug_ins: Sequence[Mapping[str, str]], content: bytes) -> Carried:
    admit_sent(plug_ins)
    return Carried(pickle.loads(content))
