"""``--init METHOD``: a space for a method that runs as it is, with every field that it could have in comments."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeper.console import print_line
from sweeper.describe.example_configs import CHOSEN
from sweeper.describe.fields import DescribedField, described_fields, yaml_text
from sweeper.describe.meanings import plain_text
from sweeper.describe.topics import section_meanings
from trials.called import sweep_command
from trials.data import DATASETS, TAKES, published_header
from trials.errors import UserError
from trials.methods.registry import METHODS
from trials.plugins.source import is_path
from trials.system.user_path import user_path

MODEL_FOR = {"digits": "tiny", "imagenet": "ResNet18", "tinyimagenet": "resnet18"}
"""By data set, a model of its size; resnet20s for all others."""

BUDGETS: dict[str, dict[str, list[Any]]] = {
    "density": {"density": [0.5, 0.2, 0.1, 0.05]},
    "stage_pr": {"stage_pr": [0.5, 0.7, 0.9]},
    "starget": {"starget": [0.5, 0.8, 0.9]},
    "p_prune": {"p_prune": [0.5, 0.7, 0.9]},
    "regrow_fraction": {"regrow_fraction": [0.005, 0.01]},
    "prune_fraction": {"prune_fraction": [0.1, 0.2]},
}
"""By field that says how much a method prunes or regrows, values to sweep; the first that a method has counts."""

UNSEARCHED = frozenset({"imp", "oracle", "dwp", "finetune"})
"""Methods whose rates are those of their dense network, or that compare something else than rates."""

SHORT: dict[str, Any] = {
    "epochs": 5,
    "levels": 3,
    "controller.episodes": 4,
    "reg_granularity_prune": 0.05,
    "reg_granularity_pick": 0.05,
    "reg_upper_limit_pick": 0.2,
    "update_reg_interval": 1,
    "stabilize_reg_interval": 20,
    "images": 100,
}
"""By path, the values of a demo; those of epochs are for any recipe."""

_WIDTH = 110


def write_space(method: str, data: str, to: str | None, console: Console, *, plugins: Sequence[str] = ()) -> None:
    """Write a space for ``method`` on the data set ``data`` into a new file, by default ``METHOD_DATA.yaml``.

    Args:
        plugins: users' code that is admitted, which the space lists.

    Raises:
        UserError: there is no such method or data set, or the file exists or cannot be written.
    """
    METHODS.require(method, "--init")
    DATASETS.require(data, "--data")
    path = user_path(f"{_file_name(method)}_{_file_name(data)}.yaml" if to is None else to, "--to")
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"--to is {str(path)!r}, but a space's name must end with .yaml: call it {path}.yaml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(space_text(method, data, [_from(listed, path) for listed in plugins]))
    except FileExistsError:
        raise UserError(f"--to is {str(path)!r}, which exists and is not overwritten: give another name") from None
    except OSError as error:
        raise UserError(f"--to is {str(path)!r}, but must be a file that can be written ({error})") from None
    print_line(console, f"written: {path}; next: {sweep_command()} --space {path} --dry-run")
    for line in _left_to_do(method, data):
        print_line(console, f"before that: {line}")


def _file_name(name: str) -> str:
    """A name as part of a file's: without its module or owner."""
    return re.split(r"[:/]", name)[-1]


def _from(listed: str, path: Path) -> str:
    """A plug-in as the space in ``path`` lists it: a path from its folder, if it is listed by path."""
    if not is_path(listed):
        return listed
    near = Path(os.path.relpath(listed, path.absolute().parent)).as_posix()
    return near if near.startswith(".") else f"./{near}"


def _left_to_do(method: str, data: str) -> Iterator[str]:
    if _lies_in_a_folder(data):
        yield "set trial.data_dir to the folder of your data (docs/data.md)"
    if method == "finetune":
        yield "set trial.source_net to the file of the network to finetune"


def _lies_in_a_folder(data: str) -> bool:
    """Whether a data set of this project is what lies in a folder of the user's."""
    return DATASETS.built_in(data) and published_header(data) is None


def space_text(method: str, data: str, plugins: Sequence[str] = ()) -> str:
    """Return the text of a space of ``method`` on ``data``: what it sweeps, and every other field as a comment.

    ``plugins``: users' code that it lists, as from the space's folder.
    """
    fields = list(described_fields(METHODS[method].Config))
    search = _search(method, fields)
    grid = _grid(method, data, fields, searched=bool(search))
    lines = [
        "# yaml-language-server: $schema=space.schema.json",
        f"# (for editors: {sweep_command()} --schema > space.schema.json)",
        "#",
        "# Lines that begin with ## say what follows. Fields behind # have their defaults: remove the # to change one.",
        f"about: {_quoted(f'{method} on {data}')}",
        *([f"plugins: {yaml_text(list(plugins))}"] if plugins else []),
        *_trial(method, data, fields, {*grid, *search, "seed"}),
        "## values by path; each combination is a cell, which has its own search",
        "grid:",
        *(f"  {path}: {yaml_text(_texts(values))}" for path, values in grid.items()),
        *_search_lines(search),
        *_other_sections(bool(search)),
        *_demo(method, fields, grid, searched=bool(search)),
    ]
    return "\n".join(lines) + "\n"


def _trial(method: str, data: str, fields: list[DescribedField], swept: set[str]) -> Iterator[str]:
    given: dict[str, Any] = {"method": method, "model": _model(method, data), "dataset": data}
    if _lies_in_a_folder(data) or data in ("imagenet", "tinyimagenet"):
        given["data_dir"] = "data"
    if "image_size" in TAKES.get(data, ()):
        given["image_size"] = 32
    given |= {name: value for name, value in CHOSEN.get(method, {}).items() if name not in swept and name != "model"}
    yield "## the config of every trial"
    yield "trial:"
    own = [one for one in fields if "." not in one.path]
    own.sort(key=lambda one: one.path not in given)
    for one in own:
        yield from _field(one, fields, given, swept, "  ")


def _field(
    one: DescribedField, fields: list[DescribedField], given: dict[str, Any], swept: set[str], indent: str
) -> Iterator[str]:
    """Yield the lines of a field and of those that it holds."""
    name = one.path.rpartition(".")[2]
    yield from _comment(f"{one.values}: {one.meaning}" if one.meaning else one.values, indent)
    if one.path in swept:
        yield f"{indent}## {name} is given below, in grid, search or replicates"
    elif one.path in given:
        yield f"{indent}{name}: {yaml_text(given[one.path])}"
    elif one.default == "required":
        yield f"{indent}# {name}:"
    elif not one.nested or one.default != "as follows":
        yield f"{indent}# {name}: {_quoted(one.default)}"
    else:
        yield f"{indent}# {name}:"
        inner = [held for held in fields if held.path.rpartition(".")[0] == one.path]
        for held in inner:
            for line in _field(held, fields, given, swept, ""):
                yield f"{indent}{_shifted(line)}"


def _shifted(line: str) -> str:
    """A commented line of a field within another: the comment sign stays in front."""
    sign = "##" if line.startswith("##") else "#"
    return f"{sign}   {line[len(sign) + 1 :]}"


def _quoted(text: str) -> str:
    return f'"{text}"' if text != "null" and ":" in text and text[0] not in "[{" else text


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}## {line}" for line in textwrap.wrap(plain_text(text), _WIDTH, break_on_hyphens=False)]


def _model(method: str, data: str) -> str:
    if method == "oracle":  # which tries every choice
        return "tiny" if data in MODEL_FOR else "lenet5"
    return MODEL_FOR.get(data, "resnet20s")


def _grid(method: str, data: str, fields: Iterable[DescribedField], *, searched: bool) -> dict[str, list[Any]]:
    """What a cell is: a budget, if the method has one, and the seed, unless the points of a search have replicates."""
    paths = {one.path for one in fields}
    budget = next((values for field, values in BUDGETS.items() if field in paths), {})
    if method == "oracle":
        budget = {"stage_pr": ["0:0.125"] if _model(method, data) == "tiny" else ["0:0.17", "0:0.34"]}
    return budget if searched else {**budget, "seed": [0, 1, 2]}


def _search(method: str, fields: list[DescribedField]) -> dict[str, tuple[float, float]]:
    """The learning rate of a method's last training, from a tenth to three times its default."""
    if method in UNSEARCHED:
        return {}
    trained = {one.path: one for one in fields if one.nested}
    for recipe in ("finetune", "prune", "train"):
        held = trained.get(recipe)
        rate = next((one for one in fields if one.path == f"{recipe}.lr"), None)
        if held is not None and held.default == "as follows" and rate is not None:
            default = float(rate.default)
            return {rate.path: (float(f"{default / 10:.2g}"), float(f"{default * 3:.2g}"))}
    return {}


def _search_lines(search: dict[str, tuple[float, float]]) -> Iterator[str]:
    if search:
        yield "## searched in every cell: uniform, loguniform, int or choice (--describe search), with step: in steps;"
        yield "## under a condition on other paths with when: (--describe when)"
        yield "search:"
        for path, (low, high) in search.items():
            yield f"  {path}: {{loguniform: [{yaml_text(low)}, {yaml_text(high)}]}}"
        yield "sampler: tpe"
        yield "samples: 8"
        yield "## every point runs with these seeds, and is judged by the mean of theirs: mean, median or lower_bound"
        yield "replicates: {values: {seed: [0, 1, 2]}, judge: mean, race: false}"


_OTHERS = {
    "pruner": "halving",
    "confirm": "{seed: [3, 4, 5]}",
    "retries": "1",
    "silence_limit_s": "3600",
    "storage_patience_s": "600",
    "max_concurrent": "null",
    "max_epochs": "null",
    "max_hours": "null",
    "seed": "0",
}
"""Sections that stand in a space as comments."""


def _other_sections(searches: bool) -> Iterator[str]:
    meanings = section_meanings()
    yield "objective: val_accuracy"
    yield "direction: maximize"
    yield "## per trial; gpu: 0.25 puts four trials on one card"
    yield "resources: {cpu: 1, gpu: 0}"
    for name, value in _OTHERS.items():
        if searches or name not in ("pruner", "confirm"):
            yield from _comment(meanings[name], "")
            yield f"# {name}: {value}"


def _demo(method: str, fields: list[DescribedField], grid: dict[str, list[Any]], *, searched: bool) -> Iterator[str]:
    """A profile that runs in minutes on digits, which come with scikit-learn."""
    if method == "finetune":
        return
    trial: dict[str, Any] = {"model": "tiny", "dataset": "digits", "data_dir": None, "image_size": None}
    for one in fields:
        *outer, name = one.path.split(".")
        short = SHORT.get(one.path, SHORT[name] if name == "epochs" else None)
        if short is None or one.nested or not _holds(fields, outer):
            continue
        inside = trial
        for key in outer:
            inside = inside.setdefault(key, {})
        inside[name] = 15 if one.path == "pretrain.epochs" else short
    yield "profiles:"
    yield f"  ## a few minutes on a laptop: {sweep_command()} --space FILE --profile demo"
    yield "  demo:"
    yield "    trial:"
    for name, value in trial.items():
        yield f"      {name}: {yaml_text(value)}"
    short_grid = {path: values[:2] for path, values in grid.items()}
    if method == "oracle":
        short_grid["stage_pr"] = ["0:0.125"]
    if short_grid:
        yield f"    grid: {yaml_text({path: _texts(values) for path, values in short_grid.items()})}"
    if searched:
        yield "    replicates: {values: {seed: [0, 1]}}"


def _texts(values: list[Any]) -> list[Any]:
    return [f'"{value}"' if isinstance(value, str) else value for value in values]


def _holds(fields: list[DescribedField], outer: list[str]) -> bool:
    """Whether the fields around a field are there by default, and are none of the pruned backward passes."""
    paths = {".".join(outer[: i + 1]) for i in range(len(outer))}
    around = [one for one in fields if one.path in paths]
    return "backward" not in outer and all(one.default == "as follows" for one in around)
