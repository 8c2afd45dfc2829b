"""The lineage of a population: segments, copies, the best ancestry, warnings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sweeper.report.figures import lineage
from sweeper.report.gathered import Gathered
from sweeper.space.options.constraints import Constraint
from sweeper.space.options.objectives import Objective
from tests.sweeper.report.drawn import compiled, options_of, shapes_drawn
from tests.sweeper.report.made import NASTY, made
from trials.errors import UserError

REACHED = {(0, 0): 0.5, (0, 1): 0.6, (1, 0): 0.8, (1, 1): 0.7}


def population(*, cells: tuple[str, ...] = ("c",), reached: Any = REACHED, **more: Any) -> Gathered:
    """Two members for two generations of two epochs each; member 0 continues a copy of member 1."""
    trials: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []
    for cell in cells:
        for (generation, member), value in reached.items():
            name = f"{cell}-{generation}-{member}"
            warned = ["chance_level"] if (generation, member) == (1, 1) else []
            trials.append(
                {"trial": name, "cell": cell, "val_accuracy": value, "config.density": 0.5, "warnings": warned}
            )
            segments.append(
                {
                    "trial": name, "cell": cell, "generation": generation, "member": member,
                    "parent": None if generation == 0 else 1, "from_epoch": 2 * generation,
                    "until_epoch": 2 * generation + 2, "lr": 10.0 ** -(generation + 2 * member),
                    "schedule": "cosine" if member else NASTY,
                }
            )  # fmt: skip
    return made(trials, lineage=segments, **more)


def test_segments_are_linked_to_the_ones_that_they_continue() -> None:
    figure = lineage.draw(population())
    rows = figure.rows
    points = rows[rows["kind"] == "reached"]
    assert points["value"].tolist() == [50.0, 60.0, 80.0, 70.0]
    assert points["epoch"].tolist() == [2, 2, 4, 4]
    assert points["warnings"].tolist() == ["", "", "", "chance_level"]
    links = rows[(rows["kind"] == "link") & (rows["panel"] == "val accuracy [%]")]
    assert links[["epoch", "value", "until_epoch", "until_value"]].to_numpy().tolist() == [
        [2, 60, 4, 80],
        [2, 60, 4, 70],
    ]
    assert links["copied"].tolist() == [True, False]
    assert {(row["generation"], row["member"]) for row in rows[rows["best"]].to_dict("records")} == {(0, 1), (1, 0)}
    held = rows[(rows["kind"] == "held") & (rows["panel"] == "lr")]
    assert held[["epoch", "until_epoch", "value"]].to_numpy().tolist() == [
        [0, 2, 1.0], [0, 2, 0.01], [2, 4, 0.1], [2, 4, 0.001],
    ]  # fmt: skip
    assert rows[rows["panel"] == "schedule"]["choice"].tolist() == [NASTY, "cosine", NASTY, "cosine"]
    assert "hollow: trials with warnings" in figure.notes
    assert "80 (member 0); its ancestry changes the member once" in figure.text
    assert shapes_drawn(figure, "point") == 4
    compiled(figure)


def test_a_minimised_objective_has_the_lowest_as_its_best() -> None:
    loss = Objective(column="val_accuracy", direction="minimize")
    rows = lineage.draw(population(objectives=[loss])).rows
    assert {(row["generation"], row["member"]) for row in rows[rows["best"]].to_dict("records")} == {(0, 1), (1, 1)}


def test_the_best_member_is_the_cells_best_trial() -> None:
    """Of equal members it is the first one, as in every other figure, and one that keeps its bounds."""
    for values, best in (({(1, 0): 0.8, (1, 1): 0.8}, "c-1-0"), ({(1, 0): 0.7, (1, 1): 0.8}, "c-1-1")):
        sweep = population(reached={**REACHED, **values})
        trials = sweep.sweep.trials.assign(until_epoch=[2, 2, 4, 4], flops=[1, 1, 1, 9])
        whole = replace(sweep, sweep=replace(sweep.sweep, trials=trials))
        bounded = replace(whole, space=replace(whole.space, constraints=(Constraint(column="flops", at_most=5),)))
        for gathered, expected in ((whole, best), (bounded, "c-1-0")):
            rows = lineage.draw(gathered).rows
            last = rows[rows["best"] & (rows["generation"] == 1)]
            assert set(last["trial"]) == {expected}
            assert [cell.best.first["trial"] for cell in gathered.cells if cell.best] == [expected]


def test_cells_are_chosen() -> None:
    sweep = population(cells=("c", NASTY))
    figure = lineage.draw(sweep, NASTY)
    assert options_of(figure, "cell_shown") == ["c", NASTY]
    assert next(p for p in figure.spec["params"] if p["name"] == "cell_shown")["value"] == NASTY
    assert shapes_drawn(figure, "point") == 4  # of one cell
    compiled(figure)
    with pytest.raises(UserError, match="cell is 'd', but the cells with a population are: "):
        lineage.draw(sweep, "d")


def test_segments_without_an_objective_have_their_hyperparameters() -> None:
    rows = lineage.draw(population(reached={**REACHED, (1, 0): None, (1, 1): None})).rows
    assert rows[rows["kind"] == "reached"]["generation"].tolist() == [0, 0]
    assert len(rows[(rows["kind"] == "held") & (rows["panel"] == "lr")]) == 4
    assert {(row["generation"], row["member"]) for row in rows[rows["best"]].to_dict("records")} == {(0, 1)}
    none = lineage.draw(population(reached=dict.fromkeys(REACHED)))
    assert "No trial of c is complete yet" in none.text
    compiled(none)


def test_nothing_to_show_is_said() -> None:
    with pytest.raises(UserError, match="made has no population"):
        lineage.draw(made([]))
    other = Objective(column="unit_sparsity", direction="maximize")
    with pytest.raises(UserError, match="objective is 'unit_sparsity', but no trial has reported it"):
        lineage.draw(population(objectives=[other]))
