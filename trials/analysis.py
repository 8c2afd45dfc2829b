"""Analyse the stored networks of trials: accuracy overall and per class, recovered images, saliency per class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from trials.config.trial_config import TrialConfig
from trials.data import load_data
from trials.errors import DamagedFile, UserError, one_line, unknown_name
from trials.methods.parsing import parse
from trials.networks.stored import checkpoint, naming_shapes, whole_masks
from trials.regrowth.saliency import class_saliency
from trials.sparsity import density_of, prunable
from trials.sparsity.accounting import LayerSizes, summary
from trials.storage.config_file import CONFIG, read_config
from trials.storage.place import Place
from trials.training.arithmetic import arithmetic_of
from trials.training.build import build_loader, build_net
from trials.training.device import resolve_device
from trials.training.evaluation import evaluate
from trials.training.net import Batch, Net

_MOST_VALUES = 10**9
"""Most values of a per-class saliency: 4 GB in float32."""


def load_trial(folder: Place, data_dir: str | None = None) -> tuple[TrialConfig, Net]:
    """Return a trial's config and its last committed network, on the config's device.

    Args:
        data_dir: where the trial's data lie now; None for the folder that its config names.

    Raises:
        UserError: the folder holds no trial with a checkpoint, or the data are not those that it was trained on.
    """
    try:
        config = parse(read_config(folder).config)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{str(folder)!r} must be the folder of a trial, but has no config.json") from None
    except (OSError, ValueError, KeyError, TypeError, DamagedFile) as error:
        path, reason = folder / CONFIG, one_line(str(error) or type(error).__name__)
        raise UserError(f"{str(path)!r} must describe a trial, but cannot be read ({reason}): run it again") from None
    if data_dir is not None:
        config = config.model_copy(update={"data_dir": data_dir})
    content, raw = checkpoint(folder), load_data(*config.data_key)
    if content["data"] != raw.fingerprint:
        raise UserError(
            f"{folder.name} was trained on {config.dataset} with fingerprint {content['data']}, but the data here have "
            f"{raw.fingerprint}: give the folder of the trial's data (--data-dir)"
        )
    net = build_net(config, raw, resolve_device(config.device), values=False)
    with naming_shapes(folder):
        net.load_state_dict(content["net"])
    return config, net


def retention(folders: Sequence[Place]) -> dict[str, list[float]]:
    """Share of weights that each trial keeps, per layer that is masked or cut, in the network's order; else 1.

    The share is one of the whole model's weights, also for a compact network.

    Raises:
        UserError: a folder holds no trial with a checkpoint.
    """
    masks = [whole_masks(folder, checkpoint(folder)) for folder in folders]
    names = dict.fromkeys(name for found in masks for name in found)
    return {
        name.removesuffix(".weight"): [density_of({name: m[name]}) if name in m else 1.0 for m in masks]
        for name in names
    }


def sparsity_accuracy(
    folders: Iterable[Place], split: str = "test", data_dir: str | None = None
) -> list[dict[str, Any]]:
    """Evaluate each trial's stored network; one row (trial, sparsity as in its rows, loss, accuracy) per trial."""
    rows = []
    for folder in folders:
        config, net = load_trial(folder, data_dir)
        raw = load_data(*config.data_key)
        sizes = LayerSizes.of(build_net(config, raw, net.device, values=False), raw)
        sparsity = summary(net, sizes)["sparsity"]
        with arithmetic_of(config, net.device):
            loss, accuracy = evaluate(net, build_loader(config, raw, net.device), split)
        rows.append({"trial": folder.name, "sparsity": sparsity, "loss": loss, "accuracy": accuracy})
    return rows


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy per class of one network on one split.

    Attributes:
        confusion: number of images of class i (rows) that were predicted as class j, int64 [C, C].
        top5: number of images per class with their own class among the five likeliest, int64 [C].
    """

    confusion: Tensor
    top5: Tensor

    @property
    def top1_accuracy(self) -> Tensor:
        """Top-1 accuracy per class in [0, 1], [C]; NaN for a class without images."""
        return self.confusion.diag() / self.confusion.sum(1)

    @property
    def top5_accuracy(self) -> Tensor:
        return self.top5 / self.confusion.sum(1)


def class_accuracy(
    folder: Place, split: str = "test", batch_size: int = 500, data_dir: str | None = None
) -> ClassAccuracy:
    """Evaluate a trial's network per class."""
    config, net = load_trial(folder, data_dir)
    raw = load_data(*config.data_key)
    data = build_loader(config, raw, net.device)
    classes = raw.num_classes
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=net.device)
    top5 = torch.zeros(classes, dtype=torch.int64, device=net.device)
    net.model.eval()
    with arithmetic_of(config, net.device), torch.no_grad():
        for x, y in data.eval_batches(split, batch_size):
            likeliest = net.logits(x).topk(min(5, classes), dim=1).indices  # [B, 5]
            confusion += torch.bincount(y * classes + likeliest[:, 0], minlength=classes * classes)
            top5 += torch.bincount(y[(likeliest == y[:, None]).any(1)], minlength=classes)
    return ClassAccuracy(confusion.view(classes, classes).cpu(), top5.cpu())


def recovered(
    before: Place, after: Place, most_per_class: int = 5, data_dir: str | None = None
) -> dict[int, list[int]]:
    """Positions of test images that ``before``'s network gets wrong and ``after``'s right, by class, a few for each.

    Raises:
        UserError: the trials are of different data.
    """
    known, before_labels = _hits(before, data_dir)
    right, labels = _hits(after, data_dir)
    if not torch.equal(before_labels, labels):
        raise UserError(f"{before.name} and {after.name} have different test images: give trials on the same data")
    found: dict[int, list[int]] = {}
    for position in (~known & right).nonzero().squeeze(1).tolist():
        chosen = found.setdefault(int(labels[position]), [])
        if len(chosen) < most_per_class:
            chosen.append(position)
    return found


def _hits(folder: Place, data_dir: str | None) -> tuple[Tensor, Tensor]:
    """Whether the trial's network predicts each test image correctly (bool [N]), and the labels (int64 [N])."""
    config, net = load_trial(folder, data_dir)
    data = build_loader(config, load_data(*config.data_key), net.device)
    net.model.eval()
    with arithmetic_of(config, net.device), torch.no_grad():
        parts = [((net.logits(x).argmax(1) == y).cpu(), y.cpu()) for x, y in data.eval_batches("test", 500)]
    return torch.cat([hits for hits, _ in parts]), torch.cat([labels for _, labels in parts])


@dataclass(frozen=True)
class LayerSaliency:
    """Saliency of one layer's kept weights for every class.

    Attributes:
        values: float [classes, kept].
        indices: flat indices of these weights in the layer's weight, int64 [kept].
        total: weights of the layer.
    """

    values: Tensor
    indices: Tensor
    total: int


def saliency_by_class(
    folder: Place,
    *,
    split: str = "train",
    batches: int = 50,
    batch_size: int = 128,
    order: Literal["first", "second"] = "second",
    layers: Sequence[str] = (),
    data_dir: str | None = None,
) -> tuple[dict[str, LayerSaliency], list[int]]:
    """Return the saliency of a trial's kept weights for every class, by layer, and the images seen of each class.

    Pruned weights are left out: their saliency is 0 for every class, which would only flatten the statistics.

    Args:
        split: images that are read, without augmentation; ``train`` in an order drawn from the trial's seed.
        batches: at most so many of ``batch_size`` images are read.
        layers: names of convolutions and linear layers; empty for all.

    Raises:
        UserError: there is no such layer, or the values would not fit into memory.
    """
    config, net = load_trial(folder, data_dir)
    raw = load_data(*config.data_key)
    weights = prunable(net.model)
    chosen = _chosen(weights, layers)
    _require_room(raw.num_classes, sum(w.numel() for w in chosen.values()))
    data = build_loader(config, raw, net.device)
    read = (
        data.batches(seed=config.seed, epoch=0, stream="saliency", batch_size=batch_size, augment=False)
        if split == "train"
        else data.eval_batches(split, batch_size)
    )
    seen: list[Batch] = list(islice(read, batches))
    with arithmetic_of(config, net.device):
        found = class_saliency(net.model, seen, chosen, raw.num_classes, order)
    images = torch.bincount(torch.cat([y for _, y in seen]).cpu(), minlength=raw.num_classes).tolist()
    result = {}
    for name, values in found.items():
        mask = net.masks.get(name)
        kept = torch.arange(values.shape[1], device=values.device) if mask is None else mask.reshape(-1).nonzero()[:, 0]
        result[name.removesuffix(".weight")] = LayerSaliency(values[:, kept].cpu(), kept.cpu(), values.shape[1])
    return result, images


def _chosen(weights: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, Tensor]:
    names = [name.removesuffix(".weight") for name in weights]
    for layer in layers:
        if layer not in names:
            raise UserError(unknown_name("--layers", layer, names))
    return {name: w for name, w in weights.items() if not layers or name.removesuffix(".weight") in layers}


def _require_room(classes: int, weights: int) -> None:
    if classes * weights > _MOST_VALUES:
        raise UserError(
            f"{classes} classes of {weights:,} weights are {classes * weights:,} values, but must be at most "
            f"{_MOST_VALUES:,}: name some layers (--layers)"
        )
