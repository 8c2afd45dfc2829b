"""The network under training: its loss, one step of SGD, its evaluation. Knows masks only as tensors that multiply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trials import models
from trials.config import Recipe, TrialConfig
from trials.data import Loader, Source, place
from trials.errors import UserError

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
    """

    def __init__(self, model: nn.Module, *, autocast: bool = False, compile_forward: bool = False) -> None:
        self.model = model
        self.masks: dict[str, Tensor] = {}
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        self._autocast = autocast
        self._forward: Any = torch.compile(model) if compile_forward else model
        self._multipliers: dict[str, Tensor] = {}
        self._parameters = dict(model.named_parameters())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of a batch, and how many of it are right (on the device, without gradient)."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            logits = self._forward(x)
        logits = logits if logits.dtype == torch.float64 else logits.float()  # [B, classes]
        return F.cross_entropy(logits, y), (logits.detach().argmax(1) == y).sum()

    def set_masks(self, masks: Mapping[str, Tensor], latent: Mapping[str, Tensor] | None = None) -> None:
        """Obey these masks from now on: what they switch off becomes zero.

        With ``latent`` weights, the model's weights become mask times these; otherwise mask times themselves.
        """
        self.masks = dict(masks)
        self._multipliers = {name: mask.to(self._parameters[name].dtype) for name, mask in self.masks.items()}
        self.project(latent or self._parameters)

    def project(self, latent: Mapping[str, Tensor]) -> None:
        """The model's masked weights become mask times ``latent``."""
        with torch.no_grad():
            for name, multiplier in self._multipliers.items():
                torch.mul(latent[name], multiplier, out=self._parameters[name])

    def multipliers(self) -> dict[str, Tensor]:
        """The masks in their weights' dtype: multiplying by these costs a twentieth of multiplying by bool on CPU."""
        return self._multipliers

    def snapshot(self, name: str) -> None:
        """Keep a copy of all parameters and buffers under ``name``."""
        self.snapshots[name] = {key: value.detach().clone() for key, value in self.model.state_dict().items()}

    def restore(self, name: str) -> None:
        """Parameters and buffers as they were at :meth:`snapshot`, under the masks of now."""
        self.model.load_state_dict(self.snapshots[name])
        self.set_masks(self.masks)

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "masks": self.masks, "snapshots": self.snapshots}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for name, content in state["snapshots"].items():
            self.snapshots[name] = {key: value.to(self.device) for key, value in content.items()}
        self.set_masks({name: mask.to(self.device) for name, mask in state["masks"].items()})


def build_net(config: TrialConfig, raw: Source, device: torch.device) -> Net:
    """The config's model, initialised from its seed, on the device, in its precision and memory format."""
    precision = resolve_precision(config, device)
    model = models.build(config.model, num_classes=raw.num_classes, in_channels=raw.in_channels, seed=config.seed)
    model = model.to(device=device, dtype=_DTYPES[precision])
    model = model.to(memory_format=resolve_memory_format(config, device))
    return Net(model, autocast=precision == "bf16", compile_forward=config.compile)


def place_data(config: TrialConfig, raw: Source, device: torch.device) -> Loader:
    """The config's data set on the device, with its validation split."""
    return place(
        raw,
        device=device,
        dtype=_DTYPES[resolve_precision(config, device)],
        val_fraction=config.val_fraction,
        split_seed=config.split_seed,
        channels_last=resolve_memory_format(config, device) is torch.channels_last,
    )


class Sgd:
    """torch's SGD over tensors whose gradients are set from outside, with a learning rate that lives in a tensor.

    ``in_order`` steps one tensor after the other, for tensors that share memory.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        in_order: bool = False,
    ) -> None:
        parameters = list(parameters)
        device = parameters[0].device
        self.lr = torch.tensor(lr, device=device, dtype=torch.float64 if device.type == "cpu" else torch.float32)
        kind = {"foreach": False, "fused": False} if in_order else {"fused": True}
        self.optimizer = torch.optim.SGD(parameters, lr=self.lr, momentum=momentum, weight_decay=weight_decay, **kind)
        self.step = self.optimizer.step

    @classmethod
    def of(cls, recipe: Recipe, parameters: Iterable[Tensor]) -> Sgd:
        return cls(parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)

    def set_lr(self, lr: float) -> None:
        self.lr.fill_(lr)

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Momentum buffers of a checkpoint; the learning rate stays the tensor that :meth:`set_lr` fills."""
        self.optimizer.load_state_dict(dict(state))
        group = self.optimizer.param_groups[0]
        self.lr.copy_(group["lr"])
        group["lr"] = self.lr


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
