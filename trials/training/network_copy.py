"""Serialised copies of a trial's current network, for work items that run in parallel with the trial."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.config.trial_config import TrialConfig
from trials.data import Loader, load_data
from trials.errors import DataError
from trials.storage import files
from trials.training.arithmetic import arithmetic_of
from trials.training.build import build_loader, build_net
from trials.training.device import resolve_device, resolve_precision
from trials.training.net import Net


@dataclass(frozen=True)
class NetworkCopy:
    """A trial's network at one moment, with everything needed to rebuild it in this or another process.

    Attributes:
        config: the trial's config, with the precision that ``auto`` became where the trial runs.
        network: the network's serialised state, without its snapshots.
        threads: number of CPU threads. Results are bitwise reproducible for equal numbers.
        key: the config's id and a hash of ``network``.
    """

    config: TrialConfig
    network: bytes
    threads: int
    key: str
    data: str

    @classmethod
    def of(cls, config: TrialConfig, net: Net) -> NetworkCopy:
        buffer = io.BytesIO()
        torch.save({**net.state_dict(), "snapshots": {}}, buffer)
        network = buffer.getvalue()
        config = config.model_copy(update={"precision": resolve_precision(config, net.device)})
        key = f"{config.id}-{files.digest(network)}"
        return cls(config, network, torch.get_num_threads(), key, load_data(*config.data_key).fingerprint)

    def arithmetic(self) -> AbstractContextManager[None]:
        """The trial's switches of torch in this process (:mod:`trials.training.arithmetic`)."""
        return arithmetic_of(self.config, resolve_device(self.config.device))

    def restore(self) -> RestoredNetwork:
        """Rebuild the network; each process caches the last one until :func:`forget` is called."""
        torch.set_num_threads(self.threads)
        if self.key not in _restored:
            config = self.config
            device = resolve_device(config.device)
            raw = load_data(*config.data_key)
            if raw.fingerprint != self.data:
                raise DataError(
                    f"{config.dataset} has fingerprint {raw.fingerprint} on this machine, but the trial uses "
                    f"{self.data}: give every machine the same data"
                )
            net = build_net(config, raw, device, values=False)
            net.load_state_dict(torch.load(io.BytesIO(self.network), map_location=device, weights_only=True))
            start = {name: value.clone() for name, value in net.model.state_dict().items()}
            _restored.clear()
            _restored[self.key] = RestoredNetwork(net, build_loader(config, raw, device), start, net.masks, config)
        return _restored[self.key]


@dataclass(frozen=True)
class RestoredNetwork:
    """A rebuilt network with its data, and its values (``start``) and ``masks`` when it was copied, on the device."""

    net: Net
    data: Loader
    start: dict[str, Tensor]
    masks: dict[str, Tensor]
    config: TrialConfig


_restored: dict[str, RestoredNetwork] = {}


def forget() -> None:
    """Free this process's cached network."""
    _restored.clear()
