"""Read the reference vectors of bidirectional pruning and regrowth; their README describes them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trials.recorded_set import Arrays, Entry, absent, manifest

MANIFEST: dict[str, Any] = manifest("bidirectional").get("files", {})


@cache
def arrays(name: str) -> Arrays:
    """A file's arrays as stored."""
    return Arrays("bidirectional", name)


def about(name: str) -> Any:
    """What the manifest says of a file, a mapping or a list; an empty mapping if it says nothing."""
    return MANIFEST.get(name) or Entry({}, "bidirectional/manifest.json", f"/files/{name}")


def records(name: str, prefix: str = "") -> list[dict[str, Any]]:
    """The manifest's records of a file, those whose key begins with ``prefix``."""
    said = about(name)
    listed = said if isinstance(said, list) else said.get("records", said.get("cases", []))
    return [record for record in listed if "key" in record and record["key"].startswith(prefix)]


def record_of(name: str, key: str) -> dict[str, Any]:
    """The record of exactly that key."""
    found = [record for record in records(name, key) if record["key"] == key]
    return found[0] if found else absent(f"record {key} of bidirectional/{name}")


def key_of(record: dict[str, Any]) -> str:
    return str(record["key"])


class Cnn(nn.Module):
    """The README's ``cnn`` with the layers and sizes of a state dict: conv1, bn1, conv2, ..., fc1, ...; bn may lack.

    Convolutions have stride 1 and padding k//2. Their groups follow from the channels before them, those of the first
    from the images'. All but the last are followed by a 2x2 average pool, the last by an adaptive one to what fc1
    takes: the shape nearest to a square with its number of pixels.
    """

    def __init__(self, state: Mapping[str, Tensor], channels: int | None = None) -> None:
        super().__init__()
        self.convs, self.fcs = (layers(state, kind) for kind in ("conv", "fc"))
        for name in self.convs:
            out, inputs, *kernel = state[f"{name}.weight"].shape
            groups = 1 if channels is None else channels // inputs
            padding = tuple(size // 2 for size in kernel)
            options: dict[str, Any] = {"padding": padding, "groups": groups, "bias": f"{name}.bias" in state}
            setattr(self, name, nn.Conv2d(inputs * groups, out, tuple(kernel), **options))
            if f"{name.replace('conv', 'bn')}.weight" in state:
                setattr(self, name.replace("conv", "bn"), nn.BatchNorm2d(out))
            channels = out
        for name in self.fcs:
            out, inputs = state[f"{name}.weight"].shape
            setattr(self, name, nn.Linear(inputs, out, bias=f"{name}.bias" in state))
        pixels = state[f"{self.fcs[0]}.weight"].shape[1] // (channels or 1)
        height = max(side for side in range(1, math.isqrt(pixels) + 1) if pixels % side == 0)
        self.pooled = (height, pixels // height)
        tracked = {key: value for key, value in self.state_dict().items() if key.endswith("num_batches_tracked")}
        self.load_state_dict({**tracked, **state})

    def forward(self, x: Tensor) -> Tensor:
        for name in self.convs:
            x = getattr(self, name)(x)
            norm = name.replace("conv", "bn")
            x = F.relu(getattr(self, norm)(x) if hasattr(self, norm) else x)
            x = F.avg_pool2d(x, 2) if name != self.convs[-1] else F.adaptive_avg_pool2d(x, self.pooled)
        x = x.flatten(1)
        for name in self.fcs:
            x = getattr(self, name)(x)
            x = F.relu(x) if name != self.fcs[-1] else x
        return x


def layers(names: Iterable[str], kind: str) -> list[str]:
    """``conv1, conv2, ...`` among the names of parameters, by number."""
    found = {match[0] for name in names if (match := re.match(rf"{kind}\d+(?=\.weight)", name))}
    return sorted(found, key=lambda name: int(name.removeprefix(kind)))


def cnn(state: Mapping[str, Tensor], images: Tensor, dtype: torch.dtype = torch.float32) -> Cnn:
    """The network of a state dict, for such images, in eval mode."""
    return Cnn(state, images.shape[1]).to(dtype).eval()
