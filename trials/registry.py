"""Names of methods, models, data sets and the like: built in, of installed distributions, or ``module:attribute``."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar

from trials.errors import UserError, unknown_name
from trials.plugins.blaming import blaming
from trials.plugins.importing import admit, generation, load, require_listed

T = TypeVar("T")

ENTRY_POINTS = "sparsity_sweeper"
"""Installed distributions name objects in the entry point groups ``sparsity_sweeper.models`` and so on."""


_registries: dict[str, Any] = {}


def registry_of(kind: str) -> Registry[Any] | None:
    """The registry of a kind, as in :class:`Registry`; None until the module that makes it is imported."""
    found: Registry[Any] | None = _registries.get(kind)
    return found


class Registry(MutableMapping[str, T], Generic[T]):
    """Objects of one kind by name.

    As a mapping it has the built-in names only; :meth:`__getitem__`, ``in`` and :meth:`require` also know

    - names that installed distributions give as entry points; a built-in name cannot be taken over,
    - ``module:attribute`` of admitted plug-ins (:mod:`trials.plugins.importing`),
    - ``prefix:name`` of the registry's own ``prefixes``, such as ``torchvision:resnet18``.

    Args:
        kind: what it holds, in the plural, as in the entry point group ``sparsity_sweeper.<kind>``.
        built_in: the objects of this project.
        check: returns an object from outside as this registry holds it; raises TypeError with a clause that says what
            it must be.
        probe: tries an object from outside on a small example; raises what is wrong with it.
        prefixes: by prefix, what makes an object of the rest of the name; raises UserError.
    """

    def __init__(
        self,
        kind: str,
        built_in: Mapping[str, T],
        check: Callable[[Any], T],
        prefixes: Mapping[str, Callable[[str], T]] | None = None,
        probe: Callable[[T], None] | None = None,
    ) -> None:
        self.kind = kind
        self._built_in = dict(built_in)
        self.check = check
        self.prefixes = dict(prefixes or {})
        self._probe = probe
        self._outside: dict[tuple[str, int], T] = {}
        _registries[kind] = self

    def __getitem__(self, name: str) -> T:
        found = self._built_in.get(name)
        if found is not None:
            return found
        try:
            return self.require(name, self.kind)
        except UserError as error:
            raise KeyError(str(error)) from error

    def __setitem__(self, name: str, value: T) -> None:
        self._built_in[name] = value

    def __delitem__(self, name: str) -> None:
        del self._built_in[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._built_in)

    def __len__(self) -> int:
        return len(self._built_in)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        if name in self._built_in:
            return True
        try:
            self.require(name, self.kind)
        except UserError:
            return False
        return True

    def built_in(self, name: object) -> bool:
        """Whether the name is one of this project's."""
        return name in self._built_in

    def is_of_plug_in(self, name: str) -> bool:
        """Whether the name is ``module:attribute``, not built in and without one of the registry's prefixes."""
        return ":" in name and name.partition(":")[0] not in self.prefixes and name not in self._built_in

    def package_of(self, name: str) -> str | None:
        """The package that an installed distribution's name is from; None for other names."""
        if name in self._built_in or ":" in name:
            return None
        points = self._entry_points().get(name)
        return points[0].module.partition(".")[0] if points else None

    def names(self) -> list[str]:
        """The names without a colon: those built in, and those of installed distributions."""
        return [*self._built_in, *(name for name in self._entry_points() if name not in self._built_in)]

    def require(self, name: str, field: str, plugins: Collection[str] | None = None) -> T:
        """Return the object of a name.

        Args:
            field: the field that holds the name, for messages.
            plugins: the plug-ins that the same config lists, under which ``module:attribute`` must lie; None allows
                all that this process has admitted.

        Raises:
            UserError: there is none of this name, its module is under no plug-in, or what is there is of another kind.
        """
        if name in self._built_in:
            return self._built_in[name]
        prefix, colon, rest = name.partition(":")
        if self.is_of_plug_in(name) and plugins is not None:
            require_listed(name, plugins, field)
        key = (name, generation())
        if key not in self._outside:
            if prefix in self.prefixes and colon:
                self._outside[key] = self.prefixes[prefix](rest)
            else:
                self._outside[key] = self._checked(name, field, self._found(name, field))
        return self._outside[key]

    def _found(self, name: str, field: str) -> Any:
        if ":" in name:
            return load(name, field)
        points = self._entry_points().get(name)
        if points is None:
            raise UserError(unknown_name(field, name, self.names()))
        if len({point.value for point in points}) > 1:
            said = ", ".join(sorted(point.value for point in points))
            raise UserError(f"{field} is {name!r}, which several installed distributions define ({said}): keep one")
        admit([points[0].module.partition(".")[0]])  # so that workers are told of it as of what is listed
        with blaming(f"{field} is {name!r}, but importing {points[0].value} failed"):
            return points[0].load()

    def _checked(self, name: str, field: str, found: Any) -> T:
        revision_of(found, f"{field} {name!r}")
        try:
            held = self.check(found)
        except TypeError as error:
            raise UserError(f"{field} is {name!r}, but {error}") from None
        if self._probe is not None:
            with blaming(f"{field} is {name!r}, whose code failed"):
                self._probe(held)
        return held

    def _entry_points(self) -> dict[str, list[importlib.metadata.EntryPoint]]:
        found: dict[str, list[importlib.metadata.EntryPoint]] = {}
        for point in importlib.metadata.entry_points(group=f"{ENTRY_POINTS}.{self.kind}"):
            found.setdefault(point.name, []).append(point)
        return found


def revision_of(found: Any, what: str = "it") -> int:
    """Return the ``revision`` that an object from outside says, 1 if it says none.

    Whoever changes what it computes raises it, so that results of before and after have other names.

    Raises:
        UserError: it is no whole number from 1.
    """
    revision = getattr(found, "revision", 1)
    if isinstance(revision, property):
        return 1
    if type(revision) is not int or revision < 1:
        raise UserError(f"{what} has the revision {revision!r}, but must have a whole number from 1, or none")
    return revision
