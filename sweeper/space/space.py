"""A space: what a sweep is. Read from one YAML file, resolved and checked whole before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from sweeper.space.distributions import Distribution, corners, read_distribution
from sweeper.space.grid.cases import Case, read_cases, template
from sweeper.space.grid.cells import Cell, make_cells
from sweeper.space.grid.conditions import in_order
from sweeper.space.grid.grid import Axis, read_grid
from sweeper.space.options.constraints import Constraint, read_constraints
from sweeper.space.options.enqueue import read_points
from sweeper.space.options.objectives import Objective, read_objectives
from sweeper.space.options.pbt import Pbt, with_samples
from sweeper.space.options.pruners import Pruner, read_pruner
from sweeper.space.options.resources import Resources
from sweeper.space.options.samplers import Grid, Sampler, Tpe, read_sampler
from sweeper.space.values import mapping
from trials.config.trial_config import WHERE, TrialConfig
from trials.dotted_paths import set_at
from trials.errors import UserError, shown, unknown_name
from trials.frozen import Frozen
from trials.methods.parsing import parse


class FromSweep(Frozen):
    """A sweep's name in the same storage, or its path; ``points`` of its best are tried where its trials are not the
    same question, see :mod:`sweeper.search.warm_start`."""

    sweep: str = Field(min_length=1)
    points: int = Field(default=3, ge=1)


class Space(Frozen):
    """A resolved space: profile and overrides applied, ladders spelled out.

    Attributes:
        trial: template of every trial's config; what grid and search set wins over it.
        grid: values by dotted path; their combinations are the cells. Conditional paths come after what they depend on.
        cases: by name, what the trials of some cells say beside the template, or instead of it.
        search: a distribution by dotted path, in alphabetical order; conditional ones after what they depend on.
        enqueue: points of the search to try first in every cell; what they leave out is suggested.
        sampler: who suggests the points.
        objectives: what they are judged by; more than one make a Pareto front. In a file ``objective`` and
            ``direction`` say a single one.
        constraints: bounds that a trial must keep to count.
        from_sweep: an earlier sweep whose trials the search begins with.
        pruner: who stops trials early, each compared within its cell; None lets all run to their end.
        samples: how many points each cell's search may try; 1 where nothing is searched.
        pbt: population based training instead of a sampler; its segments are the samples.
        retries: how often a failed trial is tried again.
        silence_limit_s: a trial that for so long takes no step, reports no row and commits nothing is taken for hung:
            its process is killed, and that counts as a failure; null waits for ever.
        max_concurrent: trials at once; None is as many as the resources allow.
        max_epochs: that the sweep's trials may train in all, over all runs of the command.
        max_hours: of wall-clock time for one run of the command.
        seed: of the search.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    about: str = ""
    trial: dict[str, Any]
    grid: dict[str, Axis] = Field(default_factory=dict)
    cases: dict[str, Case] = Field(default_factory=dict)
    search: dict[str, Distribution] = Field(default_factory=dict)
    enqueue: tuple[dict[str, Any], ...] = ()
    sampler: Sampler = Tpe()
    samples: int = Field(ge=1)
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    pruner: Pruner | None = None
    from_sweep: FromSweep | None = None
    pbt: Pbt | None = None
    resources: Resources = Resources()
    retries: int = Field(default=1, ge=0)
    silence_limit_s: float | None = Field(default=3600, gt=0)
    max_concurrent: int | None = Field(default=None, ge=1)
    max_epochs: int | None = Field(default=None, ge=1)
    max_hours: float | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, content: Any) -> Any:
        known = {*cls.model_fields, "objective", "direction"}
        for key in content:
            if key not in known:
                raise UserError(unknown_name("key", key, known))
        content = {**read_objectives(content), "sampler": read_sampler(content.get("sampler", "tpe"))}
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
        found = {path: read_distribution(entries[path], f"search.{path}") for path in sorted(entries)}
        return {path: found[path] for path in in_order(found, "search")}

    @field_validator("enqueue", mode="before")
    @classmethod
    def _read_enqueue(cls, content: object) -> tuple[dict[str, Any], ...]:
        return read_points(content)

    @field_validator("constraints", mode="before")
    @classmethod
    def _read_constraints(cls, content: object) -> tuple[Constraint, ...]:
        return read_constraints(content)

    @field_validator("from_sweep", mode="before")
    @classmethod
    def _read_from_sweep(cls, content: object) -> object:
        return {"sweep": content} if isinstance(content, str) else content

    @field_validator("pruner", mode="before")
    @classmethod
    def _read_pruner(cls, content: object) -> Pruner | None:
        return read_pruner(content)

    @property
    def objective(self) -> str:
        """The first objective's column: by it trials are shown."""
        return self.objectives[0].column

    @property
    def direction(self) -> str:
        """``maximize`` or ``minimize`` it."""
        return self.objectives[0].direction

    @cached_property
    def _parsed(self) -> dict[str, TrialConfig]:
        """The configs made so far, by cell, where nothing is searched: a cell has one trial then."""
        return {}

    def cells(self) -> list[Cell]:
        """Every cell, in the grid's order: the last path changes fastest."""
        return make_cells(self.grid)

    def config(self, cell: Cell, params: Mapping[str, Any] | None = None) -> TrialConfig:
        """The trial of one point: the cell's template with its values and the searched ``params`` set into it.

        Raises:
            UserError: no method's config accepts it.
        """
        if not params and cell.key in self._parsed:
            return self._parsed[cell.key]
        content = template(self.trial, self.cases, cell.values)
        for path, value in {**cell.values, **(params or {})}.items():
            set_at(content, path, value)
        config = parse(content)
        if not params and not self.search:
            self._parsed[cell.key] = config
        return config

    def most_pieces(self) -> int:
        """The most pieces of work that one of its trials has running at once."""
        points = corners(self.search)
        return max(self.config(cell, params).parallel_pieces for cell in self.cells() for params in points)

    def document(self) -> dict[str, Any]:
        """The space as JSON has it; :func:`sweeper.space.load.from_document` reads it back."""
        own = {"grid", "cases", "search", "sampler", "objectives", "constraints", "pruner"}
        content = self.model_dump(mode="json", exclude=own)
        content["grid"] = {path: axis.document() for path, axis in self.grid.items()}
        if self.cases:
            content["cases"] = {name: case.document() for name, case in self.cases.items()}
        content["search"] = {path: distribution.document() for path, distribution in self.search.items()}
        content["sampler"] = self.sampler.document()
        content["pruner"] = self.pruner.document() if self.pruner else None
        content["constraints"] = [constraint.document() for constraint in self.constraints]
        if len(self.objectives) > 1:
            content["objectives"] = [objective.model_dump() for objective in self.objectives]
        else:
            content |= {"objective": self.objective, "direction": self.direction}
        return content


_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def read_entries(content: object, where: str, kind: str) -> dict[str, Any]:
    """A grid or a search: its paths, each a field of a trial that says what the trial computes."""
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{where} is {shown(content)}, but must be a mapping of dotted paths to {kind}")
    for path in content:
        if not _PATH.fullmatch(path):
            raise UserError(f"{where} has the path {path!r}, but paths are names with dots between, as pretrain.epochs")
        if path in WHERE:
            raise UserError(f"{where} has {path}, which does not change what a trial computes: set it in trial")
    return content
