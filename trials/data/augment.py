"""Crop, mirror and normalise batches of uint8 images on their own device, without synchronising with it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_and_flip(images: Tensor, offsets: Tensor, flips: Tensor, pad: int) -> Tensor:
    """Pad each image with ``pad`` black pixels on each side, crop it to its original size and mirror some.

    ``images`` uint8 [B, C, H, W]; ``offsets`` int64 [B, 2], row and column of the crop's corner in the padded image,
    each 0..2*pad; ``flips`` bool [B], mirrored left to right after cropping. Returns uint8 [B, C, H, W].
    """
    batch, channels, height, width = images.shape
    rows, cols = _window(offsets, flips, height, width)
    index = rows[:, :, None] * (width + 2 * pad) + cols[:, None, :]  # [B, H, W] into the padded image, flattened
    padded = F.pad(images, (pad, pad, pad, pad)) if pad else images
    index = index.view(batch, 1, height * width).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view(images.shape)


def outside(height: int, width: int, offsets: Tensor, flips: Tensor, pad: int) -> Tensor:
    """Mark the pixels of :func:`crop_and_flip`'s result that are padding: bool [B, 1, H, W]."""
    rows, cols = _window(offsets, flips, height, width)
    above_below = (rows < pad) | (rows >= height + pad)
    beside = (cols < pad) | (cols >= width + pad)
    return (above_below[:, :, None] | beside[:, None, :])[:, None]


def _window(offsets: Tensor, flips: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row [B, H] and column [B, W] indices of each crop in the padded image; columns reversed for mirrored images."""
    across = torch.arange(width, device=offsets.device)
    rows = offsets[:, :1] + torch.arange(height, device=offsets.device)
    return rows, offsets[:, 1:] + torch.where(flips[:, None], across.flip(0), across)


class Normalise:
    """(x - 255 mean) / (255 std) for uint8 [B, C, H, W], computed in at least float32 and returned as ``dtype``."""

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        device: torch.device,
        dtype: torch.dtype,
        channels_last: bool,
    ) -> None:
        precise = torch.promote_types(dtype, torch.float32)
        self._shift = torch.tensor([255 * m for m in mean], device=device, dtype=precise).view(1, -1, 1, 1)
        self._scale = torch.tensor([255 * s for s in std], device=device, dtype=precise).view(1, -1, 1, 1)
        self._dtype = dtype
        self._layout = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, images: Tensor) -> Tensor:
        """Return the normalised images [B, C, H, W]; the argument is not changed."""
        return (images - self._shift).div_(self._scale).to(self._dtype, memory_format=self._layout)
