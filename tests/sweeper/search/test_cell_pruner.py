"""Pruners compare values of one stage, level, share of the stage and density, and never prefer an infeasible trial.

The tests run every pruner on every method that can be stopped."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState

from sweeper.search.outcomes import Outcome
from sweeper.search.pruning.bounds import will_miss
from sweeper.search.pruning.cell_pruner import CellPruner
from sweeper.search.pruning.positions import Position
from sweeper.space.checks import check_space
from sweeper.space.pruner_steps import epoch_spans, pruner_steps
from sweeper.space.space import Space
from tests.sweeper.judged import BOUND, DENSITIES, RATES, TRIALS, Judged, judged_space, run_judged
from tests.sweeper.pruned import KINDS
from tests.trials.pruned_files import build_model, masked_file
from trials.errors import UserError
from trials.methods.parsing import parse

RATE = {"loguniform": [1e-3, 1.0]}
KIND = {**KINDS, "patient": {**KINDS["patient"], "patience": 0}, "patient alone": {"name": "patient", "patience": 1}}
EVERY = pytest.mark.parametrize("pruner", KIND.values(), ids=KIND)
METHOD = pytest.mark.parametrize("method", TRIALS)


@dataclass(frozen=True)
class Drawn:
    """A trial that a test draws: its density and values, and when it is known to miss its bounds."""

    number: int
    density: float
    values: tuple[float, ...]
    will_miss: bool = False
    missed: bool = False


def drawn(space: Space, seed: int, count: int = 14, **fields: Any) -> list[Drawn]:
    draw = random.Random(seed)
    length = pruner_steps(space, space.cells()[0]).total
    kinds = {"density": [0.2], "will_miss": [False], "missed": [False], **fields}
    found = []
    for number in range(count):
        chosen = {name: draw.choice(values) for name, values in kinds.items()}
        better = 0.3 * (chosen["density"] > 0.3) + 0.3 * chosen["will_miss"] + 3.0 * chosen["missed"]
        values = tuple(better + draw.random() for _ in range(length))
        found.append(Drawn(number, values=values, **chosen))
    return found


def stops(space: Space, trials: Iterable[Drawn], at_once: int = 3) -> dict[int, int | None]:
    """The step at which each trial is stopped; ``at_once`` neighbours by number run side by side."""
    cell = space.cells()[0]
    pruner, spans = CellPruner(space, cell), epoch_spans(next(iter(space.corner_configs(cell))))
    places = [(*place, span.first + i) for place, span in spans.items() for i in range(1, span.count + 1)]
    found: dict[int, int | None] = {}
    groups: dict[int, list[Drawn]] = {}
    for trial in trials:
        groups.setdefault(trial.number // at_once, []).append(trial)
    for group in groups.values():
        running = list(group)
        for step, place in enumerate(places, start=1):
            for trial in list(running):
                if step == len(places):
                    outcome = Outcome(TrialState.COMPLETE, (trial.values[-1],), {"x": 1.0 if trial.missed else -1.0})
                    found[trial.number] = None
                else:
                    at = Position(*place, trial.density, 1000, trial.will_miss)
                    stop, _ = pruner.judge(trial.number, at, trial.values[step - 1])
                    outcome = Outcome(TrialState.PRUNED)
                    if not stop:
                        continue
                    found[trial.number] = step
                pruner.tell(trial.number, outcome)
                running.remove(trial)
    return found


@EVERY
@METHOD
def test_a_searched_density_is_refused_unless_it_is_bounded(method: str, pruner: Any) -> None:
    field = DENSITIES[method]
    search = {field: {"uniform": [0.1, 0.5]}, RATES[method]: RATE}
    with pytest.raises(UserError, match=f"the search of {field} moves the density of stage .*: put {field} into grid"):
        check_space(judged_space(method, search, pruner))
    check_space(judged_space(method, search, pruner, constraints=BOUND))
    check_space(judged_space(method, {RATES[method]: RATE}, pruner))
    check_space(judged_space(method, {RATES[method]: RATE}, pruner, grid={field: [0.2, 0.5]}))


@EVERY
@METHOD
def test_trials_of_other_densities_change_no_decision(method: str, pruner: Any) -> None:
    space = judged_space(method, {RATES[method]: RATE}, pruner)
    stopped = 0
    for seed in range(4):
        trials = drawn(space, seed, density=[0.2, 0.5])
        together = stops(space, trials)
        for density in (0.2, 0.5):
            alone = stops(space, [trial for trial in trials if trial.density == density])
            assert alone == {number: together[number] for number in alone}
            stopped += sum(step is not None for step in alone.values())
    assert stopped


@EVERY
@METHOD
def test_infeasible_trials_change_no_decision_about_feasible_ones(method: str, pruner: Any) -> None:
    space = judged_space(method, {RATES[method]: RATE}, pruner)
    stopped = 0
    for seed in range(4):
        trials = drawn(space, seed, will_miss=[False, False, True], missed=[False])
        together = stops(space, trials)
        alone = stops(space, [trial for trial in trials if not trial.will_miss])
        assert alone == {number: together[number] for number in alone}
        stopped += sum(step is not None for step in alone.values())
        for number, step in together.items():  # a trial that is certain to miss outlives none that began before it
            earlier = [s for n, s in alone.items() if n < number // 3 * 3 and s is not None]
            if trials[number].will_miss and earlier:
                assert step is not None
                assert step <= min(earlier)
        known_late = drawn(space, seed, missed=[False, True])  # they end, as the best
        ended = stops(space, known_late, at_once=1)
        only = stops(space, [trial for trial in known_late if not trial.missed], at_once=1)
        assert only == {number: ended[number] for number in only}
    assert stopped


@EVERY
@METHOD
def test_values_of_other_stages_and_levels_change_no_decision(method: str, pruner: Any) -> None:
    """What another trial has at other steps, and this one in other stages and levels, is shuffled."""
    space = judged_space(method, {RATES[method]: RATE}, pruner)
    cell = space.cells()[0]
    steps = pruner_steps(space, cell)
    spans = epoch_spans(next(iter(space.corner_configs(cell))))
    places = [(*place, i) for place, span in spans.items() for i in range(1, span.count + 1)]
    for seed in range(8):
        draw = random.Random(seed)
        asked = draw.randrange(1, steps.total)
        here = steps.place(asked)
        others = [[draw.random() for _ in places] for _ in range(6)]
        own = [draw.random() for _ in places]
        decided = set()
        for noise in (0.0, 5.0, -5.0):
            pruner_of = CellPruner(space, cell)
            for number, values in enumerate(others):
                curve = tuple((Position(*place, 0.2, 1000), v if i + 1 == asked else v + noise)
                              for i, (place, v) in enumerate(zip(places, values, strict=True)))  # fmt: skip
                outcome = Outcome(TrialState.COMPLETE, (values[-1],), reached=curve)
                rung = {"completed_rung_0": curve[asked - 1][1]}
                pruner_of.replay(number, outcome, rung)
            mine = tuple((Position(*place, 0.2, 1000), v if steps.place(i + 1) == here else v + noise)
                         for i, (place, v) in enumerate(zip(places, own, strict=True)))  # fmt: skip
            pruner_of.replay(9, Outcome(TrialState.RUNNING, reached=mine[: asked - 1]), {})
            decided.add(pruner_of.judge(9, *mine[asked - 1])[0])
        assert len(decided) == 1


def value(config: dict[str, Any], row: dict[str, Any]) -> float:
    """Denser networks score higher, by far more than learning rates matter."""
    rate = {"imp": "pretrain", "one_shot": "finetune"}.get(config["method"], "prune")
    return row["density"] + 0.01 * config[rate]["lr"] + 0.001 * row["epoch"]


def stopped(found: list[Judged], *, feasible: bool) -> int:
    return sum(judged.stopped is not None for judged in found if judged.feasible == feasible)


PAIRS = pytest.mark.parametrize(
    ("method", "pruner"), [("imp", "halving"), ("one_shot", "hyperband"), ("bip", "median"), ("hydra", "percentile")]
)


@PAIRS
def test_sparse_trials_are_not_stopped_for_being_sparse(tmp_path: Path, method: str, pruner: str) -> None:
    """With imp, a searched prune_fraction and halving, 9 of 10 trials that kept the bound were stopped."""
    search = {DENSITIES[method]: {"uniform": [0.1, 0.6]}, RATES[method]: RATE}
    if method != "imp":
        search[DENSITIES[method]] = {"uniform": [0.2, 0.5]}
    space = judged_space(method, search, KIND[pruner], samples=20, constraints=BOUND, seed=1)
    check_space(space)
    found = run_judged(space, tmp_path, value, most=0.35)
    assert sum(judged.feasible for judged in found) >= 4
    assert stopped(found, feasible=True) == 0


@PAIRS
def test_at_equal_densities_a_bounded_search_stops_the_worse(tmp_path: Path, method: str, pruner: str) -> None:
    densities = [0.4, 0.1] if method == "imp" else [0.3, 0.5]
    search = {DENSITIES[method]: {"choice": densities}, RATES[method]: RATE}
    space = judged_space(method, search, KIND[pruner], samples=18, constraints=BOUND, seed=1)
    check_space(space)
    lived = run_judged(space, tmp_path / "lived", value, most=0.35)
    assert stopped(lived, feasible=True)
    assert any(judged.feasible and judged.stopped is None for judged in lived)
    replayed = run_judged(space, tmp_path / "replayed", value, most=0.35, anew=True)
    assert replayed == lived


@PAIRS
def test_with_searched_epochs_trials_are_judged_at_common_shares(tmp_path: Path, method: str, pruner: str) -> None:
    field = RATES[method].replace(".lr", ".epochs")
    search = {field: {"choice": [4, 8, 16]}, RATES[method]: RATE}
    space = judged_space(method, search, KIND[pruner], samples=10, seed=1)
    check_space(space)
    steps = pruner_steps(space, space.cells()[0])
    assert steps.fields == (field,)
    assert set(steps.counts.values()) <= {4, 6}

    def grows(config: dict[str, Any], row: dict[str, Any]) -> float:
        stage = config["pretrain"] if row["stage"] == "train" else config[row["stage"]]
        rate = config[RATES[method].partition(".")[0]]["lr"]
        return row["epoch"] / stage["epochs"] + rate  # by the share alone: no number of epochs is at an advantage

    lived = run_judged(space, tmp_path / "lived", grows)
    assert run_judged(space, tmp_path / "replayed", grows, anew=True) == lived
    ended = [judged for judged in lived if judged.stopped is not None]
    assert 0 < len(ended) < len(lived)
    spans = {r.samples[0].number: epoch_spans(r.config) for r in records(tmp_path / "lived")}
    for judged in ended:
        assert judged.stopped is not None
        stage, level, epoch = judged.stopped
        span = spans[judged.number][stage, level]
        assert epoch * steps.counts[stage, level] % span.count == 0


def records(path: Path) -> list[Any]:
    from sweeper.folder.sweep_folder import SweepFolder

    return SweepFolder(path).records()


def counts_of(method: str, search: dict[str, Any], **trial: Any) -> dict[str, int]:
    space = judged_space(method, search, "halving", trial={**TRIALS[method], **trial})
    steps = pruner_steps(space, space.cells()[0])
    return {f"{stage}{level}": count for (stage, level), count in steps.counts.items()}


def test_the_steps_of_a_stage_are_the_greatest_common_divisor_of_its_epochs() -> None:
    assert counts_of("one_shot", {"finetune.lr": RATE}) == {"finetune0": 12}
    assert counts_of("one_shot", {"finetune.epochs": {"choice": [10, 20, 40]}}) == {"finetune0": 10}
    warm = {"finetune.epochs": {"choice": [10, 20]}, "finetune.warmup_epochs": {"choice": [0, 5]}}
    assert counts_of("one_shot", warm) == {"finetune0": 5}
    assert counts_of("one_shot", {"finetune.epochs": {"int": [4, 8]}}) == {"finetune0": 1}  # 5 and 7 are between
    assert counts_of("one_shot", {"finetune.epochs": {"int": [1000, 5000]}}) == {"finetune0": 1}
    assert counts_of("bip", {"prune.epochs": {"choice": [2, 4]}}) == {"prune0": 2, "finetune0": 6}
    assert counts_of("imp", {"levels": {"int": [1, 3]}}) == {"train1": 4, "train2": 4, "train3": 4}
    rewound = {"rewind_epoch": {"choice": [0, 2]}, "pretrain.lr": RATE}
    assert counts_of("imp", rewound, levels=1) == {"train1": 2}
    other = {
        "rewind": {"choice": ["weights", "none"]},
        "finetune.epochs": {"choice": [2, 6], "when": {"rewind": "none"}},
    }
    assert counts_of("imp", other, levels=1) == {"train1": 2}


@pytest.mark.parametrize(
    ("pruner", "says"),
    [
        ("halving", "pruner.min_resource: the epoch of the first rung is 1, but must be less than the 1 steps"),
        ({"name": "median", "n_warmup_steps": 3}, "pruner.n_warmup_steps is 3, but must be less than the 1 steps"),
        ({"name": "hyperband", "max_resource": 5}, "pruner.min_resource is 1, but must be less than the 1 steps"),
    ],
)
def test_too_few_common_steps_are_refused_with_the_way_out(pruner: Any, says: str) -> None:
    with pytest.raises(UserError) as caught:
        check_space(judged_space("one_shot", {"finetune.epochs": {"int": [50, 100]}}, pruner))
    assert str(caught.value).startswith(says)
    assert "search multiples, such as {choice: [10, 20, 40]}" in str(caught.value)


def test_patience_that_no_level_is_long_enough_for_is_refused() -> None:
    with pytest.raises(UserError, match="patience is 3, but must be less than 3: the longest stage of a level has 4"):
        check_space(judged_space("imp", {"pretrain.lr": RATE}, {"name": "patient", "patience": 3}))


@pytest.mark.parametrize(
    ("trial", "search", "moves"),
    [
        ({}, {"score": {"choice": ["magnitude", "random"]}}, False),
        ({"pattern": "filter"}, {"score": {"choice": ["magnitude", "random"]}}, True),
        ({"pattern": "filter"}, {"pretrain.lr": RATE}, True),
        ({"pattern": "filter"}, {"finetune.lr": RATE}, False),
        ({"pattern": "filter", "distribution": "uniform"}, {"pretrain.lr": RATE}, False),
        ({}, {"pattern": {"choice": ["weight", "filter"]}}, True),
        ({}, {"distribution": {"choice": ["global", "uniform"]}}, False),
    ],
)
def test_what_moves_the_density_of_one_shot(trial: dict[str, Any], search: dict[str, Any], moves: bool) -> None:
    space = judged_space("one_shot", search, "halving", trial={**TRIALS["one_shot"], **trial})
    if not moves:
        return check_space(space)
    with pytest.raises(UserError, match="moves the density of stage finetune"):
        check_space(space)
    return None


def test_what_is_certain_to_miss_its_bounds() -> None:
    space = judged_space("imp", {"pretrain.lr": RATE}, "halving", constraints=BOUND)
    row = {"stage": "train", "level": 1, "epoch": 1, "prunable": 1000}

    def certain(constraints: Any = space.constraints, /, density: float = 0.6, level: int = 1, **fields: Any) -> bool:
        config = parse({**TRIALS["imp"], **fields})
        return will_miss(
            constraints, config, config.model_dump(mode="json"), {**row, "density": density, "level": level}
        )

    assert not certain()  # 0.6 now, 0.216 in the end
    assert certain(prune_fraction=0.2)  # 0.512 in the end
    assert not certain(prune_fraction=0.2953)  # 0.34997
    assert certain(density=0.36, level=3)
    assert not certain(density=0.35, level=3)
    accuracy = judged_space("imp", {"pretrain.lr": RATE}, "halving",
                            constraints=[{"column": "val_accuracy", "at_least": 0.99}]).constraints  # fmt: skip
    assert not certain(accuracy, level=3)


def test_a_level_that_few_trials_have_is_compared_among_these() -> None:
    space = judged_space(
        "imp", {"levels": {"choice": [1, 3]}, "pretrain.lr": RATE}, {"name": "median", "n_startup_trials": 1}
    )
    pruner = CellPruner(space, space.cells()[0])
    short = tuple((Position("train", 1, epoch, 0.6, 1000), 0.9) for epoch in (1, 2, 3, 4))
    pruner.replay(0, Outcome(TrialState.COMPLETE, (0.9,), reached=short), {})
    assert pruner.judge(1, Position("train", 1, 1, 0.6, 1000), 0.5)[0]
    assert not pruner.judge(2, Position("train", 2, 1, 0.36, 1000), 0.5)[0]


def test_finetuning_of_files_is_compared_by_file(tmp_path: Path) -> None:
    """Their masks may differ in density, so one search has one file."""
    masked = masked_file("tiny", 10, 1)
    dense = tmp_path / "dense.pt"
    torch.save(build_model("tiny", 10, 1).state_dict(), dense)
    trial = {
        "method": "finetune",
        "dataset": "digits",
        "model": "tiny",
        "source_net": masked,
        "finetune": {"epochs": 4},
    }
    check_space(judged_space("imp", {"finetune.lr": RATE}, "halving", trial=trial))
    search = {"source_net": {"choice": [masked, str(dense)]}, "finetune.lr": RATE}
    with pytest.raises(UserError, match="the search of source_net moves the density of stage finetune"):
        check_space(judged_space("imp", search, "halving", trial=trial))


@pytest.mark.parametrize("lived", [True, False])
def test_a_stop_that_was_not_carried_out_counts_after_a_restart(lived: bool) -> None:
    """A feasible trial is stopped; its driver dies before its process hears of it. An infeasible one ends there too."""
    space = judged_space("bip", {"prune.lr": RATE}, {"name": "patient", "patience": 1})
    feasible = [(Position("prune", 0, epoch, 0.3, 1000), 0.9 - 0.1 * epoch) for epoch in (1, 2, 3)]
    missing = [(Position("prune", 0, epoch, 0.3, 1000, True), 0.1 * epoch) for epoch in (1, 2, 3)]
    pruner = CellPruner(space, space.cells()[0])
    if lived:
        assert [pruner.judge(0, *row)[0] for row in feasible] == [False, False, True]
    else:
        pruner.replay(0, Outcome(TrialState.RUNNING, reached=tuple(feasible[:2])), {}, stopped=feasible[2][0])
    assert [pruner.judge(1, *row)[0] for row in missing] == [False, False, True]
