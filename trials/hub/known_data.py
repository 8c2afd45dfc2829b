"""What is known of a trial's data at its export: how inputs are normalised, names of classes, numbers of images."""

from __future__ import annotations

from dataclasses import dataclass

from trials.compact import Architecture
from trials.config.trial_config import TrialConfig
from trials.data import Source, load_data, normalised, peek_header, to_loader
from trials.data.raw import IMAGENET_MEAN, IMAGENET_STD
from trials.data.sets.cifar import CIFAR10, CIFAR100
from trials.errors import DataError, UserError

_FIXED = {
    CIFAR10.name: (CIFAR10.mean, CIFAR10.std),
    CIFAR100.name: (CIFAR100.mean, CIFAR100.std),
    "tinyimagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
}
"""Mean and standard deviation of data sets that have the same ones whatever their files hold."""


@dataclass(frozen=True)
class KnownData:
    """Facts of the data that a trial used; None is what is unknown.

    Attributes:
        mean, std: by which inputs are normalised, per channel, for pixels scaled to 0..1.
        classes: names of the classes, in order of their numbers.
        images: number of images by split: ``train`` without those held out, ``val``, ``test``.
        why_not: why the data could not be read here; empty if they were.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    images: dict[str, int] | None = None
    why_not: str = ""


def known_data(config: TrialConfig, fingerprint: str, shape: Architecture, data_dir: str | None) -> KnownData:
    """Read the data of a trial where they are here; CIFAR is not downloaded for it, and ImageNet not unpacked.

    Args:
        fingerprint: of the data that the trial used.
        shape: the network's architecture.
        data_dir: where they lie now; None for the folder that the config names.

    Raises:
        UserError: ``data_dir`` has no such data, or others than the trial's.
    """
    if data_dir is not None:
        config = config.model_copy(update={"data_dir": data_dir})
    try:
        if peek_header(*config.data_key).fingerprint is None:
            raise DataError(f"{config.dataset} is not unpacked on this machine")
        source = load_data(*config.data_key)
        if source.fingerprint != fingerprint:
            found = f"{config.dataset} has fingerprint {source.fingerprint}"
            raise DataError(f"{found}, but the trial used {fingerprint}")
        return _facts(config, source)
    except UserError as error:
        if data_dir is not None:
            raise UserError(f"--data-dir is {data_dir!r}, but must hold the trial's data: {error}") from None
        return _without_data(config, shape.in_channels, str(error))


def _facts(config: TrialConfig, source: Source) -> KnownData:
    source = normalised(source, config.normalise)
    loader = to_loader(
        source,
        device="cpu",
        val_fraction=config.val_fraction,
        split_seed=config.split_seed,
        stratify_split=config.stratify_split,
    )
    images = {"train": loader.train_size, "val": loader.val_size, "test": loader.test_size}
    classes = source.class_names if len(source.class_names) == source.num_classes else None
    return KnownData(tuple(map(float, source.mean)), tuple(map(float, source.std)), classes, images)


def _without_data(config: TrialConfig, channels: int, why_not: str) -> KnownData:
    """What the config says alone."""
    if config.normalise == "imagenet":
        return KnownData(IMAGENET_MEAN, IMAGENET_STD, why_not=why_not)
    if config.normalise == "none":
        return KnownData((0.0,) * channels, (1.0,) * channels, why_not=why_not)
    mean, std = _FIXED.get(config.dataset, (None, None))
    return KnownData(mean, std, why_not=why_not)
