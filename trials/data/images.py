"""Decode images (JPEG, PNG, ...) and stack images of one size into an array."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from trials.data.raw import ImageArray
from trials.errors import DataError

_GRAY = {"1", "L"}
_COLOUR = {"RGB", "RGBA", "P", "PA", "LA", "La", "RGBa", "CMYK", "YCbCr"}
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class ImageStack:
    """Collects ``count`` images of one size, stored as RGB: only at the end is it known whether all are gray.

    With ``image_size``, every image is first resized to a square of that side, bilinearly and with antialiasing.
    """

    def __init__(self, count: int, image_size: int | None = None) -> None:
        self.gray = True
        self._image_size = image_size
        self._count = count
        self._filled = 0
        self._first = ""
        self._pixels: ImageArray = np.zeros((0, 3, 0, 0), dtype=np.uint8)  # [N, 3, H, W]

    def add(self, data: bytes | None, where: str) -> None:
        """Decode and append an image. Raises DataError, naming ``where``, if it is damaged or of another size."""
        image, gray = decode(data, where)
        if self._image_size is not None:
            image = image.resize((self._image_size, self._image_size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)  # [H, W, 3]
        height, width = pixels.shape[:2]
        if not self._filled:
            self._pixels = np.zeros((self._count, 3, height, width), dtype=np.uint8)
            self._first = where
        elif (height, width) != self._pixels.shape[2:]:
            first_height, first_width = self._pixels.shape[2:]
            raise DataError(
                f"{where} is {height}x{width} pixels and {self._first} {first_height}x{first_width}, but all images "
                "must have the same size: resize them, or give image_size where the data set has it"
            )
        self._pixels[self._filled] = pixels.transpose(2, 0, 1)
        self._filled += 1
        self.gray = self.gray and gray

    def array(self, gray: bool) -> ImageArray:
        """Return the pixels: uint8 [N, 1, H, W] if ``gray``, else [N, 3, H, W]."""
        return np.ascontiguousarray(self._pixels[:, :1]) if gray else self._pixels


def decode(data: bytes | None, where: str) -> tuple[Image.Image, bool]:
    """Decode an image to RGB; also return whether it was gray.

    Raises DataError, naming ``where``, if it is damaged or does not have 8 bits per channel.
    """
    if not data:
        raise DataError(f"{where} holds no image: its bytes must be in the file, not only their path")
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            colour = image.convert("RGB")
    except _UNREADABLE as error:
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{where} is not a readable image: remove or repair it ({reason})") from error
    if mode not in _GRAY | _COLOUR:
        raise DataError(f"{where} has pixels of mode {mode!r}, but must have 8 bits a channel: convert it first")
    return colour, mode in _GRAY
