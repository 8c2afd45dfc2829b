"""Decode images (JPEG, PNG, ...), turned as their EXIF data say, and stack images of one size into an array."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from trials.data.raw import ImageArray
from trials.data.room import require_memory
from trials.errors import DataError

DECODING = "upright"
"""Names what :func:`decode` makes of an image, for the keys of cached arrays; renamed when equal bytes decode to other
pixels."""

_GRAY = {"1", "L"}
_COLOUR = {"RGB", "RGBA", "P", "PA", "LA", "La", "RGBa", "CMYK", "YCbCr"}
_BITS_PER_SAMPLE = 258  # TIFF's number of the field
_UNREADABLE = (  # what Pillow raises for damaged files
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError),
    *(TypeError, AttributeError, LookupError, ArithmeticError),
)


class ImageStack:
    """Collects ``count`` images of one size, stored as RGB: only at the end is it known whether all are gray.

    With ``image_size`` S, each image is made S x S pixels (see :func:`resized`) when it is added. ``way_out`` ends the
    messages about images of different sizes and of too many pixels. ``beside``: how many images of that size are yet to
    be collected elsewhere, for the question whether all of them fit in memory. Raises DataError if they do not, here or
    when the first image is added.
    """

    def __init__(
        self, count: int, image_size: int | None = None, *, way_out: str = "resize them first", beside: int = 0
    ) -> None:
        self.gray = True
        self.image_size = image_size
        self._way_out = way_out
        self._count = count
        self._beside = beside
        self._filled = 0
        self._first = ""
        self._pixels: ImageArray = np.zeros((0, 3, 0, 0), dtype=np.uint8)  # [N, 3, H, W]
        if image_size is not None:
            self._require_memory(image_size, image_size, "", "give a smaller image_size")

    def _require_memory(self, height: int, width: int, where: str, way_out: str) -> None:
        count = self._count + self._beside
        require_memory(f"{count} images of {height}x{width} pixels{where}", 3 * height * width * count, way_out)

    def add(self, data: bytes | None, where: str) -> None:
        """Decode and append an image. Raises DataError, naming ``where``, if it is damaged or of another size."""
        self.put(*self.decoded(data, where), where)

    def decoded(self, data: bytes | None, where: str) -> tuple[Image.Image, bool]:
        """Decode an image and give it its size, without appending it; threads may do so at the same time.

        Returns and raises as :func:`decode`.
        """
        image, gray = decode(data, where)
        size = self.image_size
        if size is None:
            return image, gray
        try:
            return resized(image, size), gray
        except (*_UNREADABLE, MemoryError) as error:
            reason = str(error) or type(error).__name__
            raise DataError(
                f"{where} cannot be made {size}x{size} pixels: give a smaller image_size, or remove it ({reason})"
            ) from error

    def put(self, image: Image.Image, gray: bool, where: str) -> None:
        """Append what :meth:`decoded` returned. Raises DataError, naming ``where``, if the image is of another size."""
        pixels = np.asarray(image)  # [H, W, 3]
        height, width = pixels.shape[:2]
        if not self._filled:
            self._require_memory(height, width, f", as {where} has,", self._way_out)
            self._pixels = np.zeros((self._count, 3, height, width), dtype=np.uint8)
            self._first = where
        elif (height, width) != self._pixels.shape[2:]:
            first_height, first_width = self._pixels.shape[2:]
            raise DataError(
                f"{where} is {height}x{width} pixels and {self._first} {first_height}x{first_width}, but all images "
                f"must have the same size: {self._way_out}"
            )
        self._pixels[self._filled] = pixels.transpose(2, 0, 1)
        self._filled += 1
        self.gray = self.gray and gray

    def array(self, gray: bool) -> ImageArray:
        """Return the pixels: uint8 [N, 1, H, W] if ``gray``, else [N, 3, H, W]."""
        return np.ascontiguousarray(self._pixels[:, :1]) if gray else self._pixels


def decode(data: bytes | None, where: str) -> tuple[Image.Image, bool]:
    """Decode an image to RGB, turned as its EXIF data say; also return whether it was gray.

    Raises DataError, naming ``where``, if it is damaged or does not have 8 bits per channel.
    """
    if data is None:
        raise DataError(f"{where} holds no image: its bytes must be in the file, not only their path")
    if not data:
        raise DataError(f"{where} holds no image, but 0 bytes: restore it, or remove it")
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode, deep = image.mode, _is_deep(image, data)
            colour = upright(image).convert("RGB")
    except _UNREADABLE as error:
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{where} is not a readable image: remove or repair it ({reason})") from error
    except MemoryError as error:
        raise DataError(f"{where} does not fit in memory: make it smaller, or remove it") from error
    if mode not in _GRAY | _COLOUR:
        raise DataError(f"{where} has pixels of mode {mode!r}, but must have 8 bits a channel: convert it first")
    if deep:
        raise DataError(f"{where} has more than 8 bits a channel, but must have 8: convert it first")
    return colour, mode in _GRAY


def _is_deep(image: Any, data: bytes) -> bool:
    """Whether a Pillow image, not loaded yet, has more than 8 bits a channel, though Pillow would read the first 8."""
    if image.format == "PNG":
        return data[12:16] == b"IHDR" and data[24] > 8
    if image.format == "TIFF":
        return bool(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8)
    if image.format != "PPM":
        return False
    arguments = [
        tile[3] for tile in image.tile if isinstance(tile[3], tuple)
    ]  # for the decoder: mode and largest value
    return any(isinstance(value, int) and value > 255 for each in arguments for value in each)


def upright(image: Image.Image) -> Image.Image:
    """Return ``image`` as a viewer shows it: mirrored or turned by its EXIF orientation, as Hugging Face datasets do.

    An image without an orientation, or whose EXIF data cannot be read, is returned as it is.
    """
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _UNREADABLE:
        return image
    if orientation == 1:
        return image
    for block in ("exif", "Raw profile type exif"):  # or Pillow would write them anew, and fail where they are damaged
        image.info.pop(block, None)
    return ImageOps.exif_transpose(image)


def resized(image: Image.Image, size: int) -> Image.Image:
    """Return the centre square of ``image``, ``size`` x ``size`` pixels.

    As torchvision's ``Resize(size)`` and ``CenterCrop(size)`` on a Pillow image: the smaller side becomes ``size``
    pixels (bilinear, with antialiasing; the ratio of the sides is kept), then the centre is cropped.

    Raises ValueError if there would be more pixels on the way than Pillow reads of a file.
    """
    from torchvision.transforms import functional

    most, pixels = 2 * (Image.MAX_IMAGE_PIXELS or 0), size * size * max(image.size) // min(image.size)
    if most and pixels > most:
        raise ValueError(f"before it is cropped it would have {pixels} pixels, but at most {most} are possible")
    cropped: Image.Image = functional.center_crop(functional.resize(image, [size]), [size, size])
    return cropped
