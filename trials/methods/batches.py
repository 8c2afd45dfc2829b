"""Which batches a trial trains on, from the data's header: sizes of the split, and last batches of one image."""

from __future__ import annotations

from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.model_facts import ModelFacts


def training_size(config: TrialConfig, data: DataHeader) -> int:
    """Number of images left to train on after the validation split, stratified or not.

    Raises:
        UserError: the split leaves one of the parts empty.
    """
    held_out = round(config.val_fraction * data.train_size)
    if held_out in (0, data.train_size):
        part = "training" if held_out else "validation"
        raise UserError(
            f"val_fraction is {config.val_fraction}, but of {data.train_size} images must leave some for {part}: "
            f"give a {'smaller' if held_out else 'larger'} fraction"
        )
    return data.train_size - held_out


def require_company(
    config: TrialConfig,
    facts: ModelFacts,
    data: DataHeader,
    what: str,
    batch_size: int,
    *,
    share: float = 1.0,
    most: int | None = None,
) -> None:
    """Check that none of an epoch's training batches holds a single image, if the model cannot train on one.

    Args:
        what: what trains, for the message.
        share: share of an epoch's batches that are read, rounded, at least one.
        most: largest number of batches that are read; None is all.

    Raises:
        UserError: one of them does.
    """
    size = training_size(config, data)
    if not facts.alone:
        return
    steps = -(-size // batch_size)
    read = min(max(1, round(share * steps)), steps if most is None else most)
    last = size - (steps - 1) * batch_size
    if batch_size > 1 and (last > 1 or read < steps):
        return
    which = "every batch has" if batch_size == 1 else f"the last of {steps} batches has"
    raise UserError(
        f"{what} has batch_size {batch_size}, so of {size} training images {which} one, on which {config.model} "
        f"cannot train: {facts.alone}: give another batch_size or val_fraction, or larger images"
    )
