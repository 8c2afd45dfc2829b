"""Regrowth: its division over layers, rewards and stages; regrowth in single layers."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.report.figures import regrowth, single_layers
from sweeper.report.gathered import Gathered
from tests.sweeper.report.drawn import compiled, options_of, shapes_drawn
from tests.sweeper.report.made import NASTY, layer_rows, made
from trials.errors import UserError


def episode(trial: str, step: int, number: int, reward: float | None, counts: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {"trial": trial, "step": step, "episode": number, "layer": layer, "capacity": 100, "count": count,
         "reward": reward}
        for layer, count in counts.items()
    ]  # fmt: skip


def ends(trial: str, stages: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {"trial": trial, "stage": stage, "level": 0, "epoch": 1, "sparsity": sparsity, "kept": 10, "test_accuracy": 0.9}
        for stage, sparsity in stages.items()
    ]


def regrown(trials: int = 1) -> Gathered:
    names = [f"regrow-{number:06}" for number in range(trials)]
    layers, epochs, allocations = [], [], []
    for name in names:
        for stage, density in (("pretrain", 1.0), ("prune", 0.1), ("regrow", 0.2)):
            layers += layer_rows(name, stage, 0, {"conv1": density, NASTY: density / 2})
        epochs += ends(name, {"pretrain": 0.0, "prune": 0.9, "regrow": 0.8})
        allocations += episode(name, 0, 0, 0.5, {NASTY: 30, "conv1": 10})
        allocations += episode(name, 0, 1, 0.6, {NASTY: 10, "conv1": 30})
    rows = [
        {"trial": name, "method": "regrow", "config.density": 0.2, "val_accuracy": 0.5, "seed": number}
        for number, name in enumerate(names)
    ]
    return made(rows, grid=("density", "seed"), layers=layers, epochs=epochs, allocations=allocations)


def test_the_division_is_the_best_episodes() -> None:
    figure = regrowth.draw(regrown())
    rows = figure.rows
    division = rows[rows["kind"] == "division"].set_index("layer")
    assert division["share_of_budget_percent"].to_dict() == {NASTY: 25, "conv1": 75}
    assert division["share_of_capacity_percent"].to_dict() == {NASTY: 10, "conv1": 30}
    assert division["layer_number"].to_dict() == {NASTY: 1, "conv1": 0}  # in the network's order
    assert rows[rows["kind"] == "episode"]["reward"].tolist() == [0.5, 0.6]
    accuracy = rows[rows["kind"] == "accuracy"].set_index("stage")
    assert accuracy["sparsity_percent"].to_dict() == pytest.approx({"pretrain": 0, "regrow": 80, "prune": 90})
    stage = rows[(rows["kind"] == "stage") & (rows["layer"] == "conv1")]
    assert stage["density_percent"].tolist() == pytest.approx([100, 10, 20])
    assert options_of(figure, "share_shown") == ["share of the budget", "share of the pruned weights"]
    assert "conv1 75.0 %" in figure.text
    assert shapes_drawn(figure, "rect") >= 2 + 3 * 3
    compiled(figure)
    other = regrowth.draw(regrown(), "capacity")
    assert next(p for p in other.spec["params"] if p["name"] == "share_shown")["value"] == "share of the pruned weights"
    with pytest.raises(UserError, match="share is 'all'"):
        regrowth.draw(regrown(), "all")


def test_columns_are_few_enough_to_read_and_the_rest_is_counted() -> None:
    figure = regrowth.draw(regrown(45))
    assert figure.rows.query("kind == 'division'")["column"].nunique() == 40
    assert "5 more rounds are not shown" in figure.notes
    assert "95 more stages of trials are not shown by layer" in figure.notes
    compiled(figure)


def test_the_best_trials_are_shown_first_where_not_all_fit() -> None:
    found = regrown(45)
    trials = found.sweep.trials
    trials.loc[:4, "val_accuracy"] = 0.1
    trials.loc[:4, ["cell", "seed"]] = [trials["cell"][5], trials["seed"][5]]
    assert len(found.cells) == 40
    shown = regrowth.draw(found).rows.query("kind == 'division'")["trial"]
    assert set(shown) == set(trials["trial"][5:])


def test_a_sweep_that_regrew_nothing_has_stages_alone() -> None:
    found = regrown()
    without = made(
        [{"trial": "a", "config.density": 0.2, "val_accuracy": 0.5}],
        layers=layer_rows("a", "prune", 0, {"conv1": 0.2}),
        epochs=ends("a", {"prune": 0.8}),
    )
    with pytest.raises(UserError, match="made has regrown nothing"):
        regrowth.draw(without)
    figure = regrowth.draw_stages(without)
    assert set(figure.rows["kind"]) == {"accuracy", "stage"}
    compiled(figure)
    with pytest.raises(UserError, match="has no trial that has finished a stage"):
        regrowth.draw_stages(made([]))
    assert len(found.cells) == 1


def single(ssim: float | None = 0.5) -> Gathered:
    tried = [(0, None, 0.70, 0.50), (1, "conv1", 0.80, 0.55), (2, NASTY, 0.65, 0.60)]
    allocations = [
        {
            "trial": trial, "step": 0, "episode": number, "layer": name, "capacity": 200,
            "count": 50 if name == layer else 0, "accuracy": accuracy, "immediate": immediate,
            "ssim": ssim if name == "conv1" else None, "reward": accuracy,
        }
        for trial in ("single_layer-1", "single_layer-2")
        for number, layer, accuracy, immediate in tried
        for name in ("conv1", NASTY)
    ]  # fmt: skip
    trials = [{"trial": t, "method": "single_layer", "seed": t[-1]} for t in ("single_layer-1", "single_layer-2")]
    return made(trials, grid=("seed",), allocations=allocations)


def test_gains_of_single_layers_are_points_and_their_means_bars() -> None:
    figure = single_layers.draw(single())
    points = figure.rows[figure.rows["kind"] == "trial"]
    assert points["gain_percent"].tolist() == pytest.approx([10, -5, 10, -5])
    assert points["immediate_gain_percent"].tolist() == pytest.approx([5, 10, 5, 10])
    assert points["regrown_percent"].tolist() == [25.0] * 4
    means = figure.rows[figure.rows["kind"] == "mean"].set_index("layer")
    assert means["gain_percent"].to_dict() == pytest.approx({"conv1": 10, NASTY: -5})
    assert figure.notes == ("2 of 4 points have no SSIM",)
    assert len(figure.spec["vconcat"]) == 4
    assert shapes_drawn(figure, "point") == 2 * 2 + 2 * 4
    compiled(figure)
    assert len(single_layers.draw(single(None)).spec["vconcat"]) == 2  # nothing is known of any SSIM
    with pytest.raises(UserError, match=r"^made has no trial of the method single_layer that has tried a layer"):
        single_layers.draw(regrown())
