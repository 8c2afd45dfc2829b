"""``trials.load_pretrained``: networks that ``python -m trials export --form hub`` wrote, from a folder or the Hub."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from trials.compact import Architecture, cut_tensors, require_rows, shrink, spread
from trials.data.augment import Normalise
from trials.errors import NotAdmitted, UserError, listed, one_line
from trials.hub.download import HUB_PREFIX, downloaded
from trials.hub.layout import (
    CONFIG_FILE,
    FOLDER_FILES,
    MASKS_FILE,
    WEIGHTS_FILE,
    ModelCode,
    ModelConfig,
    check_content,
    read_model_config,
)
from trials.hub.sample import require_same_outputs
from trials.networks.formats import printable
from trials.optional import require
from trials.plugins.importing import admit_listed, is_admitted, sent
from trials.storage.place import Place, place


@dataclass(frozen=True, eq=False)
class Pretrained:
    """What a model folder says of its network: ``network.about`` of what :func:`load_pretrained` returns.

    Attributes:
        trial: name of the trial that made the network.
        method: its pruning method.
        config: the trial's config, with every default.
        result: the trial's figures: accuracies in 0..1, density, FLOPs (``trials`` in docs/tables.md); empty if the
            trial had not finished at the export.
        architecture: the model's name, classes, channels, image size in pixels and precision.
        classes: names of the classes, in order of the logits; empty if the data set gave none.
        mean, std: by which inputs are normalised, per channel, for pixels scaled to 0..1; None if unknown.
        masks: which weights are kept: bool, by parameter name, in the shapes of the dense model, as
            :meth:`trials.Trial.masks` gives them. A layer without a mask is whole.
    """

    trial: str
    method: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    architecture: Architecture
    classes: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    masks: dict[str, Tensor] = field(repr=False)

    @property
    def density(self) -> float | None:
        """Share of the prunable weights that are kept, as the trial measured it; None if it had not finished."""
        return self.result.get("density")

    def preprocess(self, images: Any) -> Tensor:
        """Return the network's inputs [N, C, H, W] for images of its size.

        Args:
            images: uint8 (0..255) or float (0..1) [N, C, H, W] or [C, H, W], or Pillow images, one or several.

        Raises:
            UserError: the normalisation is unknown, or the images have another shape, type or range.
        """
        if self.mean is None or self.std is None:
            raise UserError(
                f"{self.trial} was exported without its data, so how inputs are normalised is unknown: export it again "
                "where they are (--data-dir), or normalise as its data set was"
            )
        pixels = self._pixels(images)
        dtype = torch.float64 if self.architecture.precision == "float64" else torch.float32
        normalise = Normalise(self.mean, self.std, device=pixels.device, dtype=dtype, channels_last=False)
        return normalise(pixels)

    def _pixels(self, images: Any) -> Tensor:
        """Images [N, C, H, W] with values 0..255."""
        if isinstance(images, Image.Image):
            images = [images]
        if isinstance(images, list | tuple) and images and all(isinstance(one, Image.Image) for one in images):
            images = _stacked(images, self.architecture)
        if not isinstance(images, Tensor):
            raise UserError(f"images are {type(images).__name__}, but must be a tensor, or Pillow images")
        batch = images[None] if images.dim() == 3 else images
        if batch.dim() != 4 or tuple(batch.shape[1:]) != self.architecture.shape:
            raise UserError(
                f"images are {list(images.shape)}, but must be [N, {', '.join(map(str, self.architecture.shape))}], or "
                "one of them: resize and convert them as the data set's are"
            )
        if batch.dtype == torch.uint8:
            return batch
        if not batch.is_floating_point() or (batch.numel() and not (batch.min() >= 0 and batch.max() <= 1)):
            raise UserError("images must be uint8 with values 0..255, or floats with values 0..1: scale them")
        return batch * 255


def _stacked(images: Iterable[Image.Image], architecture: Architecture) -> Tensor:
    """Pillow images as uint8 [N, C, H, W]."""
    import numpy as np

    if architecture.in_channels not in (1, 3):
        raise UserError(
            f"images are Pillow's, but the network takes {architecture.in_channels} channels: give a tensor"
        )
    arrays = [np.asarray(image.convert("L" if architecture.in_channels == 1 else "RGB")) for image in images]
    sizes = sorted({array.shape[:2] for array in arrays})
    if sizes != [architecture.image_size]:
        raise UserError(
            f"images have (height, width) {listed(map(str, sizes))}, but must have {architecture.image_size}: resize "
            "them as the data set's are"
        )
    stacked = torch.from_numpy(np.stack(arrays))
    return stacked[:, None] if stacked.dim() == 3 else stacked.permute(0, 3, 1, 2).contiguous()


def load_pretrained(source: str | Path | Place, *, plugins: Iterable[str] = ()) -> nn.Module:
    """Load a network that ``python -m trials export TRIAL --to FOLDER --form hub`` wrote.

    Only safetensors and JSON are read, so nothing of the folder can run code. Sizes and hashes of the files are
    compared with ``config.json``, names and shapes with the model, masks with the weights, and the outputs for a fixed
    input with those at the export.

    Args:
        source: a folder, or ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION`` of the Hugging Face Hub.
        plugins: your own code that has the model, if it is ``module:attribute``: folders, .py files, names of modules.

    Returns:
        The network on the CPU, in evaluation mode: it takes [N, C, H, W] and returns logits [N, classes]. Its attribute
        ``about`` is a :class:`Pretrained`: preprocessing, names of classes, masks, figures.

    Raises:
        UserError: the folder is damaged or none of ours, the model's code is not here or is other code, or a library
            is missing.
    """
    admit_listed({}, Path.cwd(), list(plugins))
    require("safetensors", "hub", "load_pretrained")
    name = str(source)
    of_hub = name.startswith(HUB_PREFIX)
    folder = downloaded(name) if of_hub else _folder(source)
    way_out = "ask who published it, or give another revision" if of_hub else "export the trial again, or copy it again"
    network, about = read_network(folder, name, way_out)
    network.about = about  # type: ignore[assignment]  # torch's annotation knows tensors and modules only
    return network


def _folder(source: str | Path | Place) -> Place:
    folder = place(str(source)) if isinstance(source, str | Path) else source
    if isinstance(folder, Path):
        folder = folder.expanduser()
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise UserError(
                f"{str(source)!r} {what}, but must be a folder that export --form hub wrote, or hf:OWNER/NAME"
            )
    return folder


def read_network(folder: Place, name: str, way_out: str) -> tuple[nn.Module, Pretrained]:
    """Read a model folder; return the network and what is known of it. ``name`` is the folder's in messages.

    Raises:
        UserError: as :func:`load_pretrained` does; messages on damaged files end with ``way_out``.
    """
    where = {file: f"{name.rstrip('/')}/{file}" for file in FOLDER_FILES}
    described = read_model_config(_bytes(folder, CONFIG_FILE, where[CONFIG_FILE], way_out), where[CONFIG_FILE], way_out)
    state, masks = (_tensors(folder, file, described, where[file], way_out) for file in (WEIGHTS_FILE, MASKS_FILE))
    network = _built(described, where[CONFIG_FILE])
    architecture = described.built()
    shapes = {key: weight.shape for key, weight in network.named_parameters(remove_duplicate=False)}
    cut = _shrunk(network, described, where[CONFIG_FILE], way_out)
    _load(network, state, where[WEIGHTS_FILE], way_out)
    if hasattr(network, "about"):
        raise UserError(f"{name} has a model with an attribute about, which load_pretrained sets: rename the model's")
    _check_masks(network, masks, shapes, cut, where[MASKS_FILE], way_out)
    network.eval()
    require_same_outputs(network, architecture.shape, described.sample_logits, where[CONFIG_FILE], way_out)
    given = described.normalisation
    about = Pretrained(
        trial=described.trial,
        method=described.method,
        config=described.config,
        result=described.result,
        architecture=architecture,
        classes=described.classes or (),
        mean=None if given is None else given.mean,
        std=None if given is None else given.std,
        masks=masks,
    )
    return network, about


def _bytes(folder: Place, file: str, where: str, way_out: str) -> bytes:
    try:
        return (folder / file).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        must = f"a model folder has {', '.join(FOLDER_FILES[:3])}"
        raise UserError(f"{where} is missing, but {must}: {way_out}") from None
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error}): {way_out}") from None


def _tensors(folder: Place, file: str, described: ModelConfig, where: str, way_out: str) -> dict[str, Tensor]:
    content = _bytes(folder, file, where, way_out)
    check_content(file, content, described, where, way_out)
    module = require("safetensors.torch", "hub", "load_pretrained")
    try:
        found: dict[str, Tensor] = module.load(content)
    except Exception as error:  # noqa: BLE001  the library's errors have no common base
        reason = one_line(str(error)[:200]) or type(error).__name__
        raise UserError(f"{where} must be safetensors, but cannot be read ({reason}): {way_out}") from None
    return found


def _built(described: ModelConfig, where: str) -> nn.Module:
    """The model as it is before its rows are cut and its weights loaded."""
    name, code = described.architecture.model, described.model_code
    try:
        network = described.built().build(values=False)
    except NotAdmitted:
        raise UserError(f"{where} names the model {printable(name)}, {_of_plug_in(code)}") from None
    except UserError as error:
        if code is not None and code.installed and not code.digest:  # torchvision, timm
            raise UserError(f"{where}: {error} (it was exported with {code.module} {code.version})") from None
        raise UserError(f"{where}: {error}{f'; it is of the package {code.module}' if code else ''}") from None
    if code is not None and code.digest:
        _warn_of_other_code(code, where)
    return network


def _of_plug_in(code: ModelCode | None) -> str:
    module = printable(code.module) if code else "unknown"
    if code is not None and code.installed:
        given = f"plugins=[{module!r}]), with the package installed"
    else:
        given = f"plugins=['PATH/{module}']), the folder or .py file of {module}"
    return (
        f"which is of the plug-in {module}, and code is imported only where you ask for it: give load_pretrained(..., "
        f"{given}"
    )


def _warn_of_other_code(code: ModelCode, where: str) -> None:
    """Warn if a plug-in has other source than at the export; that the outputs are equal is checked for one input."""
    now = [each["digest"] for each in sent([code.module])] if is_admitted(code.module) else []
    if now and now[0] != code.digest:
        warnings.warn(f"{where}: the plug-in {code.module} has changed since: {code.digest} -> {now[0]}", stacklevel=4)


def _shrunk(network: nn.Module, described: ModelConfig, where: str, way_out: str) -> dict[str, dict[int, Tensor]]:
    """Cut the rows that the network does not keep; return the slices."""
    kept = {name: torch.tensor(rows, dtype=torch.int64) for name, rows in described.kept.items()}
    if not kept:
        return {}
    try:
        require_rows(network, kept)
        return shrink(network, kept)
    except (ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise UserError(f"{where} is damaged: {one_line(str(error))}: {way_out}") from None


def _load(network: nn.Module, state: Mapping[str, Tensor], where: str, way_out: str) -> None:
    """Load weights, whose names and shapes must be the network's."""
    own = network.state_dict()
    missing, more = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or more:
        says = f"lacks {listed(map(printable, missing), 3)}" if missing else f"has {listed(map(printable, more), 3)}"
        raise UserError(f"{where} {says}, but must have exactly the names of the model's state_dict: {way_out}")
    for name, tensor in own.items():
        found = state[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise UserError(
                f"{where} has {printable(name)} as {_kind(found)}, but the model has {_kind(tensor)}: {way_out}"
            )
    versioned = OrderedDict(state)
    versioned._metadata = own._metadata  # type: ignore[attr-defined]  # MNASNet asks for versions
    network.load_state_dict(versioned)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _check_masks(
    network: nn.Module,
    masks: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    cut: Mapping[str, Mapping[int, Tensor]],
    where: str,
    way_out: str,
) -> None:
    """Check that masks are of the model's weights, and False exactly on zeros and on what the network lacks.

    A kept weight may be zero, since it may have been trained to it.
    """
    for name, mask in masks.items():
        if name not in shapes:
            raise UserError(f"{where} has {printable(name)}, but the model has no weight of this name: {way_out}")
        if mask.dtype != torch.bool or mask.shape != shapes[name]:
            expected = f"bool {list(shapes[name])}"
            raise UserError(f"{where} has {printable(name)} as {_kind(mask)}, but must have {expected}: {way_out}")
        own = cut_tensors({name: mask}, {name: dict(cut[name])} if name in cut else {})[name]
        if not torch.equal(spread(own, mask.shape, cut.get(name, {})), mask):
            raise UserError(f"{where} keeps weights of {printable(name)} that the network does not have: {way_out}")
        kept_off = int((network.get_parameter(name).detach()[~own] != 0).sum())
        if kept_off:
            raise UserError(
                f"{where} disagrees with {WEIGHTS_FILE}: {kept_off} weights of {printable(name)} are masked, but not "
                f"zero: {way_out}"
            )
