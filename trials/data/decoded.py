"""Decode the images of a data set that fits in memory, several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from trials.data.encoded import Encoded
from trials.data.images import ImageStack
from trials.data.streamed import available_workers

_AT_ONCE = 256
"""Images that are decoded before the first of them is stored."""


def decode_all(parts: Sequence[Encoded], stack: ImageStack) -> None:
    """Read and decode all images of ``parts`` and append them to ``stack`` in their order.

    Threads share the work, one for each thread of the trial: Pillow decodes without holding the interpreter.

    Raises:
        DataError: an image cannot be read, is damaged or has another size; of several, the first one is named.
    """
    places = [(part, index) for part in parts for index in range(len(part))]

    def decoded(place: tuple[Encoded, int]) -> tuple[Image.Image, bool]:
        part, index = place
        return stack.decoded(part.read(index), part.where(index))

    for part, index in places[:1]:  # alone, so that one thread imports what decoding needs
        stack.add(part.read(index), part.where(index))
    with ThreadPoolExecutor(available_workers()) as pool:
        for start in range(1, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            for (part, index), (image, gray) in zip(some, pool.map(decoded, some), strict=True):
                stack.put(image, gray, part.where(index))
