"""The files of a model folder, and what its ``config.json`` holds."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, model_validator

from trials.compact import Architecture
from trials.errors import UserError, one_line, shown
from trials.frozen import Frozen, validate
from trials.networks.formats import printable
from trials.optional import DISTRIBUTION

FOLDER_FORMAT = 1
"""Version of the folder's format. A later one that older code cannot read raises it."""

WEIGHTS_FILE, MASKS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "masks.safetensors", "config.json", "README.md"
FOLDER_FILES = (WEIGHTS_FILE, MASKS_FILE, CONFIG_FILE, CARD_FILE)
"""The files that ``export --form hub`` writes: weights, masks, description, model card."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class BuiltModel(Frozen):
    """What builds the network before its weights are loaded (:class:`trials.compact.Architecture`)."""

    model: str = Field(min_length=1)
    num_classes: int = Field(ge=1, le=10_000_000)
    in_channels: int = Field(ge=1, le=100_000)
    image_size: tuple[int, int] = Field(strict=False)
    precision: Literal["float32", "float64", "bf16"]


class ModelCode(Frozen):
    """Where the code of a model from outside this package comes from.

    Attributes:
        module: the plug-in's module, or the installed library.
        installed: whether Python finds it by itself, as it finds timm; otherwise ``plugins`` must list its path.
        digest: 12 hex digits of a plug-in's source; empty for a library.
        version: of a library; empty for a plug-in.
    """

    module: str
    installed: bool
    digest: str = ""
    version: str = ""


class Normalisation(Frozen):
    """Mean and standard deviation of each channel, for pixels scaled to 0..1."""

    mean: tuple[float, ...] = Field(strict=False)
    std: tuple[float, ...] = Field(strict=False)


class StoredFile(Frozen):
    """Size and SHA-256 (64 hex digits) of a file of the folder."""

    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @classmethod
    def of(cls, content: bytes) -> StoredFile:
        return cls(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


class ModelConfig(Frozen):
    """``config.json`` of a model folder.

    Attributes:
        library: always this distribution's name: a folder of another library is refused by it.
        format: version of the folder's format.
        version: version of this package that wrote the folder.
        architecture: what builds the network.
        model_code: of a model from outside this package, what has its code.
        kept: of a network that is physically smaller, the rows of the dense network that each layer keeps.
        normalisation: of the inputs; None if it was unknown at the export.
        classes: names of the classes in order of their numbers; None if the data set gives none.
        trial, method, status: the trial's name, its method and its status at the export.
        config: the trial's config, without paths of the machine it ran on.
        result: the trial's figures; empty unless it had finished.
        environments: where the network was computed (docs/tables.md).
        sample_logits: outputs for :func:`trials.hub.sample.sample_input`; None if they are no test of the network.
        files: size and hash of the other files.
    """

    library: Literal["sparsity-sweeper"] = "sparsity-sweeper"
    format: int = FOLDER_FORMAT
    version: str
    architecture: BuiltModel
    model_code: ModelCode | None = None
    kept: dict[str, list[int]] = Field(default_factory=dict)
    normalisation: Normalisation | None = None
    classes: tuple[str, ...] | None = Field(default=None, strict=False)
    trial: str
    method: str
    status: str
    config: dict[str, Any]
    result: dict[str, Any] = Field(default_factory=dict)
    environments: tuple[dict[str, Any], ...] = Field(default=(), strict=False)
    sample_logits: tuple[float, ...] | None = Field(default=None, strict=False)
    files: dict[str, StoredFile]

    @model_validator(mode="after")
    def _agrees(self) -> ModelConfig:
        shape = self.architecture
        if min(shape.image_size) < 1 or max(shape.image_size) > 100_000:
            raise ValueError(f"architecture.image_size is {list(shape.image_size)}, but must be two sizes in pixels")
        if self.classes is not None and len(self.classes) != shape.num_classes:
            raise ValueError(f"classes has {len(self.classes)} names, but the network has {shape.num_classes} classes")
        given = self.normalisation
        if given is not None and {len(given.mean), len(given.std)} != {shape.in_channels}:
            raise ValueError(f"normalisation must have a mean and a std for each of {shape.in_channels} channels")
        if given is not None and min(given.std) <= 0:
            raise ValueError(f"normalisation has std {list(given.std)}, but all must be above 0")
        return self

    def content(self) -> bytes:
        """The file."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n").encode()

    def built(self) -> Architecture:
        """The architecture, to build the network."""
        return Architecture(**self.architecture.model_dump())


def read_model_config(content: bytes, where: str, way_out: str) -> ModelConfig:
    """Read ``config.json``.

    Args:
        where: the file, for messages.
        way_out: ends the messages on a damaged file.

    Raises:
        UserError: it is no such file, is damaged, or was written by a later version.
    """
    if content.startswith(_LFS_POINTER):
        raise UserError(lfs_message(where))
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} must be JSON, but cannot be read ({one_line(str(error))}): {way_out}") from None
    library = found.get("library") if isinstance(found, dict) else None
    if library != DISTRIBUTION:
        raise UserError(
            f"{where} has library {shown(library)}, but must have {DISTRIBUTION!r}, as export --form hub writes it: "
            "the folder holds the model of another library, which loads it"
        )
    version = found.get("format")
    if isinstance(version, int) and not isinstance(version, bool) and version > FOLDER_FORMAT:
        raise UserError(
            f"{where} has format {version}, but this version of {DISTRIBUTION} reads formats up to {FOLDER_FORMAT}: "
            "update it"
        )
    try:
        described: ModelConfig = validate(ModelConfig, found, "")
    except UserError as error:
        raise UserError(f"{where} is damaged: {one_line(str(error))}: {way_out}") from None
    return described


def check_content(name: str, content: bytes, described: ModelConfig, where: str, way_out: str) -> None:
    """Compare a file with its size and hash in ``config.json``.

    Raises:
        UserError: they differ, or ``config.json`` does not name the file.
    """
    if content.startswith(_LFS_POINTER):
        raise UserError(lfs_message(where))
    expected = described.files.get(name)
    if expected is None:
        raise UserError(f"{CONFIG_FILE} beside {where} says nothing of {printable(name)}: {way_out}")
    found = StoredFile.of(content)
    if found.size_bytes != expected.size_bytes:
        raise UserError(
            f"{where} has {found.size_bytes} bytes, but {CONFIG_FILE} says {expected.size_bytes}: {way_out}"
        )
    if found.sha256 != expected.sha256:
        now, then = found.sha256[:12], expected.sha256[:12]
        raise UserError(f"{where} has the SHA-256 {now}..., but {CONFIG_FILE} says {then}...: {way_out}")


def lfs_message(where: str) -> str:
    """What to say of a file that is only a pointer of Git LFS."""
    return f"{where} is a pointer of Git LFS, not the file: run git lfs pull in its folder"
