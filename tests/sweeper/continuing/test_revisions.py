"""Results of an older revision are shown, but nothing is added to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.cli import COMPLETE, main
from sweeper.folder.sweep_folder import SweepFolder
from tests.sweeper.continuing.small_sweeps import (
    SPACES,
    begin,
    changed,
    command,
    refused,
    unfinish,
)
from trials.config import revisions
from trials.config.revisions import Revised
from trials.methods.bip.bip import BipConfig
from trials.methods.bip.hydra import HydraConfig

pytestmark = pytest.mark.fault("other-code")


def raised(monkeypatch: pytest.MonkeyPatch, applies: Callable[[Any], bool] = lambda _: True, number: int = 2) -> None:
    change = Revised("data", number, applies, "its images were read upside down")
    monkeypatch.setattr(revisions, "REVISED", (*revisions.REVISED, change))


@pytest.mark.parametrize("kind", SPACES)
def test_a_sweep_of_an_older_revision_is_shown_but_not_extended(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = begin(kind)
    first = list(ran)
    raised(monkeypatch)
    why = (
        "was made with revision 1 of its data, but this version computes revision 2 (its images were read upside down)"
    )
    refused(capsys, folder, command(kind, True), why, "--show small")
    assert main(["--space", "small.yaml"]) == COMPLETE
    said = " ".join(capsys.readouterr().out.split())
    assert f"{why}: small is shown, but cannot be extended" in said
    assert main(["--show", "small"]) == COMPLETE
    assert ran == first
    assert main(["--space", "small.yaml", "--name", "anew"]) == COMPLETE
    assert len(ran) == 2 * len(first)
    assert not set(ran[len(first) :]) & set(first)  # other results have other names
    for record in SweepFolder(Path("results/anew")).records():
        assert record.stored.revisions["data"] == 2
    assert main(command(kind, True, "--name", "anew")) == COMPLETE  # of this revision, it may be extended


@pytest.mark.parametrize("method", ["bip", "hydra"])
def test_random_scores_in_channels_last_of_an_earlier_version_are_not_extended(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    space = changed("plain", "trial/method", method)
    space["trial"] |= {"score_init": "random", "memory_format": "channels_last"}
    config = {"bip": BipConfig, "hydra": HydraConfig}[method]
    with monkeypatch.context() as patch:
        patch.setattr(config, "revision", 1)
        folder = begin("plain", space)
    (record,) = folder.records()
    assert record.config.id != record.id
    why = "was made with revision 1 of its method, but this version computes revision 2 (random scores in channels_last"
    refused(capsys, folder, command("plain", True), why)
    assert main(["--space", "small.yaml"]) == COMPLETE
    assert len(ran) == 1


def test_a_trial_of_no_sample_is_none_that_would_run(
    here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``python -m trials --name`` leaves one."""
    folder = begin("plain")
    (record,) = folder.records()
    folder.schedule("one_shot-0123456789ab", {**record.content, "seed": 7}, ())
    raised(monkeypatch)
    assert main(["--space", "small.yaml"]) == COMPLETE


def test_an_unfinished_or_failed_trial_of_an_older_revision_does_not_go_on(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin("cases")
    raised(monkeypatch)
    (record, _) = folder.records()
    state = record.folder.path / "state.json"
    content = json.loads(state.read_text())
    state.write_text(json.dumps({**content, "status": "preempted"}))
    refused(capsys, folder, ["--space", "small.yaml"], "was made with revision 1 of its data")
    error = {"type": "ValueError", "message": "no", "traceback": ""}
    state.write_text(json.dumps({**content, "status": "failed", "failures": 9, "error": error, "result": {}}))
    refused(capsys, folder, ["--space", "small.yaml", "--retry-failed"], "was made with revision 1 of its data")
    assert main(["--space", "small.yaml"]) == 1  # it is shown with its failure
    assert len(ran) == 2


def test_a_damaged_result_of_an_older_revision_is_not_computed_again(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin("plain")
    unfinish(folder)
    (record,) = folder.records()
    attempt, _ = record.folder.begin()
    row = {"stage": "finetune", "level": 0, "epoch": 1, "stage_id": None, "val_accuracy": 0.5}
    attempt.commit(checkpoint={}, rows={"epochs": [row]}, progress={}, seconds=0.0, status="complete", result=row)
    raised(monkeypatch)
    assert main(["--space", "small.yaml"]) == COMPLETE
    for path in [*Path(str(record.folder.path)).rglob("*.parquet"), *Path(str(record.folder.path)).rglob("*.pt")]:
        path.write_bytes(b"damaged")
    capsys.readouterr()
    assert main(["--space", "small.yaml"]) == 2
    assert "was made with revision 1 of its data" in capsys.readouterr().err
    assert len(ran) == 1


def test_only_the_configs_that_a_change_applies_to_have_its_revision(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin("plain")
    raised(monkeypatch, lambda config: config.density < 0.4 if hasattr(config, "density") else False)
    assert main(command("plain", True)) == COMPLETE  # the new cell alone is concerned
    assert sorted(record.stored.revisions.get("data", 1) for record in folder.records()) == [1, 2]
    raised(monkeypatch, lambda config: getattr(config, "density", 1) < 0.4, number=3)
    refused(
        capsys, folder, ["--space", "small.yaml", "--set", "grid.density=[0.5, 0.2, 0.6]"],
        "was made with revision 2 of its data, but this version computes revision 3",
    )  # fmt: skip


def test_an_older_version_does_not_extend_a_sweep_of_a_newer_revision(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        raised(patch)
        folder = begin("plain")
    says = "was made with revision 2 of its data, but this version computes revision 1"
    refused(capsys, folder, command("plain", True), says)
    assert main(["--space", "small.yaml"]) == COMPLETE
