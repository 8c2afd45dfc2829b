"""Section ``machine``: device and versions, and the speed of launches, copies and matrix products."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.measuring import Card
from trials.system.machine import usable_cores

MPS_CONTROL = "nvidia-cuda-mps-control"


def mps_control() -> str | None:
    """Return the path of the program that starts and ends the MPS daemon; None if it is not installed."""
    return shutil.which(MPS_CONTROL, path=os.environ.get("PATH", "") + os.pathsep + "/usr/local/nvidia/bin")


def machine(check: Check, result: Result) -> None:
    """Record the device, versions and settings, and measure basic speeds."""
    cudnn, card = torch.backends.cudnn, check.card
    result.update(
        torch=torch.__version__,
        python=platform.python_version(),
        device=torch.cuda.get_device_name() if card.is_cuda else "cpu",
        cpus=usable_cores(),
        load=round(os.getloadavg()[0], 2),
        cudnn=cudnn.version(),
        cudnn_benchmark=cudnn.benchmark,
        cudnn_allow_tf32=cudnn.allow_tf32,
        matmul_allow_tf32=torch.backends.cuda.matmul.allow_tf32,
        mps_installed=mps_control() is not None,
    )
    check.attempt(result, "launch_us", lambda: _launch_us(card))
    check.attempt(result, "copy_TBps", lambda: _copy_tbps(card))
    check.attempt(result, "bf16_TFLOPs", lambda: _bf16_tflops(card))
    check.attempt(result, "float32_conv_rel_error", lambda: _float32_conv_error(card))
    if card.is_cuda:
        check.attempt(result, "driver", _driver)
        check.attempt(result, "memory_GiB", lambda: round(torch.cuda.mem_get_info()[1] / 2**30, 1))


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]


def _launch_us(card: Card) -> float:
    """Return the microseconds of slicing a small tensor and adding to it in place, averaged over 100 in a row."""
    values = torch.randn(8 * 100, device=card.device)
    return round(card.median_ms(lambda: [values[:8].add_(1) for _ in range(100)], 0.3) * 10, 2)


def _copy_tbps(card: Card) -> float:
    """Return the bandwidth of a copy in TB/s, counting bytes read and written: of 1 GiB, on a CPU of 4 MiB."""
    source = torch.zeros(1 << 28 if card.is_cuda else 1 << 20, device=card.device)
    target = torch.empty_like(source)
    return round(2 * 4 * source.numel() / card.median_ms(lambda: target.copy_(source), 0.3) / 1e9, 4)


def _bf16_tflops(card: Card) -> float:
    """Return the rate of a bfloat16 product of square matrices in TFLOP/s."""
    n = 8192 if card.is_cuda else 128
    matrix = torch.randn(n, n, device=card.device, dtype=torch.bfloat16)
    return round(2 * n**3 / card.median_ms(lambda: matrix @ matrix, 0.3) / 1e9, 3)


def _float32_conv_error(card: Card) -> float:
    """Return the relative error (L2 norm) of a float32 convolution; about 3e-4 if cuDNN computes in TF32.

    The reference is float64 on the CPU.
    """
    with torch.no_grad():
        layer = nn.Conv2d(64, 64, 3).to(card.device)
        images = torch.randn(8, 64, 16, 16, device=card.device)
        bias = layer.bias
        assert bias is not None
        expected = F.conv2d(images.double().cpu(), layer.weight.double().cpu(), bias.double().cpu())
        return float((layer(images).double().cpu() - expected).norm() / expected.norm())
