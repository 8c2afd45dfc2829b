"""Coupled pruning: exact budgets over units, scores summed over their members, and masks that a cut realises."""

from __future__ import annotations

import copy
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trials.compact.random_nets import Composed, lively
from tests.trials.configs import SMALLEST
from trials.compact import kept_rows, load, shrink, silent, units_of
from trials.data import published_header
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.preconditions import require_runnable
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.networks.export import export
from trials.running.trial import TrialHost, run
from trials.sparsity import nearest_count
from trials.sparsity.coupled import (
    COUPLED_DISTRIBUTIONS,
    COUPLED_SCORES,
    coupled_masks,
    kept_units_of,
    unit_squares,
    units_left,
    units_to_keep,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Sum(nn.Module):
    """Two convolutions whose sum a third reads, by way of a depthwise one."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(3, channels, 1)
        self.deep = nn.Conv2d(channels, channels, 3, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.last = nn.Conv2d(channels, 6, 1)
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.deep(self.one(x) + self.two(x))))
        return self.fc(self.last(x).mean((2, 3)))


def test_a_unit_is_scored_by_all_its_members() -> None:
    model = lively(Sum())
    units = units_of(model)
    assert [list(names) for names in units.names] == [["one.weight", "two.weight", "deep.weight"], ["last.weight"]]
    squares = unit_squares(model, units)
    rows = sum(w.detach().square().flatten(1).sum(1) for w in (model.one.weight, model.two.weight, model.deep.weight))
    torch.testing.assert_close(squares[:4], rows + model.last.weight.detach().square().sum((0, 2, 3)))
    torch.testing.assert_close(
        squares[4:], model.last.weight.detach().square().sum((1, 2, 3)) + model.fc.weight.detach().square().sum(0)
    )


@pytest.mark.parametrize("score", COUPLED_SCORES)
@pytest.mark.parametrize("distribution", COUPLED_DISTRIBUTIONS)
@pytest.mark.parametrize("name", ["resnet20", "lenet5", "mlp_7_linear", "wrn_16_8", "depthwise"])
def test_budgets_are_exact_and_the_cut_network_computes_the_same(score: str, distribution: str, name: str) -> None:
    if name == "wrn_16_8" and (score, distribution) != ("magnitude", "global"):
        pytest.skip("large: once is enough")
    model = lively(Sum(8) if name == "depthwise" else MODELS[name](num_classes=5, in_channels=3))
    units = units_of(model)
    density = 0.4
    masks = coupled_masks(model, density=density, score=score, distribution=distribution, generator=seeded())
    kept = torch.tensor([True] * len(units.group))
    for weight, by_dim in units.members.items():
        for dim, member in by_dim.items() if weight in masks else ():
            gone = ~masks[weight].transpose(0, dim).flatten(1).any(1)
            kept[member[gone & (member >= 0)]] = False
            assert not (kept[member[~gone & (member >= 0)]] == False).any()  # noqa: E712
    sizes = torch.bincount(units.group)
    assert torch.equal(kept, units_left(units, masks))
    assert int(kept.sum()) == nearest_count(density, len(kept))
    each = [int(kept[units.group == g].sum()) for g in range(len(sizes))]
    assert min(each) >= 1
    if distribution == "uniform":
        assert all(abs(stay - density * int(n)) < 1 for stay, n in zip(each, sizes, strict=True))
    with torch.no_grad():
        for weight, mask in masks.items():
            model.get_parameter(weight).mul_(mask)
        x = torch.randn(2, 3, 32, 32, generator=seeded(1), dtype=torch.float64)
        expected = model(x)
        shrink(model, kept_rows(model, silent(model), "filter"))
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in model.parameters()) < 0.7 * sum(m.numel() for m in masks.values())


@pytest.mark.parametrize("seed", range(12))
def test_masks_of_nets_composed_at_random_are_realised(seed: int) -> None:
    model = lively(Composed(seed), seed)
    masks = coupled_masks(model, density=0.5, distribution="uniform", generator=seeded())
    x = torch.randn(2, 3, 8, 8, generator=seeded(1), dtype=torch.float64)
    with torch.no_grad():
        for weight, mask in masks.items():
            model.get_parameter(weight).mul_(mask)
        expected = model(x)
        shrink(model, kept_rows(model, silent(model), "filter"))
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


class Chain(nn.Module):
    """Convolutions of so many filters, one after the other."""

    def __init__(self, *filters: int) -> None:
        super().__init__()
        sizes = [3, *filters]
        self.layers = nn.Sequential(*(nn.Conv2d(a, b, 1) for a, b in pairwise(sizes)))
        self.fc = nn.Linear(filters[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("filters", "density", "kept"),
    [
        ((5, 5, 5), 0.5, [2, 3, 3]),  # 7.5 is 8: of equal remainders the later groups
        ((2, 40, 40), 0.1, [1, 3, 4]),  # a group of .2 keeps one, and the others divide 7
        ((1, 1, 1, 60), 0.1, [1, 1, 1, 3]),
        ((2, 2, 2), 0.5, [1, 1, 1]),
        ((3, 3, 3), 0.34, [1, 1, 1]),
    ],
)
def test_uniform_is_exact_in_total_and_each_group_keeps_one(
    filters: tuple[int, ...], density: float, kept: list[int]
) -> None:
    units = units_of(Chain(*filters))
    assert units_to_keep(units, density, "uniform") == kept
    assert sum(kept) == nearest_count(density, sum(filters))


def test_every_uniform_budget_is_exact_or_refused() -> None:
    for filters in ((1, 2, 3), (7, 1, 30, 2), (4, 4, 4, 4, 4), (1, 1, 1), (97, 3)):
        units, whole = units_of(Chain(*filters)), sum(filters)
        for keep in range(whole + 1):
            for distribution in COUPLED_DISTRIBUTIONS:
                if keep < len(filters):
                    with pytest.raises(UserError, match=f"keeps {keep} of {whole} coupled units, but each of"):
                        units_to_keep(units, Fraction(keep, whole), distribution)
                    continue
                found = units_to_keep(units, Fraction(keep, whole), distribution)
                assert sum(found) == keep
                assert min(found) >= 1
                assert len(found) == 1 or all(n <= most for n, most in zip(found, filters, strict=True))


@pytest.mark.parametrize("seed", range(0, 12, 3))
@pytest.mark.parametrize("score", COUPLED_SCORES)
@pytest.mark.parametrize("distribution", COUPLED_DISTRIBUTIONS)
def test_units_only_go_from_level_to_level(seed: int, score: str, distribution: str) -> None:
    model = lively(Composed(seed), seed)
    units = units_of(model)
    before: dict[str, Tensor] = {}
    least = len(units.names) / len(units.group)
    for level, density in enumerate(d for d in (0.9, 0.7, 0.65, 0.5, 0.3) if d * len(units.group) > least + 1):
        masks = coupled_masks(
            model,
            density=density,
            score=score,
            distribution=distribution,
            generator=seeded(level),
            within=before,
        )
        assert not any((mask & ~before[name]).any() for name, mask in masks.items() if before)
        assert int(units_left(units, masks).sum()) == max(nearest_count(density, len(units.group)), len(units.names))
        with torch.no_grad():
            for name, mask in masks.items():
                model.get_parameter(name).mul_(mask)
        before = masks


def test_random_is_uniform_over_units() -> None:
    """Each unit stays in half of 400 draws, but for four standard deviations, whatever the size of its layers."""
    model = lively(Sum(20))
    units = units_of(model)
    stays = torch.zeros(len(units.group))
    for seed in range(400):
        stays += kept_units_of(model, units, density=0.5, score="random", distribution="global", generator=seeded(seed))
    assert ((stays - 200).abs() < 4 * 10).all()


def test_scores_follow_a_permutation_and_masks_shrink_with_the_density() -> None:
    model = lively(Sum(10))
    units = units_of(model)

    def kept(net: nn.Module, density: float, score: str) -> Tensor:
        return kept_units_of(net, units, density=density, score=score, distribution="global", generator=seeded())

    other = copy.deepcopy(model)
    order = torch.randperm(10, generator=seeded(3))
    with torch.no_grad():
        for part in (other.one, other.two, other.deep, other.norm):
            for tensor in (part.weight, part.bias):
                tensor.copy_(tensor[order])
        other.last.weight.copy_(other.last.weight[:, order])
    for score in ("magnitude", "lamp"):
        assert torch.equal(kept(other, 0.5, score)[:10], kept(model, 0.5, score)[:10][order])
        before = torch.ones(len(units.group), dtype=torch.bool)
        for density in (0.8, 0.5, 0.3, 0.2):
            after = kept(model, density, score)
            assert not (after & ~before).any()
            before = after


ITERATIVE: dict[str, Any] = {"method": "prune_iterative", "density": None, "finetune": {"epochs": 0}}


def config(**more: Any) -> dict[str, Any]:
    fields = {"method": "one_shot", "couple": True, "pattern": "filter", "density": 0.5, "dataset": "cifar10"}
    return {**fields, "model": "resnet20", "pretrain": {"epochs": 0}, "finetune": {"epochs": 1}, **more}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"pattern": "weight"}, "pattern is 'weight', but couple removes filters over several layers"),
        ({"pattern": "channel"}, "takes pattern 'filter' only"),
        ({"distribution": "erk"}, "distribution is 'erk', but couple"),
        ({"density": 0.01}, "density is 0.01, which keeps 4 of 448 coupled units, but each of 12 groups must keep one"),
        (
            {"density": 0.02, "distribution": "uniform"},
            "density is 0.02, which keeps 9 of 448 coupled units, but each of 12",
        ),
        ({"density": 0.9999}, "none would be pruned"),
        (
            {**ITERATIVE, "prune_fraction": 0.6, "levels": 9},
            "prune_fraction is 0.6 at level 4 of 9, which keeps 11 of 448 coupled units, but each of 12 groups",
        ),
        (
            {**ITERATIVE, "prune_fraction": 0.0001, "levels": 3},
            "prune_fraction is 0.0001 at level 3 of 3, but of 448 coupled units none would be pruned",
        ),
        ({**ITERATIVE, "pattern": "weight"}, "pattern is 'weight', but couple removes filters"),
        ({**ITERATIVE, "distribution": "erk"}, "distribution is 'erk', but couple"),
        ({**ITERATIVE, "rounding": "released"}, "rounding is 'released', but couple"),
        ({"model": "one_layer"}, "couple is true, but every channel of the model must stay"),
    ],
)
def test_what_cannot_be_coupled_is_refused(more: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        MODELS,
        "one_layer",
        lambda *, num_classes, in_channels: nn.Sequential(
            nn.Conv2d(in_channels, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
    )
    fields = {key: value for key, value in config(**more).items() if value is not None}
    header = published_header("cifar10")
    assert header is not None
    with pytest.raises(UserError, match=says):
        require_runnable(parse(fields), header)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("one_shot", "prune_iterative")])
def test_other_methods_have_no_such_field(method: str) -> None:
    with pytest.raises(UserError, match="key is 'couple', but must be one of: "):
        parse({**SMALLEST[method], "couple": True})
    if "prune" in METHODS[method].Config.model_fields and method not in ("bip", "hydra"):
        with pytest.raises(UserError, match="prune: key is 'couple', but must be one of: "):
            parse({**SMALLEST[method], "prune": {"couple": True}})


def test_couple_is_off_by_default_and_moves_no_name() -> None:
    plain = {key: value for key, value in config().items() if key != "couple"}
    assert parse({**plain, "couple": False}).id == parse(plain).id != parse(config()).id
    iterative = {key: value for key, value in config(**ITERATIVE).items() if value is not None and key != "couple"}
    assert parse({**iterative, "couple": False}).id == parse(iterative).id != parse({**iterative, "couple": True}).id
    for score in COUPLED_SCORES:  # nothing of it was ever ranked or counted otherwise
        for one in (config(score=score), {**iterative, "couple": True, "score": score, "distribution": "uniform"}):
            assert parse(one).revisions == {}


def test_a_coupled_trial_is_exported_smaller(tmp_path: Path) -> None:
    trial = tmp_path / "trial"
    asked = parse(config(model="resnet20", dataset="digits", precision="float64"))
    assert run(asked, trial, TrialHost(tmp_path / "stages")).status == "complete"
    export(trial, tmp_path / "dense.pt", "dense")
    export(trial, tmp_path / "compact.pt", "compact")
    small = load(tmp_path / "compact.pt")
    whole = MODELS["resnet20"](num_classes=10, in_channels=1).double().eval()
    whole.load_state_dict(torch.load(tmp_path / "dense.pt"))
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(small(x), whole(x), rtol=1e-9, atol=1e-9)
    left = [sum(p.numel() for p in net.parameters()) for net in (small, whole)]
    assert left[0] < 0.5 * left[1]
