"""The space: the complete description of a sweep, from one YAML file, resolved and checked before any trial starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from sweeper.space.alternatives import read_search_entry, search_at
from sweeper.space.distributions import Distribution, corners
from sweeper.space.entries import read_entries
from sweeper.space.grid.cases import Case, read_cases, template
from sweeper.space.grid.cells import Cell, make_cells
from sweeper.space.grid.conditions import in_order
from sweeper.space.grid.grid import Axis, read_grid
from sweeper.space.options.callbacks import TrialCallback, read_callbacks
from sweeper.space.options.confirm import Confirm, read_confirm
from sweeper.space.options.constraints import Constraint, read_constraints
from sweeper.space.options.enqueue import read_points
from sweeper.space.options.from_sweep import FromSweep
from sweeper.space.options.objectives import Objective, read_objectives
from sweeper.space.options.pbt import Pbt, with_samples
from sweeper.space.options.pruners import Pruner, read_pruner
from sweeper.space.options.replicates import Replicates, read_replicates
from sweeper.space.options.resources import Resources
from sweeper.space.options.sampler import Sampler
from sweeper.space.options.samplers import Grid, Tpe, read_sampler
from sweeper.space.options.stopping import StopWhen
from sweeper.space.values import Scalar, mapping, strings
from trials.config.named_objects import code_of
from trials.config.trial_config import TrialConfig
from trials.dotted_paths import set_at
from trials.errors import UserError, unknown_name
from trials.frozen import Frozen
from trials.methods.parsing import parse
from trials.networks.named_files import Known, resolved
from trials.plugins.importing import require_admitted


class Space(Frozen):
    """A resolved space: profile and overrides are applied, ladders expanded.

    Attributes:
        name: the file's name without extension.
        about: description for people.
        plugins: users' code that trials, sampler and callbacks may name as ``module:attribute``: folders and .py files
            by absolute path, and names of installed modules. They are admitted before a space is made
            (:func:`trials.plugins.importing.admit_listed`).
        trial: template of every trial's config; values from grid and search override it.
        grid: values by dotted path; their combinations are the cells. Conditional paths follow those they depend on.
        cases: by name, changes to the template for the cells that meet a condition.
        search: distributions by dotted path, in alphabetical order; conditional ones follow those they depend on.
        enqueue: points of the search to try first in every cell; the sampler suggests the values they leave out.
        sampler: suggests the points.
        samples: number of points that each cell's search may try; 1 if nothing is searched.
        ask_again: number of times that a suggestion is replaced if the cell has had the same point already; by default
            5 for a search of choices and integers, of which no point is asked twice then, and otherwise 0.
        stop_at: value of the objective at which a cell's search ends.
        stop_when: rules by which a cell's search ends before its samples.
        objectives: columns that rank the trials, several as a Pareto front. ``objective`` and ``direction`` give one.
        constraints: bounds that a trial must satisfy to be ranked.
        pruner: stops trials early, comparing within a cell; None runs all trials to their end.
        from_sweep: earlier sweep whose trials the search starts from.
        pbt: population based training instead of a sampler; its segments are the samples.
        replicates: seeds with which every point runs, and what makes one value of theirs; None runs it once.
        confirm: values with which a cell's best sample runs again after the search; None reports the searched trial.
        callbacks: Ray Tune callbacks that follow the trials, such as loggers (:mod:`sweeper.space.options.callbacks`).
        resources: CPUs and GPUs per trial.
        retries: number of times that a failed trial is run again.
        silence_limit_s: seconds without a step, a row or a commit after which a trial counts as hung: its process is
            killed, which counts as a failure. None disables the limit.
        storage_patience_s: seconds for which trials and driver wait for a storage that errs; then the run ends.
        trial_hours: limit on the wall-clock time of one trial, over its attempts and without shared trials.
        keep_checkpoints: ``all``, ``best``, ``last_level`` or ``none`` of the finished trials (docs/storage.md).
        max_concurrent: number of trials that run at once; None is limited by resources only.
        max_epochs: limit on the epochs that all trials train together, over all runs of the command.
        max_hours: limit on the wall-clock time of one run of the command.
        seed: seed of the search.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    about: str = ""
    plugins: tuple[str, ...] = Field(default=(), strict=False)
    trial: dict[str, Any]
    grid: dict[str, Axis] = Field(default_factory=dict)
    cases: dict[str, Case] = Field(default_factory=dict)
    search: dict[str, Distribution] = Field(default_factory=dict)
    enqueue: tuple[dict[str, Any], ...] = ()
    sampler: Sampler = Tpe()
    samples: int = Field(ge=1)
    ask_again: int | None = Field(default=None, ge=0, le=1000)
    stop_at: float | None = Field(default=None, allow_inf_nan=False)
    stop_when: StopWhen | None = None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    pruner: Pruner | None = None
    from_sweep: FromSweep | None = None
    pbt: Pbt | None = None
    replicates: Replicates | None = None
    confirm: Confirm | None = None
    callbacks: tuple[TrialCallback, ...] = ()
    resources: Resources = Resources()
    retries: int = Field(default=1, ge=0)
    silence_limit_s: float | None = Field(default=3600, gt=0)
    storage_patience_s: float = Field(default=600, ge=0, allow_inf_nan=False)
    trial_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    keep_checkpoints: Literal["all", "best", "last_level", "none"] = "all"
    max_concurrent: int | None = Field(default=None, ge=1)
    max_epochs: int | None = Field(default=None, ge=1)
    max_hours: float | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, content: Any) -> Any:
        known = {*cls.model_fields, "objective", "direction"}
        for key in (key for key in content if key not in known):
            raise UserError(unknown_name("key", key, known))
        plugins = strings(content.get("plugins"))
        # The default of samples depends on other sections, which are therefore read first.
        content = {**read_objectives(content), "sampler": read_sampler(content.get("sampler", "tpe"), plugins)}
        content["callbacks"] = read_callbacks(content.get("callbacks"), plugins)
        if content.get("pbt") is not None:
            return with_samples(content)
        if content.get("samples") is not None:
            return content
        if not content.get("search"):
            return {**content, "samples": 1}
        if not isinstance(content["sampler"], Grid):
            raise UserError("samples is missing: say how many points the search may try in each cell")
        combinations = content["sampler"].combinations(cls._read_search(content["search"]))
        return {**content, "samples": combinations + len(read_points(content.get("enqueue")))}

    @field_validator("plugins")
    @classmethod
    def _are_admitted(cls, plugins: tuple[str, ...]) -> tuple[str, ...]:
        for listed in plugins:
            require_admitted(listed)
        return plugins

    @field_validator("trial", "resources", mode="before")
    @classmethod
    def _is_mapping(cls, content: object, info: ValidationInfo) -> dict[str, Any]:
        return mapping(content, str(info.field_name))

    @field_validator("grid", mode="before")
    @classmethod
    def _read_grid(cls, content: object) -> dict[str, Axis]:
        grid = read_grid(read_entries(content, "grid", "lists of values"))
        make_cells(grid)
        return grid

    @field_validator("cases", mode="before")
    @classmethod
    def _read_cases(cls, content: object) -> dict[str, Case]:
        return read_cases(content)

    @field_validator("search", mode="before")
    @classmethod
    def _read_search(cls, content: object) -> dict[str, Distribution]:
        entries = read_entries(content, "search", "distributions")
        found = {path: read_search_entry(entries[path], f"search.{path}") for path in sorted(entries)}
        return {path: found[path] for path in in_order(found, "search")}

    @field_validator("enqueue", mode="before")
    @classmethod
    def _read_enqueue(cls, content: object) -> tuple[dict[str, Any], ...]:
        return read_points(content)

    @field_validator("constraints", mode="before")
    @classmethod
    def _read_constraints(cls, content: object, info: ValidationInfo) -> tuple[Constraint, ...]:
        return read_constraints(content, info.data.get("plugins", ()))

    @field_validator("from_sweep", mode="before")
    @classmethod
    def _read_from_sweep(cls, content: object) -> object:
        return {"sweep": content} if isinstance(content, str) else content

    @field_validator("pruner", mode="before")
    @classmethod
    def _read_pruner(cls, content: object) -> Pruner | None:
        return read_pruner(content)

    @field_validator("replicates", mode="before")
    @classmethod
    def _read_replicates(cls, content: object) -> Replicates | None:
        return read_replicates(content)

    @field_validator("confirm", mode="before")
    @classmethod
    def _read_confirm(cls, content: object) -> Confirm | None:
        return read_confirm(content)

    @property
    def objective(self) -> str:
        """Column of the first objective, by which trials are displayed."""
        return self.objectives[0].column

    @property
    def direction(self) -> str:
        """Direction of the first objective, ``maximize`` or ``minimize``."""
        return self.objectives[0].direction

    @cached_property
    def _parsed(self) -> dict[str, TrialConfig]:
        """Cache of configs by cell key, used if nothing is searched: a cell then has one trial."""
        return {}

    @cached_property
    def _at_corners(self) -> dict[tuple[str, str], TrialConfig]:
        """Cache of the configs at corners of searches, by cell key and point: several checks of a run ask for them."""
        return {}

    @cached_property
    def _files(self) -> Known:
        """The files that trials name, as first read: a run is of the content that it began with."""
        return {}

    @cached_property
    def code(self) -> tuple[str, ...]:
        """The plug-ins of the space, and the packages of installed distributions whose names its trials use."""
        configs = (config for cell in self.cells() for config in self.corner_configs(cell))
        return tuple(dict.fromkeys([*self.plugins, *(entry for config in configs for entry in code_of(config))]))

    def cells(self) -> list[Cell]:
        """Return every cell in the grid's order: the last path changes fastest."""
        return make_cells(self.grid)

    def config(self, cell: Cell, params: Mapping[str, Any] | None = None) -> TrialConfig:
        """Return the trial config of one point: the cell's template with its grid values and ``params`` set.

        Of a point with replicates that is the first one, unless ``params`` say otherwise.

        Files that it names are made absolute and hashed (:func:`trials.networks.named_files.resolved`).

        Raises:
            UserError: the method's config rejects it, or a file that it names cannot be read.
        """
        if not params and cell.key in self._parsed:
            return self._parsed[cell.key]
        content = template(self.trial, self.cases, cell.values)
        for path, value in {**self.replicate_values()[0], **cell.values, **(params or {})}.items():
            set_at(content, path, value)
        if self.plugins:
            content["plugins"] = list(self.plugins)
        config = resolved(parse(content), self._files)
        if not params and not self.search:
            self._parsed[cell.key] = config
        return config

    def replicate_values(self) -> list[dict[str, int]]:
        """Return what each replicate of a point sets in its config; one that sets nothing if a point is one trial."""
        return self.replicates.points() if self.replicates else [{}]

    @property
    def trials_per_cell(self) -> int:
        """Number of trials that each cell's search may run, without confirmations."""
        return self.samples * len(self.replicate_values())

    def search_in(self, values: Mapping[str, Scalar]) -> dict[str, Distribution]:
        """Return the search of the cell with these grid values (see :func:`.alternatives.search_at`)."""
        return search_at(self.search, values)

    def corners(self, cell: Cell) -> list[dict[str, Any]]:
        """Return the points of a cell's search at its bounds and choices (see :func:`.distributions.corners`)."""
        return corners(self.search_in(cell.values), cell.values)

    def corner_config(self, cell: Cell, params: Mapping[str, Any]) -> TrialConfig:
        """Return the config of one of :meth:`corners`, parsed once; raises UserError as :meth:`config`."""
        key = (cell.key, repr(params))  # as text, since 1 and true are equal
        found = self._at_corners.get(key)
        if found is None:
            found = self.config(cell, params)
            if params and len(self._at_corners) < _MOST_KEPT:
                self._at_corners[key] = found
        return found

    def corner_configs(self, cell: Cell) -> Iterator[TrialConfig]:
        """Yield the trial configs at the corners of a cell's search.

        Raises:
            UserError: the method's config rejects one of them.
        """
        return (self.corner_config(cell, params) for params in self.corners(cell))

    def most_pieces(self) -> int:
        """Return the largest number of pieces of work that one of the trials may run in parallel."""
        return max(config.parallel_pieces for cell in self.cells() for config in self.corner_configs(cell))

    def document(self) -> dict[str, Any]:
        """Return the space as JSON-compatible values; :func:`sweeper.space.load.from_document` reads them."""
        own = {
            *("grid", "cases", "search", "sampler", "objectives", "constraints", "pruner"),
            *("replicates", "confirm", "callbacks"),
        }
        content = self.model_dump(mode="json", exclude=own)
        if not self.plugins:
            del content["plugins"]  # so that spaces without are written as they always were
        for field in ("ask_again", "stop_at", "stop_when", "trial_hours", "keep_checkpoints"):
            if content[field] in (None, "all"):
                del content[field]
        content["grid"] = {path: axis.document() for path, axis in self.grid.items()}
        if self.cases:
            content["cases"] = {name: case.document() for name, case in self.cases.items()}
        content["search"] = {path: distribution.document() for path, distribution in self.search.items()}
        content["sampler"] = self.sampler.document()
        content["pruner"] = self.pruner.document() if self.pruner else None
        if self.replicates:
            content["replicates"] = self.replicates.document()
        if self.confirm:
            content["confirm"] = self.confirm.document()
        if self.stop_when:
            content["stop_when"] = self.stop_when.document()
        if self.callbacks:
            content["callbacks"] = [callback.document() for callback in self.callbacks]
        content["constraints"] = [constraint.document() for constraint in self.constraints]
        if len(self.objectives) > 1:
            content["objectives"] = [objective.model_dump() for objective in self.objectives]
        else:
            content |= {"objective": self.objective, "direction": self.direction}
        return content


_MOST_KEPT = 20_000
"""Maximum number of configs at corners that are kept, so that a driver's memory stays small."""
