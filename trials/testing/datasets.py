"""The contract of data sets."""

from __future__ import annotations

import math
import pickle
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trials.data import DATASETS, EncodedData, RawData, Source, to_loader
from trials.data.raw import Arrays, fingerprint
from trials.testing.requiring import demand, disturb, object_named, refusal_of, undisturbed

CHECKED_BATCH = 32
TENSORS_OF = {"train": ("train_images", "train_labels"), "test": ("test_images", "test_labels")}


def check_dataset(
    dataset: Callable[..., Source] | str,
    *,
    data_dir: str | Path | None = None,
    plugins: Sequence[str] = (),
    **options: Any,
) -> None:
    """Check that a data set keeps its contract.

    - it is called with ``data_dir`` (a Path or None) and returns a RawData or an EncodedData;
    - images are uint8 [N, C, H, W], labels int64 [N] in 0..classes-1, constants one for each channel;
    - a second call gives the same images and the same fingerprint, and the fingerprint is one of the content;
    - batches of both splits can be read, with and without augmentation, the same ones for the same seed;
    - a folder that does not hold it is refused in one line.

    Args:
        dataset: the function, or its name as in a config.
        data_dir: folder of the data, if it needs one.
        plugins: as in a file, relative to the working folder, if a name needs them.
        options: ``image_size`` and the like, for a data set that has such parameters.

    Raises:
        AssertionError: it does not; the message says what it must do.
    """
    loader = object_named(DATASETS, dataset, plugins) if isinstance(dataset, str) else dataset
    what = dataset if isinstance(dataset, str) else getattr(dataset, "__name__", "the data set")
    folder = None if data_dir is None else Path(data_dir)
    with ExitStack() as stack:
        stack.enter_context(undisturbed())
        one, other = (_called(loader, folder, options, what) for _ in range(2))
        _require_whole(one, what)
        _require_constants(one, what)
        _require_same(one, other, what)
        if folder is not None:
            empty = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            said = refusal_of(lambda: loader(empty, **options), f"a folder without {what}")
            demand(said is not None, f"{what} must refuse a folder that does not hold it: raise DataError")
        _require_batches(one, what)


def _require_same(one: Source, other: Source, what: str) -> None:
    demand(
        one.fingerprint == other.fingerprint,
        f"{what} must give equal data the same fingerprint, but a second call gave another: let it depend on "
        "nothing but the content, in a fixed order",
    )
    if isinstance(one, RawData) and isinstance(other, RawData):
        _require_same_arrays(one, other, what)
    elif isinstance(one, EncodedData):
        _require_encoded(one, what)


def _called(loader: Callable[..., Source], folder: Path | None, options: dict[str, Any], what: str) -> Source:
    disturb()
    try:
        found: object = loader(folder, **options)
    except Exception as error:
        raise AssertionError(
            f"{what} must be called with data_dir (a Path or None) and return its data, but raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, RawData | EncodedData):
        raise AssertionError(  # noqa: TRY004  every check raises it
            f"{what} must return a RawData or an EncodedData (raw_data makes the former), but returned "
            f"{type(found).__name__}"
        )
    return found


def _require_whole(data: Source, what: str) -> None:
    for split, (images, labels) in TENSORS_OF.items():
        marked: Tensor = getattr(data, labels)
        demand(len(marked) > 0, f"{what} must have {split} images")
        demand(
            marked.dtype == torch.int64 and marked.dim() == 1,
            f"{what} must have labels of dtype int64 and shape [N], but those of {split} are {marked.dtype} "
            f"{list(marked.shape)}",
        )
        low, high = int(marked.min()), int(marked.max())
        demand(
            low >= 0 and high < data.num_classes,
            f"{what} must have labels in 0..{data.num_classes - 1}, but those of {split} run from {low} to {high}",
        )
        if isinstance(data, RawData):
            _require_pixels(data, getattr(data, images), marked, split, what)
        else:
            found = len(getattr(data, split))
            demand(found == len(marked), f"{what} has {found} {split} images, but {len(marked)} labels")


def _require_pixels(data: RawData, pixels: Tensor, marked: Tensor, split: str, what: str) -> None:
    demand(
        pixels.dtype == torch.uint8 and pixels.dim() == 4 and len(pixels) == len(marked),
        f"{what} must have images of dtype uint8 and shape [N, C, H, W], as many as labels, but those of {split} are "
        f"{pixels.dtype} {list(pixels.shape)} with {len(marked)} labels",
    )
    demand(
        pixels.shape[1:] == data.train_images.shape[1:],
        f"{what} must have images of one shape, but those of {split} are {list(pixels.shape[1:])} and those of train "
        f"{list(data.train_images.shape[1:])}",
    )


def _require_constants(data: Source, what: str) -> None:
    for name, values, low in (("mean", data.mean, -math.inf), ("std", data.std, 0.0)):
        right = len(values) == data.in_channels and all(math.isfinite(v) and low < v <= 1 for v in values)
        demand(
            right,
            f"{what} must have one {name} for each of {data.in_channels} channels, of pixels scaled to 0..1, but has "
            f"{values}: channel_statistics computes both",
        )
    demand(
        bool(data.fingerprint) and len(data.fingerprint) <= 64,
        f"{what} must have a fingerprint of its content, but has {data.fingerprint!r}: raw_data makes it",
    )


def _require_same_arrays(one: RawData, other: RawData, what: str) -> None:
    for name in (*TENSORS_OF["train"], *TENSORS_OF["test"]):
        demand(
            torch.equal(getattr(one, name), getattr(other, name)),
            f"{what} must give the same {name} at every call: draw from a generator of a fixed seed, read files in a "
            "fixed order",
        )
    arrays = Arrays(*(getattr(one, name).contiguous().numpy() for name in (*TENSORS_OF["train"], *TENSORS_OF["test"])))
    demand(
        one.fingerprint == fingerprint(arrays, one.num_classes),
        f"{what} must have the fingerprint of its own images and labels, which tells trials when data have changed, "
        "but has another: make the data with raw_data, and change nothing afterwards that is part of it",
    )


def _require_encoded(data: EncodedData, what: str) -> None:
    for split, images in (("train", data.train), ("test", data.test)):
        try:
            again = pickle.loads(pickle.dumps(images))
            first = again.read(0)
        except Exception as error:
            raise AssertionError(
                f"{what} must have {split} images that can be pickled to worker processes and read there, but: {error}"
            ) from error
        demand(
            isinstance(first, bytes) and bool(images.where(0)),
            f"{what} must read() an image's encoded bytes, and say where() it is, but gave {type(first).__name__}",
        )


def _require_batches(data: Source, what: str) -> None:
    loader = to_loader(data, device="cpu", val_fraction=0.1, split_seed=0)
    shape = (data.in_channels, *data.image_size)
    for augment in (False, True):
        found = [
            next(iter(loader.batches(seed=0, epoch=0, stream="train", batch_size=CHECKED_BATCH, augment=augment)))
            for _ in range(2)
        ]
        (images, labels), (again, _) = found
        demand(
            tuple(images.shape[1:]) == shape and bool(images.isfinite().all()),
            f"{what} must give finite images of {shape}, but a training batch is {list(images.shape)}",
        )
        demand(
            torch.equal(images, again) and len(labels) == len(images),
            f"{what} must give the same batch for the same seed",
        )
    images, _ = next(iter(loader.eval_batches("test", CHECKED_BATCH)))
    demand(tuple(images.shape[1:]) == shape, f"{what} must give test images of {shape}, not {list(images.shape[1:])}")
