"""What a plug-in is, that it is imported only where it is listed, and how errors in it are told."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trials.errors import NotAdmitted, UserError
from trials.plugins import importing
from trials.plugins.importing import admit, admit_listed, admit_sent, load, require_admitted, sent
from trials.plugins.source import digest_of, find, module_of, resolve


def listed(code: Path, *names: str) -> list[str]:
    return [str(code / name) if (code / name).exists() else name for name in names]


def test_objects_of_a_package_a_file_and_a_folder_are_found(code: Path) -> None:
    admit(listed(code, "mynets", "one_file.py", "bare"))
    assert not {"mynets", "one_file", "bare"} & sys.modules.keys(), "admitting imports nothing"
    assert load("mynets.wide:MyNet", "model").__name__ == "MyNet"
    assert load("one_file:VALUE", "x") == 1
    assert load("bare.pruning:squared", "score").__module__ == "bare.pruning"
    assert not list(code.rglob("*.pyc")), "nothing is written beside users' code"
    assert str(code) not in sys.path


def test_only_modules_under_plugins_are_imported(code: Path) -> None:
    admit(listed(code, "mynets"))
    for name in ("one_file:VALUE", "os:system", "mynetsx:a", "bare.pruning:squared", "subprocess:run"):
        with pytest.raises(UserError, match=r"plugins lists no .*: only modules under plugins are imported"):
            load(name, "model")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mynets.wide:Wide", "mynets.wide has no Wide (it has MyNet, NUMBER, WIDTH, broken, nn, not_a_net)"),
        ("mynets.nowhere:x", "importing mynets.nowhere failed: ModuleNotFoundError"),
        ("mynets.fails:x", "fails.py line 1)"),
        ("mynets.leaves:x", "importing mynets.leaves failed: SystemExit: 3"),
        ("mynets.wide:", "a name with a colon is module:attribute"),
        (":MyNet", "a name with a colon is module:attribute"),
        ("mynets.wide:a.b", "a name with a colon is module:attribute"),
        ("mynets.wide:MyNet:x", "a name with a colon is module:attribute"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(code: Path, name: str, said: str) -> None:
    admit(listed(code, "mynets"))
    with pytest.raises(UserError) as caught:
        load(name, "model")
    assert str(caught.value).startswith(f"model is {name!r}, but")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("./nowhere", "which is not there"),
        ("./empty", "holds no .py file"),
        ("./notes.txt", "must be a folder or a .py file"),
        ("./my-nets", "no name that Python can import"),
        ("./class", "no name that Python can import"),
        ("./json", "is a module of Python's or of this project"),
        ("./timm", "is a module of Python's or of this project"),
        ("mynets:MyNet", "no name of a module"),
        ("my nets", "no name of a module"),
        ("", "must list folders"),
        ("./a\0.py", "which is no"),
        (f"./{'x' * 300}.py", "which is no"),
        ("~nobody_of_this_name/x.py", "which is no path here"),
        (3, "must list folders"),
        (None, "must list folders"),
        ("os", "a module of Python's own"),
        ("no_such_module_anywhere", "no module of this name is installed"),
    ],
)
def test_entries_that_are_no_plug_in(code: Path, entry: Any, said: str) -> None:
    for name in ("my-nets", "class", "json", "timm"):
        (code / name).mkdir()
        (code / name / "a.py").touch()
    (code / "empty").mkdir()
    (code / "notes.txt").touch()
    with pytest.raises(UserError, match="plugins has") as caught:
        admit_listed({"plugins": [entry]}, code)
    assert said in str(caught.value)


@pytest.mark.parametrize("value", ["./mynets", 5, {"a": 1}, True])
def test_plugins_must_be_a_list(code: Path, value: Any) -> None:
    with pytest.raises(UserError, match=r"plugins is .*, but must be a list: write \["):
        admit_listed({"plugins": value}, code)
    with pytest.raises(UserError, match=r"plugins is './mynets', but must be a list: write \["):
        admit_listed({}, code, "./mynets")


def test_paths_are_taken_from_the_folder_of_the_file_that_lists_them(code: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(code.parent)
    found = admit_listed({"plugins": ["./mynets", "./mynets", "../code/bare"], "x": 1}, code)
    assert found == {"plugins": [str(code / "mynets"), str(code / "bare")], "x": 1}
    assert admit_listed({}, code, ["code/one_file.py"])["plugins"] == [str(code / "one_file.py")]
    assert admit_listed({"plugins": None}, code) == {}


def test_an_option_takes_the_place_of_an_entry_of_the_same_module(code: Path, tmp_path: Path) -> None:
    (code / "mynets").rename(tmp_path / "mynets")
    found = admit_listed({"plugins": ["./mynets", "./bare"]}, code, [str(tmp_path / "mynets")])
    assert found["plugins"] == [str(code / "bare"), str(tmp_path / "mynets")]


def test_code_that_would_hide_an_installed_module_is_refused(code: Path) -> None:
    (code / "numpy").mkdir()
    (code / "numpy" / "a.py").touch()
    with pytest.raises(UserError, match=r"another module numpy .*rename one"):
        admit(listed(code, "numpy"))


def test_a_folder_that_python_finds_too_is_no_other_module(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(code))
    admit(listed(code, "mynets"))
    assert load("mynets.wide:NUMBER", "x") == 3


def test_an_installed_module_is_listed_by_its_name(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(code))
    (plug_in,) = admit(["mynets.wide"])
    assert (plug_in.source, plug_in.installed) == (code / "mynets" / "wide.py", True)
    assert "mynets" not in sys.modules
    assert load("mynets.wide:NUMBER", "x") == 3
    with pytest.raises(UserError, match="plugins lists no mynets"):
        load("mynets.blocks:WIDTH", "x")


def test_edited_code_is_imported_anew(code: Path) -> None:
    for width in (8, 9, 8):  # of equal length, within a second: no cached file may be used
        (code / "mynets" / "blocks.py").write_text(f"WIDTH = {width}\n")
        admit(listed(code, "mynets"))
        assert load("mynets.blocks:WIDTH", "x") == width
        assert load("mynets.wide:WIDTH", "x") == width


def test_code_that_imports_from_edited_code_is_imported_anew_too(code: Path) -> None:
    (code / "uses.py").write_text("from one_file import VALUE\n")
    for value in (1, 2):
        (code / "one_file.py").write_text(f"VALUE = {value}\n")
        admit(listed(code, "uses.py", "one_file.py"))
        assert load("uses:VALUE", "x") == value


def test_what_was_imported_before_it_was_listed_is_imported_anew(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(code))
    import one_file  # type: ignore[import-not-found]

    (code / "one_file.py").write_text("VALUE = 22\n")
    admit(listed(code, "one_file.py"))
    assert (one_file.VALUE, load("one_file:VALUE", "x")) == (1, 22)


def test_code_that_a_run_uses_is_not_replaced_by_other_code(code: Path, tmp_path: Path) -> None:
    admit(listed(code, "one_file.py"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/one_file.py").write_text("VALUE = 3\n")
    with importing.holding(listed(code, "one_file.py")):
        admit(listed(code, "one_file.py"))
        with pytest.raises(UserError, match=r"another run of this process uses .*code/one_file.py"):
            admit([str(tmp_path / "other/one_file.py")])
    admit([str(tmp_path / "other/one_file.py")])
    assert load("one_file:VALUE", "x") == 3


def test_workers_use_a_copy_that_no_edit_reaches(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = listed(code, "mynets")
    admit(entries)
    shutil.copytree(code / "mynets", tmp_path / "copies" / "mynets")
    message = sent(entries, {entries[0]: str(tmp_path / "copies" / "mynets")})
    (code / "mynets/blocks.py").write_text("WIDTH = 9\n")
    monkeypatch.setattr(importing, "_admitted", {})
    importing._drop("mynets")
    admit_sent(message)
    assert load("mynets.wide:WIDTH", "x") == 8
    shutil.rmtree(tmp_path / "copies")  # as after the sweep; the next one sends another
    with pytest.raises(UserError, match="give every machine the same code"):
        admit_sent(message)
    admit(entries)
    assert load("mynets.wide:WIDTH", "x") == 9


def test_a_link_to_a_folder_is_the_module_of_its_own_name(code: Path) -> None:
    (code / "linked").symlink_to(code / "mynets")
    (found,) = admit([resolve("./linked", code)])
    assert found.module == "linked"
    assert load("linked.wide:NUMBER", "x") == 3
    (code / "linked/around").symlink_to(code)
    assert digest_of(code / "mynets")


def test_a_digest_is_of_names_and_contents(code: Path) -> None:
    first = digest_of(code / "mynets")
    (code / "mynets" / "__pycache__").mkdir()
    (code / "mynets" / "__pycache__" / "x.py").write_text("1")
    (code / "mynets" / "notes.txt").write_text("1")
    assert digest_of(code / "mynets") == first
    moved = code / "mynets" / "bricks.py"
    (code / "mynets" / "blocks.py").rename(moved)
    assert digest_of(code / "mynets") != first
    moved.rename(code / "mynets" / "blocks.py")
    assert digest_of(code / "mynets") == first
    assert find(str(code / "mynets")).digest == first


def test_stored_contents_admit_nothing(code: Path) -> None:
    with pytest.raises(NotAdmitted, match="give --plugins"):
        require_admitted(str(code / "mynets"))
    admit(listed(code, "mynets"))
    require_admitted("/elsewhere/mynets")


def test_another_machine_uses_the_same_path_or_what_python_finds(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit(listed(code, "mynets"))
    message = sent(listed(code, "mynets"))
    monkeypatch.setattr(importing, "_admitted", {})
    admit_sent(message)
    assert importing.admitted()[0].source == code / "mynets"

    monkeypatch.setattr(importing, "_admitted", {})
    (tmp_path / "shipped").mkdir()
    (code / "mynets").rename(tmp_path / "shipped" / "mynets")
    with pytest.raises(UserError, match="there is no module mynets here"):
        admit_sent(message)
    monkeypatch.syspath_prepend(str(tmp_path / "shipped"))
    admit_sent(message)
    assert importing.admitted()[0].source == tmp_path / "shipped" / "mynets"
    assert load("mynets.wide:NUMBER", "x") == 3

    monkeypatch.setattr(importing, "_admitted", {})
    (tmp_path / "shipped" / "mynets" / "blocks.py").write_text("WIDTH = 9\n")
    with pytest.raises(UserError, match=r"has the digest .* here .*shipped/mynets has .*: give every machine the same"):
        admit_sent(message)


def test_a_name_of_the_config_holds_whether_listed_by_path_or_module() -> None:
    assert [module_of(resolve(entry, Path("/"))) for entry in ("optuna.samplers", "torch")] == [
        "optuna.samplers",
        "torch",
    ]


CARRIED = """
import pickle, sys
sys.path.insert(0, {repository!r})
print(pickle.loads(sys.stdin.buffer.read()).content.WIDTH)
"""


def test_objects_reach_a_process_that_lacks_other_plug_ins(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trials.plugins.carrying import Carried

    admit(listed(code, "mynets", "one_file.py"))
    content = pickle.dumps(Carried(load("mynets.wide:MyNet", "x")))
    (code / "one_file.py").unlink()
    monkeypatch.setattr(importing, "_admitted", {})
    assert pickle.loads(content).content.__name__ == "MyNet"


def test_another_process_unpickles_objects_of_plug_ins(code: Path) -> None:
    from trials.plugins.carrying import Carried

    (code / "mynets" / "thing.py").write_text("class Thing:\n    WIDTH = 5\n")
    admit(listed(code, "mynets"))
    content = pickle.dumps(Carried(load("mynets.thing:Thing", "x")()))
    script = CARRIED.format(repository=str(Path(__file__).parents[3]))
    done = subprocess.run([sys.executable, "-c", script], input=content, capture_output=True, timeout=60, check=True)
    assert done.stdout.strip() == b"5"
