"""What a sweep trains, as said before it runs, is what its trials then train; hours come from real steps or rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeper.cli import COMPLETE
from sweeper.estimate.report import Estimate, Rates, estimate_lines, hours_text
from sweeper.estimate.stored import stored_rates
from sweeper.estimate.work import SweepWork, work_of
from sweeper.space.checks import check_space
from sweeper.space.load import from_document, load_space
from tests.sweeper.command_line import SMALL, sweep
from tests.trials.configs import SMALLEST
from trials.data import NO_OPTIONS, require_data
from trials.methods.bip.bip import Bilevel
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.running import rates
from trials.running.rates import StageKind, measured_rates

DIGITS = {("digits", None, NO_OPTIONS): require_data("digits")}

SHORT: dict[str, Any] = {"method": "one_shot", "model": "tiny", "dataset": "digits", "density": 0.5}


def work(**sections: Any) -> SweepWork:
    space = from_document({"name": "s", "trial": {**SHORT, "finetune": {"epochs": 10}}, **sections})
    check_space(space)
    return work_of(space, DIGITS)


def epochs(found: SweepWork) -> dict[str, float]:
    """Epochs by method and stage."""
    return {f"{kind.method} {kind.stage}": epochs for kind, epochs in found.epochs.items()}


def test_cells_samples_and_confirmations_count_and_shared_trials_once() -> None:
    search = {"finetune.lr": {"uniform": [0.01, 0.1]}}
    found = work(grid={"density": [0.5, 0.2], "seed": [0, 1]}, search=search, samples=3)
    assert epochs(found) == {"one_shot finetune": 4 * 3 * 10, "dense pretrain": 2 * 200}
    assert (found.trials, found.shared, found.at_most) == (12, 2, [])
    confirmed = work(grid={"density": [0.5, 0.2]}, search=search, samples=3, confirm={"seed": [7, 8]})
    assert epochs(confirmed) == {"one_shot finetune": 2 * 5 * 10, "dense pretrain": 3 * 200}


def test_a_search_of_the_dense_training_trains_one_per_sample() -> None:
    found = work(grid={"density": [0.5, 0.2]}, search={"pretrain.lr": {"uniform": [0.01, 0.1]}}, samples=3)
    assert epochs(found)["dense pretrain"] == 2 * 3 * 200


def test_a_search_of_epochs_and_a_pruner_make_it_an_upper_bound() -> None:
    found = work(search={"finetune.epochs": {"int": [5, 9]}}, samples=6, pruner="median")
    assert epochs(found)["one_shot finetune"] == 6 * 9
    assert found.at_most == ["the search changes the number of epochs", "the pruner (median) stops trials early"]
    assert work(trial={**SHORT, "pretrain": {"patience": 5}}).at_most == ["training with patience may stop early"]


def test_populations_train_each_segment_once() -> None:
    pbt = {"population": 4, "interval": 2, "generations": 3}
    search = {"finetune.lr": {"uniform": [0.01, 0.1]}}
    assert epochs(work(search=search, pbt=pbt))["one_shot finetune"] == 4 * 6


def test_max_epochs_limits_what_trials_train_themselves() -> None:
    found = work(grid={"seed": [0, 1]})
    (kind,) = (kind for kind in found.epochs if kind.method == "one_shot")
    rates = Rates("cpu", "", dict.fromkeys(found.epochs, 36.0))
    assert Estimate.of(found, rates, None) == Estimate(420, pytest.approx(4.2), 0)
    assert Estimate.of(found, rates, 10) == Estimate(410, pytest.approx(4.1), 0)
    assert Estimate.of(found, Rates("cpu", "", {kind: 36.0}), None) == Estimate(420, pytest.approx(0.2), 400)


@pytest.mark.parametrize("profile", ["demo", None])
def test_growing_penalties_and_episodes_count_as_they_are_planned(profile: str | None) -> None:
    """tests/sweeper/compare_methods holds that all methods cost the same: GReg's penalties and regrowth included."""
    space = load_space("compare_methods", profile=profile, overrides=["grid.method=[greg1, greg2, regrow]"])
    found = epochs(work_of(space, DIGITS))
    cells, per_cell = len(space.cells()) / 3, space.samples + len(space.confirm.points() if space.confirm else ())
    trials = cells * per_cell
    grown, episodes = (8, 4) if profile else (80, 40)
    for method in ("greg1", "greg2"):
        assert found[f"{method} prune"] / trials == pytest.approx(grown, rel=0.05)
    assert found["regrow regrow"] / trials == pytest.approx(episodes, rel=0.1)  # an epoch's last batch is smaller


def test_what_nothing_says_before_is_named() -> None:
    space = from_document({"name": "s", "trial": {**SMALLEST["single_layer"]}})
    assert work_of(space, DIGITS).uncounted == ["single_layer: regrow"]
    (*_, last) = estimate_lines(space, DIGITS, Path("missing"))
    assert last.startswith("not counted: single_layer: regrow")


def test_a_cut_is_suggested_by_options_that_exist() -> None:
    search = {"finetune.lr": {"uniform": [0.01, 0.1]}}
    content = {"name": "s", "trial": {**SHORT, "finetune": {"epochs": 10}}, "search": search, "samples": 8}
    content |= {"grid": {"density": [0.5, 0.2], "seed": [3, 4, 5]}}
    (line,) = estimate_lines(from_document(content), DIGITS, Path("missing"))
    said = "estimate: 1,080 epochs in 48 trials and 3 shared; --samples 2 --set grid.seed=[3]: 240 epochs"
    assert line == f"{said}; --estimate measures the hours"
    cut = from_document({**content, "samples": 2, "grid": {"density": [0.5, 0.2], "seed": [3]}})
    assert work_of(cut, DIGITS).total == 240
    (line,) = estimate_lines(from_document(content), DIGITS, Path("missing"), settable=False)
    assert "--samples 2: 720 epochs" not in line  # hardly smaller than 1,080
    assert "--set" not in line


def test_a_small_sweep_need_not_be_smaller() -> None:
    content = {"name": "s", "trial": {**SHORT, "pretrain": {"epochs": 1}}, "grid": {"seed": [0, 1]}}
    (line,) = estimate_lines(from_document(content), DIGITS, Path("missing"))
    assert line == "estimate: 82 epochs in 2 trials and 2 shared; --estimate measures the hours"


def test_hours_are_rounded_to_what_they_are_good_for() -> None:
    assert hours_text(2.345, "NVIDIA H100") == "2.3 GPU-hours"
    assert hours_text(12_345, "NVIDIA H100") == "12,000 GPU-hours"
    assert hours_text(0.001, "cpu (1 thread)") == "4 CPU-seconds"


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"finetune"}))
def test_the_real_steps_of_every_method_are_measured(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "STEPS", 2)
    monkeypatch.setattr(rates, "_FIRST", 1)
    monkeypatch.setattr(rates, "MOST_S", 0.05)
    config = parse({**SMALLEST[method], "val_fraction": 0.9})
    found = {(rate.kind.method, rate.kind.stage): rate for rate in measured_rates(config)}
    stages = list(METHODS[method](config).stages())
    for stage in stages:
        rate = found[method, stage.name]
        assert rate.kind == StageKind.of(config, stage)
        if stage.streams:
            assert rate.problem == ""
            assert (rate.seconds or 0) > 0 or stage.epochs == stage.first_epoch
        else:
            assert rate.seconds is None
            assert rate.problem


def test_what_is_timed_are_a_stages_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """BiP's step takes two batches, forwards and backwards: a step of SGD in its place would take half the time."""
    batches: list[int] = []
    step = Bilevel.step
    monkeypatch.setattr(Bilevel, "step", lambda stage, *given: (batches.append(len(given)), step(stage, *given))[1])
    list(measured_rates(parse(SMALLEST["bip"])))
    assert batches == [2] * (rates.STEPS + rates._FIRST)


def test_measuring_changes_neither_threads_nor_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "STEPS", 1)
    monkeypatch.setattr(rates, "_FIRST", 1)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    list(measured_rates(parse(SMALLEST["dense"]), threads=2))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("here")
class TestCommand:
    def test_a_run_says_it_once_and_its_rows_are_the_rates_of_the_next(
        self, here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert sweep() == COMPLETE
        said = capsys.readouterr().out
        assert said.startswith("estimate: 6 epochs in 4 trials and 1 shared")
        assert sweep() == COMPLETE
        assert "estimate" not in capsys.readouterr().out
        assert sweep("--dry-run", "--set", "grid.density=[0.5, 0.4, 0.3]", "--name", "other") == COMPLETE
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("estimate"))
        assert re.search(
            r"8 epochs in 6 trials .*; about \d+ CPU-seconds on cpu \(1 thread\) \(from \d+ finished", line
        )

    def test_rows_of_other_kinds_are_no_rates(self, here: Path, ran: list[str]) -> None:
        assert sweep() == COMPLETE
        config = parse({**SHORT, "dataset": "few_digits"})
        (stage,) = METHODS["one_shot"](config).stages()
        kind = StageKind.of(config, stage)
        found = stored_rates(here / "results", [kind], None)
        assert found is not None
        assert found.seconds[kind] > 0
        for change in ({"finetune": {"batch_size": 7}}, {"data_dir": "other"}, {"precision": "float64"}):
            other = parse({**SHORT, "dataset": "few_digits", **change})
            (stage,) = METHODS["one_shot"](other).stages()
            assert stored_rates(here / "results", [StageKind.of(other, stage)], None) is None

    def test_it_is_measured_if_asked(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert sweep("--dry-run", "--estimate") == COMPLETE
        out = capsys.readouterr().out
        assert "CPU-seconds on cpu (1 thread) (measured here, 20 steps)" in out
        assert not (here / "results").exists()

    def test_absent_data_are_not_downloaded_to_measure(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (here / "small.yaml").write_text(SMALL.replace("few_digits", "cifar10").replace("tiny", "resnet20s"))
        assert sweep("--dry-run", "--estimate", "--set", "trial.data_dir=missing") == COMPLETE
        out = capsys.readouterr().out
        assert "not measured: finetune of one_shot: cifar10 is not on this machine" in out
        assert "estimate: 6 epochs" in out


def test_what_is_no_sweep_of_the_storage_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    config = parse(SMALLEST["one_shot"])
    stage = next(iter(METHODS["one_shot"](config).stages()))
    assert stored_rates(tmp_path, [StageKind.of(config, stage)], None) is None
