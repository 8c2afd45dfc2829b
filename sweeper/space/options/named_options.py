"""Parts of a space that are chosen by name and may have options, such as samplers and pruners."""

from __future__ import annotations

from abc import ABC
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from trials.errors import UserError, shown, unknown_name
from trials.frozen import Frozen, validate
from trials.registry import Registry


class NamedOptions(Frozen, ABC):
    """Base of options that belong to a name. In a space file, the bare name stands for its default options."""

    name: str

    def document(self) -> str | dict[str, Any]:
        """Return the options in the form of a space file: the bare name if all are defaults."""
        content = self.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        return {"name": self.name, **content} if content else self.name


N = TypeVar("N", bound=NamedOptions)


def read_named_options(content: object, kinds: Mapping[str, type[N]], where: str, plugins: Collection[str] = ()) -> N:
    """Parse one of ``kinds`` from a name, or from a mapping of ``name`` and options.

    Args:
        where: the field's path, for messages.
        plugins: those of the space, under which a name ``module:attribute`` in a registry must lie.

    Raises:
        UserError: the name is unknown, or an option is invalid.
    """
    if isinstance(content, str):
        content = {"name": content}
    if not isinstance(content, Mapping) or "name" not in content:
        form = f"a name or {{name: NAME, ...}}: {', '.join(kinds)}"
        raise UserError(f"{where} is {shown(content)}, but must be {form}")
    name = content["name"]
    if isinstance(name, str) and isinstance(kinds, Registry):
        kind: type[N] = kinds.require(name, where, plugins)
    elif isinstance(name, str) and name in kinds:
        kind = kinds[name]
    else:
        raise UserError(unknown_name(where, name, kinds))
    found: N = validate(kind, content, where)
    return found
