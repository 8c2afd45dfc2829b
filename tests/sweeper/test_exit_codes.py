"""Exit codes as job schedulers want them: ``--exit-zero-on-failed-trials`` forgives failed trials, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from sweeper import cli
from sweeper.cli import COMPLETE, FAILURES, STOPPED, STORAGE, WRONG_INPUT
from sweeper.search.plan import Plan
from tests.sweeper.command_line import put_in_place_of_ray, sweep
from trials.storage.trial_folder import TrialFolder

FORGIVING = "--exit-zero-on-failed-trials"

pytestmark = pytest.mark.usefixtures("no_stray_handlers")


def failing(plan: Plan, *_: Any, **__: Any) -> None:
    while (assignment := plan.next()) is not None:
        attempt, _resume = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin()
        attempt.end("failed", error={"type": "NonFiniteLoss", "message": "nan", "traceback": ""}, failures=1)
        plan.ended(assignment.trial_id)


def test_a_sweep_that_has_ended_with_failed_trials(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place_of_ray(monkeypatch, failing)
    assert sweep(FORGIVING, "--set", "retries=0") == COMPLETE
    assert "--exit-zero" not in (here / "results" / "small" / "sweep.yaml").read_text()  # no part of the sweep
    assert sweep("--set", "retries=0") == FAILURES
    assert sweep("--set", "retries=0", FORGIVING) == COMPLETE  # as the last run left it


def test_other_ends_keep_their_codes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place_of_ray(monkeypatch, lambda *_, **__: None)  # it stops before it has begun a trial
    assert sweep(FORGIVING) == STOPPED
    assert sweep(FORGIVING, "--set", "no.such=1") == WRONG_INPUT


@pytest.mark.fault("storage-refused")
@pytest.mark.parametrize(
    "command",
    [
        ["--show", "small"],
        ["--cancel", "small"],
        ["--report", "small"],
        ["--report", "other", "--to", "{private}/x/page.html"],
    ],
    ids=" ".join,
)
def test_what_another_user_keeps_private_is_wrong_input(
    command: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private, stat = here / "results" / "small", os.stat
    private.mkdir(parents=True)

    def refused(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(f"{private}/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refused)
    arguments = [part.format(private=private) for part in command]
    assert cli.main([*arguments, "--storage", "results"]) == WRONG_INPUT
    said = capsys.readouterr().err
    assert said.startswith("error: this cannot be read or written (EACCES: Permission denied, in ")
    assert said.endswith("have that mended, or name another place\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("command", "number"), [("show", errno.EIO), ("resume", errno.EACCES)])
def test_a_storage_that_errs_is_not_wrong_input(
    command: str, number: int, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def errs(*_: Any) -> None:
        raise OSError(number, "it errs")

    monkeypatch.setattr(cli, "_run", errs)
    monkeypatch.setitem(cli.COMMANDS, command, errs)
    assert cli.main([f"--{command}", "small"]) == STORAGE
    assert capsys.readouterr().err == f"error: the storage does not work ({errno.errorcode[number]}: it errs)\n"
