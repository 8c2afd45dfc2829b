"""A config.json that was changed is said to be damaged, with a right checksum or as older versions wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.folder.packed_records import PackedRecords
from sweeper.folder.sweep_folder import Sample, SweepFolder
from sweeper.results.column_types import BESIDE
from sweeper.results.tables import read
from sweeper.results.texts.summary_texts import _percent
from tests.trials.sealed_files import document, without_checksum, write_document

PBT = {"generation": 0, "member": 0, "parent": None, "parent_trial": None, "changes": {}}
NAME = "bip-0123456789ab"


def made(tmp_path: Path) -> SweepFolder:
    sweep = SweepFolder(tmp_path / "s")
    sweep.schedule(NAME, {"method": "bip", "until_epoch": 1, "lineage": []}, (Sample("a", 0, {}, {}, {"pbt": PBT}),))
    sweep.schedule("bip-ba9876543210", {"method": "bip"}, (Sample("b", 0, {}, {}, {}),))
    return sweep


@pytest.mark.fault("document-changed")
@pytest.mark.parametrize("sealed", [True, False], ids=["with checksum", "older version"])
@pytest.mark.parametrize(
    ("sample", "config"),
    [
        *(({"number": number}, {}) for number in (None, "1", [1], -1, True, 10**50)),
        *(({"cell": cell}, {}) for cell in (None, 1, ["a"])),
        *(({"stopped": stopped}, {}) for stopped in ("1", [], 1.5)),
        *(({"attrs": attrs}, {}) for attrs in ({"pbt": {}}, [], {"confirm": 1})),
        *(
            ({"attrs": {"pbt": {**PBT, **place}}}, {})
            for place in (
                {"generation": [[1]]},
                {"member": None},
                {"parent": "0"},
                {"parent_trial": 1},
                {"changes": [1]},
            )
        ),
        *(({}, {"lineage": lineage}) for lineage in ([3], {"a": 1}, [{}], [{"until_epoch": "1"}])),
        *(({}, {"until_epoch": end}) for end in (10**50, "1", 0)),
    ],
    ids=lambda change: str(change)[:60],
)
def test_a_changed_config_is_damaged(
    tmp_path: Path, sample: dict[str, Any], config: dict[str, Any], sealed: bool
) -> None:
    sweep = made(tmp_path)
    path = sweep.trial_folder(NAME) / "config.json"
    content = document(path)
    content["samples"][0] |= sample
    content["config"] |= config
    write_document(path, content)
    if not sealed:
        without_checksum(Path(str(path)))
    lines: list[str] = []
    assert [record.id for record in sweep.records(lines.append)] == ["bip-ba9876543210"]
    assert len(PackedRecords(sweep)) == 1
    found = read(tmp_path / "s")
    assert found.trials["trial"].tolist() == ["bip-ba9876543210"]
    for line in (*lines, *found.damaged):
        assert line.startswith(f"{path} is damaged")
        assert "\n" not in line
    assert len(lines) == len(found.damaged) == 1


@pytest.mark.parametrize(("value", "text"), [(None, ""), ([], "[]"), (0.5, "50.00"), (10**400, str(10**400))])
def test_a_density_that_is_no_number_is_shown_as_it_is(value: object, text: str) -> None:
    assert _percent(value) == text


@pytest.mark.parametrize("value", ["abc", "[1", "", 3.0, ["a"]])
@pytest.mark.parametrize("end", BESIDE)
def test_keys_that_end_like_columns_are_read(tmp_path: Path, end: str, value: object) -> None:
    """They are refused now; configs of earlier versions may have them."""
    sweep = made(tmp_path)
    sweep.schedule(NAME, {"method": "bip", "weights": {f"a{end}": value, "b": 1}}, (Sample("a", 0, {}, {}, {}),))
    trials = read(tmp_path / "s").trials
    assert len(trials) == 2
    (found,) = trials[trials["trial"] == NAME].filter(like="weights.a").dropna(axis=1).to_numpy().tolist()
    assert str(value) in map(str, found) or repr(value).replace("'", '"') in found
