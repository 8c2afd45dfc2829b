"""The page of a method: source, stages and their cost, patterns, models that it refuses, fields."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from pydantic import BaseModel

from sweeper.describe.example_configs import example_config
from sweeper.describe.fields import DescribedField, described_fields, model_in
from sweeper.describe.meanings import paragraphs_of, plain_text
from sweeper.describe.page import Page, PageTable
from sweeper.describe.refusals import DATA, refused_by
from sweeper.describe.stages import StageLine, lines_of
from trials.config.recipes import BackwardConfig
from trials.config.source_config import HasSource, StartsDense
from trials.config.trial_config import TrialConfig
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.methods.supported import patterns_of


def method_page(name: str) -> Page:
    """Return the page of the method ``name``, generated from its classes."""
    method = METHODS[name]
    module = inspect.getdoc(inspect.getmodule(method)) or ""
    config = plain_text(inspect.cleandoc(method.Config.__doc__ or "").partition("\nAttributes:")[0])
    return Page(
        f"method {name}",
        [*paragraphs_of(module), config],
        [PageTable("stages of a trial with its defaults", _stages(name)), _models(name), *field_tables(method.Config)],
    )


def _stages(name: str) -> list[tuple[str, str]]:
    try:
        lines = lines_of(parse(example_config(name)))
    except UserError as error:
        return [("unknown", f"they depend on the config ({error})")]
    costs = [line.cost * line.count for line in lines if line.cost is not None and not line.note.startswith("shared")]
    more = any(line.cost is None for line in lines)
    total = f"{'at least ' if more else ''}{sum(costs)} passes over the training images, without what is shared"
    return [*((_stage_name(line), _stage_text(line)) for line in lines), ("cost", total)]


def _stage_name(line: StageLine) -> str:
    return f"{line.count} x {line.name}" if line.count > 1 else line.name


def _stage_text(line: StageLine) -> str:
    if line.epochs is None:
        return line.note
    cost = f", each as {line.cost // line.epochs}" if line.cost and line.cost != line.epochs else ""
    return f"{line.epochs} epochs{cost}{'; ' if line.note else ''}{line.note}"


def _models(name: str) -> PageTable:
    """The patterns, each with the models that are refused."""
    refused = refused_by(name)
    if not patterns_of(METHODS[name]):
        refused = {"(removes nothing)" if METHODS.built_in(name) else "its own": refused.get("", [])}
    elif list(refused) == [""]:
        refused = dict.fromkeys(patterns_of(METHODS[name]), refused[""])
    rows = [(p, f"all models but {', '.join(models)}" if models else "all models") for p, models in refused.items()]
    also = "; few enough choices only: max_candidates" if name == "oracle" else ""
    return PageTable(f"patterns, and the models they run on (asked with {DATA}'s images{also})", rows)


def field_tables(config: type[BaseModel]) -> list[PageTable]:
    """Return tables of a config's fields: its own, each recipe's, and those that every trial has."""
    every = list(described_fields(config))
    common = set(TrialConfig.model_fields) if issubclass(config, TrialConfig) else set()
    nested = [one for one in every if one.nested and "." not in one.path]
    own = [one for one in every if "." not in one.path and one.path not in common]
    own.sort(key=lambda one: (one.default != "required", one.owner in (HasSource, StartsDense)))
    tables = [PageTable("fields", _rows(own))]
    for outer in nested:
        inner = [one for one in every if one.path.startswith(f"{outer.path}.") and not _in_backward(one.path)]
        tables.append(PageTable(f"{outer.path}: {outer.meaning}", _rows(inner)))
    if any(_in_backward(one.path) for one in every):
        backward = _rows(described_fields(BackwardConfig, "backward."))
        tables.append(PageTable("backward, of every recipe: pruned backward passes", backward))
    if common:
        tables.append(PageTable("fields of every trial", _rows(one for one in every if one.path in common)))
    return tables


def _in_backward(path: str) -> bool:
    return ".backward." in path


def _rows(described: Iterable[DescribedField]) -> list[tuple[str, str]]:
    return [field_row(one) for one in described]


def field_row(one: DescribedField) -> tuple[str, str]:
    """Return the row of a field: its path and default; its values and meaning."""
    held = model_in(one.info.annotation)
    values = "fields below" if held is not None else one.values
    default = "required" if one.default == "required" else f"= {one.default}"
    if one.default == "as follows":
        default = "below"
    return f"{one.path} {default}", f"{values}: {one.meaning}" if one.meaning else values
