"""Plug-ins as a space or trial lists them: which module each is, where its source lies, and what it says.

Nothing here imports a plug-in.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import keyword
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from trials.errors import UserError, shown

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)

RESERVED = frozenset({"timm", "torchvision", "hf", "sweeper", "trials"})
"""Names that no folder or file may have: in ``timm:NAME`` and the like they say where a name is from."""


@dataclass(frozen=True)
class PlugIn:
    """A plug-in on this machine.

    Attributes:
        listed: as the config lists it: the absolute path of a folder or ``.py`` file, or the name of a module.
        module: name of the module that it makes importable.
        source: the folder of the package, or the file.
        digest: 12 hex digits of the content of its Python files.
    """

    listed: str
    module: str
    source: Path
    digest: str

    @property
    def installed(self) -> bool:
        """Whether it is listed by its module's name, so that Python finds it by itself."""
        return not is_path(self.listed)


def is_path(listed: str) -> bool:
    """Whether an entry of ``plugins`` is a path, not the name of a module.

    >>> is_path("./mynets"), is_path("net.py"), is_path("mylab.pruning")
    (True, True, False)
    """
    return "/" in listed or "\\" in listed or listed.endswith(".py") or listed.startswith((".", "~"))


def module_of(listed: str) -> str:
    """Return the name of the module that an entry of ``plugins`` makes importable.

    >>> module_of("/home/me/mynets"), module_of("./net.py"), module_of("mylab.pruning")
    ('mynets', 'net', 'mylab.pruning')
    """
    return PurePath(listed).name.removesuffix(".py") if is_path(listed) else listed


def lies_under(listed: str, module: str) -> bool:
    """Whether an entry of ``plugins`` allows ``module`` to be imported: it is its module, or lies in its package."""
    own = module_of(listed)
    return module == own or module.startswith(f"{own}.")


def resolve(listed: object, folder: Path) -> str:
    """Return an entry of ``plugins`` as configs hold it: a path absolute, relative ones taken from ``folder``.

    Raises:
        UserError: it is no path of a folder or ``.py`` file, and no name of a module.
    """
    if not isinstance(listed, str) or not listed:
        raise UserError(f"plugins has {shown(listed)}, but must list folders, .py files and names of modules")
    if not is_path(listed):
        if not _MODULE.fullmatch(listed):
            raise UserError(
                f"plugins has {shown(listed)}, but that is no name of a module: give the module alone "
                "(mylab.pruning), or the path of a folder or .py file (./mynets)"
            )
        if listed.partition(".")[0] in sys.stdlib_module_names:
            raise UserError(f"plugins has {listed!r}, but that is a module of Python's own: list your own code")
        return listed
    try:
        path = Path(os.path.abspath(folder / Path(listed).expanduser()))  # noqa: PTH100  keeps the name of a link
        _require_importable(path)
    except (OSError, ValueError, RuntimeError) as error:  # a name that is too long, NUL, ~NOBODY
        raise UserError(f"plugins has {shown(listed)}, which is no path here ({error}): give another") from None
    return str(path)


def _require_importable(path: Path) -> None:
    """Raise UserError unless ``path`` is a Python file or a folder of some, of a name that can be imported."""
    said, name = f"plugins has {str(path)!r}", module_of(str(path))
    if not path.exists():
        raise UserError(f"{said}, which is not there: paths are taken from the folder of the file that lists them")
    if path.is_dir():
        if next(_python_files(path), None) is None:
            raise UserError(f"{said}, which holds no .py file: give the package's own folder")
    elif path.suffix != ".py":
        raise UserError(f"{said}, but must be a folder or a .py file")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"{said}, but {name!r} is no name that Python can import: rename it to an identifier")
    if name in RESERVED or name in sys.stdlib_module_names:
        raise UserError(f"{said}, but {name!r} is a module of Python's or of this project: rename it")


def find(listed: str) -> PlugIn:
    """Find a plug-in, listed as :func:`resolve` returns it, on this machine.

    Raises:
        UserError: it is not here.
    """
    if is_path(listed):
        _require_importable(Path(listed))
        return PlugIn(listed, module_of(listed), Path(listed), digest_of(Path(listed)))
    source = source_of(listed)
    if source is None:
        raise UserError(
            f"plugins has {listed!r}, but no module of this name is installed here ({sys.executable}): install it, or "
            "give the path of its folder"
        )
    return PlugIn(listed, listed, source, digest_of(source))


def source_of(module: str) -> Path | None:
    """Where Python finds a module: its package's folder, or its file; None if it finds none. Imports nothing."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError, AttributeError):  # ValueError: it is loaded without a spec
        return None
    name = first
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(name, list(spec.submodule_search_locations))
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    if folders:
        return Path(folders[0])
    return Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None


def _python_files(folder: Path) -> Iterator[Path]:
    found, seen = [], set()
    for at, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(at)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        found += [Path(at, name) for name in files if name.endswith(".py")]
    return (path for path in sorted(found) if not _is_hidden(path.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def digest_of(source: Path) -> str:
    """Return 12 hex digits of a SHA-256 of a package's Python files, by their names within it, or of a file."""
    digest = hashlib.sha256()
    files = _python_files(source) if source.is_dir() else iter([source])
    for path in files:
        name = path.relative_to(source).as_posix() if source.is_dir() else ""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} is part of a plug-in, but cannot be read ({error.strerror}): open it") from None
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]
