"""Tensors kept beside a weight have the weight's memory layout, so that a memory format changes no result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.folders import checkpoint_of, rows_of, timeless
from tests.trials.small_trials import CONFIGS, config_of, folder_of, run_in
from tests.trials.variants import variants
from trials.methods import segments
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.training.strides import beside, lie_alike

LAST = torch.channels_last

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage in which the trials of this file share their dense networks."""
    return tmp_path_factory.mktemp("formats")


def outcome(storage: Path, fields: dict[str, Any], memory_format: str) -> dict[str, Any]:
    """Rows and network of a trial in float64."""
    config = parse({**fields, "precision": "float64", "memory_format": memory_format})
    state = run_in(storage, config)
    assert state.status == "complete", state.error
    folder = folder_of(config, storage)
    return {"rows": timeless(rows_of(folder)), "net": checkpoint_of(folder)["net"]}


def leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values other than mappings and sequences, by their path."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(content, list | tuple):
        for i, value in enumerate(content):
            yield from leaves(value, f"{path}/{i}")
    else:
        yield path, content


def lies_channels_last(found: dict[str, Any]) -> bool:
    """Whether some weight of an :func:`outcome` lies channels last in memory, and not contiguous as well."""
    strides = {value.stride() for _, value in leaves(found["net"]["model"]) if value.dim() == 4}
    return any(stride[1] == 1 and stride[3] > 1 for stride in strides)


def assert_agree(one: Any, other: Any) -> None:
    first, second = dict(leaves(one)), dict(leaves(other))
    assert first.keys() == second.keys()
    for path, value in first.items():
        if path.endswith("stage_id") or "seconds" in path:
            continue
        if isinstance(value, Tensor | float):
            torch.testing.assert_close(
                torch.as_tensor(second[path], dtype=torch.float64),
                torch.as_tensor(value, dtype=torch.float64),
                rtol=0,
                atol=1e-10,
                equal_nan=True,
                msg=lambda text, path=path: f"{path}: {text}",
            )
        else:
            assert second[path] == value, path


CASES = {name: fields for name, fields in variants().items() if name in CONFIGS or ":score_init=" in name}
"""Of all options, which tests/products/test_numerics.py runs, those that decide what lies beside the weights."""


def test_every_method_is_among_them() -> None:
    assert {fields["method"] for fields in CASES.values()} == set(METHODS)
    assert {f"{name}:score_init={how}" for name in ("bip", "hydra") for how in ("random", "alias")} < CASES.keys()


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_both_memory_formats_give_the_same_results(fields: dict[str, Any], storage: Path) -> None:
    contiguous, last = (outcome(storage, fields, form) for form in ("contiguous", "channels_last"))
    assert lies_channels_last(last)
    assert_agree(contiguous, last)


def test_beside_takes_dtype_and_strides_of_the_weight_and_values_in_logical_order() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3, 2, 2, dtype=torch.float64).to(memory_format=LAST))
    values = torch.arange(48.0).view(4, 3, 2, 2)
    placed = beside(weight, values)
    assert placed.stride() == weight.stride() != values.stride()
    assert placed.dtype == torch.float64
    assert torch.equal(placed, values.double())
    assert not placed.requires_grad
    assert torch.equal(beside(weight, values > 7), (values > 7).double())


def test_a_dimension_of_one_entry_has_no_order() -> None:
    thin = torch.empty(4, 3, 1, 1)
    assert lie_alike(thin, torch.empty_strided((4, 3, 1, 1), (3, 1, 3, 3)))
    square = torch.empty(4, 3, 2, 2)
    assert lie_alike(square, square.clone())
    assert not lie_alike(square, square.to(memory_format=LAST))


def test_a_segment_of_a_population_goes_on_alike_in_both_formats(tmp_path: Path) -> None:
    found = []
    for memory_format in ("contiguous", "channels_last"):
        prune = {"epochs": 2, "batch_size": 128, "schedule": "constant", "lr": 0.1}
        first = config_of("bip", precision="float64", memory_format=memory_format, prune=prune, until_epoch=1)
        second = segments.child(first, {"prune.lr": 0.05}, 2)
        for config in (first, second):
            assert run_in(tmp_path / memory_format, config).status == "complete"
        folder = folder_of(second, tmp_path / memory_format)
        found.append({"rows": timeless(rows_of(folder)), "net": checkpoint_of(folder)["net"]})
    assert lies_channels_last(found[1])
    assert_agree(*found)
