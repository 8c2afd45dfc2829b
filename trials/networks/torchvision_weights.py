"""torchvision's networks pretrained on ImageNet, by torchvision's names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import nn

from trials.errors import UserError, unknown_name
from trials.models.imagenet_resnet import TORCHVISION
from trials.networks.load import load_into
from trials.storage.place import Place

WEIGHTS = "IMAGENET1K_V1"
"""The weights used for the published tables; torchvision has newer ones for some of the networks."""


def pretrained(name: str, *, num_classes: int, weights: Place | None = None) -> nn.Module:
    """Build torchvision's model ``name`` in evaluation mode on the CPU, with weights from a file or from torchvision.

    torchvision's weights are read from torch's hub cache ($TORCH_HOME/hub/checkpoints) and downloaded there if missing.

    Raises:
        UserError: there is no such model, its weights can neither be found nor downloaded, or they do not fit it.
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


def require_images(model: str, num_classes: int, in_channels: int) -> None:
    """Check that torchvision's ImageNet weights fit a model for these classes and channels, without fetching them.

    Raises:
        UserError: they do not.
    """
    if (num_classes, in_channels) != (1000, 3):
        raise UserError(
            f"source_net is 'torchvision', whose {model} has 1000 classes and reads 3 channels, but the data have "
            f"{num_classes} classes and {in_channels} channels: give a file of weights for these, or pretrain"
        )


def source_path(source_net: str, model: str) -> Path:
    """Return the weights file that ``source_net`` names; for ``torchvision``, download it once into torch's hub cache.

    Raises:
        UserError: torchvision's weights are not in the cache and cannot be downloaded.
    """
    if source_net != "torchvision":
        return Path(source_net).expanduser()
    from torchvision.models import get_weight

    url: str = get_weight(TORCHVISION[model]).url
    return _fetched(url, "source_net is 'torchvision': its weights", "put it there")


def _fetched(url: str, what: str, way_out: str) -> Path:
    """Path at which torch.hub caches the file of ``url``; downloaded if missing.

    The hash at the end of torchvision's file names is checked.

    Raises:
        UserError: the file cannot be downloaded or written, or its content has another hash; begins with ``what`` and
            ends with ``way_out``.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
    except (OSError, RuntimeError) as error:  # no network (URLError is an OSError); another hash (RuntimeError)
        raise UserError(f"{what} are not at {path}, and {url} cannot be downloaded ({error}): {way_out}") from None
    return path
