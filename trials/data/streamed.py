"""Loader for data sets that stay on disk: worker processes read, decode and crop; the device normalises."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trials.data.encoded import Encoded, EncodedData
from trials.data.images import decode
from trials.data.loader import Batch, Loader, in_batches
from trials.errors import DataError
from trials.plugins.carrying import Carried
from trials.seeding import derive_seed, generator
from trials.system.machine import usable_threads
from trials.system.stop_signals import STOP_SIGNALS

LOADER_GRACE_S = 30
"""Seconds that a worker keeps running after SIGTERM."""


class Streamed(Loader):
    """Loader of ``data``. Batches do not depend on the number of ``workers``; 0 decodes in this process.

    By default there are as many workers as the trial has threads, but no more than CPUs available to this process.
    Other options: see :class:`Loader`.
    """

    def __init__(self, data: EncodedData, *, workers: int | None = None, **options: Any) -> None:
        super().__init__(data, **options)
        self.data = data
        self.workers = available_workers() if workers is None else workers
        self._parts = {"train": self.train_indices, "val": self.val_indices, "test": torch.arange(self.test_size)}

    def _train_batches(self, key: tuple[int, str, int], parts: list[slice], augment: bool) -> Iterator[Batch]:
        order = self.train_indices[torch.randperm(self.train_size, generator=generator("batches", *key))]
        images = Images(self.data.train, train_transform(self.data) if augment else eval_transform(self.data), key)
        yield from self._stream(images, self.data.train_labels, [order[part] for part in parts])

    def _eval_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        data = self.data
        encoded, labels = (data.test, data.test_labels) if split == "test" else (data.train, data.train_labels)
        images = Images(encoded, eval_transform(self.data))
        yield from self._stream(images, labels, in_batches(self._parts[split], batch_size))

    def _stream(self, images: Images, labels: Tensor, parts: list[Tensor]) -> Iterator[Batch]:
        loader: DataLoader[Tensor | str] = DataLoader(
            images,
            batch_size=None,  # Images yields whole batches
            sampler=[part.tolist() for part in parts],
            num_workers=min(self.workers, len(parts)),
            pin_memory=self.device.type == "cuda",
            worker_init_fn=leave_signals_to_the_trial,
            generator=torch.Generator(),  # otherwise DataLoader would draw from the global random state
        )
        for pixels, part in zip(loader, parts, strict=True):
            if isinstance(pixels, str):
                raise DataError(pixels)
            x = self._normalise(pixels.to(self.device, non_blocking=True))
            yield x, self._send(labels[part])


class Images(Dataset[Tensor | str]):
    """Maps a list of image indices to a batch uint8 [B, 3, H, W], or to an error message if an image is damaged.

    Errors are returned, not raised, because DataLoader would wrap one from a worker in a page of traceback. The random
    numbers of an image's transform depend only on ``key`` and its index; the global random state is not changed.
    """

    def __init__(self, encoded: Encoded, transform: Any, key: tuple[int | str, ...] = ()) -> None:
        self.encoded, self.transform, self.key = encoded, transform, key

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack_images, (Carried((self.encoded, self.transform, self.key)),)

    def __getitem__(self, indices: list[int]) -> Tensor | str:
        try:
            with torch.random.fork_rng(devices=[]):
                return torch.stack([self._image(index) for index in indices])
        except DataError as error:
            return str(error)

    def _image(self, index: int) -> Tensor:
        image, _ = decode(self.encoded.read(index), self.encoded.where(index))
        # Not torch.manual_seed: that would reseed the accelerators too, which fork_rng(devices=[]) does not restore.
        torch.default_generator.manual_seed(derive_seed("augment", *self.key, index))
        pixels: Tensor = self.transform(image)
        return pixels


def _unpack_images(carried: Carried) -> Images:
    return Images(*carried.content)


def train_transform(data: EncodedData) -> Any:
    """torchvision's training transform for ImageNet: random resized crop, random mirroring; uint8 [3, H, W]."""
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(data.crop_size),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )


def eval_transform(data: EncodedData) -> Any:
    """torchvision's evaluation transform for ImageNet: smaller side to ``resize``, centre crop; uint8 [3, H, W]."""
    from torchvision import transforms

    return transforms.Compose(
        [transforms.Resize(data.resize), transforms.CenterCrop(data.crop_size), transforms.PILToTensor()]
    )


def leave_signals_to_the_trial(_worker: int) -> None:
    """Make a loader worker ignore signals that ask a trial to stop, and outlive SIGTERM by ``LOADER_GRACE_S`` seconds.

    A signal to the whole process group asks the trial to stop, and the trial needs its workers until it has stopped. An
    orphaned worker ends soon after its parent, or when the grace period is over.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(LOADER_GRACE_S))


def available_workers() -> int:
    """Number of this trial's threads, but at most the number of CPUs that this process may use."""
    return usable_threads()
