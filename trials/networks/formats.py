"""Read files of weights as people have them: which mapping in them is the state dict, and what it holds beside it."""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trials.called import trial_command
from trials.compact import Kept
from trials.errors import UserError
from trials.networks.masks_beside import looks_like_masks, masks_among

CONTAINERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    *("ema", "model_ema", "state_dict_ema", "params_ema", "ema_state_dict"),
)
"""Keys under which checkpoints hold a state dict."""

SAVE = 'torch.save({"state_dict": model.state_dict()}, "weights.pt")'
_DEEPEST = 3
_GLOBAL = re.compile(r"GLOBAL ([A-Za-z_][\w.]*\w)")


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Attributes:
        tensors: by the names that they have in the file.
        architecture: of a compact network: its model, classes and channels; None for other files.
        kept: of a compact network: the rows of the dense network that are left.
        masks: what lies as masks beside the state dict, by the weights' names that it has there; not yet checked.
        masks_key: the key under which the file holds them, dotted; empty without masks.
    """

    tensors: dict[str, Tensor]
    architecture: Mapping[str, Any] | None = None
    kept: Kept = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    masks_key: str = ""


def read_weights(content: bytes, what: str) -> Weights:
    """Read the content of a file; ``what`` names the file at the beginning of messages.

    Raises:
        UserError: it is no checkpoint of tensors, or not clear which of its parts is the state dict.
    """
    loaded = _loaded(content, what)
    if not isinstance(loaded, Mapping):
        kind = type(loaded).__name__
        raise UserError(f"{what}, but must hold a state dict, and holds a {kind}: write it with {SAVE}")
    if {"net", "rows", "position"} <= loaded.keys():
        raise UserError(
            f"{what}, but that is a checkpoint of a trial: export the trial ({trial_command()} export TRIAL --to "
            "FILE) and name that file"
        )
    compact = [loaded[key] for key in ("state_dict", "architecture", "kept") if isinstance(loaded.get(key), Mapping)]
    if len(compact) == 3:
        tensors, where = dict(compact[0]), "state_dict"
    else:
        tensors, where = _state_in(loaded, what)
    key, masks = masks_among(dict(_beside(loaded, where)), what)
    _require_values(tensors, what)
    _require_values(masks, what)
    if len(compact) == 3:
        return Weights(tensors, dict(compact[1]), dict(compact[2]), masks, key)
    return Weights(tensors, masks=masks, masks_key=key)


def _require_values(tensors: Mapping[Any, Any], what: str) -> None:
    """Raises UserError unless all are dense tensors with values."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            has = f"a {type(tensor).__name__}"
        elif tensor.layout is not torch.strided:
            has = f"a tensor of layout {str(tensor.layout).removeprefix('torch.')}"
        elif tensor.is_meta:
            has = "a tensor without values (device meta)"
        else:
            continue
        raise UserError(f"{what}, but has {has} as {printable(name)}, and must have dense ones: write it with {SAVE}")


def printable(name: object) -> str:
    """A name from a file, for a message of one line: names may hold anything."""
    text = str(name)
    return text if text.isprintable() else ascii(text)


def _state_in(loaded: Mapping[Any, Any], what: str) -> tuple[dict[str, Tensor], str]:
    """The state dict and its dotted path in the file, empty if the file is the state dict."""
    found = dict(_containers(loaded, "", _DEEPEST))
    if len(found) > 1:
        keys = " and ".join(map(repr, found))
        raise UserError(
            f"{what}, but holds weights under {keys}, and only one can be meant: write that alone with {SAVE}"
        )
    if found:
        where, state = next(iter(found.items()))
        return state, where
    state = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    _require_no_mapping(loaded, what)
    arrays = [name for name, value in loaded.items() if isinstance(value, np.ndarray)]
    if not state and arrays:
        raise UserError(
            f"{what}, but has {printable(arrays[0])} as a numpy array, and must have tensors: convert them with "
            f"torch.from_numpy, and write them with {SAVE}"
        )
    if not state:
        keys = ", ".join(map(printable, list(loaded)[:5])) or "nothing"
        among = ", ".join(CONTAINERS[:5])
        raise UserError(
            f"{what}, but must hold a state dict, or one under a key such as {among}, and holds {keys}: "
            f"write it with {SAVE}"
        )
    return state, ""


def _require_no_mapping(loaded: Mapping[Any, Any], what: str) -> None:
    """Raises UserError if weights stand beside a mapping, which may hold weights as well, in one mapping."""
    for above, content in (("", loaded), *((f"{key}.", loaded.get(key)) for key in CONTAINERS)):
        if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
            continue
        others = [f"{above}{name}" for name in _mappings(content)]
        if others:
            raise UserError(
                f"{what}, but holds {printable(others[0])}, a mapping, beside single weights, and may mean either: put "
                f"the weights under a key of their own, with {SAVE}"
            )


def _mappings(content: Mapping[Any, Any]) -> list[str]:
    """Names of the mappings that are no masks."""
    inner = [(str(name), value) for name, value in content.items() if isinstance(value, Mapping)]
    return [name for name, value in inner if not looks_like_masks(name, value)]


def _beside(loaded: Mapping[Any, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Yield what the file holds beside the state dict at the dotted path ``where``, by dotted path."""
    level, above = loaded, ""
    for key in filter(None, where.split(".")):
        yield from ((f"{above}{name}", value) for name, value in level.items() if name != key)
        level, above = level[key], f"{above}{key}."
    yield from ((f"{above}{name}", value) for name, value in level.items() if not isinstance(value, Tensor))


def _containers(content: Mapping[Any, Any], above: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every state dict below a key of CONTAINERS, by its dotted path."""
    for key in CONTAINERS:
        value = content.get(key)
        if not isinstance(value, Mapping) or not depth:
            continue
        inner = list(_containers(value, f"{above}{key}.", depth - 1))
        if inner:
            yield from inner
        elif value and all(isinstance(name, str) for name in value):
            tensors = {name: tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
            if tensors and not _mappings(value):
                yield f"{above}{key}", tensors


def _loaded(content: bytes, what: str) -> Any:
    if not content:
        raise UserError(f"{what}, but must hold weights, and is empty: write it with {SAVE}")
    if _is_safetensors(content):
        return _from_safetensors(content, what)
    try:
        with torch.serialization.safe_globals(_numpy()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the form of the file; what cannot be read is said below
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  damaged pickles raise errors of every kind, and all say the same
        raise UserError(f"{what}, but {_why(content, error)}") from None


def _why(content: bytes, error: Exception) -> str:
    """The rest of the message on a file that torch does not read, in place of torch's text of many lines."""
    text = str(error)
    if "TorchScript" in text or "torchscript" in text:
        return (
            "that is a TorchScript archive, whose code is not run: write its weights with "
            'torch.save({"state_dict": torch.jit.load(FILE).state_dict()}, "weights.pt")'
        )
    if ".tar format" in text:
        return f"that is in torch's .tar format of before 2018: load it with such a version and write it with {SAVE}"
    classes = _classes(content, text)
    if classes:
        return (
            f"holds objects of {', '.join(classes)}, and reading these could run code of the file: if you trust it, "
            f"convert it ({trial_command()} convert_pickle FILE --to FILE), or write the weights alone with {SAVE}"
        )
    kind = type(error).__name__
    return f"must be a whole checkpoint of tensors, and torch cannot read it ({kind}): write it with {SAVE}"


def _classes(content: bytes, text: str) -> list[str]:
    """Names of at most three classes in the file that torch does not build."""
    try:
        with torch.serialization.safe_globals(_numpy()):
            found = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
    except Exception:  # noqa: BLE001  no zip file: the error itself may name the class
        found = _GLOBAL.findall(text)
    return sorted(map(printable, dict.fromkeys(found)))[:3]


def _numpy() -> list[Any]:
    """What torch may build beside tensors: numpy's numbers and arrays, under the names of numpy 1 and 2."""
    from numpy._core import multiarray

    dtypes = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type) and issubclass(kind, np.dtype)]
    numbers = {np.dtype(code).type for code in "?bBhHiIlLqQefd"}
    functions = [
        (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for core in ("core", "_core")
    ]
    return [np.dtype, np.ndarray, *dtypes, *sorted(numbers, key=str), *functions]


def _is_safetensors(content: bytes) -> bool:
    """Whether the file begins as safetensors do: the length of a header (8 bytes) and the header, in JSON."""
    return content[8:9] == b"{" and 2 <= int.from_bytes(content[:8], "little") <= len(content) - 8


def _from_safetensors(content: bytes, what: str) -> Any:
    if importlib.util.find_spec("safetensors") is None:
        raise UserError(
            f"{what}, but safetensors is not installed: install it, or write the file with "
            'torch.save(safetensors.torch.load_file(FILE), "weights.pt")'
        )
    module = importlib.import_module("safetensors.torch")
    try:
        return module.load(content)
    except Exception as error:  # noqa: BLE001  the library's errors have no common base
        raise UserError(
            f"{what}, but its safetensors cannot be read ({type(error).__name__}): write them again"
        ) from None
