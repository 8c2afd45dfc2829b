"""YAML with numbers as people write them, and overrides."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from trials.dotted_paths import merge, override
from trials.errors import UserError
from trials.yaml_text import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-1e+3", -1000.0),
        (".5e1", 5.0),
        ("1.e2", 100.0),
        ("+2.5e-3", 2.5e-3),
        ("0.5", 0.5),
        ("3", 3),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1e-4x", "1e-4x"),
        ("'1e-4'", "1e-4"),
        ("true", True),
        ("", None),
    ],
)
def test_numbers_are_what_people_mean(text: str, value: object) -> None:
    read = parse_yaml(f"a: {text}", "here")["a"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "key 'a' occurs twice"),
        ("x:\n  a: 1\n  a: 1", "key 'a' occurs twice"),
        ("a: !!python/object/apply:os.system ['true']", "python/object"),
        ("a: !!python/name:os.system", "python/name"),
        ("a: [1, 2", "expected"),
        ("a: *nothing", "undefined alias"),
        ("? [a, b]\n: c", "unhashable"),
        ("a: !!timestamp 2020-99-01", "month"),
        ("a: !!int 1:30", "'1:30' is no int"),
        ("a: !!float 1_0.5", "'1_0.5' is no float"),
        ("a: !!bool yes", "'yes' is no bool"),
        ("a: !!int [1]", "scalar"),
        ("a: b: c", "mapping values"),
        ("\x00", ""),
    ],
)
def test_invalid_yaml_is_one_line(text: str, says: str) -> None:
    with pytest.raises(UserError, match=r"^FILE is not YAML") as caught:
        parse_yaml(text, "FILE")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_python_objects_are_never_made(tmp_path: Path) -> None:
    marker = tmp_path / "was here"
    with pytest.raises(UserError):
        parse_yaml(f"a: !!python/object/apply:os.mkdir ['{marker}']", "here")
    assert not marker.exists()


def test_merge_keys_work_and_may_be_overridden() -> None:
    text = "base: &base {epochs: 3, lr: 1e-2}\nprune:\n  <<: *base\n  epochs: 5"
    assert parse_yaml(text, "here")["prune"] == {"epochs": 5, "lr": 0.01}


def test_files(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("name: Übung\nlr: 1e-3\n", encoding="utf-8")
    assert read_yaml(good) == {"name": "Übung", "lr": 1e-3}
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: Übung".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.yaml' cannot be read: .*utf-8"):
        read_yaml(latin)
    with pytest.raises(UserError, match=r"missing.yaml' cannot be read: .*No such file"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)


def test_override_changes_a_copy() -> None:
    content = {"a": {"b": 1, "c": 2}, "d": None, "e": [1]}
    changed = override(content, ["a.b=1e-3", "d.x.y=[1, two]", "e=null", "f= a b ", "g=x=y", "a.b=7"])
    assert changed == {"a": {"b": 7, "c": 2}, "d": {"x": {"y": [1, "two"]}}, "e": None, "f": "a b", "g": "x=y"}
    assert content == {"a": {"b": 1, "c": 2}, "d": None, "e": [1]}


@pytest.mark.parametrize("setting", ["a", "=1", ".a=1", "a.=1", "a..b=1", ""])
def test_override_must_be_path_and_value(setting: str) -> None:
    with pytest.raises(UserError, match=r"must be a\.b=c") as caught:
        override({}, [setting])
    assert repr(setting) in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("a.b=1", "a is 3"), ("a.b.c=1", "a is 3"), ("l.0=1", r"l is \[1\]"), ("m.x.y.z=1", r"m\.x is 'text'")],
)
def test_override_names_the_value_that_it_cannot_walk_through(setting: str, value: str) -> None:
    with pytest.raises(UserError, match=f": {value}, but must be a mapping") as caught:
        override({"a": 3, "l": [1], "m": {"x": "text"}}, [setting])
    assert repr(setting) in str(caught.value)


def test_override_of_no_mapping() -> None:
    with pytest.raises(UserError, match=r"--set is 'a=1': the file is None, but must be a mapping"):
        override(None, ["a=1"])


def test_override_value_must_be_yaml() -> None:
    with pytest.raises(UserError, match=r"--set a=\[ is not YAML"):
        override({}, ["a=["])


def test_merge() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": [1], "c": 3}
    assert merge(base, {"a": {"y": 5}, "b": [2], "c": {"z": 1}, "d": 4}) == {
        "a": {"x": 1, "y": 5},
        "b": [2],
        "c": {"z": 1},
        "d": 4,
    }
    assert base == {"a": {"x": 1, "y": 2}, "b": [1], "c": 3}


def test_a_path_is_checked_before_its_value_is_read() -> None:
    with pytest.raises(UserError, match=r"--set is 'a\.b\.c=\{': a is 1, but must be a mapping"):
        override({"a": 1}, ["a.b.c={"])


CORE: list[tuple[str, object]] = [
    # null and bool: only these words
    *((text, None) for text in ("null", "Null", "NULL", "~", "")),
    *((text, True) for text in ("true", "True", "TRUE")),
    *((text, False) for text in ("false", "False", "FALSE")),
    *((t, t) for t in ("yes", "Yes", "YES", "no", "No", "on", "On", "off", "OFF", "y", "n", "tRUE", "nULL", "none")),
    # int
    *[("0", 0), ("-0", 0), ("+12", 12), ("-19", -19), ("010", 10), ("08", 8), ("007", 7), ("-010", -10)],
    *[("0o10", 8), ("0o7", 7), ("0xff", 255), ("0xFF", 255), ("0x3A", 58), ("1" * 30, int("1" * 30))],
    *((t, t) for t in ("0o8", "0xfg", "-0o10", "+0x1", "0b11", "0O10", "1_000", "0_1", "_1", "1 000", "+")),
    # float
    *[("0.", 0.0), ("-0.0", -0.0), (".5", 0.5), ("012.50", 12.5), ("12e03", 12000.0), ("-2E+05", -200000.0)],
    *[("1e3", 1000.0), ("1e-4", 1e-4), (".inf", float("inf")), ("-.Inf", float("-inf")), ("+.INF", float("inf"))],
    *(
        (t, t)
        for t in (".", "-.", "1.2.3", "1e", "e3", "1e1.5", "inf", "nan", "+.nan", ".iNF", "1_0.5", "0x1.8p1", "١")
    ),
    # what YAML 1.1 had besides
    *((t, t) for t in ("1:30", "2:4", "0:0.5", "190:20:30", "-1:30", "2026-11-27", "2001-12-14t21:59:43Z", "=", "<")),
]


@pytest.mark.parametrize(("text", "value"), CORE, ids=[text or "nothing" for text, _ in CORE])
@pytest.mark.parametrize("where", ["a: {}", "a: [{}]", "a:\n- {}", "a: {{b: {}}}"])
def test_plain_values_follow_the_core_schema_of_yaml_1_2(text: str, value: object, where: str) -> None:
    if text == "" and "[" in where:
        return  # an empty list
    read = parse_yaml(where.replace("{}", text, 1).replace("{{", "{").replace("}}", "}"), "here")["a"]
    while isinstance(read, (list, dict)):
        read = read[0] if isinstance(read, list) else read["b"]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("text", [text for text, value in CORE if not isinstance(value, str)] + [".nan"])
@pytest.mark.parametrize("quoted", ["'{}'", '"{}"', "!!str {}", "|-\n  {}"])
def test_what_is_quoted_stays_text(text: str, quoted: str) -> None:
    read = parse_yaml("a: " + quoted.replace("{}", text), "here")["a"]
    assert (read, type(read)) == (text, str)


def test_not_a_number() -> None:
    assert all(isinstance(x, float) and math.isnan(x) for x in parse_yaml("[.nan, .NaN, .NAN]", "here"))


@pytest.mark.parametrize("text", ["a: !!int 0x10", "a: !!float 3", "a: !!bool TRUE"])
def test_a_tag_that_fits_the_value_works(text: str) -> None:
    read = parse_yaml(text, "here")["a"]
    assert (read, type(read)) in [(16, int), (3.0, float), (True, bool)]


def test_keys_follow_the_same_rules() -> None:
    assert parse_yaml("010: a\n1:30: b\nyes: c\n1e2: d", "here") == {10: "a", "1:30": "b", "yes": "c", 100.0: "d"}
    with pytest.raises(UserError, match="key 10 occurs twice"):
        parse_yaml("10: a\n010: b", "here")
