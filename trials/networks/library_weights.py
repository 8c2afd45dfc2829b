"""The weights that torchvision and timm have for their own models (``source_net: pretrained``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from trials.errors import UserError
from trials.networks.hub import fetched_to_hub
from trials.optional import require
from trials.storage.read_once import stamp_of

_SOURCE = "source_net is 'pretrained': the weights"
_WAY_OUT = "put it there, or give a file of weights as source_net"


def weights_file(model: str) -> Path:
    """Return the file of a library's weights for ``torchvision:NAME`` or ``timm:NAME``, downloaded where it is missing.

    torchvision's are its ``DEFAULT`` weights, in torch's hub cache ($TORCH_HOME/hub/checkpoints). timm's are those of
    the name's tag, or of the model's first tag, in Hugging Face's cache ($HF_HOME/hub) or in torch's.

    Raises:
        UserError: the library has none for this model, or they can neither be found nor downloaded.
    """
    library, _, name = model.partition(":")
    return _torchvision_file(name) if library == "torchvision" else _timm_file(name)


def _torchvision_file(name: str) -> Path:
    from torchvision import models

    if name in ("googlenet", "inception_v3"):
        raise UserError(
            f"source_net is 'pretrained', but torchvision's weights of {name} are for inputs that the network "
            "normalises once more: give a file of weights, or another model"
        )
    url = str(models.get_model_weights(name)["DEFAULT"].url)
    return fetched_to_hub(url, f"{_SOURCE} of torchvision's {name}", _WAY_OUT)


def _timm_file(name: str) -> Path:
    timm = require("timm", "timm", f"model 'timm:{name}'")
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise UserError(
            f"source_net is 'pretrained', but timm has no weights for {name}: give a file, or another model"
        )
    if config.hf_hub_id:
        return _from_hugging_face(name, config.hf_hub_id, config.hf_hub_filename or "pytorch_model.bin")
    return fetched_to_hub(config.url, f"{_SOURCE} of timm's {name}", _WAY_OUT)


def _from_hugging_face(name: str, place: str, file: str) -> Path:
    """Path of a file in Hugging Face's cache; of two forms of the same weights, safetensors is taken."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = place.partition("@")
    safe = {"pytorch_model.bin": "model.safetensors"}.get(file, f"{file.removesuffix('.bin')}.safetensors")
    files = [safe, file] if file.endswith(".bin") else [file]
    for each in files:
        found = try_to_load_from_cache(repository, each, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    for each in files:
        try:
            return Path(hf_hub_download(repository, each, revision=revision or None))
        except Exception as error:  # noqa: BLE001  offline, no such repository, a full disk: several libraries' errors
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue  # the repository has only the other form
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"{_SOURCE} of timm's {name} are not in Hugging Face's cache, and {repository} cannot be downloaded "
                f"({type(error).__name__}: {reason}): fetch it where there is a network (huggingface-cli download "
                f"{repository} {files[0]}), or give a file of weights as source_net"
            ) from None
    raise UserError(
        f"{_SOURCE} of timm's {name} are not in {repository} ({' or '.join(files)}): give a file of weights"
    )


def library_state(model: str, file: Path, network: nn.Module) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the values of a library's weights that fit a network of its model, and the names of those that do not.

    The latter are those of the last layer, where the network has another number of classes. timm adapts a first
    convolution to another number of channels; torchvision's weights take 3.

    Args:
        model: ``torchvision:NAME`` or ``timm:NAME``.
        file: as :func:`weights_file` returns it.
        network: built as the config says, on any device, also without values.

    Raises:
        UserError: the file is damaged, or its weights fit the network in no such way.
    """
    channels = next((m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d)), 3)
    state, classes = _read(model, file, channels, stamp_of(file))
    wanted = network.state_dict()
    if state.keys() != wanted.keys():
        _refuse(model, f"hold other layers, as {min(state.keys() ^ wanted.keys())}")
    other = tuple(name for name in state if state[name].shape != wanted[name].shape)
    for name in other:
        found, needed = list(state[name].shape), list(wanted[name].shape)
        if found[:1] != [classes] or found[1:] != needed[1:]:
            _refuse(model, f"have {name} of shape {found}, and the network needs {needed}")
    return {name: value for name, value in state.items() if name not in other}, other


@lru_cache(maxsize=1)
def _read(model: str, file: Path, channels: int, stamp: tuple[int, ...]) -> tuple[dict[str, Tensor], int]:
    """The library's state dict for so many channels, and its number of classes; callers must not change it."""
    library, _, name = model.partition(":")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        try:
            found: Any = _torchvision(name, channels) if library == "torchvision" else _timm(name, file, channels)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  the library's own: of unpickling, of names, of shapes
            _refuse(model, f"cannot be loaded ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})")
    network, classes = found
    return dict(network.state_dict()), classes


_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def _torchvision(name: str, channels: int) -> tuple[nn.Module, int]:
    from torchvision import models

    if channels != 3:
        _refuse(f"torchvision:{name}", f"read 3 channels, and the data have {channels}")
    weights = models.get_model_weights(name)["DEFAULT"]
    with _tensors_only():
        return models.get_model(name, weights=weights, progress=False), len(weights.meta["categories"])


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Let torch.load unpickle tensors only, where a library calls it otherwise."""
    before = os.environ.get(_TENSORS_ONLY)
    os.environ[_TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TENSORS_ONLY]
        else:
            os.environ[_TENSORS_ONLY] = before


def _timm(name: str, file: Path, channels: int) -> tuple[nn.Module, int]:
    import timm
    from timm.models import load_state_dict

    weights = (
        {"file": str(file)} if file.suffix == ".npz" else {"state_dict": load_state_dict(str(file), weights_only=True)}
    )
    network: Any = timm.create_model(name, pretrained=True, in_chans=channels, pretrained_cfg_overlay=weights)
    return network, int(network.num_classes)


def _refuse(model: str, why: str) -> NoReturn:
    raise UserError(
        f"source_net is 'pretrained', but the weights of {model} {why}: give a file of weights, or pretrain"
    )
