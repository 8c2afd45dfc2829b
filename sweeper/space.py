"""A space: what a sweep is. Read from one YAML file, resolved and checked whole before anything starts."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from sweeper.cells import Cell, make_cells, read_axis
from sweeper.distributions import Distribution, corners, read_distribution
from sweeper.narrowing import narrowing
from sweeper.overlay import apply_setting, merge_profile
from sweeper.values import Scalar, mapping, plain, shown
from trials.config import WHERE, Frozen, TrialConfig, parse, validate
from trials.errors import UserError, unknown_name
from trials.reading import read_yaml
from trials.trial import RESULT

__all__ = ["Cell", "Space", "list_spaces", "load_space", "narrowing"]

SPACES = Path(__file__).resolve().parent.parent / "search_spaces"

OBJECTIVES = tuple(c for c in (*RESULT, "dense_flops", "parameters") if not c.startswith("test_"))

MOST_CELLS = 10_000

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Resources(Frozen):
    """What one trial occupies. ``gpu: 0.25`` puts four trials on a card."""

    cpu: float = Field(default=1, gt=0)
    gpu: float = Field(default=0, ge=0)

    @field_validator("gpu")
    @classmethod
    def _whole_cards(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise UserError(f"resources.gpu is {value:g}, but must be a whole number, or a fraction up to 1")
        return value


class Space(Frozen):
    """A resolved space: profile and overrides applied, ladders spelled out.

    Attributes:
        trial: template of every trial's config; what grid and search set wins over it.
        grid: values by dotted path; their combinations are the cells.
        search: a distribution by dotted path, in alphabetical order.
        samples: how many points each cell's search may try; 1 where nothing is searched.
        retries: how often a failed trial is tried again.
        max_concurrent: trials at once; None is as many as the resources allow.
        seed: of the search.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    about: str = ""
    trial: dict[str, Any]
    grid: dict[str, tuple[Scalar, ...]] = Field(default_factory=dict)
    search: dict[str, Distribution] = Field(default_factory=dict)
    sampler: Literal["tpe", "random"] = "tpe"
    samples: int = Field(ge=1)
    objective: str = "val_accuracy"
    direction: Literal["maximize", "minimize"] = "maximize"
    resources: Resources = Resources()
    retries: int = Field(default=1, ge=0)
    max_concurrent: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _default_samples(cls, content: Any) -> Any:
        if content.get("samples") is not None:
            return content
        if content.get("search"):
            raise UserError("samples is missing: say how many points the search may try in each cell")
        return {**content, "samples": 1}

    @field_validator("trial", "resources", mode="before")
    @classmethod
    def _is_mapping(cls, content: object, info: ValidationInfo) -> dict[str, Any]:
        return mapping(content, str(info.field_name))

    @field_validator("grid", mode="before")
    @classmethod
    def _read_grid(cls, content: object) -> dict[str, tuple[Scalar, ...]]:
        entries = _entries(content, "grid", "lists of values")
        grid = {path: read_axis(values, f"grid.{path}") for path, values in entries.items()}
        cells = math.prod(map(len, grid.values()))
        if cells > MOST_CELLS:
            raise UserError(f"grid has {cells} cells, but must have at most {MOST_CELLS}: split it into several spaces")
        return grid

    @field_validator("search", mode="before")
    @classmethod
    def _read_search(cls, content: object) -> dict[str, Distribution]:
        entries = _entries(content, "search", "distributions")
        return {path: read_distribution(entries[path], f"search.{path}") for path in sorted(entries)}

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, value: str) -> str:
        if value.startswith("test_"):
            raise UserError(
                f"objective is {value!r}, but selection must never see the test set: "
                "use val_accuracy; the test set's figures are reported beside it"
            )
        if value not in OBJECTIVES:
            raise UserError(unknown_name("objective", value, OBJECTIVES))
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Space:
        if not self.search and self.samples != 1:
            raise UserError(
                f"samples is {self.samples}, but must be 1 where search is empty: every sample would be equal"
            )
        for path in self.search:
            if path in self.grid:
                raise UserError(f"{path} is both in grid and in search, but must be in one of them: remove the other")
        paths = {*self.grid, *self.search}
        for path in sorted(paths):
            parts = path.split(".")
            for outer in (".".join(parts[:i]) for i in range(1, len(parts))):
                if outer in paths:
                    raise UserError(f"{path} lies inside {outer}, but grid and search must set either: remove one")
        return self

    def cells(self) -> list[Cell]:
        """Every cell, in the grid's order: the last path changes fastest."""
        return make_cells(self.grid)

    def config(self, cell: Cell, params: Mapping[str, Any] | None = None) -> TrialConfig:
        """The trial of one point: the template with the cell's values and the searched ``params`` set into it.

        Raises:
            UserError: no method's config accepts it.
        """
        content = copy.deepcopy(self.trial)
        for path, value in {**cell.values, **(params or {})}.items():
            _set(content, path, value)
        return parse(content)

    def check(self) -> None:
        """Build every cell's config, at every bound and choice of its search.

        Raises:
            UserError: one of them cannot be a trial.
        """
        points = corners(self.search)
        for cell in self.cells():
            for params in points:
                try:
                    self.config(cell, params)
                except UserError as error:
                    at = ", ".join([*filter(None, [cell.key]), *(f"{path}={value}" for path, value in params.items())])
                    raise UserError(f"{error} (the trial at {at})" if at else str(error)) from None

    def document(self) -> dict[str, Any]:
        """The space as JSON has it; :meth:`from_document` reads it back."""
        content = self.model_dump(mode="json", exclude={"search"})
        content["search"] = {path: distribution.document() for path, distribution in self.search.items()}
        return {field: content[field] for field in Space.model_fields}

    @classmethod
    def from_document(cls, document: object) -> Space:
        """The space of a :meth:`document`, or a UserError that says what is wrong with it."""
        space: Space = validate(cls, mapping(plain(document, ""), "a space"), "")
        return space


def load_space(
    name_or_file: str,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    samples: int | None = None,
    max_concurrent: int | None = None,
) -> Space:
    """A space of ``search_spaces/`` by name, or of a YAML file, resolved; :meth:`Space.check` then tries its cells.

    Args:
        profile: one of the space's own, merged over it. Mappings merge; everything else, and each entry of ``search``,
            is replaced; null removes an entry of ``grid`` or ``search``.
        overrides: ``a.b=c``, after the profile. All that follows ``grid.`` or ``search.`` is one path.
        samples: instead of what the space says, like ``max_concurrent``.

    Raises:
        UserError: there is no such space or profile, or something in it is wrong.
    """
    path = _find(name_or_file)
    content = _read(path)
    profiles = _profiles(content)
    if profile is not None:
        if not profiles:
            raise UserError(f"profile is {profile!r}, but {path.stem} has no profiles: leave it out")
        if profile not in profiles:
            raise UserError(unknown_name("profile", profile, profiles))
        content = merge_profile(content, mapping(profiles[profile], f"profiles.{profile}"))
    for setting in overrides:
        content = mapping(apply_setting(content, setting), "a space")
    for field, value in (("samples", samples), ("max_concurrent", max_concurrent)):
        if value is not None:
            content[field] = value
    if "name" in content:
        raise UserError(f"name is {shown(content['name'])}, but a space is called as its file: remove it")
    return Space.from_document({"name": path.stem, **content})


def list_spaces() -> list[tuple[str, str, list[str]]]:
    """What ``search_spaces/`` holds: name, what it is about, names of its profiles."""
    contents = ((path, _read(path)) for path in sorted(SPACES.glob("*.yaml")))
    return [(path.stem, str(content.get("about", "")), list(_profiles(content))) for path, content in contents]


def _find(name_or_file: str) -> Path:
    if "/" in name_or_file or name_or_file.endswith((".yaml", ".yml")):
        return Path(name_or_file).expanduser()
    path = SPACES / f"{name_or_file}.yaml"
    if not path.exists():
        names = [path.stem for path in SPACES.glob("*.yaml")]
        raise UserError(f"{unknown_name('space', name_or_file, names)}; or give a YAML file: its path")
    return path


def _read(path: Path) -> dict[str, Any]:
    content = mapping(plain(read_yaml(path), ""), str(path))
    if not _NAME.fullmatch(path.stem):
        raise UserError(f"{path} is called {path.stem!r}, but must be called by letters, digits, '.', '_' and '-'")
    return content


def _profiles(content: dict[str, Any]) -> dict[str, Any]:
    """A space's profiles by name, taken out of its content."""
    profiles = content.pop("profiles", None)
    return {} if profiles is None else mapping(profiles, "profiles")


def _entries(content: object, where: str, kind: str) -> dict[str, Any]:
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


def _set(content: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path into nested mappings."""
    *parents, last = path.split(".")
    for depth, key in enumerate(parents, start=1):
        if content.get(key) is None:
            content[key] = {}
        content = content[key]
        if not isinstance(content, dict):
            outer = ".".join(parents[:depth])
            raise UserError(f"{outer} is {shown(content)}, but must be a mapping: grid or search sets {path}")
    content[last] = value
