"""Which plug-ins this process may import, and importing objects from them by name (``module:attribute``).

A config only names code. What is imported is admitted first, by whoever has read the ``plugins`` of a file that the
user gave, or of ``--plugins``: contents of a storage admit nothing, since others may be able to write there.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from trials.errors import AbsentCode, NotAdmitted, UserError, shown
from trials.plugins.blaming import blaming
from trials.plugins.source import PlugIn, digest_of, find, is_path, lies_under, module_of, resolve, source_of

_admitted: dict[str, PlugIn] = {}
_held: Counter[str] = Counter()
_lock = threading.RLock()
_loads = 0


def generation() -> int:
    """A number that grows when modules of plug-ins are dropped, so that objects of theirs must be loaded anew."""
    return _loads


def admitted() -> tuple[PlugIn, ...]:
    """The plug-ins that this process may import."""
    return tuple(_admitted.values())


def admit(listed: Iterable[str]) -> tuple[PlugIn, ...]:
    """Allow plug-ins, as :func:`~trials.plugins.source.resolve` returns them, to be imported in this process.

    Nothing is imported. If the source of one has changed since it was imported here, it is dropped and imported anew.

    Raises:
        UserError: one is not on this machine, or two have the same name.
    """
    with _lock:
        return tuple(_admit(find(entry)) for entry in listed)


def admit_listed(content: Mapping[str, Any], folder: Path, also: Sequence[str] = ()) -> dict[str, Any]:
    """Admit the ``plugins`` of a file's content that the user gave, and return the content with them resolved.

    Args:
        folder: where relative paths start.
        also: further plug-ins, such as those of ``--plugins``; relative paths start at the working folder. They replace
            entries of the same modules.

    Raises:
        UserError: ``plugins`` is no list of strings, or one of them is not here.
    """
    entries = listed_in(content)
    if isinstance(also, str):
        raise UserError(f"plugins is {also!r}, but must be a list: write [{also!r}]")
    given = [resolve(entry, Path.cwd()) for entry in also]
    replaced = {module_of(entry) for entry in given}
    own = [entry for entry in entries if not (isinstance(entry, str) and module_of(entry) in replaced)]
    found = list(dict.fromkeys([*(resolve(entry, folder) for entry in own), *given]))
    admit(found)
    return {**content, "plugins": found} if found else {name: v for name, v in content.items() if name != "plugins"}


def listed_in(content: Mapping[str, Any]) -> Sequence[Any]:
    """Return the entries of ``plugins`` in a file's content.

    Raises:
        UserError: it is no list.
    """
    entries = content.get("plugins")
    if entries is None:
        return []
    if not isinstance(entries, (list, tuple)):
        raise UserError(f"plugins is {shown(entries)}, but must be a list: write [{entries}]")
    return entries


@contextmanager
def holding(listed: Iterable[str]) -> Iterator[None]:
    """Keep the modules of admitted plug-ins from being replaced by other code while a run uses them."""
    modules = [module_of(entry) for entry in listed]
    with _lock:
        _held.update(modules)
    try:
        yield
    finally:
        with _lock:
            _held.subtract(modules)


def is_admitted(listed: str) -> bool:
    """Whether the module of an entry of ``plugins`` has been admitted, from here or elsewhere."""
    return module_of(listed) in _admitted


def require_admitted(listed: str) -> None:
    """Raise NotAdmitted unless the module of an entry of ``plugins`` has been admitted, from here or elsewhere."""
    if not is_admitted(listed):
        raise NotAdmitted(
            f"plugins has {listed!r}, but code is imported only where you ask for it, not because a stored file lists "
            f"it: give --plugins {listed} (in Python: plugins=[...])"
        )


def _admit(plug_in: PlugIn, *, shadows: bool = False) -> PlugIn:
    """Admit a plug-in; of two with equal content the first stays. ``shadows``: it may hide another module."""
    before = _admitted.get(plug_in.module)
    if before is not None and before.digest == plug_in.digest and before.source.exists():
        return before
    if before is None and not (plug_in.installed or shadows):
        _refuse_shadowing(plug_in)
    if before is not None and before.digest != plug_in.digest and _held[plug_in.module]:
        raise UserError(
            f"plugins has {plug_in.listed!r}, but another run of this process uses {before.listed}, whose module "
            f"{plug_in.module} has other code: wait for it, or run one of them in a process of its own"
        )
    if before is not None or (plug_in.module in sys.modules and not plug_in.installed):
        _drop(plug_in.module)  # also what was imported before it was listed: it may have been edited since
    _admitted[plug_in.module] = plug_in
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    importlib.invalidate_caches()
    return plug_in


def _refuse_shadowing(plug_in: PlugIn) -> None:
    """Refuse a folder or file that would hide a module of the same name which is installed or already imported."""
    there = source_of(plug_in.module)
    if there is None and plug_in.module not in sys.modules:
        return
    if there is None or _folder(there).resolve() != _folder(plug_in.source).resolve():
        raise UserError(
            f"plugins has {plug_in.listed!r}, but there is another module {plug_in.module} "
            f"({there or 'already imported'}): rename one"
        )


def _folder(source: Path) -> Path:
    return source.parent if source.name == "__init__.py" else source


def _drop(module: str) -> None:
    """Forget the imported modules of a plug-in, and of those listed by path, which may have imported from it."""
    global _loads
    _loads += 1
    gone = [module, *(plug_in.module for plug_in in admitted() if not plug_in.installed)]
    for name in [name for name in sys.modules if any(lies_under(one, name) for one in gone)]:
        del sys.modules[name]


class _Source(importlib.machinery.SourceFileLoader):
    """Compiles the source each time, and writes nothing beside it: a cached file can be older than an edit."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of plug-ins that are listed by path, without a change of ``sys.path``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        plug_in = _admitted.get(fullname.partition(".")[0])
        if plug_in is None or plug_in.installed:
            return None
        if path is not None:
            spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
            if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader and spec.origin:
                spec.loader = _Source(fullname, spec.origin)
            return spec
        source = plug_in.source
        file = source / "__init__.py" if source.is_dir() else source
        folders = [str(source)] if source.is_dir() else None
        if source.is_dir() and not file.is_file():
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = folders
            return spec
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_Source(fullname, str(file)), submodule_search_locations=folders
        )


def load(name: str, field: str) -> Any:
    """Return the object ``module:attribute``, importing its module if it is of an admitted plug-in.

    Args:
        field: the config's field that names it, for messages.

    Raises:
        NotAdmitted: the module is of no admitted plug-in.
        UserError: it cannot be imported, or has no such attribute.
    """
    module, attribute = _parts(name, field)
    if not any(lies_under(plug_in.module, module) for plug_in in admitted()):
        raise NotAdmitted(f"{field} is {name!r}, but {_unlisted(module)} (in Python: plugins=[...])")
    with blaming(f"{field} is {name!r}, but importing {module} failed"), _lock:
        imported = importlib.import_module(module)
    try:
        return getattr(imported, attribute)
    except AttributeError:
        there = ", ".join(sorted(n for n in vars(imported) if not n.startswith("_"))[:12])
        raise UserError(f"{field} is {name!r}, but {module} has no {attribute} (it has {there or 'nothing'})") from None


def _parts(name: str, field: str) -> tuple[str, str]:
    """Module and attribute of ``module:attribute``."""
    module, _, attribute = name.partition(":")
    if not (module and attribute.isidentifier()):
        raise UserError(f"{field} is {name!r}, but a name with a colon is module:attribute, as in mynets.wide:MyNet")
    return module, attribute


def _unlisted(module: str) -> str:
    if is_path(module):
        return f"names are module:attribute: list {module} under plugins, and write {module_of(module)}:NAME"
    first = module.partition(".")[0]
    return f"plugins lists no {first}: only modules under plugins are imported; list it there, or give --plugins"


def require_listed(name: str, plugins: Collection[str], field: str) -> None:
    """Raise UserError unless the module of ``module:attribute`` is under ``plugins``, those of the same config."""
    module, _ = _parts(name, field)
    if not any(lies_under(entry, module) for entry in plugins):
        raise UserError(f"{field} is {name!r}, but {_unlisted(module)}")


@dataclass(frozen=True)
class Sent:
    """What a process tells another, which may run on another machine, of a plug-in.

    Attributes:
        copy: where a copy lies that nobody edits meanwhile; empty if there is none.
    """

    listed: str
    digest: str
    copy: str = ""


def sent(listed: Iterable[str], copies: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Describe admitted plug-ins as JSON, for :func:`admit_sent` in other processes.

    ``copies``: by entry, where a copy of its source lies.
    """
    found = []
    for entry in listed:
        copy = (copies or {}).get(entry)
        found.append(
            {"listed": entry, "digest": _admitted[module_of(entry)].digest, **({"copy": copy} if copy else {})}
        )
    return found


def admit_sent(plug_ins: Iterable[Mapping[str, str]]) -> None:
    """Admit in this process what another one has described: from the same path, or from where Ray has put a copy.

    Raises:
        UserError: this machine has no such module, or only one of another content.
    """
    with _lock:
        for each in plug_ins:
            # the copy that Ray has unpacked may lie beside the original: the driver has looked for other modules
            _admit(_as_sent(Sent(**each)), shadows=True)


def admit_those_here(plug_ins: Iterable[Mapping[str, str]]) -> None:
    """As :func:`admit_sent`, but without those that this machine lacks: what needs one of them says so itself."""
    for each in plug_ins:
        with suppress(AbsentCode):
            admit_sent([each])


def _as_sent(described: Sent) -> PlugIn:
    module = module_of(described.listed)
    known = _admitted.get(module)
    if known is not None and known.digest == described.digest and known.source.exists():
        return known
    places = [Path(place) for place in (described.copy, described.listed) if place and is_path(place)]
    found = source_of(module) if known is None or known.installed else _shipped(module)
    others = []
    for place in [*places, *([found] if found else [])]:
        if not place.exists():
            continue
        digest = digest_of(place)
        if digest == described.digest:
            return PlugIn(str(place) if places else described.listed, module, place, digest)
        others.append(f"{place} has {digest}")
    said = f"the plug-in {described.listed} has the digest {described.digest} where the sweep's driver runs"
    if others:
        raise UserError(f"{said}, but here {' and '.join(others)}: give every machine the same code")
    raise AbsentCode(f"{said}, but there is no module {module} here: install it on every machine, or list its path")


def _shipped(module: str) -> Path | None:
    """Where Python finds a module without this project's finder."""
    spec = importlib.machinery.PathFinder.find_spec(module)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0]) if folders else Path(spec.origin) if spec.origin else None
