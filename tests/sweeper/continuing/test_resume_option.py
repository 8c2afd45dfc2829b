"""``--resume NAME`` continues a sweep from its own sweep.yaml; other code is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sweeper.cli import COMPLETE, main
from sweeper.folder.sweep_folder import SweepFolder
from tests.sweeper.command_line import wrong
from tests.sweeper.continuing.small_sweeps import (
    SPACES,
    begin,
    refused,
    unfinish,
)
from tests.trials.sealed_files import text_of
from trials.frozen import SCHEMA


def test_a_changed_commit_is_said_once(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = iter(["a" * 40, "b" * 40 + "-dirty", "b" * 40 + "-dirty", None])
    monkeypatch.setattr("sweeper.driver.git_commit", lambda: next(commits))
    begin("plain")
    assert "other code" not in capsys.readouterr().out
    said = []
    for _ in range(3):
        assert main(["--space", "small.yaml"]) == COMPLETE
        said.append([line for line in capsys.readouterr().out.splitlines() if "resumes with" in line])
    dirty = f"{'b' * 10}-dirty"
    assert said[0] == [f"resumes with other code: commit {'a' * 10} -> {dirty}"]
    assert said[1:] == [[], [f"resumes with other code: commit {dirty} -> unknown"]]


def test_resume_takes_the_space_of_the_last_change(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    begin("searched")
    assert main(["--space", "small.yaml", "--samples", "3"]) == COMPLETE
    Path("small.yaml").unlink()
    assert main(["--resume", "small"]) == COMPLETE
    assert len(ran) == 3
    assert main(["--resume", "small", "--samples", "4", "--serial", "--verify", "--retry-failed"]) == COMPLETE
    assert len(ran) == 4
    capsys.readouterr()
    assert main(["--resume", "small", "--dry-run"]) == COMPLETE
    assert "1 cells x 4 samples = 4 trials" in capsys.readouterr().out
    last = SweepFolder(Path("results/small")).documents()[-1]["space"]
    assert (last["name"], last["samples"], last["max_concurrent"]) == ("small", 4, 1)
    says = "samples is 2, but the sweep was begun with 4; restore what it had, or give another --name"
    wrong(capsys, ["--resume", "small", "--samples", "2"], says)


def test_resume_finds_a_sweep_under_its_own_name(here: Path, ran: list[str]) -> None:
    Path("small.yaml").write_text(yaml.safe_dump(SPACES["plain"]))
    assert main(["--space", "small.yaml", "--name", "mine", "--storage", "there"]) == COMPLETE
    unfinish(SweepFolder(Path("there/mine")))
    assert main(["--resume", "mine", "--storage", "there"]) == COMPLETE
    assert len(ran) == 2
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--space", "small.yaml"], ["--space is 'small.yaml', but --resume small continues"]),
        (["--set", "samples=3"], ["--set is 'samples=3', but --resume small continues"]),
        (["--profile", "demo"], ["--profile is 'demo', but --resume small continues"]),
        (["--name", "other"], ["--name is 'other', but --resume small continues"]),
        (["--samples", "0"], ["samples is 0"]),
        (["--storage", "nowhere"], ["nowhere has no such sweep"]),
    ],
)
def test_resume_refuses_what_would_change_the_space(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], words: list[str], parts: list[str]
) -> None:
    begin("plain")
    wrong(capsys, ["--resume", "small", *words], *parts)
    assert len(ran) == 1
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("words", [["--space", "small.yaml"], ["--resume", "small"]], ids=["space", "resume"])
def test_a_sweep_of_another_schema_is_not_continued(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    folder = begin("plain")
    path = Path(str(folder.path)) / "sweep.yaml"
    path.write_text(text_of(path).replace(f"schema: {SCHEMA}\n", f"schema: {SCHEMA + 8}\n"))
    for more in ([], ["--dry-run"]):
        refused(capsys, folder, [*words, *more], f"small was written with schema {SCHEMA + 8} ", f"has schema {SCHEMA}")


@pytest.mark.parametrize("name", ["", "../small", "stages", "small"])
def test_resume_refuses_what_is_no_sweep(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    wrong(capsys, ["--resume", name], "--resume is ")
    assert not Path("results").exists()


@pytest.mark.parametrize(
    "text",
    ["space: {trial: {}, forgotten: 1}", "space: 3", "{", "- 1", "space: {name: a, samples: 1, trial: {}, grid: 3}"],
)
def test_resume_reports_a_sweep_yaml_that_cannot_be_read(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    folder = begin("plain")
    (Path(str(folder.path)) / "sweep.yaml").write_text(text)
    wrong(capsys, ["--resume", "small"], "sweep.yaml")
