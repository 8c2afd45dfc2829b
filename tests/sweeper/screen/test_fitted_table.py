"""Tables that fit a terminal: whatever its width, no line is longer and no value is cut."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from sweeper.console import print_table

LONG = "implicit_step=0.0001773 | 0.02  mask_lr=0.01491 | 0.1  finetune.weight_decay=1.037e-05 | 1.864e-05"
REPORT = {
    "prune.batch_size": ["", "64", "128"],
    "density asked %": ["dense", "50.00", "5.00"],
    "density %": ["100.00", "50.00", "5.00"],
    "val_accuracy %": ["89.58 ± 0.98", "95.14 ± 12.95", "–"],
    "test_accuracy %": ["87.78 ± 3.54", "93.33 ± 10.39", "–"],
    "n": ["2", "2", "0"],
    "cost": ["4", "8", ""],
    "report": ["last", "best_val", ""],
    "done": ["", "8/8", "3/8"],
    "warnings": ["", "chance_level, empty_layers", ""],
    "best": ["", LONG, ""],
    "not complete": ["", "", "seed 0: 2 running, 3 scheduled (at prune, level 0, epoch 12); seed 1: 5 failed"],
}
LEFT, KEYS = ("warnings", "best", "not complete"), ("prune.batch_size", "density asked %")
TABLES = {
    "report": (REPORT, LEFT, KEYS),
    "one column": ({"trial": ["bip-0123456789ab"]}, (), ()),
    "no rows": ({"density %": [], "best": []}, ("best",), ()),
    "long words": ({"grid.a.very.long.dotted.path.of.a.method": ["x" * 150], "b": ["1"]}, (), ()),
    "wide characters": ({"モデル": ["手書き数字" * 9], "n": ["3"], "best": ["値=" + "数" * 70]}, ("best",), ()),
    "markup": ({"[bold]trial[/bold]": ["[red]a[/red]"], "best": ["[/] \\[x] " * 20]}, ("best",), ()),
    "line breaks": ({"trial": ["a\nb"], "best": ["x\ty\r\n" * 30]}, ("best",), ()),
    "many columns": ({f"column_{i}": [f"{i}.25", f"{i}"] for i in range(40)}, (), ()),
}  # fmt: skip


def printed(columns: dict[str, list[str]], width: int, left: tuple[str, ...], keys: tuple[str, ...]) -> str:
    out = io.StringIO()
    print_table(columns, Console(file=out, width=width, force_terminal=True, color_system=None), left, keys)
    return out.getvalue()


def squeezed(text: str) -> str:
    return re.sub(r"[\s\x00-\x1f]", "", text)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("width", [12, 24, 40, 60, 79, 80, 100, 140, 200])
def test_no_line_is_too_long_and_no_value_is_cut(name: str, width: int) -> None:
    columns, left, keys = TABLES[name]
    text = printed(columns, width, left, keys)
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "…" not in text
    whole = squeezed(text)
    for texts in columns.values():
        assert all(squeezed(value) in whole for value in texts)


@pytest.mark.parametrize("width", [50, 60, 80, 100])
def test_a_value_that_fits_a_line_is_never_broken(width: int) -> None:
    text = printed(REPORT, width, LEFT, KEYS)
    for name in set(REPORT) - set(LEFT):
        assert all(value in text for value in REPORT[name])
    assert all(part in text for part in LONG.split("  "))
    assert len(text.splitlines()) < 45


def test_a_table_with_room_has_a_frame() -> None:
    assert "│  95.14 ± 12.95 │" in printed(REPORT, 400, LEFT, KEYS)
    assert "│" not in printed(REPORT, 120, LEFT, KEYS)


def test_at_80_columns_a_report_is_one_table_with_long_texts_below_their_rows() -> None:
    columns = {name: texts for name, texts in REPORT.items() if name not in ("prune.batch_size", "report")}
    lines = printed(columns, 80, LEFT, KEYS).splitlines()
    assert lines[1].split() == ["asked", "%", "%", "%", "%", "n", "cost", "done"]
    assert lines[2].split() == ["dense", "100.00", "89.58", "±", "0.98", "87.78", "±", "3.54", "2", "4"]
    assert lines[3].split()[:2] == ["50.00", "50.00"]
    assert lines[4] == "    warnings: chance_level, empty_layers"
    assert lines[5] == "    best: implicit_step=0.0001773 | 0.02  mask_lr=0.01491 | 0.1"
    assert lines[6] == "      finetune.weight_decay=1.037e-05 | 1.864e-05"
    assert lines[7].split()[:2] == ["5.00", "5.00"]
    assert lines[8].startswith("    not complete: seed 0: 2 running, 3 scheduled (at prune, level 0, epoch 12);")


def test_what_does_not_fit_follows_in_a_table_with_the_same_keys() -> None:
    first, *more = printed(REPORT, 60, LEFT, KEYS).split("\n\n")
    assert more
    for block in (first, *more):
        assert "batch_size" in block
        assert "asked %" in block
        assert re.search(r"^ +64 +50\.00", block, re.MULTILINE)
        assert re.search(r"^ +128 +5\.00", block, re.MULTILINE)
    assert sum("test_accuracy" in block for block in (first, *more)) == 1


def test_without_a_terminal_the_text_is_aligned_whatever_its_width() -> None:
    out = io.StringIO()
    print_table({"trial": ["a", "bb"], "best": [LONG, ""]}, Console(file=out, width=20), left=("best",))
    assert out.getvalue() == f"trial  best\n    a  {LONG}\n   bb\n"
