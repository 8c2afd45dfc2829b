"""Pages of what plug-ins and installed distributions define, found by its name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from sweeper.describe.meanings import summary_of
from sweeper.describe.methods import field_tables, method_page
from sweeper.describe.page import Page, PageTable
from sweeper.space.options.sampler import Sampler
from sweeper.space.options.samplers import SAMPLERS
from trials.data import DATASETS
from trials.errors import UserError
from trials.methods.base import Method
from trials.methods.preconditions import model_of
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.plugins.importing import load
from trials.registry import Registry, revision_of
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES

_REGISTRIES: dict[str, Registry[Any]] = {
    "method": METHODS,
    "model": MODELS,
    "data set": DATASETS,
    "sampler": SAMPLERS,
    "score": SCORES,
    "distribution over layers": DISTRIBUTIONS,
    "pattern": PATTERNS,
}


def outside_pages(name: str) -> list[Page]:
    """Return the pages of what is called ``name`` outside this project; none if nothing is.

    Raises:
        UserError: the name has a colon, but no plug-in is listed that has it, or importing it fails.
    """
    prefixed = any(name.partition(":")[0] in registry.prefixes for registry in _REGISTRIES.values())
    if ":" in name and not prefixed:
        return [_page_of(name, load(name, "--describe"), "")]
    return [_page_of(name, registry[name], kind) for kind, registry in _REGISTRIES.items() if name in registry]


def _page_of(name: str, found: Any, kind: str) -> Page:
    """The page of an object; ``kind`` where the registry that knows its name says it."""
    if isinstance(found, type) and issubclass(found, Method):
        METHODS.require(name, "--describe")  # which says what is wrong with it
        return method_page(name)
    if isinstance(found, type) and issubclass(found, Sampler):
        return Page(f"sampler {name}", [summary_of(found)], field_tables(found))
    if (
        not kind
        and isinstance(found, type)
        and any(base.__module__ == "torch.nn.modules.module" for base in found.mro())
    ):
        kind = "model"  # without an import of torch, which this package leaves to trials
    while isinstance(found, functools.partial):
        found = found.func
    rows = [*(_sizes(name) if kind == "model" else ()), *_facts(found)]
    return Page(f"{kind or 'object'} {name}", [summary_of(found)], [PageTable("", rows)])


def _sizes(name: str) -> Iterator[tuple[str, str]]:
    try:
        model = model_of(name, 10, 3)
    except UserError as error:
        yield "cannot be built", str(error)
    else:
        count = sum(parameter.numel() for parameter in model.parameters())
        yield "parameters", f"{count:,} for 10 classes of RGB images"


def _facts(found: Any) -> Iterator[tuple[str, str]]:
    if callable(found):
        yield "called as", _signature(found)
    yield "revision", str(revision_of(found))
    module = inspect.getmodule(found)
    if module is not None and getattr(module, "__file__", None):
        yield "file", str(module.__file__)


def _signature(found: Callable[..., Any] | type[BaseModel]) -> str:
    try:
        return str(inspect.signature(found))
    except (TypeError, ValueError):
        return "unknown"
