"""The network under training: its loss, its evaluation. Knows masks only as tensors that multiply."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trials import models
from trials.compact import Architecture, Kept, cut_tensors, kept_rows, shrink
from trials.config import TrialConfig
from trials.data import Loader, Source, normalised_as_imagenet, place
from trials.errors import UserError
from trials.strides import beside

Batch = tuple[Tensor, Tensor]

_DTYPES = {"float32": torch.float32, "bf16": torch.float32, "float64": torch.float64}


def resolve_device(name: str) -> torch.device:
    """``auto`` is the current CUDA device where there is one, otherwise the CPU.

    Raises:
        UserError: there is no such device.
    """
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:  # torch without CUDA says so by an AssertionError
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise UserError(f"device is {name!r}, but must be auto or a device of this machine ({reason})") from None
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def limit_gpu_memory(share: float) -> None:
    """Let this process use only a share of the card's memory: others have the rest. Not yet run on a GPU."""
    if 0 < share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def resolve_precision(config: TrialConfig, device: torch.device) -> str:
    """``auto`` is bfloat16 autocast on CUDA and float32 elsewhere."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" else "float32"


def resolve_memory_format(config: TrialConfig, device: torch.device) -> torch.memory_format:
    """``auto`` is channels last on CUDA, where convolutions want it."""
    if config.memory_format == "auto":
        return torch.channels_last if device.type == "cuda" else torch.contiguous_format
    return torch.channels_last if config.memory_format == "channels_last" else torch.contiguous_format


class Net:
    """A model whose parameters are the effective weights, the masks they obey, and snapshots to come back to.

    Attributes:
        masks: bool, by weight name; what they switch off is exactly zero in the model. Empty for a dense network.
        snapshots: state dicts by name, e.g. an early epoch to rewind to.
        picked: groups that a stage has chosen to remove (see trials/sparsity/groups.py): bool, by weight name.
        kept: of layers that :meth:`shrink` has made smaller, by weight name, the rows left of the dense network's.
    """

    def __init__(self, model: nn.Module, *, autocast: bool = False, compile_forward: bool = False) -> None:
        self.model = model
        self.masks: dict[str, Tensor] = {}
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        self.picked: dict[str, Tensor] = {}
        self.kept: Kept = {}
        self._autocast = autocast
        self._forward: Any = torch.compile(model) if compile_forward else model
        self._multipliers: dict[str, Tensor] = {}
        self._parameters = dict(model.named_parameters())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def logits(self, x: Tensor) -> Tensor:
        """The model's outputs [B, classes] in its precision, as float32 (float64 where the model is)."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            logits: Tensor = self._forward(x)
        return logits if logits.dtype == torch.float64 else logits.float()

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of a batch, and how many of it are right (on the device, without gradient)."""
        logits = self.logits(x)
        return F.cross_entropy(logits, y), (logits.detach().argmax(1) == y).sum()

    def set_masks(self, masks: Mapping[str, Tensor], latent: Mapping[str, Tensor] | None = None) -> None:
        """Obey these masks from now on: what they switch off becomes zero.

        With ``latent`` weights, the model's weights become mask times these; otherwise mask times themselves.
        """
        self.masks = dict(masks)
        self._multipliers = {name: beside(self._parameters[name], mask) for name, mask in self.masks.items()}
        self.project(latent or self._parameters)

    def update_masks(self, masks: Mapping[str, Tensor], latent: Mapping[str, Tensor]) -> None:
        """The same as :meth:`set_masks`, in the memory of the masks of now if there are any of these names.

        For what changes masks in a step: a captured step reads where it read when it was captured.
        """
        if masks.keys() != self.masks.keys():
            self.set_masks(masks, latent)
            return
        for name, mask in masks.items():
            self.masks[name].copy_(mask)
            self._multipliers[name].copy_(mask)
        self.project(latent)

    def project(self, latent: Mapping[str, Tensor]) -> None:
        """The model's masked weights become mask times ``latent``."""
        with torch.no_grad():
            for name, multiplier in self._multipliers.items():
                torch.mul(latent[name], multiplier, out=self._parameters[name])

    def multipliers(self) -> dict[str, Tensor]:
        """The masks in their weights' dtype and strides: on CPU, multiplying by these costs a twentieth of multiplying
        by bool."""
        return self._multipliers

    def snapshot(self, name: str) -> None:
        """Keep a copy of all parameters and buffers under ``name``."""
        self.snapshots[name] = {key: value.detach().clone() for key, value in self.model.state_dict().items()}

    def restore(self, name: str) -> None:
        """Parameters and buffers as they were at :meth:`snapshot`, under the masks of now."""
        self.model.load_state_dict(self.snapshots[name])
        self.set_masks(self.masks)

    def shrink(self, removed: Mapping[str, Tensor], pattern: Literal["filter", "channel"]) -> None:
        """Make the model physically smaller in place; masks and snapshots follow.

        Optimisers and tensors that a stage holds do not: shrink before they are made.

        Args:
            removed: by weight name, int64 indices, in the model of now, of the output rows (filter) or input columns
                (channel) that go. Filters take their BN and the columns of the layers that read them along; channels
                take along the rows that make them, with their BN.

        Raises:
            ValueError: a removal touches a sum, the image or the classifier's outputs, or leaves nothing of a layer.
        """
        self._keep(kept_rows(self.model, removed, pattern))

    def _keep(self, kept: Kept) -> None:
        if not kept:
            return
        cut = shrink(self.model, kept)
        self._parameters = dict(self.model.named_parameters())
        self.snapshots = {name: cut_tensors(content, cut) for name, content in self.snapshots.items()}
        self.kept |= {name: self.kept[name][rows] if name in self.kept else rows for name, rows in kept.items()}
        self.set_masks(cut_tensors(self.masks, cut))

    def clone(self) -> Net:
        """A network of its own with the same values and masks; without snapshots, in evaluation mode."""
        other = Net(copy.deepcopy(self.model).eval(), autocast=self._autocast)
        other.kept = dict(self.kept)
        other.set_masks(self.masks)
        return other

    def state_dict(self) -> dict[str, Any]:
        state = {"model": self.model.state_dict(), "masks": self.masks, "snapshots": self.snapshots}
        return {**state, "kept": self.kept, "picked": self.picked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; of a smaller network, in a model that is still dense."""
        if not self.kept:
            self._keep(state.get("kept", {}))
        self.model.load_state_dict(state["model"])
        for name, content in state["snapshots"].items():
            self.snapshots[name] = {key: value.to(self.device) for key, value in content.items()}
        self.picked = {name: pruned.to(self.device) for name, pruned in state.get("picked", {}).items()}
        self.set_masks({name: mask.to(self.device) for name, mask in state["masks"].items()})


def build_net(config: TrialConfig, raw: Source, device: torch.device) -> Net:
    """The config's model, initialised from its seed, on the device, in its precision and memory format."""
    precision = resolve_precision(config, device)
    model = models.build(config.model, num_classes=raw.num_classes, in_channels=raw.in_channels, seed=config.seed)
    model = model.to(device=device, dtype=_DTYPES[precision])
    model = model.to(memory_format=resolve_memory_format(config, device))
    return Net(model, autocast=precision == "bf16", compile_forward=config.compile)


def architecture_of(config: TrialConfig, raw: Source, device: torch.device) -> Architecture:
    """What :func:`build_net` builds, for a checkpoint to say."""
    precision = resolve_precision(config, device)
    return Architecture(config.model, raw.num_classes, raw.in_channels, raw.image_size, precision)


def place_data(config: TrialConfig, raw: Source, device: torch.device) -> Loader:
    """The config's data set on the device, with its validation split."""
    return place(
        raw if config.normalise == "dataset" else normalised_as_imagenet(raw),
        device=device,
        dtype=_DTYPES[resolve_precision(config, device)],
        val_fraction=config.val_fraction,
        split_seed=config.split_seed,
        channels_last=resolve_memory_format(config, device) is torch.channels_last,
    )


@dataclass
class Totals:
    """Loss and hits of an epoch, summed on the device: nothing waits for it before the epoch ends."""

    loss: Tensor
    correct: Tensor
    count: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> Totals:
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        return cls(torch.zeros((), device=device, dtype=dtype), torch.zeros((), device=device, dtype=torch.int64))

    def add(self, loss: Tensor, correct: Tensor, count: int) -> None:
        self.loss += loss.detach() * count
        self.correct += correct
        self.count += count

    def means(self) -> tuple[float, float]:
        """Mean loss, and accuracy in [0, 1]."""
        return float(self.loss) / max(self.count, 1), int(self.correct) / max(self.count, 1)


def evaluate(net: Net, data: Loader, split: str, batch_size: int = 500) -> tuple[float, float]:
    """Mean loss, and accuracy in [0, 1], of a split (train, val, test) in its order, with BN statistics frozen."""
    totals = Totals.zero(net.device)
    net.model.eval()
    with torch.no_grad():
        for x, y in data.eval_batches(split, batch_size):
            totals.add(*net.loss(x, y), len(y))
    return totals.means()


def recalibrate_batchnorm(net: Net, batches: Iterable[Batch], count: int) -> None:
    """Measure BN's statistics anew: plain averages over ``count`` batches, in training mode."""
    norms = [module for module in net.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    net.model.train()
    with torch.no_grad():
        for x, y in islice(batches, count):
            net.loss(x, y)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
