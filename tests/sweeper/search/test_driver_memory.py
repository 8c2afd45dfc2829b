"""What a driver holds of trials that are over, and how much of it it looks at for each further trial."""

from __future__ import annotations

import gc
import io
import json
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from sweeper.execution.live_view import LiveView
from sweeper.folder.packed_records import PackedRecords, Packer
from sweeper.folder.sweep_folder import Record, SweepFolder
from sweeper.results import table_cache
from sweeper.results.tables import read
from sweeper.search.cells.population import CellPopulation
from sweeper.search.cells.replicated_study import ReplicatedStudy
from sweeper.search.plan import Plan
from sweeper.space.space import Space
from tests.sweeper.populations import PBT, SEARCH, TRIAL, landscape
from tests.sweeper.sweeps import ONE_SHOT, begun, make_space, run_out, run_space, searching

MOST_BYTES = 4 * 1024
"""Of a trial that is over; as objects, its record alone takes three times as much."""

SEARCHED = {"finetune.lr": {"loguniform": [1e-3, 1.0]}, "finetune.momentum": {"uniform": [0.0, 0.95]}}


COUNTS = ("kept", "prunable", "empty_layers", "macs", "flops", "parameters", "compact_macs", "compact_flops", "epochs")
FIGURES = ("train_loss", "train_accuracy", "val_loss", "test_loss", "test_accuracy", "density", "sparsity", "cost")
ENVIRONMENT = {
    "threads": 1,
    "device": "cpu",
    "torch": "2.15.0",
    "cuda": None,
    "precision": "float32",
    "commit": "a" * 40,
}
ROWS = {table: f"{table}-000001-a1-0123456789ab.parquet" for table in ("epochs", "layers")}


def committed(number: int) -> bytes:
    """A state.json such as a trial leaves, with figures of its own and no files."""
    result = {**dict.fromkeys(COUNTS, 1000 + number), **dict.fromkeys(FIGURES, 1 / (number + 2))}
    state = {"schema": 1, "status": "complete", "attempt": 1, "failures": 0, "progress": {"stage": 1, "level": 0}}
    state |= {"result": {**result, "val_accuracy": number / 1000, "warnings": []}, "error": None, "seconds": 1.5}
    state |= {"host": "one", "device": "cpu", "started": "2026-11-28T08:00:00Z", "ended": "2026-11-28T08:00:02Z"}
    commit = {"number": 1, "checkpoint": f"000001-a1-{number:012x}.pt", "rows": ROWS}
    return json.dumps({**state, "environments": [ENVIRONMENT], "commits": [commit]}).encode()


def run_some(plan: Plan, display: LiveView, trials: int) -> None:
    """Assign the next trials one after the other, and end each with figures of its own."""
    for number in range(trials):
        assignment = plan.next()
        assert assignment is not None
        display.started(assignment.trial_id, assignment.cell)
        (plan.folder.trials / assignment.trial_id / "state.json").write_bytes(committed(number))
        for ending in plan.ended(assignment.trial_id):
            display.ended(ending.trial_id, ending.cell, ending.status, ending.value, already=False)


def held_by(*roots: object, beside: tuple[object, ...]) -> int:
    """Bytes of all objects that can be reached from some, but not from others; classes and functions aside."""
    seen, total = set[int](), 0
    for counts, frontier in ((False, [*beside]), (True, [*roots])):
        while frontier:
            found = frontier.pop()
            if id(found) not in seen and not isinstance(found, (type, ModuleType, FunctionType, BuiltinFunctionType)):
                seen.add(id(found))
                total += sys.getsizeof(found) if counts else 0
                frontier += gc.get_referents(found)
    return total


def driver(space: Space, path: Path) -> tuple[Plan, LiveView]:
    plan = begun(space, path)
    return plan, LiveView(plan.totals, Console(file=io.StringIO()), space.objective, space.direction)


def grid_of(trials: int) -> Space:
    densities = [round(0.95 - 0.9 * i / trials, 4) for i in range(trials)]
    return make_space(trial={**ONE_SHOT, "finetune": None}, grid={"density": densities})


SPACES: dict[str, Callable[[int], Space]] = {
    "grid": grid_of,
    "search": lambda trials: searching("random", trials // 2),
    "replicates": lambda trials: searching("random", trials // 6, replicates={"values": {"seed": [0, 1, 2]}}),
}


@pytest.mark.fault("many-trials")
@pytest.mark.parametrize("kind", SPACES)
def test_a_trial_that_is_over_takes_few_bytes(kind: str, tmp_path: Path) -> None:
    plan, display = driver(SPACES[kind](48), tmp_path)
    run_some(plan, display, 16)
    before = held_by(plan, display, beside=(plan.space,))
    run_some(plan, display, 24)
    assert (held_by(plan, display, beside=(plan.space,)) - before) / 24 < MOST_BYTES


def test_no_trial_that_is_over_is_looked_at_for_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, display = driver(searching("tpe", 30), tmp_path)
    run_some(plan, display, 20)
    looked: list[bytes] = []
    unpack = Packer.unpack
    monkeypatch.setattr(Packer, "unpack", lambda self, packed: looked.append(packed) or unpack(self, packed))
    run_some(plan, display, 20)
    assert looked == []
    assert len(list(plan.before())) == 40
    assert looked


def test_a_search_looks_at_no_point_that_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = {"replicates": {"values": {"seed": [0, 1]}}, "max_epochs": 10_000_000}
    plan, display = driver(searching("random", 30, **fields), tmp_path)
    looked = [0]
    missing, owed = ReplicatedStudy._missing, ReplicatedStudy.owed_epochs.fget
    assert owed is not None

    def counted(found: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            looked[0] += 1
            return found(*given)

        return call

    monkeypatch.setattr(ReplicatedStudy, "_missing", counted(missing))
    monkeypatch.setattr(ReplicatedStudy, "owed_epochs", property(counted(owed)))
    each = []
    for _ in range(3):
        looked[0] = 0
        run_some(plan, display, 16)
        each.append(looked[0])
    assert each[2] <= each[1]


@pytest.mark.fault("many-trials")
def test_a_resumed_driver_holds_one_record_of_those_that_are_over_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = searching("random", 20, pruner="median")
    plan, display = driver(space, tmp_path)
    run_some(plan, display, 40)
    records = plan.folder.records()
    seen: list[weakref.ref[Record]] = []
    most = [0]
    unpack = Packer.unpack

    def counting(packer: Packer, packed: bytes) -> Record:
        most[0] = max(most[0], sum(one() is not None for one in seen))
        record = unpack(packer, packed)
        seen.append(weakref.ref(record))
        return record

    monkeypatch.setattr(Packer, "unpack", counting)
    resumed = begun(space, tmp_path)
    assert resumed.complete
    assert {ending.trial_id for ending in resumed.before()} == {record.id for record in records}
    assert len(seen) >= 40
    assert most[0] <= 2


SAMPLE_VALUES: dict[str, Any] = {"b": True, "one": 1, "real": 1.0, "none": None, "text": "1", "tiny": 1e-300}


def test_a_record_is_unpacked_as_it_was(tmp_path: Path) -> None:
    plan, display = driver(grid_of(6), tmp_path)
    run_some(plan, display, 4)
    plan.next()  # scheduled, without a state
    first, second, *rest = SweepFolder(tmp_path).records()
    assert first.state is not None
    failed = replace(
        first.state,
        status="failed",
        error={"type": "A", "message": "é\n", "traceback": ""},
        environments=({}, {"a": 1}),
    )
    place = {"generation": 1, "member": 0, "changes": {}}
    odd = replace(first.samples[0], params=SAMPLE_VALUES, attrs={"pbt": place, "x": [1, [2.5]]}, stopped=3)
    samples = (odd, replace(odd, number=9, stopped=None))
    others = [replace(first, state=failed, samples=samples), replace(second, state=None, samples=())]
    packer = Packer(tmp_path / "trials")
    for record in (first, second, *rest, *others):
        found = packer.unpack(packer.pack(record))
        assert replace(found, folder=record.folder) == record
        assert repr(replace(found, folder=record.folder)) == repr(record)  # 1, 1.0 and True are equal
        assert found.folder.path == record.folder.path
    assert any(record.state is None for record in rest)


def test_a_record_that_is_set_again_stays_packed(tmp_path: Path) -> None:
    records = PackedRecords(run_space(make_space(), tmp_path))
    trial_id, record = next(iter(records.items()))
    records[trial_id] = replace(record, samples=record.samples * 2)
    assert len(records[trial_id].samples) == 2
    assert records[trial_id] is not records[trial_id]
    kept = records.unpack(trial_id)
    assert records[trial_id] is kept
    records.pack(trial_id)
    assert records[trial_id] is not kept
    del records[trial_id]
    assert trial_id not in records
    assert len(records) == 1


def test_a_population_keeps_the_configs_of_its_last_generations(tmp_path: Path) -> None:
    pbt = {**PBT, "generations": 6, "interval": 1}
    space = make_space(trial=TRIAL, grid={"density": [0.5]}, search=SEARCH, pbt=pbt)
    plan = begun(space, tmp_path / "whole")
    (search,) = plan._searches.values()
    assert isinstance(search, CellPopulation)
    run_out(plan, landscape)
    assert search.count == 6 * search.pbt.population
    assert len(search._configs) <= 3 * search.pbt.population


def test_tables_are_the_same_however_many_trials_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, display = driver(searching("random", 6, pruner="median"), tmp_path)
    run_some(plan, display, 9)
    plan.next()
    whole = read(tmp_path)
    for at_once in (1, 4):
        monkeypatch.setattr(table_cache, "TRIALS_AT_ONCE", at_once)
        parts = read(tmp_path)
        assert parts.damaged == whole.damaged
        for name in ("trials", "epochs", "layers", "lineage"):
            pd.testing.assert_frame_equal(getattr(parts, name), getattr(whole, name))
