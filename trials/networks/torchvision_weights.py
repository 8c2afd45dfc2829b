"""Networks that torchvision has trained on ImageNet, by torchvision's names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import nn

from trials.errors import UserError, unknown_name
from trials.models.imagenet_resnet import TORCHVISION
from trials.networks.load import load_into

WEIGHTS = "IMAGENET1K_V1"
"""The weights of the published tables; later ones of the same networks are others."""


def pretrained(name: str, *, num_classes: int, weights: Path | None = None) -> nn.Module:
    """torchvision's model ``name`` in evaluation mode on the CPU, with the weights of a file, or else torchvision's.

    Those are taken from torch's hub cache ($TORCH_HOME/hub/checkpoints), and fetched into it where they are not there.

    Raises:
        UserError: there is no such model, its weights can neither be found nor fetched, or they are not this model's.
    """
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise UserError(unknown_name("network", name, names))
    path, field = (weights, f"weights of {name}") if weights is not None else (_from_hub(name), f"{WEIGHTS} of {name}")
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    load_into(model, path.expanduser(), field)
    return model.eval().requires_grad_(False)


def _from_hub(name: str) -> Path:
    """The file of torchvision's weights in the hub cache; fetched where it is missing."""
    from torchvision import models

    try:
        url = str(models.get_model_weights(name)[WEIGHTS].url)
    except KeyError:
        raise UserError(
            f"network is {name!r}, but torchvision has no {WEIGHTS} of it: name a file of weights"
        ) from None
    path = _cached(url)
    try:
        _fetch(url, path)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"weights of {name} are not at {path} and cannot be fetched ({error}): bring {url} there, or name a "
            f"file of them (--weights {name}=FILE)"
        ) from None
    return path


def source_path(source_net: str, model: str) -> Path:
    """The file that ``source_net`` names; ``torchvision`` is downloaded once, to where torch.hub keeps such files.

    Raises:
        UserError: it is not there and cannot be downloaded.
    """
    if source_net != "torchvision":
        return Path(source_net).expanduser()
    from torchvision.models import get_weight

    url: str = get_weight(TORCHVISION[model]).url
    path = _cached(url)
    try:
        _fetch(url, path)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"source_net is 'torchvision', but {url} cannot be downloaded ({error}): put it at {str(path)!r}"
        ) from None
    return path


def _cached(url: str) -> Path:
    """Where torch.hub keeps the file of ``url``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def _fetch(url: str, path: Path) -> None:
    """Download ``url`` to ``path`` where that is missing; torchvision's names end in the hash of their content.

    Raises:
        OSError: there is no network (URLError is an OSError), or ``path`` cannot be written.
        RuntimeError: the content has another hash.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
