"""torchvision's networks pretrained on ImageNet, by torchvision's names."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import nn

from trials.errors import UserError, unknown_name
from trials.models.imagenet_resnet import TORCHVISION
from trials.networks.load import load_into
from trials.networks.named_files import digest_of_file
from trials.storage.place import Place

WEIGHTS = "IMAGENET1K_V1"
"""The weights used for the published tables; torchvision has newer ones for some of the networks."""

_SOURCE = "source_net is 'torchvision': its weights"


def pretrained(name: str, *, num_classes: int, weights: Place | None = None) -> nn.Module:
    """Build torchvision's model ``name`` in evaluation mode on the CPU, with weights from a file or from torchvision.

    torchvision's weights are read from torch's hub cache ($TORCH_HOME/hub/checkpoints) and downloaded there if missing.

    Raises:
        UserError: there is no such model, its weights can neither be found nor downloaded, the file there has another
            content than torchvision's, or the weights do not fit the model.
    """
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise UserError(unknown_name("network", name, names))
    path: Place
    path, field = (weights, f"weights of {name}") if weights is not None else (_from_hub(name), f"{WEIGHTS} of {name}")
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    load_into(model, path, field)
    return model.eval().requires_grad_(False)


def _from_hub(name: str) -> Path:
    """Path of torchvision's weights in the hub cache; downloaded if missing."""
    from torchvision import models

    try:
        url = str(models.get_model_weights(name)[WEIGHTS].url)
    except KeyError:
        raise UserError(
            f"network is {name!r}, but torchvision has no {WEIGHTS} weights for it: give a file (--weights {name}=FILE)"
        ) from None
    return _fetched(url, f"weights of {name}", f"put it there, or give a file (--weights {name}=FILE)")


def require_usable(model: str, num_classes: int, in_channels: int) -> None:
    """Check that torchvision's ImageNet weights fit a model for these classes and channels, without fetching them.

    If their file is in torch's hub cache already, its content is checked too.

    Raises:
        UserError: they do not fit, or the file there has another content than torchvision's.
    """
    if (num_classes, in_channels) != (1000, 3):
        raise UserError(
            f"source_net is 'torchvision', whose {model} has 1000 classes and reads 3 channels, but the data have "
            f"{num_classes} classes and {in_channels} channels: give a file of weights for these, or pretrain"
        )
    path = _cached(_url_of(model))
    if path.is_file():
        _require_content(path, _SOURCE)


def source_path(source_net: str, model: str) -> Path:
    """Return the weights file that ``source_net`` names; for ``torchvision``, download it once into torch's hub cache.

    Raises:
        UserError: torchvision's weights are not in the cache and cannot be downloaded, or the file there has another
            content.
    """
    if source_net != "torchvision":
        return Path(source_net).expanduser()
    return _fetched(_url_of(model), _SOURCE, "put it there")


def _url_of(model: str) -> str:
    from torchvision.models import get_weight

    return str(get_weight(TORCHVISION[model]).url)


def _cached(url: str) -> Path:
    """Path at which torch.hub caches the file of ``url``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def _hash_in(name: str) -> str:
    """The first hex digits of a file's SHA-256, with which torchvision's file names end."""
    return Path(name).stem.rpartition("-")[2]


def _fetched(url: str, what: str, way_out: str) -> Path:
    """Path at which torch.hub caches the file of ``url``; downloaded if missing.

    The content is compared with the hash at the end of the file's name, whether it was there or is downloaded.

    Raises:
        UserError: the file cannot be downloaded or written, and then the message ends with ``way_out``; or its content
            has another hash. The message begins with ``what``.
    """
    path = _cached(url)
    if path.is_file():
        _require_content(path, what)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_hash_in(path.name), progress=False)
    except (OSError, RuntimeError) as error:  # no network (URLError is an OSError); another hash (RuntimeError)
        raise UserError(f"{what} are not at {path}, and {url} cannot be downloaded ({error}): {way_out}") from None
    return path


def _require_content(path: Path, what: str) -> None:
    """Check that a file's content has the hash at the end of its name.

    Raises:
        UserError: it has another one, or cannot be read; the message begins with ``what``.
    """
    there, expected = path.stat(), _hash_in(path.name)
    found = _digest_of(path, f"{what} are at {path}", there.st_size, there.st_mtime_ns)
    if not found.startswith(expected[: len(found)]):
        raise UserError(
            f"{what} are at {path}, but the SHA-256 of that file is {found[: len(expected)]}..., and must begin with "
            f"{expected}, as its name says: delete it, and it is downloaded again"
        )


@lru_cache(maxsize=64)
def _digest_of(path: Path, what: str, size: int, changed_ns: int) -> str:
    """Hash of a file; it is read once for each size in bytes and time of change, since every trial asks for it."""
    return digest_of_file(path, what)
