"""Measure a network's latency on its device, which neither sparsity nor FLOPs predict."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from trials.storage.rows import BATCH_SIZES
from trials.training.net import Net

RUNS = (3, 50)
"""Minimum and maximum number of timed runs per batch size."""

BUDGET_S = 1.0
"""Seconds of timed runs per batch size, after which no further run starts once the minimum is reached."""


def measure(net: Net, shape: Sequence[int], batch_sizes: Sequence[int] = BATCH_SIZES) -> dict[str, float]:
    """Return the median milliseconds of a forward pass per batch size, as ``latency_ms_<size>``.

    Images have ``shape`` [C, H, W]. The network runs in eval mode, in its own precision, layout and device; the device
    is synchronised before and after every run. Warm-up (and compilation) is not timed. On the CPU the result depends on
    ``torch.get_num_threads()``.
    """
    return {f"latency_ms_{size}": _median_ms(net, (size, *shape)) for size in batch_sizes}


@torch.inference_mode()
def _median_ms(net: Net, shape: Sequence[int]) -> float:
    net.model.eval()
    weights = [parameter for parameter in net.model.parameters() if parameter.dim() == 4]
    last = bool(weights) and not any(weight.is_contiguous() for weight in weights if weight.shape[2:].numel() > 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(tuple(shape), generator=generator).to(next(net.model.parameters()))
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    wait = torch.get_device_module(net.device).synchronize
    seconds: list[float] = []
    for _ in range(2):  # warm-up, which includes compilation
        net.logits(x)
    wait()
    while len(seconds) < RUNS[0] or (len(seconds) < RUNS[1] and sum(seconds) < BUDGET_S):
        began = time.perf_counter()
        net.logits(x)
        wait()
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)
