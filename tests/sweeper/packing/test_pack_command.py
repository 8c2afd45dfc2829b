"""``--pack NAME``, and what works with a packed sweep afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import sweeper
import trials
from sweeper.cli import COMPLETE, main
from sweeper.packing.packing import pack_finished
from tests.sweeper.command_line import put_in_place_of_ray, wrong
from tests.sweeper.packing.packed_sweeps import assert_equal, content_of, sweep_of, tables_of
from trials.__main__ import main as trial_command
from trials.errors import Superseded
from trials.methods.parsing import parse
from trials.networks.named_files import resolved
from trials.running.trial import TrialHost, run
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import TrialFolder

SPACE = """
trial: {method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 1}, finetune: {epochs: 1}}
grid: {density: [0.5, 0.2]}
"""


def run_here(plan: Any, *_: Any, **__: Any) -> bool:
    """Run a plan's trials in this process."""
    while (assignment := plan.next()) is not None:
        run(assignment.config, plan.folder.trial_folder(assignment.trial_id), TrialHost(plan.folder.stages))
        plan.ended(assignment.trial_id)
    return False


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    put_in_place_of_ray(monkeypatch, run_here)
    (tmp_path / "small.yaml").write_text(SPACE)
    return tmp_path / "results"


def test_a_packed_sweep_is_shown_extended_exported_and_continued_from(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--space", "small.yaml"]) == COMPLETE
    before = tables_of(storage / "small")
    shown = _shown(capsys)
    assert main(["--pack", "small"]) == COMPLETE
    assert "packed 2 finished trials" in capsys.readouterr().out
    assert list((storage / "small" / "trials").iterdir()) == []
    assert_equal(tables_of(storage / "small"), before)
    assert _shown(capsys) == shown
    shutil.rmtree(storage / "small" / "tables")
    assert_equal(tables_of(storage / "small"), before)

    name = before["trials"]["trial"][0]
    folder = storage / "small" / "trials" / name
    assert trial_command(["export", str(folder), "--to", "net.pt"]) == 0
    assert trial_command(["profile", str(folder)]) == 0
    assert trials.load(folder).status == "complete"
    source = {"method": "l1", "dataset": "digits", "model": "tiny", "base_pr_model": str(folder), "finetune": None}
    assert list(resolved(parse(source)).file_hashes) == ["base_pr_model"]
    assert main(["--space", "small.yaml", "--set", "grid.density=[0.5,0.2,0.1]"]) == COMPLETE
    now = tables_of(storage / "small")["trials"]
    assert len(now) == 3
    assert set(now["attempts"]) == {1}
    assert main(["--pack", "small"]) == COMPLETE
    assert len(tables_of(storage / "small")["trials"]) == 3
    assert not [path for path in (storage / "small").rglob("*") if path.name.endswith(".tmp")]


def _shown(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["--show", "small"]) == COMPLETE
    return capsys.readouterr().out


def test_what_cannot_be_packed_is_refused_in_one_line(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong(capsys, ["--pack", "nothing"], "nothing", "is not a sweep's folder")
    folder = sweep_of(storage / "small", 1)
    lease = Lease(folder.path / "lock")
    assert lease.acquire()
    with lease:
        wrong(capsys, ["--pack", "small"], "is being run by")
    assert not (storage / "small" / "packed").exists()


def test_a_sample_that_is_added_to_a_packed_trial_counts(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "sweep", 2)
    pack_finished(folder)
    record, other = folder.records()
    folder.schedule(record.id, record.content, (*record.samples, other.samples[0]), record.stored.revisions)
    now, _ = folder.records()
    assert len(now.samples) == 2
    assert now.state == record.state
    assert len(sweeper.load(folder.path).trials) == 2
    before = content_of(folder)
    pack_finished(folder)
    assert content_of(folder) == before
    assert list((tmp_path / "sweep" / "trials").iterdir()) == []


@pytest.mark.fault("packed-late-writer")
def test_a_late_commit_to_a_packed_trial_is_refused(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "sweep", 1)
    (record,) = folder.records()
    late, _ = TrialFolder(record.folder.path).begin()
    newer, _ = TrialFolder(record.folder.path).begin()
    newer.end("complete")
    pack_finished(folder)
    with pytest.raises(Superseded):
        late.end("failed")
