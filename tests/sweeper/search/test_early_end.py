"""A cell's search ends before its samples by the rules of its space, and any driver decides the same."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeper.estimate.work import work_of
from sweeper.folder.search_ends import ShorterSearch, read_shorter
from sweeper.results.report import count, show
from sweeper.results.stored_space import WITHOUT_SPACE, stored_space
from sweeper.results.tables import load
from sweeper.search.cells.study import CellStudy
from sweeper.search.outcomes import FAILED, Outcome
from sweeper.space.check_ends import described_ends, few_points
from sweeper.space.compatibility import contradictions
from sweeper.space.load import from_document
from sweeper.space.space import Space
from tests.sweeper.search.test_study import complete
from tests.sweeper.sweeps import asked, begun, fail, finish, make_space, run_out, trials_of
from trials.errors import UserError

SEARCH = {"finetune.lr": {"loguniform": [1e-3, 1.0]}, "finetune.momentum": {"uniform": [0.0, 0.95]}}
ONE = {"density": [0.5]}
PLATEAU = {"plateau": {"samples": 3, "improvement": 0.01}}


def space_of(samples: int = 12, **fields: Any) -> Space:
    return make_space(**{"search": SEARCH, "sampler": "random", "samples": samples, "grid": ONE, **fields})


def told(space: Space, *outcomes: Outcome | float | None) -> CellStudy:
    """A study with a sample per outcome; None runs on."""
    study = CellStudy(space, space.cells()[0])
    samples = [study.ask() for _ in outcomes]
    for sample, outcome in zip(samples, outcomes, strict=True):
        if outcome is not None:
            study.tell(sample, complete(outcome) if isinstance(outcome, (int, float)) else outcome)
    return study


PRUNED = Outcome(complete().state.PRUNED)


@pytest.mark.parametrize(
    ("outcomes", "ends"),
    [
        ([0.5, 0.5, 0.5], False),  # there must be a value before the last three
        ([0.5, 0.5, 0.5, 0.5], True),
        ([0.5, 0.4, 0.3, 0.2], True),
        ([0.5, 0.4, 0.505, 0.2], True),  # an improvement of less than 0.01
        ([0.5, 0.4, 0.52, 0.2], False),
        ([0.5, 0.4, 0.52, 0.2, 0.1], False),
        ([0.5, 0.4, 0.52, 0.2, 0.1, 0.3], True),
        ([0.5, PRUNED, PRUNED, PRUNED], True),
        ([PRUNED, PRUNED, PRUNED, PRUNED, PRUNED], False),  # no value at all: there is nothing to improve on
        ([0.5, FAILED, FAILED, FAILED], False),  # failed trials say nothing, and may run again
        ([0.5, None, 0.5, 0.5], False),
        ([0.5, None, 0.5, 0.5, 0.5], True),
        ([0.5, complete(0.9, bound=1.0), complete(0.9, bound=1.0), 0.5], True),  # outside the constraints
    ],
)
def test_a_search_ends_when_its_best_value_stands_still(outcomes: list[Any], ends: bool) -> None:
    study = told(space_of(stop_when=PLATEAU), *outcomes)
    assert study.wants is not ends
    assert study.total == (len(outcomes) if ends else 12)
    assert (study.shorter is not None) is ends
    if study.shorter is not None:
        assert study.shorter.why.startswith("the best val_accuracy, 0.5")
        assert study.shorter.why.endswith("has not improved by 0.01 in its last 3 samples")


def test_less_is_better_where_the_space_says_so() -> None:
    space = space_of(stop_when=PLATEAU, direction="minimize")
    assert told(space, 0.5, 0.6, 0.7, 0.8).shorter is not None
    assert told(space, 0.5, 0.6, 0.4, 0.8).shorter is None
    target = space_of(stop_at=0.4, direction="minimize")
    assert told(target, 0.41).shorter is None
    assert told(target, 0.4).shorter == ShorterSearch(1, "val_accuracy has reached 0.4 (stop_at: 0.4)")


def test_with_no_improvement_given_any_change_counts() -> None:
    space = space_of(stop_when={"plateau": {"samples": 2}})
    assert told(space, 0.5, 0.5, 0.5).shorter is not None
    assert told(space, 0.5, 0.5, 0.5 + 1e-9).shorter is None


def test_a_search_ends_at_its_target_if_the_trial_keeps_the_constraints() -> None:
    space = space_of(stop_at=0.9)
    assert told(space, 0.89, PRUNED, FAILED, None, complete(0.95, bound=0.1)).wants
    ended = told(space, 0.89, None, 0.9)
    assert (ended.wants, ended.total, ended.count) == (False, 3, 3)


def test_a_search_that_stood_still_goes_on_if_a_running_trial_improves_it() -> None:
    space = space_of(stop_when=PLATEAU)
    study = CellStudy(space, space.cells()[0])
    samples = [study.ask() for _ in range(5)]
    for sample in samples[:4]:
        study.tell(sample, complete(0.5))
    assert not study.wants
    study.tell(samples[4], complete(0.6))
    assert study.wants
    assert study.total == 12


def curve(config: dict[str, Any]) -> float:
    return float(round(1.0 - abs(config["finetune"]["lr"] - 0.1) - abs(config["finetune"]["momentum"] - 0.5), 2))


RULES: dict[str, dict[str, Any]] = {
    "plateau": {"stop_when": {"plateau": {"samples": 4, "improvement": 0.05}}},
    "target": {"stop_at": 0.8},
    "both": {"stop_at": 0.9, "stop_when": {"plateau": {"samples": 5}}},
    "few points": {"search": {"finetune.momentum": {"choice": [0.0, 0.3, 0.6, 0.9]}, "finetune.lr": {"choice": [0.1]}}},
    "confirmed": {"stop_when": PLATEAU, "confirm": {"seed": [7, 8]}},
}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("rule", RULES)
def test_drivers_that_die_come_to_the_same_samples(rule: str, sampler: str, tmp_path: Path) -> None:
    """One trial at a time, with a new driver at random moments."""
    space = space_of(30, grid={"density": [0.5, 0.2]}, **{"sampler": sampler, **RULES[rule]})
    plan = begun(space, tmp_path / "undisturbed")
    whole = run_out(plan, curve)
    assert 4 <= sum(plan.totals.values()) < 60
    draw, ran = random.Random(0), []
    plan = begun(space, tmp_path / "killed")
    while (assignment := plan.next()) is not None:
        finish(plan, assignment.trial_id, curve)
        ran.append(assignment.trial_id)
        if draw.random() < 0.5:
            plan = begun(space, tmp_path / "killed")  # it died before it took note of the end
        else:
            plan.ended(assignment.trial_id)
    assert (plan.complete, ran) == (True, whole)
    again = begun(space, tmp_path / "killed")
    assert (again.complete, again.totals) == (True, plan.totals)
    assert read_shorter(tmp_path / "killed") == read_shorter(tmp_path / "undisturbed")
    assert set(read_shorter(tmp_path / "killed")) == {"density=0.5", "density=0.2"}


@pytest.mark.parametrize("rule", ["plateau", "target"])
def test_several_trials_at_once_end_as_a_rebuilt_plan_says(rule: str, tmp_path: Path) -> None:
    space, draw = space_of(25, **RULES[rule]), random.Random(1)
    plan = begun(space, tmp_path)
    running: list[str] = []
    while True:
        while len(running) < 4 and (assignment := plan.next()) is not None:
            running.append(assignment.trial_id)
        if not running:
            break
        trial_id = running.pop(draw.randrange(len(running)))
        finish(plan, trial_id, curve)
        plan.ended(trial_id)
        rebuilt = begun(space, tmp_path)
        for mine, theirs in zip(plan._searches.values(), rebuilt._searches.values(), strict=True):
            assert (mine.wants, mine.total, mine.shorter) == (theirs.wants, theirs.total, theirs.shorter)
    assert plan.complete
    assert plan.totals["density=0.5"] < 25


def test_samples_that_were_asked_before_the_end_go_on(tmp_path: Path) -> None:
    plan = begun(space_of(stop_at=0.9), tmp_path)
    running = [plan.next() for _ in range(3)]
    assert running[0] is not None
    finish(plan, running[0].trial_id, lambda _: 0.95)
    plan.ended(running[0].trial_id)
    assert plan.next() is None
    assert (plan.complete, plan.totals) == (False, {"density=0.5": 3})
    assert list(plan.shorter.notes) == [
        "density=0.5: ended after 3 samples: val_accuracy has reached 0.95 (stop_at: 0.9)"
    ]
    again = begun(plan.space, tmp_path)
    assert {again.next().trial_id for _ in range(2)} == {one.trial_id for one in running[1:] if one}  # type: ignore[union-attr]
    assert again.next() is None


def test_a_looser_rule_goes_on_and_a_tighter_one_ends(tmp_path: Path) -> None:
    run_out(begun(space_of(stop_at=0.8), tmp_path), curve)
    first = len(asked(begun(space_of(), tmp_path).folder))
    assert first < 12
    assert begun(space_of(stop_at=0.5), tmp_path).complete
    for fields in ({}, {"stop_at": 0.99}, {"stop_at": None, "stop_when": {"plateau": {"samples": 10}}}):
        assert contradictions(space_of(stop_at=0.8), space_of(**fields)) == []
        assert contradictions(space_of(**fields), space_of(stop_at=0.8)) == []
    loosened = begun(space_of(), tmp_path)
    assert len(run_out(loosened, curve)) == 12 - first
    assert read_shorter(tmp_path) == {}


def test_failed_trials_that_run_again_do_not_reopen_a_search(tmp_path: Path) -> None:
    space = space_of(retries=0, stop_when=PLATEAU)
    plan, values = begun(space, tmp_path), iter([0.5, None, 0.5, 0.5, None, 0.5])
    for value in values:
        assignment = plan.next()
        assert assignment is not None
        finish(plan, assignment.trial_id, lambda _, v=value: v) if value else fail(plan, assignment.trial_id)
        plan.ended(assignment.trial_id)
    assert (plan.complete, plan.failed, plan.totals) == (True, 2, {"density=0.5": 6})
    assert plan.folder.forgive() == 2
    again = begun(space, tmp_path)
    assert again.totals == {"density=0.5": 6}
    assert len(run_out(again, lambda _: 0.1)) == 2


def test_reports_count_what_the_search_will_have(tmp_path: Path) -> None:
    space = space_of(12, grid={"density": [0.5, 0.2]}, stop_at=0.8, confirm={"seed": [5]})
    plan = begun(space, tmp_path)
    plan.folder.append({"space": space.document()})
    run_out(plan, curve)
    sweep = load(tmp_path)
    standing = count(sweep, stored_space(sweep) or WITHOUT_SPACE)
    assert (standing.total, standing.left) == (sum(plan.totals.values()), 0)
    assert (standing.cells, standing.cells_done, standing.complete, standing.driver) == (2, 2, True, "")
    out = io.StringIO()
    show(tmp_path, Console(file=out, width=200))
    for cell in ("density=0.5", "density=0.2"):
        assert f"ended early: {cell} after {plan.totals[cell] - 1} samples: val_accuracy has reached" in out.getvalue()


def test_the_copy_for_the_dashboard_says_why_a_search_has_ended(tmp_path: Path) -> None:
    from optuna.storages import InMemoryStorage

    from sweeper.dashboard import StudyCopy

    plan = begun(space_of(stop_at=0.8), tmp_path)
    plan.folder.append({"space": plan.space.document()})
    copy = StudyCopy(plan.folder, InMemoryStorage())
    copy.refresh()
    run_out(plan, curve)
    copy.refresh()
    (study,) = (study for study in copy.storage.get_all_studies() if study.study_name == "density=0.5")
    assert study.user_attrs["ended early"] == str(read_shorter(tmp_path)["density=0.5"])


def test_a_report_knows_from_the_start_that_a_search_has_few_points(tmp_path: Path) -> None:
    space = space_of(12, **RULES["few points"])
    plan = begun(space, tmp_path)
    plan.folder.append({"space": space.document()})
    assert plan.next() is not None
    sweep = load(tmp_path)
    standing = count(sweep, stored_space(sweep) or WITHOUT_SPACE)
    assert (standing.total, standing.cells_done) == (4, 0)
    out = io.StringIO()
    show(tmp_path, Console(file=out, width=200))
    assert "ended early" not in out.getvalue()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"cells": {"a": 1}}', '{"cells": {"a": {"samples": "x", "why": ""}}}']
)
def test_a_damaged_note_of_ends_is_written_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "searches.json").write_text(text)
    assert read_shorter(tmp_path) == {}
    plan = begun(space_of(12, **RULES["few points"]), tmp_path)
    assert read_shorter(tmp_path)["density=0.5"].samples == 4
    assert plan.totals == {"density=0.5": 4}
    assert json.loads((tmp_path / "searches.json").read_text())["schema"] == 1


def test_a_sweep_whose_searches_have_all_their_samples_writes_no_note(tmp_path: Path) -> None:
    run_out(begun(space_of(2), tmp_path), curve)
    assert not (tmp_path / "searches.json").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stop_at": "high"}, "stop_at is 'high'"),
        ({"stop_at": float("nan")}, "stop_at is nan"),
        ({"stop_when": {}}, "stop_when has no rule"),
        ({"stop_when": {"plateau": {"samples": 0}}}, "stop_when.plateau.samples is 0"),
        ({"stop_when": {"plateau": {"samples": 3, "improvement": -1}}}, "stop_when.plateau.improvement is -1"),
        ({"stop_when": {"plateau": {"samples": 11}}}, "stop_when.plateau.samples is 11"),
        ({"stop_when": {"plato": {"samples": 3}}}, "plato"),
        ({"stop_when": {"terminator": "best"}}, "stop_when.terminator.name is 'best'"),
        ({"stop_when": {"terminator": "emmr"}}, "stop_when.terminator needs 30 complete trials"),
        ({"ask_again": -1}, "ask_again is -1"),
        ({"trial_hours": 0}, "trial_hours is 0"),
        ({"search": {}, "samples": 1, "stop_at": 0.5}, "stop_at is 0.5, but search is empty"),
        ({"search": {}, "samples": 1, "stop_at": 1.0000001}, "stop_at is 1.0000001, but search is empty"),
        ({"stop_at": 1.0000001}, "stop_at is 1.0000001, but val_accuracy is a share, from 0 to 1"),
        ({"search": {}, "samples": 1, "ask_again": 2}, "ask_again is 2, but search is empty"),
        (
            {"stop_at": 0.5, "objectives": [{"column": c, "direction": "minimize"} for c in ("flops", "val_loss")]},
            "stop_at is 0.5, but there are 2 objectives",
        ),
        (
            {"stop_when": {"terminator": {"name": "emmr", "error": 0.1, "min_n_trials": 3}},
             "constraints": [{"column": "density", "at_most": 0.5}]},
            "do not know constraints",
        ),
        (
            {"stop_when": {"terminator": {"name": "emmr", "error": 0.1, "min_n_trials": 3}},
             "search": {**SEARCH, "finetune.warmup_epochs": {"int": [0, 1], "when": {"density": 0.5}}}},
            "search.finetune.warmup_epochs has a condition",
        ),
    ],
)  # fmt: skip
def test_what_cannot_end_a_search_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        space_of(**fields)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("fields", [{"stop_at": 0.5}, {"stop_when": PLATEAU}, {"ask_again": 1}])
def test_a_population_is_not_ended_by_these(fields: dict[str, Any]) -> None:
    from tests.sweeper.populations import population

    with pytest.raises(UserError, match=f"{next(iter(fields))} is .*, but pbt"):
        population(**fields)


@pytest.mark.parametrize("name", ["emmr", "regret_bound"])
def test_an_optuna_terminator_decides_alike_in_a_rebuilt_study(name: str) -> None:
    error = {"error": 1.0} if name == "emmr" else {"warm_up_trials": 2, "n_initial_trials": 3, "threshold_ratio": 5.0}
    space = space_of(14, stop_when={"terminator": {"name": name, "min_n_trials": 5, **error}})
    study, samples = CellStudy(space, space.cells()[0]), []
    while study.wants:
        samples.append(study.ask())
        study.tell(samples[-1], complete(curve(space.config(space.cells()[0], samples[-1].params).model_dump())))
    assert 5 <= study.count < 14
    rebuilt = CellStudy(space, space.cells()[0])
    for number, sample in enumerate(samples):
        assert (rebuilt.wants, rebuilt.count) == (True, number)
        rebuilt.replay(sample, complete(curve(space.config(space.cells()[0], sample.params).model_dump())))
    assert trials_of(rebuilt) == trials_of(study)
    assert rebuilt.shorter == study.shorter
    assert rebuilt.shorter is not None


def test_documents_hold_only_what_is_set() -> None:
    plain = space_of().document()
    assert not {"stop_at", "stop_when", "trial_hours", "ask_again"} & plain.keys()
    whole = space_of(stop_at=0.9, stop_when=PLATEAU, trial_hours=2.0, ask_again=3)
    assert whole.document()["stop_when"] == PLATEAU
    assert from_document(whole.document()) == whole
    short = space_of(40, stop_when={"terminator": "emmr"})
    assert from_document(short.document()) == short


def test_what_ends_a_search_is_said_before_it_runs() -> None:
    space = space_of(12, stop_at=0.9, stop_when=PLATEAU, trial_hours=2.0)
    lines = [
        "a search ends once val_accuracy reaches 0.9",
        "a search ends once the best val_accuracy has not improved by 0.01 in its last 3 samples",
        "a trial ends after 2 hours",
    ]
    assert list(described_ends(space)) == lines
    assert [reason for reason in work_of(space, {}).at_most if reason in lines] == lines
    few = space_of(12, **RULES["few points"])
    assert few_points(few) == "a search has 4 points; none is run twice"
    assert work_of(few, {}).at_most == ["a search has 4 points; none is run twice"]
    assert few_points(space_of(12, ask_again=0, **RULES["few points"])) is None
    assert few_points(space_of(4, **RULES["few points"])) is None
