"""Density by layer: the best trials of the cells, by density or level, in the network's order."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.report.figures import layer_density
from tests.sweeper.report.drawn import compiled, options_of
from tests.sweeper.report.made import NASTY, layer_rows, made
from trials.errors import UserError


def trial(name: str, density: float, accuracy: float | None, **more: Any) -> dict[str, Any]:
    return {"trial": name, "config.density": density, "val_accuracy": accuracy, **more}


def test_means_over_seeds_of_the_best_trials() -> None:
    trials = [
        trial("a", 0.5, 0.9, seed=0),
        trial("worse", 0.5, 0.8, seed=0),
        trial("b", 0.5, 0.7, seed=1),
        trial("c", 0.1, 0.7, seed=0),
    ]
    layers = [
        *layer_rows("a", "pretrain", 0, {"conv2": 1.0, "conv1": 1.0}),
        *layer_rows("a", "prune", 0, {"conv2": 0.6, "conv1": 0.4}),
        *layer_rows("a", "finetune", 0, {"conv2": 0.6, "conv1": 0.4}),
        *layer_rows("worse", "prune", 0, {"conv2": 0.99, "conv1": 0.01}),
        *layer_rows("b", "prune", 0, {"conv2": 0.8, "conv1": 0.2}),
        *layer_rows("c", "prune", 0, {"conv2": 0.2, "conv1": 0.0}),
    ]
    figure = layer_density.draw(made(trials, grid=("density", "seed"), layers=layers))
    rows = figure.rows.set_index(["column", "layer"])
    assert rows.index.tolist() == [("50", "conv2"), ("50", "conv1"), ("10", "conv2"), ("10", "conv1")]
    assert rows["density_percent"].tolist() == pytest.approx([70, 30, 20, 0])
    assert rows["density_std_percent"].tolist()[:2] == pytest.approx([14.142, 14.142], abs=1e-3)
    assert rows["n"].tolist() == [2, 2, 1, 1]
    assert rows["whole_density_percent"].tolist() == pytest.approx([50, 50, 10, 10])
    assert rows["weights"].tolist() == [1000] * 4
    assert any("× marks 1 layers" in note for note in figure.notes)
    assert "one_shot at 10 % density: from 0 % in conv1 to 20 % in conv2, 1 of 2 layers empty" in figure.text
    assert "params" not in figure.spec
    compiled(figure)


def test_without_levels_the_last_stage_counts() -> None:
    layers = [*layer_rows("a", "prune", 0, {"x": 0.1}), *layer_rows("a", "regrow", 0, {"x": 0.3})]
    assert layer_density.draw(made([trial("a", 0.3, 0.9)], layers=layers)).rows["density_percent"].tolist() == [30]


def test_levels_stay_in_the_order_in_which_they_ran() -> None:
    layers = [
        *layer_rows("a", "prune", 1, {"x": 0.5}),
        *layer_rows("a", "prune", 2, {"x": 0.25}),
        *layer_rows("a", "regrow", 1, {"x": 0.3}),
        *layer_rows("a", "finetune", 1, {"x": 0.3}),
    ]
    figure = layer_density.draw(made([trial("a", 0.3, 0.9)], layers=layers))
    assert figure.rows["level"].tolist() == ["prune 1", "prune 2", "regrow 1"]  # finetuning changes no density
    assert figure.rows["column"].tolist() == ["50", "25", "30"]
    compiled(figure)


def test_methods_are_chosen_and_their_layers_stay_apart() -> None:
    trials = [trial(f"{method}{d}", d, 0.5, method=method) for method in ("bip", NASTY) for d in (0.5, 0.2)]
    layers = [
        row
        for one in trials
        for row in layer_rows(one["trial"], "prune", 0, {f"{one['method']}.conv": one["config.density"]})
    ]
    sweep = made(trials, grid=("method", "density"), layers=layers)
    figure = layer_density.draw(sweep)
    assert sorted(options_of(figure, "series_shown")) == sorted(["bip", NASTY])
    assert figure.rows.groupby("series")["layer"].nunique().tolist() == [1, 1]
    compiled(figure)
    chosen = layer_density.draw(sweep, NASTY)
    assert next(one for one in chosen.spec["params"] if one["name"] == "series_shown")["value"] == NASTY
    with pytest.raises(UserError, match="series is 'gregg'"):
        layer_density.draw(sweep, "gregg")


def test_what_sets_the_density_makes_columns_as_in_the_figure_of_accuracies() -> None:
    ladders = [("bip", "density", 0.5, 0.5), ("bip", "density", 0.2, 0.2),
               ("greg1", "stage_pr", 0.5, 0.5), ("greg1", "stage_pr", 0.8, 0.2)]  # fmt: skip
    trials = [
        {
            "trial": f"{method}{d}",
            "method": method,
            "density": d,
            "config.density": None,
            "config.stage_pr": None,
            f"config.{path}": value,
            "stage_pr": value if path == "stage_pr" else None,
            "val_accuracy": 0.5,
        }
        for method, path, value, d in ladders
    ]
    layers = [row for one in trials for row in layer_rows(one["trial"], "prune", 0, {"x": one["density"]})]
    found = layer_density.draw(made(trials, grid=("method", "density", "stage_pr"), layers=layers)).rows
    assert found.groupby("series")["column"].agg(list).to_dict() == {"bip": ["50", "20"], "greg1": ["50", "20"]}


def test_equal_densities_of_other_cells_get_columns_of_their_own() -> None:
    trials = [trial(f"t{depth}", 0.5, 0.5, depth=depth, score=score) for depth, score in ((1, "l1"), (2, "l1"))]
    layers = [row for one in trials for row in layer_rows(one["trial"], "prune", 0, {"x": 0.5})]
    rows = layer_density.draw(made(trials, grid=("density", "depth", "score"), layers=layers)).rows
    assert rows["series"].tolist() == ["1", "2"]
    assert rows["column"].tolist() == ["50", "50"]


def test_a_path_that_sets_densities_makes_columns_and_no_series() -> None:
    """As in compare_methods: each method has a ladder of its own, and its columns are what it reached."""
    asked = [("one_shot", "config.density", 0.2), ("l1", "stage_pr", 0.5), ("l1", "stage_pr", 0.9)]
    reached = {0.2: 0.21, 0.5: 0.5, 0.9: 0.1}
    trials = [
        {"trial": f"{method}{value}", "method": method, "val_accuracy": 0.9, "config.density": None, "stage_pr": None,
         column: value}
        for method, column, value in asked
    ]  # fmt: skip
    layers = [
        row
        for trial, (*_, value) in zip(trials, asked, strict=True)
        for row in layer_rows(trial["trial"], "prune", 0, {"x": reached[value]})
    ]
    figure = layer_density.draw(made(trials, grid=("method", "density", "stage_pr"), layers=layers))
    named = list(zip(figure.rows["series"], figure.rows["column"], strict=True))
    assert named == [("one_shot", "20"), ("l1", "50"), ("l1", "10")]  # one_shot was asked for 20 % and has 21 %
    assert options_of(figure, "series_shown") == ["one_shot", "l1"]


def test_a_hundred_layers_fit_by_thinner_rows() -> None:
    names = [f"layer{i // 10}.{i % 10}.conv{i % 3}.weight_of_a_long_name" for i in range(161)]
    trials = [trial(f"t{d}", d, 0.5) for d in (0.5, 0.2, 0.1, 0.05)]
    layers = [row for one in trials for row in layer_rows(one["trial"], "prune", 0, dict.fromkeys(names, 0.1))]
    figure = layer_density.draw(made(trials, layers=layers))
    assert figure.spec["height"] == 161 * 8
    assert figure.rows["layer"].tolist()[:161] == names
    compiled(figure)


def test_nothing_to_show_is_said() -> None:
    failed = [trial("a", 0.5, None, status="failed")]
    for trials, layers in (([], []), (failed, layer_rows("a", "prune", 0, {"x": 0.5})), ([trial("a", 0.5, 0.5)], [])):
        with pytest.raises(UserError, match="made has no best trial with rows of layers") as refused:
            layer_density.draw(made(trials, layers=layers))
        assert "\n" not in str(refused.value)
