"""Base of the trial configs: frozen, typed, unknown keys refused; a trial's name hashes its non-default fields."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from trials.config.named_objects import names_with_colon
from trials.config.recipes import OpenRecipe, one_of
from trials.config.revisions import revised_parts
from trials.data import DATASETS, DataKey, DataOptions, published_header
from trials.data_header import DataHeader
from trials.dotted_paths import drop_at
from trials.errors import UserError
from trials.frozen import Frozen
from trials.models import MODELS
from trials.plugins.importing import require_admitted, require_listed

WHERE = frozenset({"plugins", "data_dir", "device", "checkpoint_every_s", "measure_latency", "capture"})
"""Fields that affect where and how a trial runs, but not its results; they are not part of its name."""


_HASH = re.compile(r"[0-9a-f]{16}")


ReportRule = Literal["last", "best_val"]
"""Which of a stage's epochs counts as its result."""


def _normalise_named(value: object) -> object:
    return {True: "dataset", False: "none"}[value] if isinstance(value, bool) else value


def _are_admitted(plugins: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for listed in plugins:
            require_admitted(listed)
    except UserError as error:
        raise ValueError(str(error)) from None
    return plugins


class Segment(Frozen):
    """An earlier segment of a trial of a population, with its own hyperparameters (see trials/methods/segments.py).

    Attributes:
        until_epoch: the segment's end, as the number of finished epochs of the method's first stage.
        values: the segment's hyperparameters, by dotted path.
    """

    until_epoch: int = Field(ge=1)
    values: dict[str, str | int | float | bool | None]


class TrialConfig(Frozen):
    """Fields common to all trials. Each method adds its own fields in a subclass, next to the method.

    Attributes:
        plugins: users' code that the other fields may name as ``module:attribute``: folders and .py files by absolute
            path, and names of installed modules (:mod:`trials.plugins`).
        method: the pruning method; it decides which other fields a trial has.
        dataset: the data set to train on.
        model: the architecture to train.
        seed: decides initial values, the order of images, augmentation and all other random draws of a trial.
        variant: ``corrected`` follows the method's paper; few methods have others.
        val_fraction: share of the training images that is held out for validation.
        split_seed: decides which training images are held out.
        augment: augment training images: random crops and flips, where the data set has them.
        precision: of forward and backward passes; ``auto`` is bf16 on CUDA and float32 elsewhere.
        memory_format: of images and convolutions; ``auto`` is channels_last on CUDA and contiguous elsewhere.
        compile: compile the forward pass with torch.compile.
        data_dir: folder of the data; null: where the data set is downloaded to, or none is needed.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:N`` or another of torch's devices.
        checkpoint_every_s: seconds between two commits; a trial that is killed loses at most these.
        normalise: normalise pixels by the data set's usual mean and standard deviation, or by ImageNet's (RGB only), or
            not at all (``none`` or false): the network then sees pixels scaled to 0..1, as without BiP's --normalize.
        image_column: column of the images, for data in Parquet files; None finds it.
        label_column: column of the labels, for data in Parquet files; None finds it.
        image_size: side in pixels to which images are resized, for data sets of images of any size.
        stratify_split: hold out the share ``val_fraction`` of every class instead of a share of all images.
        tf32: on CUDA, compute in TF32 what is float32 (with ``bf16``, what autocast leaves in float32): faster, but
            with 10 bits of mantissa instead of 23.
        deterministic: use deterministic algorithms only; an operation that has none fails the trial.
        file_hashes: by the name of a field that names a file, the hash of the file's content (16 hex digits of its
            SHA-256), set when the config is resolved (:mod:`trials.networks.named_files`). In the trial's name the hash
            stands for the path.
        named_files: which fields name a file or a folder, and of what kind: a file of ``weights``, or the folder of a
            finished ``trial``.
        capture: on CUDA, replay a stage's steps as one CUDA graph if the stage allows it; False runs every step
            operator by operator.
        measure_latency: time the final network on batches of 1 and 128 images, on the trial's own device.
        until_epoch: epoch of the method's first stage at which the trial ends. If None, or all epochs of that stage,
            the trial runs every stage.
        lineage: the earlier segments; the other fields hold the hyperparameters of the current one.
        report: which network counts as a stage's result. ``last``: that of its last epoch. ``best_val``: that of the
            best epoch by validation accuracy (:class:`trials.training.best_epoch.BestEpoch` says which are eligible),
            in the last stage and, where a method has levels, in the last stage of every level. None: the method's own
            rule, ``own_report``.
    """

    named_files: ClassVar[Mapping[str, Literal["weights", "trial"]]] = {}
    own_report: ClassVar[ReportRule] = "last"

    plugins: Annotated[tuple[str, ...], AfterValidator(_are_admitted)] = Field(default=(), strict=False)
    method: str
    dataset: Annotated[str, one_of(DATASETS)]
    model: Annotated[str, one_of(MODELS)]
    seed: int = Field(default=0, ge=0)
    variant: Literal["corrected"] = "corrected"
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    stratify_split: bool = False
    image_column: str | None = Field(default=None, min_length=1)
    label_column: str | None = Field(default=None, min_length=1)
    image_size: int | None = Field(default=None, ge=1)
    augment: bool = True
    normalise: Annotated[Literal["dataset", "imagenet", "none"], BeforeValidator(_normalise_named)] = "dataset"
    precision: Literal["auto", "float32", "float64", "bf16"] = "auto"
    tf32: bool = False
    deterministic: bool = False
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: bool = False
    data_dir: str | None = None
    device: str = "auto"
    checkpoint_every_s: float = Field(default=60.0, ge=0)
    measure_latency: bool = False
    capture: bool = True
    until_epoch: int | None = Field(default=None, ge=1)
    lineage: tuple[Segment, ...] = Field(default=(), strict=False)
    report: ReportRule | None = None
    file_hashes: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _computes(self) -> TrialConfig:
        if self.tf32 and self.precision == "float64":
            raise ValueError("tf32 is True, but precision 'float64' computes nothing in float32: leave one of them out")
        recipes = [getattr(self, name) for name in type(self).model_fields]
        if self.compile and any(isinstance(recipe, OpenRecipe) and recipe.backward for recipe in recipes):
            raise ValueError("compile is True, but backward pruning replaces layers' forward: leave one of them out")
        return self

    @model_validator(mode="after")
    def _names_lie_under_plugins(self) -> TrialConfig:
        try:
            for path, name in names_with_colon(self):
                require_listed(name, self.plugins, path)
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _segments_go_on_from_the_last(self) -> TrialConfig:
        if self.report == "best_val" and self.until_epoch is not None:
            raise ValueError(
                "report is 'best_val' beside until_epoch, but a segment of a population goes on from the last network "
                "of the one before: give report 'last', or no population (pbt)"
            )
        return self

    @property
    def reported(self) -> ReportRule:
        """Which of a stage's epochs counts as its result: ``report``, or the method's own rule."""
        return self.report or self.own_report

    def __hash__(self) -> int:
        return hash(self.id)  # fields that are mappings have no hash

    @model_validator(mode="after")
    def _hashes_are_of_files(self) -> TrialConfig:
        given = self.files_given()
        for name, digest in self.file_hashes.items():
            if name not in given:
                names = ", ".join(given) or "no field here does"
                raise ValueError(f"file_hashes has {name}, but only fields that name a file have a hash ({names})")
            if not _HASH.fullmatch(digest):
                raise ValueError(f"file_hashes has {digest!r} for {name}, but must have 16 hex digits: leave it out")
        return self

    def files_given(self) -> dict[str, str]:
        """The files and folders that the config names: path as text, by field."""
        given = {name: getattr(self, name) for name in self.named_files}
        return {name: path for name, path in given.items() if path is not None}

    @property
    def parallel_pieces(self) -> int:
        """Maximum number of work items that the trial can run in parallel, each with the resources of a trial."""
        return 1

    @property
    def data_key(self) -> DataKey:
        """Data set, folder and options: what decides which data the trial reads."""
        return self.dataset, self.data_dir, DataOptions(self.image_column, self.label_column, self.image_size)

    @property
    def revision(self) -> int:
        """Revision of what the method computes from this config (:mod:`trials.config.revisions`).

        A change of what an equal config computes must raise it for exactly those configs, and for the configs of other
        methods that start from such a trial.
        """
        return 1

    @property
    def revised_because(self) -> str:
        """Why ``revision`` is not 1, as a clause for messages; empty where it is 1."""
        return ""

    @property
    def published(self) -> DataHeader | None:
        """Published sizes of its data set; None where they are the user's own."""
        return published_header(self.dataset)

    @property
    def ranks_units_anew(self) -> bool:
        """Whether it ranks units of several weights as no version before (:mod:`trials.config.revisions`)."""
        return False

    @property
    def rounds_anew(self) -> bool:
        """Whether its budgets are others than versions before would count (:mod:`trials.config.revisions`)."""
        return False

    @property
    def indifferent(self) -> frozenset[str]:
        """Dotted paths of fields on which nothing depends in this config, so that other values have the same name."""
        return frozenset()

    @property
    def revisions(self) -> dict[str, int]:
        """Revisions other than 1 of all that computes this config's results, by what has them."""
        return {part: change.number for part, change in revised_parts(self).items()}

    @property
    def id(self) -> str:
        """The trial's name: its method, without the module, and a hash of every field that differs from its default.

        Hashes of files stand for their paths; revisions are hashed where they are not 1. Fields that a later version
        added do not count where they have the values of before (:attr:`trials.frozen.Frozen.as_before`).
        """
        return self.name_at(self.revisions)

    def name_at(self, revisions: Mapping[str, int], without: Collection[str] = ()) -> str:
        """The trial's name at other revisions than this code's, such as those that an earlier sweep was made with.

        ``without``: dotted paths of fields whose values were defaults then, and so no part of the name.
        """
        content = self.model_dump(mode="json", exclude_defaults=True, exclude={*WHERE, "file_hashes"})
        for path in (*without, *_as_before(self)):
            drop_at(content, path)
        content |= {field: f"sha256:{digest}" for field, digest in self.file_hashes.items()}
        method = self.method.rpartition(":")[2]
        return f"{method}-{content_hash({**content, **({'revisions': dict(revisions)} if revisions else {})})}"


def _as_before(config: BaseModel, prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths of fields that have the values of before they were added."""
    before = getattr(config, "as_before", {})
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name in before and value == before[name]:
            yield f"{prefix}{name}"
        elif isinstance(value, BaseModel):
            yield from _as_before(value, f"{prefix}{name}.")


class HasVariant(TrialConfig):
    """Config of methods whose released code differs from their paper.

    Attributes:
        variant: ``corrected`` follows the paper; ``original`` does what the released code does, including its bugs.
    """

    variant: Literal["corrected", "original"] = "corrected"  # type: ignore[assignment]  # wider than the base's Literal


_NAMES = 1
"""Version of the rule by which names are made. Fixed: another number would rename every trial."""


def content_hash(content: Mapping[str, Any]) -> str:
    """Return 12 hex digits of the SHA-256 of ``content`` and the version of this rule, as canonical JSON."""
    text = json.dumps({"schema": _NAMES, **content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
