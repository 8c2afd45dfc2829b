"""torchvision's networks pretrained on ImageNet, by torchvision's names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from trials.errors import UserError, unknown_name
from trials.models.imagenet_resnet import TORCHVISION
from trials.networks.hub import fetched_to_hub, hub_path, require_named_content
from trials.networks.load import load_into
from trials.storage.place import Place
from trials.system.user_path import user_path

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
    return fetched_to_hub(url, f"weights of {name}", f"put it there, or give a file (--weights {name}=FILE)")


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
    path = hub_path(_url_of(model))
    if path.is_file():
        require_named_content(path, _SOURCE)


def source_path(source_net: str, model: str) -> Path:
    """Return the weights file that ``source_net`` names; for ``torchvision``, download it once into torch's hub cache.

    Raises:
        UserError: torchvision's weights are not in the cache and cannot be downloaded, or the file there has another
            content.
    """
    if source_net != "torchvision":
        return user_path(source_net, "source_net")
    return fetched_to_hub(_url_of(model), _SOURCE, "put it there")


def _url_of(model: str) -> str:
    from torchvision.models import get_weight

    return str(get_weight(TORCHVISION[model]).url)
