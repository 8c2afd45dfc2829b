"""A trial's network as it is now, set up again elsewhere: what runs beside the trial works on it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.config.trial_config import TrialConfig
from trials.data import Loader, load_data
from trials.storage import files
from trials.training.build import build_loader, build_net
from trials.training.device import resolve_device
from trials.training.net import Net


@dataclass(frozen=True)
class NetworkCopy:
    """A trial's network as it is now, and all that it takes to set it up again, here or in another process.

    Attributes:
        config: the trial's.
        network: the network's state without its snapshots, serialised.
        threads: of the CPU. Results are the same bits for the same number.
        key: names all that.
    """

    config: TrialConfig
    network: bytes
    threads: int
    key: str

    @classmethod
    def of(cls, config: TrialConfig, net: Net) -> NetworkCopy:
        buffer = io.BytesIO()
        torch.save({**net.state_dict(), "snapshots": {}}, buffer)
        network = buffer.getvalue()
        key = f"{config.id}-{files.digest(network)}"
        return cls(config, network, torch.get_num_threads(), key)

    def restore(self) -> RestoredNetwork:
        """Set up when first asked for; a process keeps the last one until it is told to :func:`forget`."""
        torch.set_num_threads(self.threads)
        if self.key not in _restored:
            config = self.config
            device = resolve_device(config.device)
            raw = load_data(config.dataset, config.data_dir)
            net = build_net(config, raw, device)
            net.load_state_dict(torch.load(io.BytesIO(self.network), map_location=device, weights_only=True))
            start = {name: value.clone() for name, value in net.model.state_dict().items()}
            _restored.clear()
            _restored[self.key] = RestoredNetwork(net, build_loader(config, raw, device), start, net.masks, config)
        return _restored[self.key]


@dataclass(frozen=True)
class RestoredNetwork:
    """A network like the trial's, its data, and what it was when copied (``start``, ``masks``), on the device."""

    net: Net
    data: Loader
    start: dict[str, Tensor]
    masks: dict[str, Tensor]
    config: TrialConfig


_restored: dict[str, RestoredNetwork] = {}


def forget() -> None:
    """Free what this process keeps of the last copy."""
    _restored.clear()
