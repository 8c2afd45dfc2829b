"""Accuracy over density: the rows, and what is drawn of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeper.report.elements.axes import limits_of_points, ticks_of_log_axis
from sweeper.report.elements.published import matching_curves, published_curves
from sweeper.report.elements.series import series_paths
from sweeper.report.figures.accuracy_density import accuracy_density, draw
from sweeper.report.gathered import Gathered
from sweeper.report.saved import picture
from sweeper.results.comparison import points_of
from tests.sweeper.report.drawn import compiled, marks, pixels, points_of_pdf, scene, size_of_svg, texts_in
from tests.sweeper.report.made_sweeps import made
from trials.errors import UserError

TWELVE = [f"method_{i}" for i in range(12)]


def changed(gathered: Gathered, **columns: Any) -> Gathered:
    """The same with other values in columns of ``trials``."""
    return replace(gathered, sweep=replace(gathered.sweep, trials=gathered.sweep.trials.assign(**columns)))


def test_a_point_is_the_mean_over_seeds_of_the_best_trials_with_a_band(tmp_path: Path) -> None:
    figure = draw(made(tmp_path / "s"))
    own = figure.rows[figure.rows["kind"] == "sweep"]
    assert own["series"].tolist() == ["bip", "bip", "imp", "imp"]
    assert own["density_percent"].tolist() == [50, 10, 50, 10]
    assert own["n"].tolist() == [2] * 4
    first = own.iloc[2]  # of imp: seeds 0 and 1 differ by 0.2 points
    assert first["high_percent"] - first["low_percent"] == pytest.approx(2 * 0.2 / 2**0.5)
    assert first["accuracy_percent"] == pytest.approx((first["high_percent"] + first["low_percent"]) / 2)
    (dense,) = figure.rows[figure.rows["kind"] == "dense"]["accuracy_percent"]
    assert f"dense {dense:.2f} %" in texts_in(scene(figure))
    assert f"Dense {dense:.2f} %." in figure.text


def test_lines_have_their_colours_in_the_legend_and_one_series_has_none(tmp_path: Path) -> None:
    (legend,) = compiled(draw(made(tmp_path / "two")))["legends"]
    assert legend.keys() >= {"fill", "stroke", "shape"}
    drawn = scene(draw(made(tmp_path / "two")))
    colours = {item["fill"] for item in marks(drawn, "symbol")}
    assert len(colours) == 2
    assert not colours & {"black", "#000", "transparent"}
    assert "legends" not in compiled(draw(made(tmp_path / "one", methods=["imp"])))


def test_twelve_methods_have_marks_of_their_own(tmp_path: Path) -> None:
    figure = draw(made(tmp_path / "s", methods=TWELVE, seeds=1, samples=1))
    compiled(figure)
    from sweeper.report.theme import POINT_SHAPES, SERIES_COLOURS

    looks = {(SERIES_COLOURS[i % len(SERIES_COLOURS)], POINT_SHAPES[i % len(POINT_SHAPES)]) for i in range(77)}
    assert len(looks) == 77
    assert set(TWELVE) <= set(texts_in(scene(figure)))


def test_points_of_trials_with_warnings_are_hollow(tmp_path: Path) -> None:
    gathered = made(tmp_path / "s", seeds=1, samples=1)
    warned = [["chance_level"], *[[]] * (len(gathered.sweep.trials) - 1)]
    hollow = [item["fillOpacity"] for item in marks(scene(draw(changed(gathered, warnings=warned))), "symbol")
              if "fillOpacity" in item]  # fmt: skip
    assert hollow.count(0) == 1
    assert hollow.count(1) == 3


def test_a_density_that_a_logarithmic_axis_cannot_show_is_named(tmp_path: Path) -> None:
    gathered = made(tmp_path / "s", methods=["imp"], seeds=1, samples=1, densities=[0.5, 0.1, 0.0])
    figure = draw(gathered)
    assert any(
        "density 0, which a logarithmic axis cannot show: all trials method=imp, density=0.0" in n for n in figure.notes
    )
    assert len([item for item in marks(scene(figure), "symbol") if "fillOpacity" in item]) == 2
    assert (figure.rows["density_percent"] == 0).sum() == 1
    layers = gathered.sweep.layers
    lost = layers[layers["trial"] != gathered.sweep.trials["trial"].iloc[0]]
    notes = draw(replace(gathered, sweep=replace(gathered.sweep, layers=lost))).notes
    assert any("no readable rows of layers" in note for note in notes)


def test_every_level_is_a_point_and_levels_of_several_cells_are_on_no_line(tmp_path: Path) -> None:
    for densities, joined in ([0.1], {True}), ([0.5, 0.1], {False}):
        gathered = made(tmp_path / f"s{len(densities)}", methods=["imp"], densities=densities, seeds=1, samples=1)
        sweep, epochs, layers = gathered.sweep, gathered.sweep.epochs, gathered.sweep.layers
        tuned = epochs["stage"] == "finetune"
        more = [epochs[tuned].assign(level=level, density=0.9 / level) for level in (1, 2)]
        kept = [layers.assign(level=level, kept=int(900 / level)) for level in (1, 2)]
        with_levels = replace(
            sweep,
            epochs=pd.concat([epochs[~tuned], *more, epochs[tuned].assign(level=3)]),
            layers=pd.concat([*kept, layers.assign(level=3)]),
        )
        rows = draw(replace(gathered, sweep=with_levels)).rows
        levels = rows[rows["level"].notna()]
        assert sorted(levels["density_percent"]) == sorted([90, 45] * len(densities))
        assert set(levels["joined"]) == joined
        assert rows[(rows["kind"] == "sweep") & rows["level"].isna()]["joined"].all()


@pytest.mark.parametrize(
    ("stages", "levels"),
    [
        ([("prune", 1), ("prune", 2), ("prune", 3), ("regrow", 1), ("regrow", 2)], {1: 40.0}),  # regrow_iterative
        ([("prune", 1), ("prune", 2), ("regrow", 1), ("finetune", 1)], {}),  # regrow from a ladder
        ([("prune", 1), ("regrow", 0)], {}),  # single_layer
        ([("train", 1), ("train", 2), ("train", 3)], {1: 10.0, 2: 20.0}),  # imp
    ],
)
def test_levels_that_are_counted_anew_are_those_of_the_last_count(
    tmp_path: Path, stages: list[tuple[str, int]], levels: dict[int, float]
) -> None:
    """A stage's accuracy is 10 % at the end of the first one, 20 % at that of the second, and so on."""
    gathered = made(tmp_path / "made", methods=["imp"], densities=[0.1], seeds=1, samples=1)
    sweep = gathered.sweep
    dense, own = (sweep.epochs[(sweep.epochs["stage"] == "pretrain") == one] for one in (True, False))
    each = [
        own.assign(stage=stage, level=level, test_accuracy=number / 10, cost=number, cost_flops=1e9 * number)
        for number, (stage, level) in enumerate(stages, 1)
    ]
    layers = pd.concat([sweep.layers.assign(stage=stage, level=level) for stage, level in stages])
    whole = replace(sweep, epochs=pd.concat([dense, *each]), layers=layers)
    rows = draw(replace(gathered, sweep=whole)).rows
    earlier = rows[rows["level"].notna()]
    assert dict(zip(earlier["level"], earlier["accuracy_percent"], strict=True)) == pytest.approx(levels)
    points = points_of(replace(whole, trials=whole.trials.assign(cost_flops=9e9)), levels=True)
    spent = points[points["level"].notna()]
    assert spent["cost_flops"].tolist() == [1e8 * percent for percent in levels.values()]
    for one in (whole, replace(whole, epochs=whole.epochs.drop(columns="cost_flops"))):
        assert points_of(one, levels=True)["level"].notna().sum() == len(levels)
    unknown = replace(whole, trials=whole.trials.assign(cost_flops=9e9), epochs=whole.epochs.assign(cost_flops=None))
    assert points_of(unknown, levels=True)["cost_flops"].dropna().tolist() == [9e9]


def test_one_broad_band_does_not_flatten_the_figure() -> None:
    low, high = limits_of_points([90.0, 95.0], [40.0, 150.0])
    assert low == pytest.approx(89.0)
    assert high == pytest.approx(96.0)
    assert limits_of_points([99.9, 90.0], [101.5])[1] <= 100.5
    assert limits_of_points([None, float("nan")]) == pytest.approx([92.0 - 92.0 - 8.0, 104.0])


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.9, 110, [1, 2, 5, 10, 20, 50, 100]),
        (0.001, 100, [0.001, 0.01, 0.1, 1, 10, 100]),
        (23, 92, [30, 40, 50, 60, 70, 80, 90]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert ticks_of_log_axis(low, high) == pytest.approx(ticks)


def test_data_sets_have_dense_lines_of_their_own(tmp_path: Path) -> None:
    gathered = made(tmp_path / "s", methods=["imp"], seeds=1, samples=1, densities=[0.5, 0.1],
                    grid={"dataset": ["digits", "cifar10"], "density": [0.5, 0.1], "seed": [0]})  # fmt: skip
    trials = gathered.sweep.trials
    both = pd.concat([trials, trials.assign(trial=trials["trial"] + "x", dataset="cifar10", cell="other")])
    epochs = gathered.sweep.epochs
    other = epochs.assign(
        trial=epochs["trial"] + "x", stage_id=epochs["stage_id"].where(epochs["stage_id"].isna(), "d1")
    )
    other["test_accuracy"] = other["test_accuracy"] / 2
    layers = gathered.sweep.layers
    sweep = replace(gathered.sweep, trials=both, epochs=pd.concat([epochs, other]),
                    layers=pd.concat([layers, layers.assign(trial=layers["trial"] + "x")]))  # fmt: skip
    rows = draw(replace(gathered, sweep=sweep)).rows
    assert sorted(rows[rows["kind"] == "dense"]["series"]) == ["dense cifar10", "dense digits"]
    assert set(rows[rows["kind"] == "sweep"]["series"]) == {"digits", "cifar10"}


def test_a_line_joins_points_that_differ_in_density_alone(tmp_path: Path) -> None:
    grid = {"method": ["imp"], "density": [0.5, 0.1], "lr": [0.1, 0.2], "seed": [0]}
    gathered = made(tmp_path / "s", methods=["imp"], seeds=1, samples=2, grid=grid, search={})
    trials = gathered.sweep.trials.assign(lr=[0.1, 0.2, 0.1, 0.2])
    gathered = replace(gathered, sweep=replace(gathered.sweep, trials=trials))
    assert series_paths(gathered.sweep, gathered.space, gathered.cells) == ["lr"]
    ladder = made(tmp_path / "l", methods=["imp"], densities=[0.5, 0.1], seeds=1, samples=1, search={},
                  grid={"prune_fraction": [0.5, 0.9], "seed": [0]})  # fmt: skip
    ladder = changed(ladder, prune_fraction=[0.5, 0.9])
    assert series_paths(ladder.sweep, ladder.space, ladder.cells) == []
    assert set(accuracy_density(ladder.sweep).rows["series"]) == {"all trials", "dense"}


# --- published curves


def test_published_curves_are_those_of_the_same_method_model_and_data_set(tmp_path: Path) -> None:
    gathered = made(tmp_path / "s", methods=["prune_iterative"], seeds=1)
    assert matching_curves(gathered.sweep.trials) == []
    vgg = changed(gathered, model="vgg16", dataset="cifar10", levels=10)
    (curve,) = matching_curves(vgg.sweep.trials)
    assert (curve.table, curve.points[0]) == ("10 rounds (README)", (0.6, 0.9209, 0.0028))
    at_once = matching_curves(changed(vgg, levels=1).sweep.trials)
    assert {one.table for one in at_once} == {"one-shot (README)", "one-shot (vgg16_oneshot.py)"}
    assert matching_curves(changed(vgg, dataset="cifar100").sweep.trials) == []
    assert matching_curves(changed(vgg, pattern="weight").sweep.trials) == [curve]
    assert matching_curves(changed(vgg, pattern="filter").sweep.trials) == []  # the curve is of single weights
    figure = draw(vgg)
    rows = figure.rows[figure.rows["kind"] == "published"]
    assert len(rows) == 10
    assert rows["series"].iloc[0].startswith("published: prune_iterative")
    assert any("2511.11675" in note and "by the test set" in note for note in figure.notes)
    dashed = [item for item in marks(scene(figure), "line") if item.get("strokeDash") == [5, 3]]
    assert len(dashed) == 10
    assert "published" not in set(draw(vgg, accuracy="val_accuracy").rows["kind"])


def test_the_stored_curves_are_shares_of_weights_with_sources() -> None:
    from trials.methods.registry import METHODS
    from trials.models import MODELS

    for curve in published_curves():
        assert curve.method in METHODS
        assert curve.model in MODELS
        assert "arXiv" in curve.source
        fields = [re.split("[=>]", one)[0] for one in curve.where.split(" and ")]
        assert set(fields) <= {"levels", "pattern", "unit"} & METHODS[curve.method].Config.model_fields.keys()
        for density, accuracy, std in curve.points:
            assert 0 < density <= 1
            assert 0 < accuracy < 1
            assert std is None or 0 < std < 0.01


# --- sizes, states and names


def test_pictures_are_of_the_asked_size(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    figure = draw(made(tmp_path / "s"))
    assert points_of_pdf(picture(figure, ".pdf", width_pt=234))[0] == pytest.approx(234, abs=0.6)
    assert pixels(picture(figure, ".png", width_pt=234, ppi=300))[0] == pytest.approx(234 / 72 * 300, abs=3)
    width, height = size_of_svg(picture(figure, ".svg", width_pt=240, height_pt=150))
    assert float(width.removesuffix("pt")) == pytest.approx(240, abs=0.6)
    assert float(height.removesuffix("pt")) == pytest.approx(150, abs=0.6)


@pytest.mark.parametrize("status", ["failed", "running", "scheduled"])
def test_a_sweep_without_a_complete_trial_says_so(tmp_path: Path, status: str) -> None:
    with pytest.raises(UserError, match="has no complete trial yet"):
        draw(made(tmp_path / "s", status=lambda _: status))


def test_names_are_only_text(tmp_path: Path) -> None:
    names = ["</script><b>", "模型 \"'\\"]
    figure = draw(made(tmp_path / "s", methods=names, seeds=1))
    compiled(figure)
    assert set(names) <= set(texts_in(scene(figure)))
    if pytest.importorskip("vl_convert"):
        assert b"</script><b>" not in picture(figure, ".svg")
