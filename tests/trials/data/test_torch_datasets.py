"""Torch data sets as data of trials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from trials.data.sets.torch_datasets import from_torch
from trials.errors import DataError

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 3, 6, 5), dtype=np.uint8))
LABELS = torch.arange(9) % 3


class Pictures(Dataset[Any]):
    """Endless by index, as many data sets are: only ``len`` says where it ends."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, index: int) -> Any:
        image, label = PIXELS[index % 9], int(LABELS[index % 9])
        if self.kind == "pillow":
            return Image.fromarray(image.permute(1, 2, 0).numpy()), label
        return (image if self.kind == "uint8" else image / 255), label


@pytest.mark.parametrize("kind", ["pillow", "uint8", "float"])
def test_all_kinds_of_images_give_the_same_data(kind: str) -> None:
    found = from_torch("shapes", Pictures(kind), TensorDataset(PIXELS[:4], LABELS[:4]), pad=1, flip=True)
    assert torch.equal(found.train_images, PIXELS)
    assert torch.equal(found.train_labels, LABELS)
    assert torch.equal(found.test_images, PIXELS[:4])
    assert (found.name, found.num_classes, found.image_size, found.pad, found.flip) == ("shapes", 3, (6, 5), 1, True)
    assert found.mean == pytest.approx((PIXELS / 255).mean((0, 2, 3)).tolist())


def test_equal_content_has_an_equal_fingerprint() -> None:
    one, same = (from_torch("a", Pictures(kind), Pictures(kind)) for kind in ("pillow", "float"))
    other = from_torch("a", TensorDataset(PIXELS.flip(0), LABELS), Pictures("uint8"))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_given_constants_and_classes_are_taken() -> None:
    gray = [(image[0], int(label)) for image, label in zip(PIXELS, LABELS, strict=True)]
    found = from_torch("gray", gray, iter(gray), num_classes=5, mean=[0.1], std=[0.2])
    assert (found.in_channels, found.num_classes, found.mean, found.std) == (1, 5, (0.1,), (0.2,))


def test_gray_test_images_become_rgb_beside_rgb() -> None:
    found = from_torch("mixed", Pictures("uint8"), [(PIXELS[0, :1], 0)])
    assert found.test_images.shape == (1, 3, 6, 5)


def _one(image: Any, label: Any = 0) -> Iterator[Any]:
    return iter([(image, label)])


BAD: dict[str, tuple[Any, str]] = {
    "no pair": ([PIXELS[0]], r"x training item 0 is tensor.* but must be a pair \(image, label\)"),
    "normalised": (_one(PIXELS[0] / 64 - 1), r"pixels from -1 to .*floats must be in 0\.\.1: leave out Normalize"),
    "nan": (_one(torch.full((1, 2, 2), torch.nan)), "pixels from nan to nan"),
    "int64": (_one(PIXELS[0].long()), r"pixels of torch\.int64, but must be uint8"),
    "channels last": (_one(PIXELS[0].permute(1, 2, 0)), r"shape \[6, 5, 3\], but must be \[C, H, W\]"),
    "16 bits": (_one(Image.new("I;16", (4, 4))), "mode 'I;16', but must be gray or RGB of 8 bits"),
    "path": (_one("a.png"), "has str as image"),
    "label": (_one(PIXELS[0], "cat"), "has the label 'cat', but must have a whole number"),
    "shapes": (iter([(PIXELS[0], 0), (PIXELS[0, :, :4], 0)]), r"item 1 has an image of .*\(3, 4, 5\) and item 0"),
    "empty": ([], "x training has no images"),
    "gap": ([(PIXELS[0], 0), (PIXELS[1], 2)], "class 1 never occurs"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_refused(case: str) -> None:
    items, message = BAD[case]
    with pytest.raises(DataError, match=message):
        from_torch("x", items, [(PIXELS[0], 0)])


def test_constants_of_other_channels_are_refused() -> None:
    with pytest.raises(DataError, match=r"std is \[0\.5\], but must have a number for each of 3 channels, all above 0"):
        from_torch("x", Pictures("uint8"), Pictures("uint8"), std=[0.5])
