"""Analyse the stored networks of trials: weights kept per layer, accuracy overall and per class, recovered images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trials.config.trial_config import TrialConfig
from trials.data import load_data
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.networks.stored import checkpoint, network_of, whole_masks
from trials.sparsity import density_of
from trials.sparsity.accounting import LayerSizes, summary
from trials.training.build import build_loader, build_net
from trials.training.device import resolve_device
from trials.training.evaluation import evaluate
from trials.training.net import Net
from trials.yaml_text import read_yaml


def load_trial(folder: Path) -> tuple[TrialConfig, Net]:
    """Return a trial's config and its last committed network, on the config's device.

    Raises:
        UserError: the folder holds no trial with a checkpoint.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{str(folder)!r} must be the folder of a trial, but has no config.json")
    config = parse(read_yaml(path)["config"])  # JSON is YAML
    net = build_net(config, load_data(*config.data_key), resolve_device(config.device))
    net.load_state_dict(network_of(folder))
    return config, net


def retention(folders: Sequence[Path]) -> dict[str, list[float]]:
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


def sparsity_accuracy(folders: Iterable[Path], split: str = "test") -> list[dict[str, Any]]:
    """Evaluate each trial's stored network; one row (trial, sparsity as in its rows, loss, accuracy) per trial."""
    rows = []
    for folder in folders:
        config, net = load_trial(folder)
        raw = load_data(*config.data_key)
        sparsity = summary(net, LayerSizes.of(build_net(config, raw, net.device), raw))["sparsity"]
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


def class_accuracy(folder: Path, split: str = "test", batch_size: int = 500) -> ClassAccuracy:
    """Evaluate a trial's network per class."""
    config, net = load_trial(folder)
    raw = load_data(*config.data_key)
    data = build_loader(config, raw, net.device)
    classes = raw.num_classes
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=net.device)
    top5 = torch.zeros(classes, dtype=torch.int64, device=net.device)
    net.model.eval()
    with torch.no_grad():
        for x, y in data.eval_batches(split, batch_size):
            likeliest = net.logits(x).topk(min(5, classes), dim=1).indices  # [B, 5]
            confusion += torch.bincount(y * classes + likeliest[:, 0], minlength=classes * classes)
            top5 += torch.bincount(y[(likeliest == y[:, None]).any(1)], minlength=classes)
    return ClassAccuracy(confusion.view(classes, classes).cpu(), top5.cpu())


def recovered(before: Path, after: Path, most_per_class: int = 5) -> dict[int, list[int]]:
    """Positions of test images that ``before``'s network gets wrong and ``after``'s right, by class, a few for each."""
    known, _ = _hits(before)
    right, labels = _hits(after)
    found: dict[int, list[int]] = {}
    for position in (~known & right).nonzero().squeeze(1).tolist():
        chosen = found.setdefault(int(labels[position]), [])
        if len(chosen) < most_per_class:
            chosen.append(position)
    return found


def _hits(folder: Path) -> tuple[Tensor, Tensor]:
    """Whether the trial's network predicts each test image correctly (bool [N]), and the labels (int64 [N])."""
    config, net = load_trial(folder)
    data = build_loader(config, load_data(*config.data_key), net.device)
    net.model.eval()
    with torch.no_grad():
        parts = [((net.logits(x).argmax(1) == y).cpu(), y.cpu()) for x, y in data.eval_batches("test", 500)]
    return torch.cat([hits for hits, _ in parts]), torch.cat([labels for _, labels in parts])
