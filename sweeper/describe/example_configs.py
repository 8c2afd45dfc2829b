"""A small valid config of each method: what its stages and patterns are read from, and what ``--init`` begins with."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from trials.methods.registry import METHODS
from trials.plugins.importing import admitted

_RATIO: dict[str, Any] = {"stage_pr": 0.5}

CHOSEN: dict[str, dict[str, Any]] = {
    "one_shot": {"density": 0.1},
    "bip": {"density": 0.1},
    "hydra": {"density": 0.1},
    "finetune": {"source_net": "dense.pt"},
    "l1": _RATIO,
    "greg1": _RATIO,
    "greg2": _RATIO,
    "oracle": {"model": "lenet5", "stage_pr": "0:0.17"},
    "adaptive_sparsity": {"starget": 0.9},
}
"""By method, the fields that have no default, or that a trial cannot do without."""


_GIVEN = ("method", "dataset", "model")


def example_config(method: str, **fields: Any) -> dict[str, Any]:
    """Return the content of a config of ``method`` on CIFAR-10, with ``fields`` instead of the example's own.

    A method of a plug-in has the middle of the range of every number that it requires.
    """
    own = CHOSEN.get(method)
    if own is None:
        required = {name: info for name, info in METHODS[method].Config.model_fields.items() if info.is_required()}
        own = {name: _value_of(info) for name, info in required.items() if name not in _GIVEN}
    content = {"method": method, "model": "resnet20s", "dataset": "cifar10", **own, **fields}
    return content if METHODS.built_in(method) else {"plugins": [one.listed for one in admitted()], **content}


def _value_of(info: FieldInfo) -> Any:
    """A value that a required field probably takes."""
    if get_origin(info.annotation) is Literal:
        return get_args(info.annotation)[0]
    if info.annotation not in (int, float):
        return "text"
    low = next((getattr(rule, "ge", getattr(rule, "gt", 0)) for rule in info.metadata if isinstance(rule, (Ge, Gt))), 0)
    high = next(
        (getattr(rule, "le", getattr(rule, "lt", 0)) for rule in info.metadata if isinstance(rule, (Le, Lt))), None
    )
    if info.annotation is int:
        return int(low) + 1
    return (low + high) / 2 if high is not None else low + 1.0
