"""A small space file, loaded with changes, and the message of its refusal."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.space.load import load_space
from sweeper.space.space import Space
from trials.errors import UserError

SHIPPED = ("bip_unstructured", "imp_kseries", "one_shot_magnitude")
SMALL: dict[str, Any] = {
    "about": "a small one",
    "trial": {"method": "bip", "model": "tiny", "dataset": "digits", "pretrain": {"epochs": 2}},
    "grid": {"density": [0.5, 0.2], "seed": [0, 1, 2]},
    "search": {"mask_lr": {"loguniform": [0.01, 0.3]}},
    "samples": 4,
    "resources": {"cpu": 1},
    "profiles": {
        "demo": {
            "trial": {"pretrain": {"lr": 0.2}},
            "grid": {"density": [0.1], "prune.epochs": [1, 2]},
            "search": {"mask_lr": {"uniform": [0.1, 0.2]}},
            "resources": {"gpu": 0.25},
        },
        "plain": {"grid": {"seed": None}, "search": {"mask_lr": None}, "samples": None},
    },
}


def written(folder: Path, content: Any, name: str = "small") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return str(path)


def small(folder: Path, changes: dict[str, Any] | None = None, **options: Any) -> Space:
    """SMALL with fields changed (a/b is b inside a)."""
    content = copy.deepcopy(SMALL)
    for path, value in (changes or {}).items():
        *parents, last = path.split("/")
        current = content
        for key in parents:
            current = current[key]
        current[last] = value
    return load_space(written(folder, content), **options)


def refusal(action: Any) -> str:
    """The one-line message of the UserError that the action raises."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)
