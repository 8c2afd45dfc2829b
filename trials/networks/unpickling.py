"""A program of its own that takes the tensors out of a file with pickled objects: ``python -I unpickling.py FILE OUT``.

``trials/networks/converting.py`` runs it, and nothing imports it. It is the only place where such a file is unpickled.
Every class and function that the file names is replaced by a passive stand-in, which stores what it is given; only
torch's functions that put tensors together, and plain containers, are real. So no code of the file, nor any that it
names, is executed, unless pickle or torch have a fault. A file that names other parts of the standard library is
refused.

It writes ``{"state_dict", "masks", "kept_wg", "pruned_wg"}`` to OUT, with tensors, lists, numbers and texts only, and
prints one line of JSON: ``{"objects": [...]}`` or ``{"error": "a clause"}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

_HARMLESS = {"argparse", "collections", "datetime", "decimal", "enum", "fractions", "functools", "logging", "pathlib"}
"""Modules of the standard library whose objects people keep in checkpoints; they get stand-ins as well."""

_PYTHON_2 = {"__builtin__", "commands", "copy_reg", "cPickle", "Queue", "urllib2"}
_STATES = ("state_dict", "model", "net", "network", "model_state_dict", "module")
_MODULE_PARTS = {"_parameters", "_modules"}


class Refused(Exception):
    """The file is refused; the message is a clause that says why."""


class StandIn:
    """In place of an object of any class: keeps its state, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **_: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                vars(self).update({str(name): value for name, value in part.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        """Dropped: an item of a mapping of an unknown class."""

    def append(self, value: Any) -> None:
        """Dropped: an item of a list of an unknown class."""

    def extend(self, values: Any) -> None:
        """Dropped: items of a list of an unknown class."""

    def __hash__(self) -> int:
        return id(self)


class Constructor:
    """In place of a function that the file may call. Nothing can be set on it, unlike on a function."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused("changes a function, which no network needs and which could be used to run code")

    def __setstate__(self, state: Any) -> None:
        raise Refused("changes a function, which no network needs and which could be used to run code")


def _parameter(data: Any, *_: Any) -> Any:
    """In place of torch's: the tensor of a parameter."""
    return data


def _encoded(text: Any, *_: Any) -> bytes:
    """In place of _codecs.encode, with which old pickles hold bytes."""
    return text.encode("latin1") if isinstance(text, str) else b""


def _real() -> dict[tuple[str, str], Any]:
    """What the file may really use, by module and name."""
    makers = {name: getattr(torch._utils, name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2")}
    makers |= dict.fromkeys(("_rebuild_parameter", "_rebuild_parameter_with_state"), _parameter)
    found: dict[tuple[str, str], Any] = {("torch._utils", name): Constructor(make) for name, make in makers.items()}
    found |= {("torch", "Size"): tuple, ("collections", "OrderedDict"): OrderedDict}
    found |= {("_codecs", "encode"): Constructor(_encoded)}
    for module in ("builtins", "__builtin__"):
        found |= {(module, kind.__name__): kind for kind in (set, frozenset, complex)}
    return found


def _without_sources(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """In place of torch's lookup of storages: a class that a file brings with its source is the class alone.

    torch would compare the source with the one at hand, and may write the difference to a file that the class names.
    """
    return lambda found: (
        found[1] if isinstance(found, tuple) and found[:1] in (("module",), (b"module",)) else load(found)
    )


class Unpickler(pickle.Unpickler):
    """Replaces what the file names by stand-ins; lists the names in ``named``."""

    named: dict[str, type] = {}  # noqa: RUF012  one file per process
    real = _real()

    def __setattr__(self, name: str, value: Any) -> None:
        """torch sets ``persistent_load``."""
        super().__setattr__(name, _without_sources(value) if name == "persistent_load" else value)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.real:
            return self.real[module, name]
        top = module.partition(".")[0]
        if (top in sys.stdlib_module_names and top not in _HARMLESS) or top in _PYTHON_2:
            raise Refused(f"names {module}.{name}, which no network needs and which could be used to run code")
        return self.named.setdefault(f"{module}.{name}", type("StandIn", (StandIn,), {"dump_patches": False}))


def _no_script(*_: Any, **__: Any) -> Any:
    raise Refused("is a TorchScript archive, whose code is not run")


def loaded(path: str) -> Any:
    """Return the file's content, with stand-ins for objects."""
    with open(path, "rb") as stream:  # noqa: PTH123  no more than needed is imported here
        start = stream.read(4)
    if start[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                _no_script()
    elif start[:1] != b"\x80":
        raise Refused("is no file that torch.save wrote")
    elif tarfile.is_tarfile(path):
        raise Refused("is a tar archive, as torch wrote before 0.2: its files are not unpacked")
    module: Any = SimpleNamespace(
        __name__="stand-ins", Unpickler=Unpickler, load=lambda f, **options: Unpickler(f, **options).load()
    )
    warnings.simplefilter("ignore")
    script_load, torch.jit.load = torch.jit.load, _no_script  # torch may see other entries in an archive than zipfile
    try:
        return torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)
    finally:
        torch.jit.load = script_load


def taken_out(content: Any) -> dict[str, Any]:
    """Return the tensors of a network in a file's content, and what GReg's code keeps beside them."""
    found: dict[str, Any] = {"state_dict": _state(content), "masks": {}, "kept_wg": {}, "pruned_wg": {}}
    if not found["state_dict"]:
        raise Refused("holds no state dict and no module with parameters")
    if isinstance(content, dict):
        for key in ("mask", "masks"):
            found["masks"] |= _tensors(content.get(key))
        for key in ("kept_wg", "pruned_wg"):
            found[key] = _indices(content.get(key))
    return found


def _state(content: Any) -> dict[str, torch.Tensor]:
    if isinstance(content, dict):
        for key in _STATES:
            if state := _state(content[key]) if key in content else {}:
                return state
        return _tensors(content)
    if isinstance(content, StandIn) and vars(content).keys() >= _MODULE_PARTS:
        return dict(_of_module(content, "", set()))
    return {}


def _of_module(module: Any, prefix: str, above: set[int]) -> Any:
    """Yield the parameters and persistent buffers of a module, as its state dict has them."""
    if id(module) in above:
        raise Refused("holds a module that contains itself")
    own = vars(module) if isinstance(module, StandIn) else {}
    hidden = own.get("_non_persistent_buffers_set", ())
    for part in ("_parameters", "_buffers"):
        yield from _tensors(own.get(part), prefix, hidden if part == "_buffers" else ()).items()
    inner = own.get("_modules")
    for name, child in inner.items() if isinstance(inner, dict) else ():
        yield from _of_module(child, f"{prefix}{name}.", above | {id(module)})


def _tensors(mapping: Any, prefix: str = "", hidden: Any = ()) -> dict[str, torch.Tensor]:
    if not isinstance(mapping, dict):
        return {}
    return {
        f"{prefix}{name}": value.detach().cpu().clone().contiguous()
        for name, value in mapping.items()
        if isinstance(value, torch.Tensor) and name not in hidden
    }


def _indices(mapping: Any) -> dict[str, list[int]]:
    """Lists of whole numbers by name; a tensor counts as one."""
    found = {}
    for name, value in mapping.items() if isinstance(mapping, dict) else ():
        numbers = value.flatten().tolist() if isinstance(value, torch.Tensor) else value
        if isinstance(numbers, list | tuple):
            plain = [int(n) for n in numbers if isinstance(n, int | torch.Tensor) and not isinstance(n, bool)]
            if len(plain) == len(numbers):
                found[str(name)] = plain
    return found


def limit_memory(path: str) -> None:
    """Let this process have 4 GiB and twelve times the file's size of memory, where the system can say so."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        most = (4 << 30) + 12 * os.path.getsize(path)  # noqa: PTH202
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def main(path: str, to: str) -> int:
    """Convert a file; returns the exit code."""
    try:
        limit_memory(path)
        torch.save(taken_out(loaded(path)), to)
    except Refused as reason:
        print(json.dumps({"error": str(reason)}))
        return 3
    except BaseException as error:  # noqa: BLE001  damaged pickles raise errors of every kind
        print(
            json.dumps({"error": f"cannot be read ({type(error).__name__}): it is damaged, or holds what is not known"})
        )
        return 3
    print(json.dumps({"objects": sorted(Unpickler.named)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
