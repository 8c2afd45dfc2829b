"""Packed files with right hashes whose content no packing writes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing.packing import pack_finished
from sweeper.results.tables import read
from tests.sweeper.packing.packed_sweeps import content_of, sweep_of
from tests.trials.sealed_files import document, write_document
from trials.errors import DamagedFile
from trials.storage.packed.manifest import sha256_of
from trials.storage.packed.reading import forget_packs, packed_damage
from trials.storage.trial_folder import TrialFolder

Change = Callable[[pa.Table], pa.Table]


def packed(path: Path) -> SweepFolder:
    folder = sweep_of(path, 2)
    pack_finished(folder)
    return folder


def change_index(folder: SweepFolder, change: Change) -> None:
    """Change index and copy of the one part, and give the manifest their hashes."""
    where = Path(str(folder.path)) / "packed"
    manifest = document(where / "manifest.json")
    for kind in ("index", "copy"):
        file = manifest["parts"][0][kind]
        buffer = io.BytesIO()
        pq.write_table(change(pq.read_table(where / file["name"])), buffer)
        (where / file["name"]).write_bytes(buffer.getvalue())
        file |= {"size": len(buffer.getvalue()), "sha256": sha256_of(buffer.getvalue())}
    write_document(where / "manifest.json", manifest)
    forget_packs(folder.path)


def with_values(name: str, edit: Callable[[list[Any]], object]) -> Change:
    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        edit(values)
        at = table.column_names.index(name)
        return table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return change


def swap_spans(values: list[Any]) -> None:
    for one, other in zip(*values, strict=True):
        for key in ("shape", "offset", "length"):
            one[key], other[key] = other[key], one[key]


ODD: dict[str, Change] = {
    "no column": lambda table: table.drop_columns(["rows"]),
    "another type": lambda table: table.set_column(3, "stamp", pa.array(["x"] * len(table))),
    "rows [null]": with_values("rows", lambda values: values.__setitem__(0, [None])),
    "rows null": with_values("rows", lambda values: values.__setitem__(0, None)),
    "no name of rows": with_values("rows", lambda values: values[0][0].__setitem__("name", None)),
    "stamp null": with_values("stamp", lambda values: values.__setitem__(0, None)),
    "stamp of one": with_values("stamp", lambda values: values.__setitem__(0, [1])),
    "state null": with_values("state", lambda values: values.__setitem__(0, None)),
    "half a checkpoint": with_values("checkpoint", lambda values: values[0].__setitem__("offset", None)),
}


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("kind", ODD)
def test_an_index_of_another_form_is_damaged(tmp_path: Path, kind: str) -> None:
    folder = packed(tmp_path / "sweep")
    change_index(folder, ODD[kind])
    (line,) = packed_damage(folder.path)
    assert "trials-000001" in line
    assert "\n" not in line
    assert read(tmp_path / "sweep").damaged == (line,)
    assert folder.records() == []
    assert folder.stamps() == {}


@pytest.mark.fault("packed-damaged")
def test_a_checkpoint_that_would_end_behind_its_archive_is_damaged(tmp_path: Path) -> None:
    folder = packed(tmp_path / "sweep")
    change_index(folder, with_values("checkpoint", lambda values: values[0].__setitem__("length", 2**40)))
    record = folder.records()[0]
    assert record.state is not None
    with pytest.raises(DamagedFile, match=r"checkpoints-000001.* has no bytes"):
        [TrialFolder(one.folder.path).checkpoint(one.state.commits[-1]) for one in folder.records() if one.state]


@pytest.mark.fault("packed-damaged")
def test_rows_of_another_trial_are_not_taken_over(tmp_path: Path) -> None:
    folder = packed(tmp_path / "sweep")
    change_index(folder, with_values("rows", swap_spans))
    found = read(tmp_path / "sweep")
    assert found.epochs.empty
    assert all("rows-" in line and "not of" in line for line in found.damaged)
    assert found.damaged


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("key", ["size", "entries"])
def test_an_infinite_number_in_a_manifest_is_damage(tmp_path: Path, key: str) -> None:
    folder = packed(tmp_path / "sweep")
    before = content_of(folder)
    path = tmp_path / "sweep" / "packed" / "manifest.json"
    content = document(path)
    content["parts"][0]["index"][key] = float("inf")
    write_document(path, content)
    assert "Infinity" in path.read_text()
    assert json.loads(path.read_bytes())
    forget_packs(folder.path)
    (line,) = packed_damage(folder.path)
    assert str(path) in line
    assert content_of(folder) == before
