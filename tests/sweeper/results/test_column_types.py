"""A column's name has one type in every sweep: tables of any sweeps concatenate, and no value is lost by that."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from annotated_types import Gt
from hypothesis import given
from hypothesis import strategies as st

from sweeper.columns import ALWAYS, COLUMNS, CONFIG_COLUMNS_FILE, FLAG, REAL, SOME, TEXT, TEXTS, WHOLE, config_columns
from sweeper.describe.config_columns import column_type, columns_text, common_type
from sweeper.describe.tables_page import DOCS, config_page_text, page_text
from sweeper.folder.sweep_folder import Sample, SweepFolder
from sweeper.results import table_cache, tables
from sweeper.results.column_types import TABLES_SCHEMA, described_column, placed, together
from sweeper.results.table_cache import gather
from sweeper.results.tables import compact_tables, load
from tests.trials.configs import SMALLEST
from tests.upgrade.stored import EXIT_CODES, STORAGE
from trials.config.recipes import Recipe
from trials.config.trial_config import Segment
from trials.methods.parsing import parse
from trials.storage.trial_folder import TrialFolder

RESULT: dict[str, Any] = {"val_accuracy": 0.5, "density": 0.5, "kept": 50, "prunable": 100, "warnings": []}

PLUGIN = {"method": "mylab.pruning:Method", "dataset": "digits", "model": "tiny", "plugins": ["mylab"]}

Trial = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
"""A trial to fabricate: its config, its result and its rows by table; neither of the latter for one that failed."""


def epochs(*own: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of as many epochs."""
    common = {"stage": "train", "level": 0, "val_accuracy": 0.5, "test_accuracy": None, "kept": 50, "warnings": []}
    return {"epochs": [{**common, "epoch": number, **columns} for number, columns in enumerate(own, start=1)]}


def layers(**own: Any) -> dict[str, Any]:
    return {"layers": [{"stage": "train", "level": 0, "layer": "fc", "total": 100, "kept": 50, "density": 0.5, **own}]}


def of_method(method: str) -> Trial:
    config = parse(SMALLEST[method]).model_dump(mode="json")
    return config, RESULT, {**epochs({"lr": 0.1}, {"lr": None}), **layers()}


def of_plugin(config: Mapping[str, Any], result: Mapping[str, Any] = {}, *rows: Mapping[str, Any]) -> Trial:
    return {**PLUGIN, **config}, {**RESULT, **result}, epochs(*(rows or ({},)))


PLUGINS: dict[str, Trial] = {
    "whole": of_plugin({"strength": 1, "mode": None}, {"sharpness": 1}, {"sharpness": 1}),
    "real": of_plugin({"strength": 0.5, "mode": "fast"}, {"sharpness": 0.5}, {"sharpness": 0.5}, {"sharpness": 1}),
    "text": of_plugin({"strength": "auto", "mode": 3}, {"sharpness": None}, {"sharpness": None}),
    "flag": of_plugin({"strength": True, "mode": False}, {"sharpness": True}, {"sharpness": False}),
    "list": of_plugin({"strength": [1, 2], "mode": []}, {}, {"sharpness": ["a"]}, {"sharpness": []}),
    "nothing": of_plugin({"strength": None}, {}, {"note": "said"}),
    "huge": of_plugin({"strength": 2**70 + 1, "seed": 2**70 + 1}),
    "known names": of_plugin({"score": 0.5, "levels": "many", "couple": 2, "density": [0.1, 0.2], "prune": "no"}),
    "known names again": of_plugin({"score": [1], "levels": 2.5, "couple": "a", "density": True, "prune": {"lr": "a"}}),
    "a group": of_plugin({"strength": {"start": 1}, "prune": {"lr": 1, "epochs": 1.5}}),
}  # fmt: skip


def fabricate(folder: Path, trials: Sequence[Trial], failed: Sequence[Trial] = ()) -> SweepFolder:
    """A sweep of finished trials and of trials that failed before their first commit."""
    sweep = SweepFolder(folder)
    sweep.append({"space": {}})
    for number, (config, result, rows) in enumerate([*trials, *failed]):
        method = str(config["method"]).rpartition(":")[2]
        name = f"{method}-{number:012d}"
        sweep.schedule(name, config, (Sample("", number, {}, {}, {}),))
        attempt, _ = TrialFolder(sweep.trial_folder(name)).begin(host="here", device="cpu")
        if number < len(trials):
            attempt.commit(checkpoint={}, rows=rows, progress={}, seconds=1.0, status="complete", result=result)
        else:
            attempt.end("failed", error={"type": "E", "message": "no", "traceback": ""}, failures=1)
    return sweep


def population(folder: Path, values: Sequence[Mapping[str, Any]]) -> SweepFolder:
    """A sweep of one generation of a population, with these searched values."""
    sweep = SweepFolder(folder)
    for member, params in enumerate(values):
        config = {**of_method("bip")[0], "until_epoch": 1}
        pbt = {"generation": 0, "member": member, "parent": None, "parent_trial": None, "changes": {}}
        sweep.schedule(f"bip-{member:012d}", config, (Sample("", member, {}, dict(params), {"pbt": pbt}),))
    return sweep


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sweeps of all kinds, with their tables written, by what they are."""
    root = tmp_path_factory.mktemp("sweeps")
    methods = {method: of_method(method) for method in SMALLEST}
    found = {
        "empty": fabricate(root / "empty", []),
        **{method: fabricate(root / method, [trial]) for method, trial in methods.items()},
        **{f"plug-in: {name}": fabricate(root / f"plugin {name}", [one]) for name, one in PLUGINS.items()},
        "all methods": fabricate(root / "methods", list(methods.values())),
        "all plug-ins": fabricate(root / "plugins", list(PLUGINS.values())),
        "all failed": fabricate(root / "failed", [], list(methods.values())),
        "a plug-in failed": fabricate(root / "plugin failed", [], [PLUGINS["text"]]),
        "population": population(root / "population", [{"prune.lr": 0.1, "mask_schedule": "step"}, {"prune.lr": 1}]),
        "population of null": population(root / "population of null", [{"prune.lr": None}]),
        "population of a plug-in": population(root / "population own", [{"strength": 1}, {"strength": "a"}]),
    }
    for name in EXIT_CODES:
        folder = root / "stored" / name
        folder.parent.mkdir(exist_ok=True)
        (folder).symlink_to(STORAGE / name)
        found[f"stored {name}"] = SweepFolder(folder)
    written = {}
    for name, sweep in found.items():
        written[name] = root / "tables" / name
        written[name].mkdir(parents=True)
        for table, content in gather(sweep).tables.items():
            pq.write_table(content, written[name] / f"{table}.parquet")
    return written


def files_of(sweeps: Mapping[str, Path], table: str) -> dict[str, Path]:
    return {name: path / f"{table}.parquet" for name, path in sweeps.items()}


@pytest.mark.parametrize("table", COLUMNS)
def test_a_name_has_one_type_in_all_sweeps(sweeps: dict[str, Path], table: str) -> None:
    types: dict[str, dict[Any, str]] = {}
    for name, file in files_of(sweeps, table).items():
        schema = pq.read_schema(file)
        assert schema.names[: len(COLUMNS[table])] == list(COLUMNS[table]), name
        for column in schema:
            types.setdefault(column.name, {})[column.type] = name
            assert column.type == described_column(table, column.name).type, (name, column.name)
    assert {name: found for name, found in types.items() if len(found) > 1} == {}


@pytest.mark.parametrize("table", COLUMNS)
def test_arrow_concatenates_any_two_sweeps(sweeps: dict[str, Path], table: str) -> None:
    """Without casts: pyarrow then only adds columns that are missing."""
    found = {name: pq.read_table(file) for name, file in files_of(sweeps, table).items()}
    for one, other in itertools.combinations(found.values(), 2):
        assert len(pa.concat_tables([one, other], promote_options="default")) == len(one) + len(other)


@pytest.mark.parametrize("table", COLUMNS)
def test_polars_concatenates_any_two_sweeps(sweeps: dict[str, Path], table: str) -> None:
    polars = pytest.importorskip("polars")
    frames = [polars.read_parquet(file) for file in files_of(sweeps, table).values()]
    for one, other in itertools.combinations(frames, 2):
        assert len(polars.concat([one, other], how="diagonal")) == len(one) + len(other)


@pytest.mark.parametrize("table", COLUMNS)
def test_duckdb_concatenates_any_two_sweeps(sweeps: dict[str, Path], table: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    files = list(files_of(sweeps, table).values())
    types = {file: described_by(duckdb, [file]) for file in files}
    for one, other in itertools.combinations(files, 2):
        assert described_by(duckdb, [one, other]) == types[one] | types[other]


def described_by(duckdb: Any, files: Sequence[Path]) -> dict[str, str]:
    """The types that duckdb gives the columns of these files together."""
    found = duckdb.sql(f"describe from read_parquet({[str(file) for file in files]}, union_by_name = true)").fetchall()
    return {name: kind for name, kind, *_ in found}


def test_a_table_of_any_trials_has_the_same_types(tmp_path: Path) -> None:
    every, draw = [*map(of_method, SMALLEST), *PLUGINS.values()], random.Random(0)
    types: dict[str, dict[str, Any]] = {table: {} for table in COLUMNS}
    for number in range(20):
        chosen = draw.sample(every, draw.randint(0, 4))
        ended = draw.randint(0, len(chosen))
        sweep = fabricate(tmp_path / str(number), chosen[:ended], chosen[ended:])
        for table, content in gather(sweep).tables.items():
            for column in content.schema:
                assert types[table].setdefault(column.name, column.type) == column.type, (table, column.name)


def test_types_are_those_that_fields_declare() -> None:
    wanted = {
        "prune.epochs": WHOLE, "prune.lr": REAL, "image_size": WHOLE, "couple": FLAG, "score": TEXT, "snapshots": TEXT,
        "stage_pr": REAL, "finetune": TEXT, "finetune.patience": WHOLE, "source_net": TEXT, "config.density": REAL,
        "config.precision": TEXT, "file_hashes.source_net": TEXT, "lineage": TEXT, "report": TEXT, "tf32": FLAG,
    }  # fmt: skip
    assert {name: described_column("trials", name).type for name in wanted} == wanted
    assert described_column("lineage", "density").type == described_column("lineage", "unknown").type == REAL
    assert described_column("epochs", "prune.epochs").type == REAL, "its columns are of the table trials"


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (int, WHOLE), (float, REAL), (bool, FLAG), (str, TEXT), (int | None, WHOLE), (Literal["a", "b"], TEXT),
        (Literal[1, 2], WHOLE), (Literal[True], FLAG), (Literal["a"] | None, TEXT), (int | float, REAL),
        (Literal["auto"] | float, REAL), (float | tuple[float, ...], REAL), (tuple[int, ...], TEXT), (list[str], TEXT),
        (dict[str, int], TEXT), (Recipe | None, TEXT), (tuple[Segment, ...], TEXT), (bool | str, TEXT), (None, TEXT),
        (Annotated[int, Gt(0)] | None, WHOLE), (Any, TEXT),
    ],
)  # fmt: skip
def test_the_type_of_a_declaration(annotation: Any, kind: Any) -> None:
    assert column_type(annotation) == kind


def test_a_field_that_methods_declare_differently_has_a_common_type() -> None:
    assert common_type([WHOLE, REAL]) == common_type([TEXT, REAL]) == common_type([WHOLE, TEXT, FLAG]) == REAL
    assert common_type([TEXT, FLAG]) == TEXT
    assert common_type([WHOLE, WHOLE]) == WHOLE


def test_the_stored_descriptions_are_current() -> None:
    again = "write it anew: python -m sweeper.describe."
    assert columns_text() == CONFIG_COLUMNS_FILE.read_text(), f"{again}config_columns"
    assert config_page_text() == (DOCS / "config_columns.md").read_text(), f"{again}tables_page"
    page = (DOCS / "tables.md").read_text()
    assert page_text(page) == page, f"{again}tables_page"
    for table in COLUMNS:
        assert f"<!-- always: {table} -->\n| column " in page
        assert (f"<!-- some: {table} -->\n| column " in page) == bool(SOME[table])


def test_every_column_has_one_meaning() -> None:
    every = [*(one for found in (ALWAYS, SOME) for table in found.values() for one in table.values())]
    assert [one.name for one in [*every, *config_columns().values()] if not one.meaning] == []
    both = {name for name in SOME["trials"] if name in config_columns()}
    assert both == {"tf32", "deterministic"}, "a field of this name would hide a method's figure"
    assert all(SOME["trials"][name].type == config_columns()[name].type for name in both)
    for table in COLUMNS:
        assert not ALWAYS[table].keys() & SOME[table].keys()


def test_files_say_what_their_columns_mean(tmp_path: Path) -> None:
    sweep = fabricate(tmp_path / "sweep", [of_method("bip"), PLUGINS["real"]])
    compact_tables(sweep)
    for table in COLUMNS:
        schema = pq.read_schema(sweep.tables / f"{table}.parquet")
        assert (schema.metadata[b"table"], schema.metadata[b"tables_schema"]) == (table.encode(), b"%d" % TABLES_SCHEMA)
        facts = json.loads(schema.metadata[b"columns"])
        assert list(facts) == schema.names
        for column in schema:
            known = described_column(table, column.name)
            said = {key.decode(): value.decode() for key, value in (column.metadata or {}).items()}
            said.pop("PARQUET:field_id", None)
            assert said == {key: v for key, v in (("unit", known.unit), ("meaning", known.meaning)) if v}
            assert {key: v for key, v in facts[column.name].items() if key != "type"} == said
    trials = pq.read_schema(sweep.tables / "trials.parquet")
    assert trials.field("seconds").metadata[b"unit"] == b"s"
    assert trials.field("prune.epochs").metadata[b"unit"] == b"epochs"
    assert b"multiply-adds" in trials.field("macs").metadata[b"meaning"]


SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    st.sampled_from(["1", "true", "[1]"]),
)


@pytest.mark.parametrize("name", ["seed", "density", "score", "couple", "warnings", "strength"])
@given(values=st.lists(SCALARS, min_size=1))
def test_no_value_is_lost(name: str, values: list[Any]) -> None:
    columns = placed("trials", name, values)
    assert all(found.type == described_column("trials", column).type for column, found in columns.items())
    again = together({column: found.to_pylist() for column, found in columns.items()}, name)
    assert again == values
    assert [isinstance(value, bool) for value in again] == [isinstance(value, bool) for value in values]


@pytest.mark.parametrize("name", ["error_message", "warnings", "strength"])
def test_half_of_a_pair_of_surrogates_is_written_out(name: str) -> None:
    columns = placed("trials", name, ["no file \udcff.pt", None])
    (found,) = [found.to_pylist() for found in columns.values() if found.null_count < 2]
    assert found == [r"no file \udcff.pt", None]


def test_values_of_another_type_stand_beside(tmp_path: Path) -> None:
    sweep = fabricate(tmp_path / "sweep", list(PLUGINS.values()))
    found = gather(sweep).tables["trials"]
    stored = {name: found[name].to_pylist() for name in found.column_names if name.partition(":")[0] == "strength"}
    assert stored == {
        "strength": [1.0, 0.5, *8 * [None]],
        "strength:text": [None, None, "auto", *7 * [None]],
        "strength:json": [None, None, None, "true", "[1, 2]", None, str(2**70 + 1), None, None, None],
    }
    assert found["strength.start"].to_pylist() == [*9 * [None], 1.0]
    assert found["levels:number"].to_pylist() == [*8 * [None], 2.5, None]
    assert "levels" not in found.column_names
    frame = load(sweep.path).trials
    assert not [name for name in frame if ":" in name]
    assert frame["levels"].tolist()[7:9] == ["many", "2.5"]
    assert frame["strength"].dropna().tolist() == ["1.0", "0.5", "auto", "true", "[1, 2]", str(2**70 + 1)]
    assert list(frame.columns[len(COLUMNS["trials"]) :]) == sorted(frame.columns[len(COLUMNS["trials"]) :])


def test_a_plug_ins_columns_have_one_type_in_frames_of_their_own(tmp_path: Path) -> None:
    frame = load(fabricate(tmp_path / "text", [PLUGINS["nothing"], of_plugin({"mode": "fast"})]).path).trials
    assert frame["mode"].tolist()[1:] == ["fast"]
    assert frame["mode"].dtype == pd.Series(["text"]).dtype
    flags = load(fabricate(tmp_path / "flag", [PLUGINS["flag"]]).path).trials
    assert flags["mode"].tolist() == [False]
    assert str(flags["mode"].dtype) == "boolean"
    assert str(scores_of(tmp_path / "whole", 1, 2).dtype) == str(scores_of(tmp_path / "one", 3).dtype) == "Int64"
    assert scores_of(tmp_path / "mixed", 1, "auto").tolist() == ["1", "auto"]
    scores = load(fabricate(tmp_path / "score", [of_plugin({"score": 0.5}), of_plugin({"score": 2})]).path).trials
    assert scores["score"].tolist() == [0.5, 2.0]


def scores_of(folder: Path, *values: Any) -> pd.Series[Any]:
    """The column of a plug-in's field, which the methods of this package have as text."""
    return load(fabricate(folder, [of_plugin({"score": value}) for value in values]).path).trials["score"]


@pytest.mark.parametrize("name", ["strength", "score"])
def test_whole_numbers_of_plug_ins_are_whole_in_frames(tmp_path: Path, name: str) -> None:
    """Also from the cache, and next to trials of which one has a real number."""
    own = [of_plugin({name: value}, {"own": value}, {"own": value}) for value in (1, 20_001, None, 2**53)]
    sweep = fabricate(tmp_path / "sweep", own)
    before = load(sweep.path)
    compact_tables(sweep)
    for tables_ in (before, load(sweep.path)):
        for column in (tables_.trials[name], tables_.trials["own"], tables_.epochs["own"]):
            assert str(column.dtype) == "Int64"
            assert column.dropna().tolist() == [1, 20_001, 2**53]
    config, result, rows = of_plugin({name: 1.0}, {"own": 1.0}, {"own": 1.0})
    sweep.schedule("Method-9", config, (Sample("", 9, {}, {}, {}),))
    attempt, _ = TrialFolder(sweep.trial_folder("Method-9")).begin(host="here", device="cpu")
    attempt.commit(checkpoint={}, rows=rows, progress={}, seconds=1.0, status="complete", result=result)
    after = load(sweep.path)
    for column in (after.trials[name], after.trials["own"], after.epochs["own"]):
        assert str(column.dtype) == "float64"


def test_known_columns_keep_their_types_without_values(tmp_path: Path) -> None:
    frame = load(fabricate(tmp_path / "failed", [], [of_method("bip")]).path).trials
    assert {name: str(frame[name].dtype) for name in ("image_size", "pretrain.patience", "val_accuracy", "kept")} == {
        "image_size": "Int64",
        "pretrain.patience": "Int64",
        "val_accuracy": "float64",
        "kept": "Int64",
    }
    assert frame["image_column"].dtype == pd.Series(["text"]).dtype


def remove(sweep: SweepFolder, number: int) -> None:
    folder = sorted(sweep.trials.iterdir())[number]
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("removed", [None, 0, 1])
def test_tables_from_the_cache_are_those_from_the_trials(tmp_path: Path, removed: int | None) -> None:
    """Also once trials are gone that alone had values in a column beside another."""
    sweep = fabricate(
        tmp_path / "sweep", [of_plugin({"mode": None}), of_plugin({"mode": "fast"}), of_plugin({"mode": None})]
    )
    compact_tables(sweep)
    if removed is not None:
        remove(sweep, removed)
    cached = gather(sweep).tables
    (sweep.tables / "manifest.json").unlink()
    fresh = gather(sweep).tables
    for table in COLUMNS:
        assert cached[table].equals(fresh[table], check_metadata=True), table


def test_files_with_other_columns_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = fabricate(tmp_path / "sweep", [of_method("bip")])
    compact_tables(sweep)
    before = gather(sweep)
    assert before.current
    for module in (table_cache, tables):
        monkeypatch.setattr(module, "digest_of_columns", lambda: "others")
    assert not gather(sweep).current
    compact_tables(sweep)
    assert gather(sweep).current


def test_row_files_of_any_types_are_read(tmp_path: Path) -> None:
    """Numbers that one trial wrote as whole, another as real, and a third not at all."""
    written = [
        {"kept": 50, "lr": 1, "val_loss": None},
        {"kept": 50.0, "lr": 0.5},
        {"kept": None, "lr": None},
        {"kept": 0.5},
    ]
    trials = [of_plugin({}, {}, row) for row in written]
    found = gather(fabricate(tmp_path / "sweep", trials)).tables["epochs"]
    assert found["kept"].to_pylist() == [50, 50, None, None]
    assert found["kept:number"].to_pylist() == [None, None, None, 0.5]
    assert found["lr"].to_pylist() == [1.0, 0.5, None, None]
    assert found["val_loss"].type == REAL
    assert found["warnings"].type == TEXTS
