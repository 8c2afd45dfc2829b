"""Which models each method refuses, by its own checks. Checking all takes seconds, so the answers are in a file.

``python -m sweeper.describe.refusals`` writes it anew; a test compares some of it with the checks on every run.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sweeper.describe.example_configs import example_config
from trials.data import published_header
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.preconditions import model_of, require_runnable
from trials.methods.registry import METHODS
from trials.methods.supported import patterns_of
from trials.models import MODELS

STORED = Path(__file__).parent / "refusals.json"

DATA = "cifar10"
"""The data set whose images the models are checked on."""

RefusedModels = dict[str, list[str]]
"""By pattern (empty for a method without one), the names of the refused models."""


def refused_by(method: str) -> RefusedModels:
    """Return the models that a method refuses, by pattern; of a method that the file lacks, they are checked now."""
    stored = _stored().get(method)
    return checked(method, MODELS) if stored is None else stored


@functools.cache
def _stored() -> dict[str, RefusedModels]:
    found: dict[str, RefusedModels] = json.loads(STORED.read_bytes())
    return found


def checked(method: str, models: Iterable[str]) -> RefusedModels:
    """Return which of ``models`` a method refuses, by pattern, from its checks."""
    models = list(models)
    return {pattern: [model for model in models if not _runs(config, model)] for pattern, config in _configs(method)}


def _configs(method: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield, by pattern, the config whose check decides."""
    # the oracle refuses what l1 refuses, and everything with too many candidates, which are counted for each ratio
    fields = METHODS[method].Config.model_fields
    content = example_config("l1" if method == "oracle" else method)
    content |= {"density": 0.5} if "density" in content else {}
    name = next((field for field in ("pattern", "unit") if field in fields), None)
    if name is None:
        yield "", content
        return
    for pattern in patterns_of(METHODS[method]):
        rest = {key: value for key, value in content.items() if key != "density" or pattern != "nm"}
        yield pattern, {**rest, name: pattern}


def _runs(content: dict[str, Any], model: str) -> bool:
    header = published_header(DATA)
    assert header is not None
    try:
        config = parse({**content, "model": model})
        if content.get("source_net") is None:
            require_runnable(config, header)
        else:  # the file is only an example
            METHODS[config.method](config).check(model_of(model, header.num_classes, header.in_channels), header)
    except UserError:
        return False
    return True


def _document() -> str:
    rows = {method: checked(method, MODELS) for method in METHODS}
    lines = [f" {json.dumps(method)}: {json.dumps(found)}" for method, found in rows.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    STORED.write_text(_document())
