"""Paths that people give: what cannot be one is refused in one line, and nothing is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.cli import main as sweep
from trials.__main__ import main as trial
from trials.errors import UserError
from trials.storage.place import ObjectPath, place
from trials.storage.sweep_path import sweep_path
from trials.system.account import NO_HOME, name_account
from trials.system.user_path import user_path

HOSTILE = {
    "empty": "",
    "null": "a\0b/c",
    "newline": "a\nb/c",
    "escape": "a\x1b[2J/c",
    "no-user": "~nosuchuser/x",
    "variable": "$UNSET_BY_ALL/x",
    "braces": "${UNSET_BY_ALL}/x",
    "name-too-long": f"./{'x' * 300}/x",
    "path-too-long": "/tmp/" + "y/" * 2100 + "z",
    "no-text": "a\udcff/x",
}


@pytest.mark.fault("odd-path")
@pytest.mark.parametrize("given", HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_a_path_is_refused(given: str) -> None:
    with pytest.raises(UserError) as raised:
        user_path(given, "--to")
    assert str(raised.value).startswith("--to is ")
    assert "\n" not in str(raised.value)


def test_paths_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a b/ü", "--to") == tmp_path / "a b" / "ü"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$HERE").mkdir()
    assert user_path("$HERE", "--to") == Path("$HERE")  # there is such a folder
    assert user_path("cost 5$", "--to") == Path("cost 5$")


COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "list": (sweep, ["--list", "--storage", "{}"]),
    "show": (sweep, ["--show", "s", "--storage", "{}"]),
    "report": (sweep, ["--report", "s", "--storage", "{}"]),
    "serve": (sweep, ["--serve", "s", "--storage", "{}"]),
    "dashboard": (sweep, ["--dashboard", "s", "--storage", "{}"]),
    "cancel": (sweep, ["--cancel", "s", "--storage", "{}"]),
    "resume": (sweep, ["--resume", "s", "--storage", "{}"]),
    "compare": (sweep, ["--compare", "{}", "s"]),
    "run": (sweep, ["--space", "oracle", "--storage", "{}"]),
    "space": (sweep, ["--space", "{}", "--dry-run"]),
    "plugins": (sweep, ["--space", "oracle", "--plugins", "./{}", "--dry-run"]),
    "runtime-env": (sweep, ["--space", "oracle", "--runtime-env", "{}"]),
    "init": (sweep, ["--init", "imp", "--to", "{}"]),
    "report-to": (sweep, ["--report", "s", "--to", "{}"]),
    "figure-to": (sweep, ["--report", "s", "--figure", "pareto_front", "--to", "{}"]),
    "callback": (sweep, ["--space", "oracle", "--set", 'callbacks=[{{name: tensorboard, folder: "{}"}}]', "--dry-run"]),
    "trial": (trial, ["{}"]),
    "trial-storage": (trial, ["trial.yaml", "--storage", "{}"]),
    "inspect": (trial, ["inspect", "{}"]),
    "export": (trial, ["export", "{}", "--to", "net.pt"]),
    "export-to": (trial, ["export", "s", "--to", "{}"]),
    "profile": (trial, ["profile", "{}"]),
    "evaluate": (trial, ["evaluate", "{}"]),
    "saliency-to": (trial, ["saliency", "s", "--to", "{}"]),
    "convert": (trial, ["convert_pickle", "{}", "--to", "net.pt", "--i-trust-this-file"]),
    "convert-to": (trial, ["convert_pickle", "f", "--to", "{}", "--i-trust-this-file"]),
}


@pytest.mark.fault("odd-path")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_takes_a_path_refuses_what_is_none(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main, words = COMMANDS[command]
    for name, given in HOSTILE.items():
        if command == "callback" and not given.isprintable():
            continue  # YAML's own rules
        written = [word.replace("{}", given).replace("{{", "{").replace("}}", "}") for word in words]
        assert main(written) == 2, name
        said = capsys.readouterr()
        assert said.err.startswith("error: "), name
        assert said.err.count("\n") == 1, (name, said.err)
        assert list(tmp_path.iterdir()) == [], name


@pytest.mark.fault("odd-path")
@pytest.mark.parametrize(
    "given", ["gs://bucket/x", "file:///tmp/x", "s3:/bucket/x", "s3:bucket", "S3://bucket/x", "hdfs://n/x", "C:/x"]
)
def test_other_schemes_are_no_storage(given: str) -> None:
    with pytest.raises(UserError, match="cannot be a storage"):
        place(given)


@pytest.mark.fault("odd-path")
def test_a_storage_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for where in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="is no folder"):
            sweep_path(str(where), "s")
    assert sweep_path(str(tmp_path / "new" / "below"), "s") == tmp_path / "new" / "below" / "s"


@pytest.mark.fault("odd-path")
def test_a_sweep_has_room_for_its_own_paths(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at most 255 bytes"):
        sweep_path(str(tmp_path), "x" * 256)
    deep = str(tmp_path) + "/y" * 1850
    with pytest.raises(UserError, match="the path of a sweep 3695"):
        sweep_path(deep, "s")
    with pytest.raises(UserError, match="the path of a sweep 624"):
        sweep_path("s3://bucket/" + "k" * 700, "s")
    assert sweep_path("s3://bucket/k", "s") == ObjectPath("bucket/k/s")


@pytest.mark.fault("no-account")
def test_a_user_without_an_account_gets_a_home_and_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    name_account()
    assert (Path.home(), getpass.getuser()) == (Path(NO_HOME), str(os.getuid()))


def test_an_account_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv("USER", "anna")
    name_account()
    assert (os.environ["HOME"], os.environ["USER"]) == ("/home/anna", "anna")
