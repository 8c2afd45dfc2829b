"""A sweep's folder with damage, and with what others have put there: said in a line, and repaired or refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import main
from sweeper.execution.stop_file import StopFile
from sweeper.execution.told_rows import ToldRows
from sweeper.folder.search_ends import ShorterSearch, read_shorter, write_shorter
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.tables import compact_tables, read
from sweeper.search.derived_configs import compare_committed
from sweeper.search.warm_start import commit_warm_start, warm_start
from tests.sweeper.sweeps import begun, landscape, make_space, run_out, run_space, searching
from tests.trials.sealed_files import document, text_of, without_checksum, write_document
from trials.errors import DamagedFile, UserError
from trials.storage.config_file import read_config
from trials.storage.leases.lease import Lease

SPACE = {"grid": {"density": [0.5, 0.2, 0.1]}}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """A sweep of three trials that are complete."""
    return run_space(make_space(**SPACE), tmp_path / "results" / "small", value=lambda config: config["density"])


def paths(folder: SweepFolder) -> list[Path]:
    return sorted(path for path in Path(str(folder.trials)).iterdir() if path.is_dir())


def figures(folder: SweepFolder) -> dict[str, Any]:
    """What reports show of every trial."""
    trials = read(folder.path).trials
    return dict(zip(trials["trial"], trials[["status", "val_accuracy"]].values.tolist(), strict=True))


def set_config(path: Path, field: str, value: Any) -> None:
    content = document(path / "config.json")
    content["config"][field] = value
    write_document(path / "config.json", content)


# --- every bit of every document


@pytest.mark.fault("document-changed")
@pytest.mark.parametrize("name", ["config.json", "state.json"])
def test_no_changed_bit_changes_a_figure(folder: SweepFolder, name: str) -> None:
    before = figures(folder)
    victim, *others = paths(folder)
    content = (victim / name).read_bytes()
    for place in range(7, len(content), len(content) // 8):
        (victim / name).write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        sweep = read(folder.path)
        (line,) = sweep.damaged
        assert f"{victim.name}/{name}" in line
        shown = sweep.trials.set_index("trial")["val_accuracy"]
        assert all(shown[other.name] == before[other.name][1] for other in others)
    (line,) = folder.repair()
    assert f"{name}.damaged" in line


@pytest.mark.fault("document-changed")
def test_a_pending_trial_does_not_run_with_a_changed_field(tmp_path: Path) -> None:
    plan = begun(make_space(**SPACE), tmp_path / "small")
    assignment = plan.next()
    assert assignment is not None
    path = Path(str(plan.folder.trial_folder(assignment.trial_id))) / "config.json"
    path.write_bytes(path.read_bytes().replace(b'"lr": 0.01', b'"lr": 0.91'))
    assert "config.json.damaged" in plan.folder.repair()[0]
    again = begun(make_space(**SPACE), tmp_path / "small")
    assert assignment.config in [found.config for found in iter(again.next, None)]


@pytest.mark.fault("config-of-another-name")
def test_a_field_changed_in_a_file_of_an_older_version_is_found_by_the_trials_name(folder: SweepFolder) -> None:
    path, *_ = paths(folder)
    set_config(path, "seed", 5)
    without_checksum(path / "config.json")
    assert compare_committed(make_space(**SPACE), folder.records()).difference is not None


# --- copies


@pytest.mark.fault("trial-copied")
@pytest.mark.parametrize("name", ["{} copy", "{}.bak", "one_shot-0123456789ab"])
@pytest.mark.parametrize("older", [False, True], ids=["with checksum", "older version"])
def test_a_copied_trial_counts_once(folder: SweepFolder, name: str, older: bool) -> None:
    before, records = figures(folder), [record.id for record in folder.records()]
    original, *_ = paths(folder)
    copy = shutil.copytree(original, original.with_name(name.format(original.name)))
    if older:
        for file in ("config.json", "state.json"):
            without_checksum(copy / file)
    assert figures(folder) == before
    (line,) = read(folder.path).damaged
    assert f"{copy} holds a copy of the trial '{original.name}'" in line
    assert [record.id for record in folder.records()] == records
    assert folder.repair() == [f"{line}: left out"]
    compact_tables(folder)
    assert figures(folder) == before


@pytest.mark.fault("files-swapped")
@pytest.mark.parametrize("name", ["config.json", "state.json", ""])
def test_swapped_files_are_noticed_and_written_again(folder: SweepFolder, name: str) -> None:
    before = figures(folder)
    one, other, _ = (path / name for path in paths(folder))
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    assert len(read(folder.path).damaged) == 2
    assert len(folder.repair()) == 2
    run_out(begun(make_space(**SPACE), Path(str(folder.path))), value=lambda config: config["density"])
    assert figures(folder) == before


# --- what is no folder and no file


@pytest.mark.fault("link-leads-outside", "no-file")
@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/"), os.mkfifo, lambda path: path.write_text("x")])
def test_what_lies_in_the_place_of_a_trial_is_set_aside(folder: SweepFolder, make: Callable[[Path], object]) -> None:
    path, *others = paths(folder)
    shutil.rmtree(path)
    make(path)
    assert figures(folder).keys() == {other.name for other in others}
    assert read(folder.path).damaged
    assert path.name not in [record.id for record in folder.records()]
    (line,) = folder.repair()
    assert f"{path.name}.damaged" in line
    run_out(begun(make_space(**SPACE), Path(str(folder.path))), value=lambda config: config["density"])
    assert len(figures(folder)) == 3


@pytest.mark.fault("link-leads-outside")
def test_the_folder_of_the_trials_is_no_link(folder: SweepFolder, tmp_path: Path) -> None:
    Path(str(folder.trials)).rename(tmp_path / "elsewhere")
    Path(str(folder.trials)).symlink_to(tmp_path / "elsewhere")
    for ask in (folder.records, folder.repair, lambda: read(folder.path)):
        with pytest.raises(UserError, match="trials is a link, which is not followed"):
            ask()


@pytest.mark.fault("link-leads-outside")
def test_a_link_that_leads_to_itself_in_the_place_of_the_lock(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, storage = folder.path / "lock", str(folder.path.parent)
    shutil.rmtree(str(lock), ignore_errors=True)
    Path(str(lock)).symlink_to("lock")
    for command, code in (["--show"], 0), (["--list"], 0), (["--pack"], 2):
        name = ["small"] if command != ["--list"] else []
        assert main([*command, *name, "--storage", storage]) == code
        assert "Traceback" not in (said := capsys.readouterr().err)
        assert (f"{lock} is no folder, so the sweep cannot be run" in said) == (code == 2)


@pytest.mark.fault("no-file")
@pytest.mark.parametrize("make", [lambda path: path.symlink_to("nowhere"), lambda path: path.write_text("x")])
def test_a_storage_without_a_folder_of_shared_trials_is_not_packed(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object]
) -> None:
    shutil.rmtree(str(folder.stages), ignore_errors=True)
    make(Path(str(folder.stages)))
    assert main(["--pack", "small", "--storage", str(folder.path.parent)]) == 2
    assert capsys.readouterr().err == (
        f"error: {folder.stages} is no folder, so no sweep can be run beside it: move it away\n"
    )


@pytest.mark.fault("link-leads-outside")
def test_tables_are_not_written_through_a_link(folder: SweepFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path(str(folder.tables)).symlink_to(tmp_path / "elsewhere")
    compact_tables(folder)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert (Path(str(folder.tables)) / "manifest.json").is_file()


def test_the_sweep_and_its_storage_may_be_links(folder: SweepFolder, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(tmp_path / "results")
    (tmp_path / "results" / "other").symlink_to("small")
    for name in ("small", "other"):
        linked = SweepFolder(tmp_path / "linked" / name)
        assert figures(linked) == figures(folder)
        assert linked.repair() == []


@pytest.mark.fault("no-file")
def test_pipes_in_the_place_of_derived_files_stop_nothing(folder: SweepFolder, tmp_path: Path) -> None:
    before = figures(folder)
    compact_tables(folder)
    for name in ("manifest.json", "trials.parquet"):
        path = Path(str(folder.tables)) / name
        path.unlink()
        os.mkfifo(path)
        assert figures(folder) == before
        compact_tables(folder)
        assert path.is_file()
    for path in (tmp_path / "stop", tmp_path / "searches.json", tmp_path / "lease.json", tmp_path / "told.jsonl"):
        os.mkfifo(path)
    StopFile(tmp_path / "stop").remove_unless_for("me")
    assert not (tmp_path / "stop").exists()
    assert read_shorter(tmp_path) == {}
    write_shorter(tmp_path, {"a": ShorterSearch(1, "why")})
    assert read_shorter(tmp_path) == {"a": ShorterSearch(1, "why")}
    with pytest.raises(OSError, match="a named pipe"):
        ToldRows(tmp_path / "told.jsonl")
    lease = Lease(tmp_path)
    assert lease.owner() is None
    assert lease.acquire()
    lease.release()


# --- sweep.yaml and warm.json


LETTERS = zip("abcdefgh", "bcdefghi", strict=True)
BOMB = "a: &a {x: 1}\n" + "".join(f"{n}: &{n}\n  <<: [{f'*{p}, ' * 9}]\n" for p, n in LETTERS)


@pytest.mark.fault("sweep-file-odd")
@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "- " * 100_000,
        "".join(f"{' ' * i}a:\n" for i in range(2000)),
        BOMB,
        "a: &a [*a]",
        ".nan: 1\n? {b: 1}\n: 2\n",
        "a: " + "9" * 100_000,
        "a: \xff",
        "",
        "# The last",
    ],
    ids=["lists", "dashes", "levels", "merge keys", "holds itself", "keys", "number", "latin-1", "empty", "cut"],
)
def test_a_sweep_file_that_no_sweep_writes_is_refused_in_one_line(folder: SweepFolder, content: str) -> None:
    (Path(str(folder.path)) / "sweep.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"sweep\.yaml") as caught:
        folder.space_document()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.fault("document-changed")
def test_a_document_is_not_added_to_a_damaged_sweep_file(folder: SweepFolder) -> None:
    path = Path(str(folder.path)) / "sweep.yaml"
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content.replace(b"density", b"densitz", 1), b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            folder.append({"space": {"samples": 2}})
        assert path.read_bytes() == damaged


def test_documents_are_added_to_a_sweep_file_of_an_older_version(folder: SweepFolder) -> None:
    path = Path(str(folder.path)) / "sweep.yaml"
    path.write_text(text_of(path))
    before = path.read_bytes()
    folder.append({"space": {"samples": 2}})
    assert path.read_bytes().startswith(before)
    assert [document["space"].get("samples") for document in folder.documents()] == [1, 2]
    assert len(list(yaml.safe_load_all(path.read_text()))) == 2


@pytest.mark.fault("document-changed")
@pytest.mark.parametrize(
    "cells",
    [3, {"": 3}, {"": {"observations": 1, "points": []}}, {"": {"observations": [{}], "points": []}},
     {"": {"observations": [{"params": {}, "values": ["x"], "violations": {}}], "points": []}},
     {"": {"observations": [], "points": [1]}}, {"": {"observations": [], "points": [], "seeds": ["a"]}}],
    ids=str,
)  # fmt: skip
def test_a_wrong_warm_start_is_refused(tmp_path: Path, cells: Any) -> None:
    run_space(searching("random", 2), tmp_path / "earlier", value=landscape)
    space = searching("random", 2, from_sweep="earlier")
    folder = SweepFolder(tmp_path / "later")
    commit_warm_start(folder, warm_start(space, folder))
    path = tmp_path / "later" / "warm.json"
    content = path.read_bytes()
    write_document(path, {"schema": 1, "cells": cells})
    with pytest.raises(UserError, match=r"warm\.json cannot be used"):
        warm_start(space, folder)
    path.write_bytes(content.replace(b"1", b"2", 1))
    with pytest.raises(UserError, match="does not match its checksum"):
        warm_start(space, folder)


@pytest.mark.fault("name-leads-outside")
@pytest.mark.parametrize("name", ["..", ".", "stages", ".hidden", "a b"])
def test_from_sweep_names_a_sweep_of_the_storage(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="from_sweep"):
        warm_start(searching("random", 2, from_sweep=name), SweepFolder(tmp_path / "later"))


@pytest.mark.fault("name-leads-outside")
def test_a_name_in_a_config_leads_nowhere(folder: SweepFolder) -> None:
    path, *_ = paths(folder)
    content = document(path / "config.json")
    write_document(path / "config.json", {**content, "id": "../../../etc"})
    with pytest.raises(DamagedFile, match="holds a copy of the trial"):
        read_config(path)
    assert path.name not in [record.id for record in folder.records()]
