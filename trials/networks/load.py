"""Load weights from an external checkpoint file into a model."""

from __future__ import annotations

from torch import nn

from trials.errors import UserError
from trials.networks.fitting import fitted
from trials.networks.named_files import named, weights_and_digest
from trials.storage.place import Place


def load_into(model: nn.Module, path: Place, field: str = "source_net") -> str:
    """Load dense or masked weights from a file into a model; returns 16 hex digits of the file's SHA-256.

    ``field`` is the config field or option that named the file, for messages. See docs/spaces.md for what is read.

    Raises:
        UserError: the file cannot be read or is no checkpoint, or its weights do not fit the model or are no effective
            weights: a compact network, or one whose mask is to be made from scores.
    """
    what = named(field, str(path), path)
    weights, digest = weights_and_digest(path, what)
    found = fitted(weights, model, what)
    if found.kept or found.scores:
        kind = "a compact network" if found.kept else "scores (popup_scores) instead of a mask"
        raise UserError(f"{what}, but that holds {kind}: give the network's weights with zeros in place")
    model.load_state_dict({**model.state_dict(), **found.state})
    return digest
