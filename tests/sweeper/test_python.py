"""``sweeper.run`` is the command's run: same names, folders, resume and refusals; and what a ``Sweep`` answers."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Group
from rich.text import Text

import sweeper
from sweeper import before_run
from sweeper.cli import COMMANDS, COMPLETE, STOPPED
from sweeper.console import NotebookConsole
from sweeper.execution.live_view import LiveView
from sweeper.execution.notebook_panel import NOTES_SHOWN, NotebookPanel
from sweeper.options import parser
from sweeper.run_options import RunOptions
from sweeper.search.plan import Plan
from tests.sweeper.command_line import SMALL, attempts, figures, put_in_place_of_ray
from tests.sweeper.command_line import sweep as command
from trials.errors import UserError
from trials.running.trial import TrialHost, run
from trials.storage.leases.lease import Lease

pytestmark = pytest.mark.usefixtures("here", "no_stray_handlers")

CONTENT: dict[str, Any] = yaml.safe_load(SMALL)


def python(**options: Any) -> sweeper.Sweep:
    return sweeper.run({**CONTENT, "grid": {"density": (0.5, np.float64(0.2))}}, name="small", **options)


def stopping_after(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in this process, and the plan stops after a number of them, as by ``max_hours``."""

    def run_plan(plan: Plan, display: Any, lease: Lease, **_: Any) -> None:
        for _ in range(number):
            assignment = plan.next()
            assert assignment is not None
            run(assignment.config, plan.folder.trial_folder(assignment.trial_id), TrialHost(plan.folder.stages))
            plan.ended(assignment.trial_id)
        plan.stop()

    put_in_place_of_ray(monkeypatch, run_plan)


def test_every_option_of_the_command_is_one_of_python_with_the_same_default() -> None:
    options = vars(parser().parse_args([]))
    of_commands = {"data", "to", "watch", "figure", "with_", "width", "height", "font_size"}  # --init, --show, --report
    of_commands |= {"list_spaces", "exit_zero_on_failed_trials"}  # a call has no exit code
    others = {*of_commands, *COMMANDS} - {"resume"}
    assert options.keys() - others == RunOptions.names()
    plain = RunOptions(space="x")
    for name in RunOptions.names() - {"space"}:
        assert getattr(plain, name) == (tuple(options[name]) if name in ("set", "plugins") else options[name]), name
    assert inspect.signature(sweeper.run).parameters.keys() == RunOptions.names() | {"quiet"}


@pytest.mark.parametrize("first", ["command", "python"])
def test_one_half_by_the_command_and_the_rest_by_python(
    here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    with monkeypatch.context() as patch:
        stopping_after(2, patch)
        if first == "command":
            assert command() == STOPPED
            halfway = sweeper.load("small")
        else:
            halfway = python()
    assert halfway.trials["status"].tolist().count("complete") == 2
    assert not halfway.standing().complete
    assert "4 trials, 2 done, 0 running, 0 failed, 2 left" in str(halfway.standing())
    if first == "command":
        whole = python()
        assert whole.standing().complete
    else:
        assert command() == COMPLETE
    assert len(ran) == 2
    path = here / "results" / "small"
    assert set(attempts(path).values()) == {1}
    assert command("--storage", "undisturbed") == COMPLETE
    assert figures(path).equals(figures(here / "undisturbed" / "small"))
    documents = [(folder / "sweep.yaml").read_text() for folder in (path, here / "undisturbed" / "small")]
    spaces = [yaml.safe_load(document)["space"] for document in documents]
    assert spaces[0] == spaces[1]


def test_a_mapping_is_a_space_file(here: Path) -> None:
    settings = {"trial.pretrain.lr": 1e-05, "grid.seed": range(2), "search": None, "samples": None}
    text = yaml.safe_load((here / "small.yaml").read_text())
    from_file = sweeper.Space.from_yaml("small.yaml", set=settings)
    for given in (text, {**CONTENT, "grid": {"density": np.array([0.5, 0.2])}}):
        from_dict = sweeper.Space.from_dict(given, name="small", set=settings)
        assert from_dict.document() == from_file.document()
        assert [config.id for config in from_dict.configs()] == [config.id for config in from_file.configs()]
    assert [cell.key for cell in from_file.cells()][:2] == ["density=0.5,seed=0", "density=0.5,seed=1"]
    assert from_file.configs()[0].model_dump()["pretrain"]["lr"] == 1e-05
    assert "density" in from_file._repr_html_()
    from_file.check()
    assert sweeper.Space.from_yaml(Path("small.yaml")).samples == 2
    assert sweeper.Space.from_yaml("bip_unstructured", profile="demo").samples == 4


def test_a_space_runs_as_what_it_was_made_of(here: Path, ran: list[str]) -> None:
    assert command() == COMPLETE
    space = sweeper.Space.from_yaml("small.yaml")
    assert sweeper.run(space, quiet=True).standing().complete
    assert len(ran) == 4
    assert sweeper.run(space, samples=3, quiet=True).standing().total == 6
    assert sweeper.run(resume="small", samples=4, storage=here / "results", quiet=True).standing().total == 8
    assert len(ran) == 8


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no space": ({"space": None}, ["space is missing"]),
    "no such space": ({"space": "bip_unstructred"}, ["did you mean 'bip_unstructured'"]),
    "no file": ({"space": Path("none.yaml")}, ["none.yaml"]),
    "a list": ({"space": [1]}, ["space is [1], but must be a name"]),
    "without a name": ({"space": CONTENT, "name": None}, ["name is None", "give name='NAME'"]),
    "typo in a mapping": ({"space": {**CONTENT, "girds": {}}}, ["girds", "did you mean 'grid'"]),
    "a date": ({"space": {**CONTENT, "about": np.datetime64("2026-11-27")}}, ["about is", "must be text"]),
    "samples": ({"samples": 0}, ["samples is 0"]),
    "samples as text": ({"samples": "3"}, ["samples is '3', but must be a whole number"]),
    "hours": ({"max_hours": True}, ["max_hours is True, but must be a number"]),
    "serial": ({"serial": "yes"}, ["serial is 'yes', but must be True or False"]),
    "address": ({"address": "a b"}, ["address is 'a b'", "HOST:PORT"]),
    "name": ({"name": "../up"}, ["name is '../up'", "give another"]),
    "resume beside a space": ({"resume": "small"}, ["space is ", "but resume small continues the sweep"]),
    "setting": ({"set": {"trial.densty": 0.5}}, ["densty", "did you mean 'density'"]),
    "setting of a device": ({"set": {"trial.model": object()}}, ["set has trial.model = <object", "must be text"]),
    "setting as a number": ({"set": [3]}, ["set has 3, but must be a mapping"]),
    "data": ({"set": {"trial.dataset": "cifar10", "trial.data_dir": "/nowhere"}}, ["data_dir is '/nowhere'"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_raises_one_line_and_creates_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    put_in_place_of_ray(monkeypatch, lambda *_, **__: pytest.fail("trials ran"))
    options, parts = WRONG[case]
    with pytest.raises(UserError) as refused:
        sweeper.run(**{"space": CONTENT, "name": "small", **options})
    said = str(refused.value)
    assert all(part in said for part in parts), said
    assert "--" not in said.replace("--list-spaces", "")
    assert "\n" not in said
    assert capsys.readouterr().out == ""
    assert [path.name for path in here.iterdir()] == ["small.yaml"]


def test_an_unknown_option_names_the_nearest_one() -> None:
    with pytest.raises(TypeError, match=r"option of sweeper.run is 'sample'.*did you mean 'samples'"):
        sweeper.run(CONTENT, sample=3)


def test_a_dry_run_describes_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = python(dry_run=True)
    assert "2 cells x 2 samples = 4 trials of one_shot" in capsys.readouterr().out
    assert len(found.trials) == 0
    assert [path.name for path in here.iterdir()] == ["small.yaml"]


def test_failed_trials_are_in_the_sweep_and_said(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"trial.finetune": {"epochs": 1, "lr": 1e30}, "search": None, "samples": 1, "retries": 0}
    found = python(set=changes)
    assert "NonFiniteLoss" in capsys.readouterr().out
    assert found.failed["error_type"].tolist() == ["NonFiniteLoss"] * 2
    assert not found.standing().complete
    assert "2 failed" in repr(found)
    assert "NonFiniteLoss" in found._repr_html_()
    assert len(found.best()) == 0
    with pytest.warns(UserWarning, match=r"2 failed.*sweep\.failed names those"):
        python(set=changes, quiet=True)
    assert capsys.readouterr().out == ""


def test_questions_to_a_sweep(here: Path, ran: list[str]) -> None:
    found = python(set={"grid.seed": [0, 1]})
    best = found.best()
    assert best["cell"].tolist() == [f"density={density},seed={seed}" for density in (0.5, 0.2) for seed in (0, 1)]
    assert best.columns[:5].tolist() == ["cell", "trial", "config.density", "seed", "finetune.lr"]
    of_cell = found.trials.groupby("cell")["val_accuracy"].max()
    assert best.set_index("cell")["val_accuracy"].to_dict() == of_cell.to_dict()
    worst = found.best("val_loss", "minimize")
    assert worst.set_index("cell")["val_loss"].to_dict() == found.trials.groupby("cell")["val_loss"].min().to_dict()
    summary = found.summary().query("kind == 'group'")
    assert summary["n"].tolist() == [2, 2]
    assert summary["val_accuracy_mean"].tolist() == pytest.approx(
        best.groupby("config.density", sort=False)["val_accuracy"].mean().tolist()
    )
    curves = found.curves("train_loss", trials=best["trial"], stage="pretrain")
    assert curves.columns.tolist() == best["trial"].tolist()
    assert curves.shape == (2, 4)
    assert found.curves().shape == (4, 8)  # pretrain, 2 epochs; the pruned network; finetune, 1 epoch
    assert found.curves()[best["trial"][0]].iloc[-1] == pytest.approx(best["val_accuracy"][0])
    trial = found.trial(best["trial"][0])
    assert trial.result["val_accuracy"] == best["val_accuracy"][0]
    assert trial.network()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert "8 trials, 8 done" in found._repr_html_()
    for wrong, says in (
        (lambda: found.best("test_accuracy"), "selection must never see the test set"),
        (lambda: found.best("val_acuracy"), "did you mean 'val_accuracy'"),
        (lambda: found.best(direction="up"), "direction is 'up'"),
        (lambda: found.curves("stage_id"), "column is 'stage_id'"),
        (lambda: found.curves(stage="prun"), "stage is 'prun'"),
        (lambda: found.curves(trials=["bip-0"]), "trial is 'bip-0'"),
        (lambda: found.trial("bip-0"), "trial is 'bip-0'"),
    ):
        with pytest.raises(UserError, match=says):
            wrong()


def test_load_takes_a_folder_or_a_name(here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    python(storage="there", quiet=True)
    for found in (sweeper.load("there/small"), sweeper.load(here / "there" / "small"), sweeper.load("small", "there")):
        assert len(found.trials) == 4
    with pytest.raises(UserError, match="is not a sweep's folder"):
        sweeper.load("small")
    monkeypatch.setenv("SWEEP_STORAGE", "there")
    assert len(sweeper.load("small").trials) == 4
    monkeypatch.chdir("there")
    assert len(sweeper.load("small").trials) == 4  # a folder here


def test_a_second_driver_is_refused(here: Path, ran: list[str]) -> None:
    with Lease(here / "results" / "small" / "lock") as lease:
        assert lease.acquire()
        with pytest.raises(UserError, match="is being run by"):
            python()
    assert not ran


def test_a_signal_before_trials_run_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before_run.data, "require_data", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        python()


def test_an_interrupted_run_is_written_up_and_raises(
    here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        put_in_place_of_ray(patch, lambda plan, *_, **__: plan.stop() or True)
        with pytest.raises(KeyboardInterrupt, match="small was stopped; everything is committed"):
            python()
    assert "4 left" in capsys.readouterr().out
    assert python().standing().complete


def test_a_run_in_another_thread(here: Path, ran: list[str]) -> None:
    found: list[sweeper.Sweep] = []
    thread = threading.Thread(target=lambda: found.append(python(quiet=True)))
    thread.start()
    thread.join()
    assert found[0].standing().complete


class Display:
    """A notebook's display."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.displays = 0

    def __call__(self, html: Any, *, display_id: bool) -> Display:
        self.displays += display_id
        self.update(html)
        return self

    def update(self, html: Any) -> None:
        self.shown.append(html.data)


def test_a_notebook_has_one_display_that_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    display = Display()
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("sweeper.execution.notebook_panel.REFRESH_S", 0.01)
    console = NotebookConsole(force_terminal=False, force_jupyter=False, quiet=True)
    with LiveView({"a": 300}, console, "val_accuracy", "maximize") as view:
        for number in range(300):
            view.started(f"t{number}", "a")
            view.ended(f"t{number}", "a", "complete", 0.5, already=False)
            view.note(f"<note {number}>")
    assert display.displays == 1
    assert "trials 300/300" in display.shown[-1]
    assert display.shown[-1].count("&lt;note") == NOTES_SHOWN
    assert "&lt;note 299&gt;" in display.shown[-1]


def test_a_panel_whose_content_stays_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    display = Display()
    monkeypatch.setattr("IPython.display.display", display)
    panel = NotebookPanel(lambda: Group(Text("the same")))
    panel.start()
    panel.stop()
    assert len(display.shown) == 1
