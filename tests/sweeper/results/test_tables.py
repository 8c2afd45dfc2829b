"""Tables hold every committed row once, also while files are replaced, damaged or deleted."""

from __future__ import annotations

import json
import shutil
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeper.columns import COLUMNS, config_column
from sweeper.folder.sweep_folder import Sample, SweepFolder
from sweeper.results import table_cache
from sweeper.results.frames import SweepTables
from sweeper.results.tables import compact_tables, load, read
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.running.trial import TrialHost, run
from trials.storage.rows import RESULT
from trials.storage.trial_folder import Attempt, Commit, TrialFolder

FRAMES = ("trials", "epochs", "layers", "allocations", "lineage")
KEYS = {
    "trials": ["trial"],
    "epochs": ["trial", "stage", "level", "epoch"],
    "layers": ["trial", "stage", "level", "layer"],
    "allocations": ["trial", "step", "episode", "layer"],
    "lineage": ["cell", "generation", "member"],
}
RESULTS = {"val_accuracy": 0.9, "density": 0.2, "kept": 20, "prunable": 100, "flops": 50, "dense_flops": 200}


def rows_until(epoch: int) -> dict[str, list[dict[str, Any]]]:
    epochs = [{"stage": "prune", "level": 0, "epoch": n, "val_accuracy": n / 100, "kept": 20} for n in range(epoch + 1)]
    return {"epochs": epochs, "layers": [{"stage": "prune", "level": 0, "layer": "fc", "total": 100, "kept": 20}]}


def begin(sweep: SweepFolder, name: str, **config: Any) -> Attempt:
    sample = Sample(cell="density=0.2", number=0, grid={"density": 0.2}, params={}, attrs={})
    sweep.schedule(name, {"method": "bip", "density": 0.2, **config}, (sample,))
    attempt, _ = TrialFolder(sweep.trial_folder(name)).begin(host="here", device="cpu")
    return attempt


def commit(attempt: Attempt, epoch: int, **fields: Any) -> None:
    attempt.commit(checkpoint={}, rows=rows_until(epoch), progress={}, seconds=1.0, **fields)


def finished(sweep: SweepFolder, name: str, epoch: int = 1, **config: Any) -> Attempt:
    attempt = begin(sweep, name, **config)
    commit(attempt, epoch, status="complete", result=RESULTS)
    return attempt


def assert_equal(one: SweepTables, other: SweepTables) -> None:
    for frame in FRAMES:
        pd.testing.assert_frame_equal(getattr(one, frame), getattr(other, frame))


def assert_no_row_twice(sweep: SweepTables) -> None:
    for frame, key in KEYS.items():
        assert not getattr(sweep, frame).duplicated(key).any(), frame


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path / "sweep")
    for name in ("bip-c", "bip-a", "bip-b"):
        finished(folder, name, prune={"epochs": 1, "lr": 0.1}, snapshots=[1, 2])
    return folder


def test_a_real_trial_comes_out_whole(tmp_path: Path) -> None:
    content = {"method": "bip", "dataset": "digits", "model": "tiny", "density": 0.2}
    config = parse({**content, "pretrain": {"epochs": 2}, "prune": {"epochs": 1}})
    folder = SweepFolder(tmp_path / "sweep")
    folder.schedule(config.id, config.model_dump(mode="json"), (Sample("density=0.2", 3, {"density": 0.2}, {}, {}),))
    state = run(config, folder.trial_folder(config.id), TrialHost(folder.stages))
    tables = load(folder.path)
    assert_no_row_twice(tables)
    assert list(zip(tables.epochs["stage"], tables.epochs["epoch"], strict=True)) == [
        *(("pretrain", 1), ("pretrain", 2), ("prune", 0), ("prune", 1))
    ]
    assert tables.epochs["stage_id"].notna().tolist() == [True, True, False, False]
    trial = tables.trials.iloc[0]
    assert (trial["trial"], trial["cell"], trial["number"], trial["samples"]) == (config.id, "density=0.2", 3, 1)
    for name, value in state.result.items():
        assert trial[name] == value
    assert trial["density"] == tables.layers.query("stage == 'prune'")["kept"].sum() / trial["prunable"]
    assert trial["config.density"] == 0.2
    assert trial["compression"] == pytest.approx(1 / trial["density"])
    assert trial["speedup"] == trial["dense_flops"] / trial["flops"]
    assert trial["prune.epochs"] == 1
    assert set(state.result) <= set(COLUMNS["trials"])
    assert set(RESULT) <= set(COLUMNS["trials"])
    assert set(tables.epochs) == {*COLUMNS["epochs"], "lr", "mask_lr", "implicit_step"}
    assert set(tables.layers) == set(COLUMNS["layers"])


def test_columns_types_and_order(sweep: SweepFolder) -> None:
    begin(sweep, "bip-d", prune=None, seed=1)  # nothing committed yet
    sweep.schedule("bip-e", {"method": "bip", "density": 1, "snapshots": []}, ())  # never begun
    tables = load(sweep.path)
    assert tables.trials["trial"].tolist() == ["bip-a", "bip-b", "bip-c", "bip-d", "bip-e"]
    assert tables.trials["status"].tolist() == [*3 * ["complete"], "running", "scheduled"]
    assert tables.epochs["trial"].tolist() == [name for name in ("bip-a", "bip-b", "bip-c") for _ in range(2)]
    assert tables.epochs["epoch"].tolist() == [0, 1, 0, 1, 0, 1]
    for frame in FRAMES:
        found = getattr(tables, frame)
        assert list(found.columns[: len(COLUMNS[frame])]) == list(COLUMNS[frame])
        for name, kind in COLUMNS[frame].items():
            text = pd.Series(["text"]).dtype  # object before pandas 3
            assert found[name].dtype == {"string": text, "int64": "Int64", "double": "float64"}.get(
                str(kind), object
            ), name
    assert tables.trials["prune.epochs"].dtype == "Int64"
    assert tables.trials["prune.epochs"].isna().tolist() == [False, False, False, True, True]
    assert "prune" not in tables.trials
    assert tables.trials["snapshots"].tolist()[:1] == ["[1, 2]"]
    assert tables.trials["config.density"].tolist() == [0.2, 0.2, 0.2, 0.2, 1.0]
    assert tables.trials["density"].isna().tolist() == [False, False, False, True, True]
    assert len(tables.allocations) == 0
    assert config_column("density") == "config.density"
    assert config_column("prune.lr") == "prune.lr"


def test_a_column_of_numbers_here_and_texts_there_is_text(sweep: SweepFolder) -> None:
    finished(sweep, "bip-d", prune={"lr": "auto"})
    assert load(sweep.path).trials["prune.lr"].tolist() == ["0.1", "0.1", "0.1", "auto"]


def test_failures_are_columns(sweep: SweepFolder) -> None:
    error = {"type": "NonFiniteLoss", "message": "the loss is nan", "traceback": "…"}
    begin(sweep, "bip-d").end("failed", error=error, failures=2)
    trial = load(sweep.path).trials.set_index("trial").loc["bip-d"]
    assert trial[["status", "error_type", "error_message", "failures"]].tolist() == [
        *("failed", "NonFiniteLoss", "the loss is nan", 2)
    ]


def test_tables_are_a_cache_that_changes_nothing(sweep: SweepFolder) -> None:
    fresh = load(sweep.path)
    compact_tables(sweep)
    assert_equal(read(sweep.path), fresh)
    assert sorted(p.name for p in sweep.tables.iterdir()) == sorted(
        ["manifest.json", *(f"{f}.parquet" for f in FRAMES)]
    )
    for frame in FRAMES:
        assert len(pd.read_parquet(sweep.tables / f"{frame}.parquet")) == len(getattr(fresh, frame))
    shutil.rmtree(sweep.trial_folder("bip-b") / "rows")  # states are unchanged, so the rows are read from the tables
    assert_equal(load(sweep.path), fresh)
    assert load(sweep.path).damaged == ()
    shutil.rmtree(sweep.tables)
    with pytest.warns(UserWarning, match="bip-b"):
        assert load(sweep.path).epochs["trial"].unique().tolist() == ["bip-a", "bip-c"]


def test_outdated_tables_give_the_same_as_no_tables(sweep: SweepFolder) -> None:
    running = begin(sweep, "bip-0")
    commit(running, 1)
    compact_tables(sweep)
    commit(running, 3, status="complete", result={**RESULTS, "val_accuracy": 0.5})
    finished(sweep, "one_shot-z", finetune={"lr": 0.5})
    shutil.rmtree(sweep.trial_folder("bip-a"))
    with_tables = load(sweep.path)
    compact_tables(sweep)
    compacted = read(sweep.path)
    shutil.rmtree(sweep.tables)
    assert_equal(with_tables, load(sweep.path))
    assert_equal(compacted, with_tables)
    assert with_tables.trials["trial"].tolist() == ["bip-0", "bip-b", "bip-c", "one_shot-z"]
    assert with_tables.epochs.query("trial == 'bip-0'")["epoch"].tolist() == [0, 1, 2, 3]
    assert_no_row_twice(with_tables)


def test_nothing_is_written_when_nothing_has_changed(sweep: SweepFolder) -> None:
    compact_tables(sweep)
    before = {path: path.stat().st_mtime_ns for path in sweep.tables.iterdir()}
    compact_tables(sweep)
    assert {path: path.stat().st_mtime_ns for path in sweep.tables.iterdir()} == before


def test_the_tables_as_written_are_read_once(sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a compaction makes no DataFrames, which nothing of a run uses."""
    compact_tables(sweep)
    parsed: list[int] = []
    parquet = table_cache._parquet
    monkeypatch.setattr(table_cache, "_parquet", lambda content: (parsed.append(len(content)), parquet(content))[1])
    monkeypatch.setattr(table_cache.GatheredTables, "sweep", lambda *_: pytest.fail("it made DataFrames"))
    compact_tables(sweep)
    assert len(parsed) == len(FRAMES)
    finished(sweep, "bip-d")
    compact_tables(sweep)
    assert len(parsed) == 2 * len(FRAMES)


@pytest.mark.parametrize("name", ["epochs.parquet", "manifest.json"])
def test_damaged_or_mixed_tables_are_not_used(sweep: SweepFolder, name: str) -> None:
    compact_tables(sweep)
    fresh = read(sweep.path)
    (sweep.tables / name).write_bytes(b"not what it was")
    assert_equal(load(sweep.path), fresh)
    compact_tables(sweep)
    assert_equal(read(sweep.path), fresh)
    json.loads((sweep.tables / "manifest.json").read_bytes())


def test_tables_of_two_compactions_are_not_mixed(sweep: SweepFolder) -> None:
    compact_tables(sweep)
    old = (sweep.tables / "epochs.parquet").read_bytes()
    finished(sweep, "bip-d")
    compact_tables(sweep)
    fresh = read(sweep.path)
    (sweep.tables / "epochs.parquet").write_bytes(old)
    assert_equal(load(sweep.path), fresh)


@pytest.mark.parametrize("with_tables", [False, True])
def test_damaged_row_files_are_left_out_with_a_warning(sweep: SweepFolder, with_tables: bool) -> None:
    for name in ("bip-a", "bip-c"):
        path = next((sweep.trial_folder(name) / "rows").glob("epochs-*"))
        path.write_bytes(path.read_bytes()[:-10])
    if with_tables:
        compact_tables(sweep)
    with pytest.warns(UserWarning, match=r"bip-a/rows/epochs-.*bip-c/rows/epochs-"):
        tables = load(sweep.path)
    assert len(tables.damaged) == 2
    assert tables.epochs["trial"].unique().tolist() == ["bip-b"]
    assert tables.layers["trial"].tolist() == ["bip-a", "bip-b", "bip-c"]
    assert tables.trials["status"].tolist() == 3 * ["complete"]
    attempt, _ = TrialFolder(sweep.trial_folder("bip-a")).begin()
    attempt.end("complete")  # its owner repairs the rows
    assert read(sweep.path).epochs["trial"].unique().tolist() == ["bip-a", "bip-b"]


def test_damaged_states_and_configs_are_left_out_with_a_warning(sweep: SweepFolder) -> None:
    (sweep.trial_folder("bip-a") / "state.json").write_text("{")
    (sweep.trial_folder("bip-b") / "config.json").write_text("{")
    with pytest.warns(UserWarning, match=r"bip-a/state\.json.*bip-b/config\.json"):
        tables = load(sweep.path)
    assert tables.trials["trial"].tolist() == ["bip-a", "bip-c"]
    assert tables.trials["status"].tolist() == ["scheduled", "complete"]


def test_many_damaged_files_do_not_wait_one_by_one(sweep: SweepFolder) -> None:
    for number in range(40):
        folder = sweep.trial_folder(f"bip-x{number}")
        folder.mkdir()
        (folder / "config.json").write_text("{")
    began = time.monotonic()
    assert len(read(sweep.path).damaged) == 40
    assert time.monotonic() - began < 1


def test_files_replaced_between_state_and_rows_are_read_again(
    sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = begin(sweep, "bip-0")
    commit(attempt, 0)
    original, reads = TrialFolder.table, [0]

    def table(folder: TrialFolder, of: Commit, name: str, read: Any = None) -> Any:
        if folder.path.name == "bip-0":
            reads[0] += 1
            if reads[0] == 1:  # the state has been read; now its files are replaced
                for epoch in (1, 2, 3):
                    commit(attempt, epoch)
        return original(folder, of, name, read)

    monkeypatch.setattr(TrialFolder, "table", table)
    tables = read(sweep.path)
    assert tables.damaged == ()
    assert tables.epochs.query("trial == 'bip-0'")["epoch"].tolist() == [0, 1, 2, 3]
    assert_no_row_twice(tables)


def test_loading_while_a_worker_commits(sweep: SweepFolder) -> None:
    """Row files are replaced and deleted continually; every load is whole, without lost or duplicate rows."""
    stop, commits = threading.Event(), [0]

    def work() -> None:
        attempt = begin(sweep, "bip-0")
        while not stop.is_set():
            commits[0] += 1
            commit(attempt, commits[0] % 50)

    worker = threading.Thread(target=work)
    worker.start()
    loads, began = 0, time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            while time.monotonic() < began + 1.5 or min(loads, commits[0]) <= 10:
                assert time.monotonic() < began + 60
                if loads % 3 == 0:
                    compact_tables(sweep)
                tables = load(sweep.path)
                assert_no_row_twice(tables)
                mine = tables.epochs.query("trial == 'bip-0'")["epoch"].tolist()
                assert mine == list(range(len(mine)))
                assert {"bip-a", "bip-b", "bip-c"} <= set(tables.epochs["trial"])
                loads += 1
    finally:
        stop.set()
        worker.join()
    assert len(load(sweep.path).epochs.query("trial == 'bip-0'")) == commits[0] % 50 + 1


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no-such.*is not a sweep's folder.*give storage/name"):
        load(tmp_path / "no-such")


def test_a_sweep_without_trials_has_empty_tables(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    folder.append({"space": {}})
    tables = load(str(folder.path))
    for frame in FRAMES:
        assert list(getattr(tables, frame).columns) == list(COLUMNS[frame])
        assert len(getattr(tables, frame)) == 0
    compact_tables(folder)
    assert_equal(read(folder.path), tables)


def test_other_tables_of_rows_can_be_left_unread(sweep: SweepFolder) -> None:
    tables = read(sweep.path, rows=("epochs",))
    assert (len(tables.trials), len(tables.epochs), len(tables.layers)) == (3, 6, 0)
    compact_tables(sweep)
    assert_equal(read(sweep.path, rows=("epochs",)), tables)
