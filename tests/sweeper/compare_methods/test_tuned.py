"""The profiles that search: every method gets the same number of samples, and the figures come from other seeds."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.search.cells.study import CellStudy
from tests.sweeper.compare_methods.profiles import COMPARED, TUNED, compared, configs
from trials.dotted_paths import leaves
from trials.methods.adaptive.adaptive_sparsity import TrainWithThresholds
from trials.methods.registry import METHODS


def rates(config: Any) -> set[str]:
    """The fields that hold a learning rate."""
    return {path for path, _ in leaves(config.model_dump()) if path.rpartition(".")[2] in ("lr", "mask_lr")}


@pytest.mark.parametrize("profile", TUNED)
def test_every_method_searches_a_learning_rate_with_as_many_samples_and_reports_other_seeds(profile: str) -> None:
    space = compared(profile)
    assert (space.objective, space.direction, space.pruner) == ("val_accuracy", "maximize", None)
    assert space.confirm is not None
    assert space.confirm.seed == (1, 2, 3)
    searched: dict[str, set[str]] = {}
    points: dict[tuple[str, ...], set[Any]] = {}
    for cell in space.cells():
        assert space.config(cell).seed == 0
        study = CellStudy(space, cell)
        params = [study.ask().params for _ in range(space.samples)]
        assert not study.wants
        assert len({tuple(point.values()) for point in params}) == space.samples  # no suggestion twice
        method = str(cell.values["method"])
        searched.setdefault(method, set()).update(params[0])
        adam = method in ("prune_iterative", "regrow")
        points.setdefault((str(adam), *sorted(params[0])), set()).add(repr(params))
    assert searched.keys() == COMPARED
    for cell in space.cells():
        config = space.config(cell)
        assert searched[config.method] <= rates(config)
        assert not any(path.startswith("pretrain") for path in searched[config.method])
    assert {len(same) for same in points.values()} == {1}  # the same ones in all cells with the same ranges
    assert len(points) == 5  # SGD, AdamW, hydra, bip, adaptive_sparsity


@pytest.mark.parametrize("profile", TUNED)
def test_no_search_leaves_the_density_to_its_choice(profile: str) -> None:
    """A rate that leaves more weights would win on accuracy."""
    chosen = {config.method: config for config in configs(compared(profile))}
    assert chosen["adaptive_sparsity"].exact_target
    assert chosen["adaptive_sparsity"].pthres == 0


@pytest.mark.parametrize("profile", TUNED)
def test_every_method_trains_what_it_has_pruned(profile: str) -> None:
    """A method that is cut and then only measured would be behind all others."""
    for config in configs(compared(profile)):
        last = list(METHODS[config.method](config).stages())[-1]
        assert last.planned_epochs > 0, config.method
        assert not isinstance(last, TrainWithThresholds)  # which ends with the cut to exactly the target
