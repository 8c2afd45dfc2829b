"""Whether to spend memory traffic to save operators: one question, with one answer for the whole package."""

from __future__ import annotations

import torch


def few_launches(device: torch.device) -> bool:
    """Whether few large operators beat many small ones on a device: anywhere but on a CPU.

    A GPU takes longer to launch a kernel than to run most of those that a step needs beside its passes through the
    network. On a CPU an operator per layer keeps its operands in the cache.
    """
    return device.type != "cpu"
