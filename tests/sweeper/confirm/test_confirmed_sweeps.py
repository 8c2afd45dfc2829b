"""Whole sweeps with confirmations from the command line: real trials, reports, tables, refusals, extension."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import sweeper
from sweeper.cli import COMPLETE, FAILURES, main
from sweeper.comparison_plot import texts
from sweeper.dashboard import StudyCopy
from sweeper.execution.live_view import LiveView
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.comparison import dense_accuracy, points_of
from sweeper.results.report import show, standing
from sweeper.space.load import from_document
from tests.sweeper.command_line import attempts, wrong
from tests.sweeper.confirm.confirmed_sweeps import (
    accuracy,
    best_of,
    confirming,
    figures,
    searched,
    space_with,
    written,
)
from tests.sweeper.on_ray import ROOT
from tests.sweeper.space_files import refusal
from tests.sweeper.sweeps import ONE_SHOT, begun, fail, finish, make_space, run_out
from trials.storage.trial_folder import TrialFolder

SPACE: dict[str, Any] = {
    "about": "a small one",
    "trial": {
        "method": "one_shot", "dataset": "few_digits", "model": "tiny", "pretrain": {"epochs": 1},
        "finetune": {"epochs": 1},
    },
    "grid": {"density": [0.5]},
    "search": {"finetune.lr": {"loguniform": [0.001, 0.1]}},
    "sampler": "random",
    "samples": 2,
    "confirm": {"seed": [1, 2]},
}  # fmt: skip
RUN = ["--space", "tuned.yaml"]


@pytest.fixture
def tuned(here: Path) -> Path:
    (here / "tuned.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
    return here / "results" / "tuned"


def shown(path: Path) -> str:
    out = io.StringIO()
    show(path, Console(file=out, width=400))
    return out.getvalue()


def test_a_sweep_reports_its_confirmations_and_resumes_to_nothing(
    tuned: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--dry-run"]) == COMPLETE
    said = capsys.readouterr().out
    assert "1 cells x (2 + 2) samples = 4 trials of one_shot" in said
    assert "runs again with seed 1, 2; only these are its figure" in said
    assert "dense networks to train first, shared: 1\n" in said
    assert "dense networks to train for that, shared: 2\n" in said
    assert main(RUN) == COMPLETE
    said = capsys.readouterr().out
    assert "tuned: 1 cells, 1 done; 4 trials, 4 done, 0 running, 0 failed, 0 left" in said
    assert len(ran) == 4
    assert main(RUN) == COMPLETE
    assert main(["--resume", "tuned"]) == COMPLETE
    assert len(ran) == 4
    sweep = sweeper.load(tuned)
    best = best_of(SweepFolder(tuned), "density=0.5")
    trials = sweep.trials
    assert trials["confirms"].dropna().tolist() == [best.id, best.id]
    assert sorted(trials[trials["confirms"].notna()]["seed"]) == [1, 2]
    own = trials[trials["confirms"].notna()]
    row = figures(tuned)["density=0.5"]
    assert row["val_accuracy_mean"] == pytest.approx(own["val_accuracy"].mean())
    assert row["val_accuracy_std"] == pytest.approx(own["val_accuracy"].std())
    assert row["test_accuracy_mean"] == pytest.approx(own["test_accuracy"].mean())
    point = points_of(sweep).iloc[0]
    assert (point["n"], point["confirmed"]) == (2, "2/2")
    assert point["accuracy"] == pytest.approx(own["test_accuracy"].mean())
    assert texts(points_of(sweep))["confirmed"] == ["2/2"]
    dense = sweep.epochs[(sweep.epochs["stage"] == "pretrain") & sweep.epochs["trial"].isin(own["trial"])]
    assert dense_accuracy(sweep) == pytest.approx(dense["test_accuracy"].dropna().mean())


def test_confirmations_train_the_dense_networks_of_their_seeds(tuned: Path, ran: list[str]) -> None:
    assert main(RUN) == COMPLETE
    assert len([path for path in (tuned.parent / "stages").iterdir() if path.name.startswith("dense-")]) == 3


def test_a_sweep_is_confirmed_later_and_then_keeps_its_seeds(
    tuned: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--set", "confirm=null"]) == COMPLETE
    before = attempts(tuned)
    assert main([*RUN, "--set", "confirm.seed=[1]"]) == COMPLETE
    assert main([*RUN, "--set", "confirm.seed=[2, 1]"]) == COMPLETE
    assert len(ran) == 2 + 1 + 1
    assert {name: count for name, count in attempts(tuned).items() if name in before} == before
    wrong(capsys, [*RUN, "--set", "confirm=null"], "confirm is missing, but the sweep was begun with {'seed': [2, 1]}")
    wrong(capsys, [*RUN, "--set", "confirm.seed=[3, 2]"], "confirm.seed lacks 1, which the sweep has: [3, 2]")
    (tuned / "sweep.yaml").unlink()
    wrong(capsys, [*RUN, "--set", "confirm=null"], "but confirm has no such value: add it")
    assert main([*RUN, "--samples", "4"]) == COMPLETE
    assert "not counted" not in shown(tuned) or "no longer the best of their cells" in shown(tuned)


def test_a_sweep_without_confirmations_says_nothing_of_them(tuned: Path, ran: list[str]) -> None:
    assert main([*RUN, "--set", "confirm=null"]) == COMPLETE
    (document,) = SweepFolder(tuned).documents()
    assert "confirm" in document.pop("command")
    assert "confirm" not in str(document)
    text = shown(tuned).partition("tables:")[0]
    assert "confirm" not in text
    assert "searched" not in text
    assert sweeper.load(tuned).trials["confirms"].isna().all()


def test_the_example_of_the_docs_is_a_space(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = (ROOT / "docs" / "spaces.md").read_text().partition("## Confirming\n")[2]
    (here / "example.yaml").write_text(section.partition("```yaml\n")[2].partition("```")[0])
    assert main(["--space", "example.yaml", "--dry-run"]) == COMPLETE
    (said,) = (line for line in capsys.readouterr().out.splitlines() if " cells x " in line)
    assert f"`{said}`" in section


SEARCH: dict[str, Any] = {"finetune.lr": {"loguniform": [0.01, 0.1]}}


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"confirm": [1, 2]}, ["confirm is [1, 2], but must be a mapping such as {seed: [1, 2, 3]}"]),
        ({"confirm": {}}, ["confirm.seed is missing"]),
        ({"confirm": {"seed": 3}}, ["confirm.seed is 3, but must be a list of values"]),
        ({"confirm": {"seed": []}}, ["confirm.seed is [], but must have at least one value"]),
        ({"confirm": {"seed": [1, 1]}}, ["confirm.seed has 1 twice"]),
        ({"confirm": {"seed": [-1]}}, ["confirm.seed has -1, but seeds must be whole numbers of at least 0"]),
        ({"confirm": {"seed": [1.0]}}, ["confirm.seed has 1.0"]),
        ({"confirm": {"seed": [True]}}, ["confirm.seed has True"]),
        ({"confirm": {"finetune.epochs": [4]}}, ["confirm: key is 'finetune.epochs', but must be one of: seed"]),
        ({"confirm": {"seed": [1, 0]}}, ["confirm.seed has 0, but the search runs its trials with that seed"]),
        ({"trial": {**ONE_SHOT, "seed": 2}}, ["confirm.seed has 2", "give seeds that are not searched"]),
        (
            {"cases": {"one": {"when": {"density": 0.2}, "trial": {"seed": 1}}}},
            ["confirm.seed has 1", "(the trial at density=0.2"],
        ),
        ({"grid": {"seed": [5, 6]}}, ["seed is in grid too", "remove grid.seed, or remove confirm"]),
        ({"search": {"seed": {"int": [5, 9]}}}, ["seed is in search too"]),
        ({"search": {}, "samples": 1}, ["search is empty, so no seed was searched: put the seeds in grid instead"]),
        (
            {
                "objectives": [
                    {"column": "val_accuracy", "direction": "maximize"},
                    {"column": "flops", "direction": "minimize"},
                ]
            },
            ["there are 2 objectives", "no best sample"],
        ),
        (
            {"samples": None, "pbt": {"population": 2, "interval": 1, "generations": 2}},
            ["population", "remove confirm"],
        ),
    ],
)
def test_what_cannot_be_confirmed_is_refused(fields: dict[str, Any], parts: list[str]) -> None:
    content = {"search": SEARCH, "samples": 2, "confirm": {"seed": [1, 2]}, **fields}
    message = refusal(lambda: make_space(**content))
    for part in parts:
        assert part in message


def test_a_space_with_confirmations_survives_its_document() -> None:
    space = space_with(2)
    assert space.document()["confirm"] == {"seed": [1, 2, 3]}
    assert from_document(space.document()) == space
    assert "confirm" not in space_with(2, confirm=None).document()


def test_what_more_samples_have_beaten_is_said_and_not_counted(tmp_path: Path) -> None:
    for samples, reached in ((2, 0.5), (3, 0.9)):
        space = space_with(samples, "random", grid={"density": [0.5]})
        written(space, tmp_path / "s")
        run_out(begun(space, tmp_path / "s"), lambda config, reached=reached: reached - 0.01 * config["seed"])
        beaten = samples == 3
        text = shown(tmp_path / "s")
        assert f"s: 1 cells, 1 done; {samples + 3} trials, {samples + 3} done, 0 running, 0 failed, 0 left" in text
        assert ("not counted: 3 confirmations of trials that are no longer the best of their cells: " in text) == beaten
        assert figures(tmp_path / "s")["density=0.5"]["val_accuracy_mean"] == pytest.approx(reached - 0.02)


def test_while_a_better_sample_is_not_confirmed_the_cell_has_no_figure(tmp_path: Path) -> None:
    first = space_with(2, "random", grid={"density": [0.5]})
    written(first, tmp_path / "s")
    run_out(begun(first, tmp_path / "s"), lambda config: 0.5)
    space = space_with(3, "random", grid={"density": [0.5]})
    written(space, tmp_path / "s")
    plan = begun(space, tmp_path / "s")
    better = plan.next()
    assert better is not None
    finish(plan, better.trial_id, lambda config: 0.9)
    row = figures(tmp_path / "s")["density=0.5"]
    assert (row["n"], row["confirmed"], row["searched"]) == (0, "0/3", 0.9)
    assert "1 cells, 0 done; 6 trials, 3 done, 0 running, 0 failed, 3 left" in standing(sweeper.load(tmp_path / "s"))


def test_a_cell_without_any_complete_sample_is_done(tmp_path: Path) -> None:
    space = space_with(2, "random", retries=0, grid={"density": [0.5]})
    written(space, tmp_path / "s")
    plan = begun(space, tmp_path / "s")
    while (assignment := plan.next()) is not None:
        fail(plan, assignment.trial_id)
        plan.ended(assignment.trial_id)
    text = shown(tmp_path / "s")
    assert "s: 1 cells, 1 done; 2 trials, 0 done, 0 running, 2 failed, 0 left" in text


def test_a_degenerate_sample_marks_the_figure_that_confirms_it(tmp_path: Path) -> None:
    space = space_with(1, "random", grid={"density": [0.5]})
    folder = written(space, tmp_path / "s")
    plan = begun(space, tmp_path / "s")
    while (assignment := plan.next()) is not None:
        attempt, _ = TrialFolder(folder.trial_folder(assignment.trial_id)).begin()
        codes = ["chance_level"] if assignment.config.seed == 0 else []
        attempt.end("complete", result={"val_accuracy": 0.1, "warnings": codes})
        plan.ended(assignment.trial_id)
    assert figures(tmp_path / "s")["density=0.5"]["warnings"] == "chance_level"


def test_the_dashboard_shows_the_search_alone(tmp_path: Path) -> None:
    import optuna

    space = space_with(3)
    folder = written(space, tmp_path / "s")
    run_out(begun(space, tmp_path / "s"), accuracy)
    copy = StudyCopy(folder, optuna.storages.InMemoryStorage())
    copy.refresh()
    copy.refresh()
    for cell in ("density=0.5", "density=0.2"):
        study = optuna.load_study(study_name=cell, storage=copy.storage)
        assert len(study.trials) == 3
        assert {trial.user_attrs["trial"] for trial in study.trials} <= {record.id for record in searched(folder)}


def test_the_live_view_shows_confirmations_and_never_as_the_best() -> None:
    out = io.StringIO()
    view = LiveView({"density=0.5": 3}, Console(file=out, width=200), "val_accuracy", "maximize")
    with view:
        view.ended("a", "density=0.5", "complete", 0.8, already=False)
        view.ended("b", "density=0.5", "complete", 0.9, already=False, confirms=True)
        view.ended("c", "density=0.5", "failed", None, already=False, confirms=True)
    assert "2/3 b density=0.5 confirmation complete val_accuracy 0.9000" in out.getvalue()
    assert view._best == {"density=0.5": 0.8}
    assert view._over == {"density=0.5"}


def test_a_failed_confirmation_fails_the_command_and_can_be_tried_again(
    tuned: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(RUN) == COMPLETE
    record = confirming(SweepFolder(tuned))[0]
    attempt, _ = record.folder.begin()
    attempt.end("failed", error={"type": "NonFiniteLoss", "message": "nan", "traceback": ""}, failures=2)
    assert main(RUN) == FAILURES
    assert "1/2, 1 failed" in shown(tuned)
    assert main([*RUN, "--retry-failed"]) == COMPLETE
    assert len(ran) == 5
    assert "2/2" in shown(tuned)
