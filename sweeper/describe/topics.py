"""What ``--describe`` can describe: kinds, their names, and the page of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from rich.console import Console

from sweeper.describe.fields import described_fields, values_text
from sweeper.describe.meanings import meanings_of, summary_of
from sweeper.describe.methods import field_row, field_tables, method_page
from sweeper.describe.named_fields import field_pages
from sweeper.describe.outside import outside_pages
from sweeper.describe.page import Page, PageTable
from sweeper.describe.refusals import refused_by
from sweeper.space.distributions import DISTRIBUTION_KINDS, Choice, Int, Uniform
from sweeper.space.grid.conditions import CONDITION_KEYS, Equal, Within
from sweeper.space.grid.grid import LADDERS
from sweeper.space.options.callbacks import ARTIFACTS, CALLBACKS, TrialCallback
from sweeper.space.options.confirm import Confirm
from sweeper.space.options.constraints import Constraint
from sweeper.space.options.from_sweep import FromSweep
from sweeper.space.options.objectives import Objective
from sweeper.space.options.pbt import Pbt
from sweeper.space.options.pruners import PRUNERS
from sweeper.space.options.replicates import JUDGES, Replicates
from sweeper.space.options.resources import Resources
from sweeper.space.options.samplers import SAMPLERS
from sweeper.space.options.stopping import StopWhen
from sweeper.space.space import Space
from trials.config.schedules import SCHEDULES
from trials.config.trial_config import TrialConfig
from trials.data import DATASETS, TAKES, published_header
from trials.errors import UserError, nearest_name
from trials.methods.preconditions import model_of
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES


def print_pages(name: str, console: Console) -> None:
    """Print the pages of everything called ``name``; of an empty name, what can be described.

    Raises:
        UserError: nothing has that name.
    """
    if not name:
        _contents().print(console)
        return
    if name in KINDS:
        known, _ = KINDS[name]
        Page(f"every {name}", [f"--describe {' | '.join(known)}"]).print(console)
        return
    pages = [page(name) for known, page in KINDS.values() if name in known] or outside_pages(name)
    pages = pages or field_pages(
        name, {**SECTION_CLASSES, **_prefixed("sampler", SAMPLERS), **_prefixed("pruner", PRUNERS)}
    )
    if not pages:
        every = sorted({one for known, _ in KINDS.values() for one in known})
        hint = nearest_name(name, every)
        raise UserError(
            f"--describe is {name!r}, but nothing has that name{hint}: --describe alone lists what there is"
        )
    for page_of_it in pages:
        page_of_it.print(console)


def _prefixed(kind: str, registry: Mapping[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    return {f"{kind} {name}": options for name, options in registry.items()}


def _contents() -> Page:
    rows = [(kind, ", ".join(known)) for kind, (known, _) in KINDS.items()]
    return Page("what --describe NAME describes", [], [PageTable("by kind", rows)])


def _model_page(name: str) -> Page:
    header = published_header("cifar10")
    assert header is not None
    model = model_of(name, header.num_classes, header.in_channels)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    module = __import__(_builder(MODELS[name]).__module__, fromlist=["_"])
    refusing = [
        (method, ", ".join(filter(None, patterns)) or "whatever it prunes by")
        for method in METHODS
        if (patterns := [pattern for pattern, models in refused_by(method).items() if name in models])
    ]
    sizes = f"{parameters:,} parameters on CIFAR-10 ({header.num_classes} classes, {header.in_channels} channels)."
    return Page(
        f"model {name}", [summary_of(module), sizes], [PageTable("methods that refuse it, by pattern", refusing)]
    )


def _builder(builder: Any) -> Any:
    while isinstance(builder, functools.partial):
        builder = next((one for one in builder.args if callable(one)), builder.func)
    return builder


def _data_page(name: str) -> Page:
    header, loader = published_header(name), DATASETS[name]
    function = loader.func if isinstance(loader, functools.partial) else loader
    sizes = "Its sizes are those of your files."
    if header is not None:
        height, width = header.image_size
        sizes = (
            f"{header.train_size:,} training images of {height} x {width} pixels, {header.in_channels} channels, "
            f"{header.num_classes} classes."
        )
    own = [one for one in described_fields(TrialConfig) if one.path in (*TAKES.get(name, ()), "data_dir")]
    return Page(
        f"data set {name}", [summary_of(function), sizes], [PageTable("fields of a trial", list(map(field_row, own)))]
    )


def _options_page(kind: str, registry: Mapping[str, type[BaseModel]]) -> Callable[[str], Page]:
    def page(name: str) -> Page:
        return Page(f"{kind} {name}", [summary_of(registry[name])], field_tables(registry[name]))

    return page


def _function_page(kind: str, registry: Mapping[str, Any]) -> Callable[[str], Page]:
    def page(name: str) -> Page:
        return Page(f"{kind} {name}", [summary_of(registry[name]) or _NOTED.get((kind, name), "")])

    return page


_NOTED = {
    ("schedule", "constant"): "lr in every epoch.",
    ("schedule", "cosine"): "Half a cosine from lr to 0 over the epochs (https://arxiv.org/abs/1608.03983).",
    ("schedule", "cosine_released"): "cosine, one epoch late, as in BiP's released code.",
    ("schedule", "cosine_restart"): "Two cosine periods, each over half of the epochs, as in SGDR.",
    ("schedule", "cosine_restart_released"): "cosine_restart with periods of epochs // 2, as in SparsityLoss' code.",
    ("schedule", "step"): "lr, a tenth of it from half of the epochs on, a hundredth from three quarters on.",
}
"""What is said of functions whose code says it in comments."""

SECTION_CLASSES: dict[str, type[BaseModel]] = {
    "resources": Resources,
    "pbt": Pbt,
    "replicates": Replicates,
    "confirm": Confirm,
    "stop_when": StopWhen,
    "constraints": Constraint,
    "objectives": Objective,
    "from_sweep": FromSweep,
    "trial": TrialConfig,
}

SPELLINGS = {
    "objective": "column of the result that ranks trials; val_accuracy by default. Several: objectives.",
    "direction": "maximize (the default) or minimize, of objective.",
    "profiles": "by name, changes that --profile NAME merges over the space; null removes an entry of grid or search.",
}
"""Sections that a file has, but not the space that is made of it."""


def section_meanings() -> dict[str, str]:
    """Return what each section of a space file means."""
    own = {name: meanings_of(Space).get(name, "") for name in Space.model_fields if name != "name"}
    return {**own, **SPELLINGS}


_NAMED: dict[str, Iterable[str]] = {
    "callbacks": CALLBACKS,
    "sampler": SAMPLERS,
    "pruner": PRUNERS,
    "replicates": JUDGES,
    "search": DISTRIBUTION_KINDS,
    "grid": LADDERS,
}
"""Sections whose values have names that are described themselves."""


def _section_page(name: str) -> Page:
    about = section_meanings()[name]
    info = Space.model_fields.get(name)
    values = [] if info is None or name in SECTION_CLASSES else [f"Values: {values_text(info)}."]
    named = _NAMED.get(name)
    if named is not None:
        kind = {"grid": "Ladders", "replicates": "Judges"}.get(name, "Names")
        values = [f"{kind}: {', '.join(named)}; --describe NAME describes them."]
    tables = field_tables(SECTION_CLASSES[name]) if name in SECTION_CLASSES else []
    return Page(f"section {name}", [about[:1].upper() + about[1:], *values], tables)


def _search_page(name: str) -> Page:
    classes = {"uniform": Uniform, "loguniform": Uniform, "int": Int, "choice": Choice}
    return Page(f"distribution of a search: {name}", [summary_of(classes[name])])


def _callback_page(name: str) -> Page:
    known = CALLBACKS[name]
    takes = "those of its class" if known.options is None else ", ".join(known.options) or "none of its own"
    text = f"Tells {known.library} of a sweep's trials; needs the extra trackers. Options: {takes}, and those below."
    if known.artifacts:
        text += f" Option artifacts: a list of {', '.join(ARTIFACTS)}, attached to the run of each complete trial."
    return Page(f"callback {name}", [text], field_tables(TrialCallback))


def _condition_page(name: str) -> Page:
    return Page(
        "when: conditions on paths of the grid or the search" if name == "when" else f"condition {name}",
        [summary_of(Equal), summary_of(Within)],
        [PageTable("keys of a mapping", list(CONDITION_KEYS.items()))],
    )


def _ladder_page(name: str) -> Page:
    return Page(f"ladder {name}", [f"In a grid: {', '.join(map(str, LADDERS[name]))}."])


def _names(*registries: Iterable[str]) -> list[str]:
    return [name for registry in registries for name in registry]


KINDS: dict[str, tuple[list[str], Callable[[str], Page]]] = {
    "method": (_names(METHODS), method_page),
    "model": (_names(MODELS), _model_page),
    "dataset": (_names(DATASETS), _data_page),
    "section": (_names(section_meanings()), _section_page),
    "sampler": (_names(SAMPLERS), _options_page("sampler", SAMPLERS)),
    "pruner": (_names(PRUNERS), _options_page("pruner", PRUNERS)),
    "judge": (_names(JUDGES), _options_page("judge of replicates", JUDGES)),
    "callback": (_names(CALLBACKS), _callback_page),
    "score": (_names(SCORES), _function_page("score", SCORES)),
    "distribution": (_names(DISTRIBUTIONS), _function_page("distribution over layers", DISTRIBUTIONS)),
    "pattern": (_names(PATTERNS), _function_page("pattern", PATTERNS)),
    "schedule": (_names(SCHEDULES), _function_page("schedule", SCHEDULES)),
    "search": (_names(DISTRIBUTION_KINDS), _search_page),
    "ladder": (_names(LADDERS), _ladder_page),
    "condition": (_names(["when"], CONDITION_KEYS), _condition_page),
}
"""By kind, the names that can be described, and what describes one."""
