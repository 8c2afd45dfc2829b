"""Where callbacks stand: each keeps its folder and what it was told, and no two have one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.execution.trackers_of import tracker_places
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.space.options.callbacks import read_callbacks

A, B, C = ({"name": "mlflow", "experiment_name": name} for name in "abc")
Asked = dict[str, str]


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    found = SweepFolder(tmp_path / "small")
    found.append({"space": {"name": "small"}})
    return found


def ran(folder: SweepFolder, *asked: Asked | str) -> list[tuple[str, str]]:
    """Where callbacks stand in a run that tells each of them something."""
    places = tracker_places(read_callbacks(list(asked)), folder)
    for one in places:
        one.told.parent.mkdir(parents=True, exist_ok=True)
        one.told.touch()
    return [(one.folder.name, str(one.told)) for one in places]


@pytest.mark.parametrize(
    "later", [[B], [B, A], [A], [C, B, A], [B, C], [C, "tensorboard", A, B], [{**B, "timeout_s": 5}]]
)
def test_each_keeps_its_place_when_others_come_and_go(folder: SweepFolder, later: list[Asked | str]) -> None:
    before = dict(zip("ab", ran(folder, A, B), strict=True))
    assert [place for place, _ in before.values()] == ["mlflow", "mlflow-2"]
    found = ran(folder, *later)
    for asked, place in zip(later, found, strict=True):
        name = asked["experiment_name"] if isinstance(asked, dict) else asked
        assert place == before[name] if name in before else place not in before.values()
        if name == "c":
            assert place[0] == "mlflow-3"
    assert len({place for place, _ in found}) == len(later)
    assert list(before.values()) == ran(folder, A, B)


def test_two_that_had_one_folder_get_two_and_keep_what_they_were_told(folder: SweepFolder) -> None:
    (first,) = ran(folder, A)
    (elsewhere,) = tracker_places(read_callbacks([B]), folder)
    told = folder.path / "logs" / "mlflow" / elsewhere.told.name  # as earlier versions did after a change of options
    told.touch()
    assert ran(folder, A, B) == [first, ("mlflow-2", str(told))]
    assert ran(folder, A, B) == [first, ("mlflow-2", str(told))]


def test_a_sweep_that_is_begun_anew_tells_all_again(folder: SweepFolder) -> None:
    (before,) = ran(folder, A)
    (folder.path / "sweep.yaml").unlink()
    folder.append({"space": {"name": "other"}})
    (after,) = ran(folder, A)
    assert before[1] != after[1]


def test_a_folder_that_is_given_is_taken(folder: SweepFolder, tmp_path: Path) -> None:
    ran(folder, A)
    (found,) = tracker_places(read_callbacks([{**A, "folder": str(tmp_path / "own")}]), folder)
    assert found.folder == found.told.parent == tmp_path / "own" / "small"
