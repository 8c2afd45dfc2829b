"""A sweep continues with the files that its configs named, wherever they lie now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.derived_configs import Compared, compare_committed
from sweeper.space.compatibility import contradictions
from sweeper.space.space import Space
from tests.sweeper.continuing.small_sweeps import (
    rewrite,
)
from tests.sweeper.sweeps import ONE_SHOT, begun, make_space, run_out
from trials.methods.parsing import parse

A, B = "a" * 16, "b" * 16
"""Hashes of two contents."""


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the files that configs name hash to; they are not hashed while it is empty."""
    now: dict[str, str] = {}
    plain = Space.config

    def config(self: Space, *arguments: Any) -> Any:
        return plain(self, *arguments).model_copy(update={"file_hashes": dict(now)})

    monkeypatch.setattr(Space, "config", config)
    return now


def from_file(path: Path) -> Space:
    path.write_bytes(b"weights")
    return make_space(trial={**ONE_SHOT, "source_net": str(path)}, grid={"density": [0.5]})


def begun_from(space: Space, path: Path) -> SweepFolder:
    run_out(begun(space, path))
    return SweepFolder(path)


def test_a_file_that_has_changed_is_named_with_both_hashes(tmp_path: Path, hashes: dict[str, str]) -> None:
    hashes["source_net"] = A
    space = from_file(tmp_path / "a.pt")
    folder = begun_from(space, tmp_path / "sweep")
    assert compare_committed(from_file(tmp_path / "a.pt"), folder.records()) == Compared()
    hashes["source_net"] = B
    said = compare_committed(from_file(tmp_path / "a.pt"), folder.records()).difference
    assert said is not None
    for part in ("trial.source_net is ", "a.pt", A, B, "has changed since the sweep began"):
        assert part in said


def test_an_equal_file_elsewhere_is_the_same_trial(tmp_path: Path, hashes: dict[str, str]) -> None:
    hashes["source_net"] = A
    folder = begun_from(from_file(tmp_path / "a.pt"), tmp_path / "sweep")
    space, moved = from_file(tmp_path / "a.pt"), from_file(tmp_path / "moved.pt")
    assert compare_committed(moved, folder.records()) == Compared()
    assert contradictions(space, moved, [record.content for record in folder.records()]) == []
    hashes["source_net"] = B
    assert compare_committed(moved, folder.records()).difference is not None


def test_files_of_a_sweep_that_hashed_none_are_said_to_be_unknown(
    tmp_path: Path, hashes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = from_file(tmp_path / "a.pt")
    folder = begun_from(space, tmp_path / "sweep")
    (record,) = folder.records()
    rewrite(folder, record.id, lambda content: content["config"].update(source_net="a.pt"))
    config = parse({**record.content, "source_net": "a.pt", "file_hashes": {}})
    rewrite(folder, record.id, lambda content: content.update(id=config.id))
    folder.trial_folder(record.id).rename(folder.trial_folder(config.id))
    hashes["source_net"] = A
    other = from_file(tmp_path / "b.pt")
    difference = compare_committed(other, folder.records()).difference
    assert difference is not None
    assert "b.pt" in difference
    for same in ("a.pt", "./a.pt", f"../{tmp_path.name}/a.pt"):
        assert compare_committed(from_file(Path(same)), folder.records()) == Compared(unhashed=("a.pt",))
