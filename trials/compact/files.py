"""Save and load compact networks: model name, remaining rows and state dict, without pickled classes."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trials import models
from trials.compact.cut import Kept, require_rows, shrink
from trials.errors import UserError
from trials.plugins.importing import admit
from trials.plugins.source import resolve
from trials.storage import files


@dataclass(frozen=True)
class Architecture:
    """What is needed to build a network: its model, and the images it was trained on.

    Attributes:
        model: name in ``trials.models.MODELS``.
        image_size: (H, W) in pixels.
        precision: training precision: float32, float64 or bf16 (float32 weights under autocast).
    """

    model: str
    num_classes: int
    in_channels: int
    image_size: tuple[int, int]
    precision: str = "float32"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image, (C, H, W)."""
        return (self.in_channels, *self.image_size)

    def build(self, *, values: bool = True) -> nn.Module:
        """Build the dense model, initialised with seed 0; ``values``: as in :func:`trials.models.build`."""
        shape = {"num_classes": self.num_classes, "in_channels": self.in_channels}
        model = models.build(self.model, **shape, seed=0, values=values)
        return model.double() if self.precision == "float64" else model

    def record(self) -> dict[str, Any]:
        """Return the fields as plain values, for a file."""
        return {**asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Architecture:
        """Rebuild from the result of :meth:`record`."""
        return cls(**{**record, "image_size": tuple(record["image_size"])})


def save(
    path: Path,
    architecture: Architecture,
    kept: Kept,
    state: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a compact network: its architecture, the remaining rows of each shrunk layer, its state dict, its masks.

    ``masks`` are bool, by weight name, in the shapes of the state dict; a file without any has no entry for them.
    """
    content = {"architecture": architecture.record(), "kept": dict(kept), "state_dict": dict(state)}
    files.save(path, {**content, "masks": dict(masks)} if masks else content)


def load(path: str | Path, plugins: Sequence[str] = ()) -> nn.Module:
    """Load the compact network that ``python -m trials export --form compact`` wrote, on the CPU, in eval mode.

    Args:
        plugins: where the code of its model lies, if that is ``module:attribute``: folders, .py files (relative ones
            are taken from the working folder) and names of installed modules. It is imported.

    Raises:
        UserError: the file cannot be read or holds no compact network, or a plug-in is not here.
        NotAdmitted: its model is of a plug-in that is not in ``plugins``, and that this process has not admitted.
    """
    admit([resolve(entry, Path.cwd()) for entry in plugins])
    content = _content(path)
    architecture = Architecture.of(content["architecture"])
    kept, state = content["kept"], content["state_dict"]
    model = architecture.build(values=False)
    try:
        require_rows(model, kept)
        shrink(model, kept)
        versioned = OrderedDict(state)
        versioned._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]  # MNASNet asks for versions
        model.load_state_dict(versioned)
    except (ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{str(path)!r} holds a damaged compact network ({reason}): export it again") from None
    return model.eval()


def load_masks(path: str | Path) -> dict[str, Tensor]:
    """Load the masks of a compact network: bool, by weight name, in the shapes of its weights; empty if it has none.

    Raises:
        UserError: the file cannot be read or holds no compact network.
    """
    return {name: mask.bool() for name, mask in _content(path).get("masks", {}).items()}


def _content(path: str | Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        Architecture.of(content["architecture"])
        _ = content["kept"], content["state_dict"]
    except OSError as error:
        raise UserError(f"{str(path)!r} must be a file that can be read ({error})") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{str(path)!r} must hold a compact network, as export --form compact writes ({reason})"
        ) from None
    return content
