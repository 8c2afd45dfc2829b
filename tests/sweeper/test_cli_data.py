"""A sweep, and every trial in it, keeps to the data that it began on, whatever folder they lie in."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml

import sweeper
from sweeper.cli import COMPLETE, STOPPED, main
from sweeper.folder.sweep_folder import SweepFolder
from tests.sweeper.command_line import figures, wrong
from tests.trials.parquet_files import pictures, write_both
from tests.trials.sealed_files import document, write_document
from trials import data
from trials.__main__ import main as trials_main
from trials.methods.parsing import parse
from trials.running import progress
from trials.running.trial import TrialHost, run
from trials.storage.data_used import OPTIONS, DataUsed, data_used, refuse_other_data
from trials.training.build import build_net
from trials.training.device import resolve_device
from trials.training.network_copy import NetworkCopy, forget

TRIAL = {
    "method": "one_shot",
    "dataset": "parquet",
    "model": "tiny",
    "density": 0.5,
    "pretrain": {"epochs": 1, "batch_size": 16},
    "finetune": {"epochs": 1, "batch_size": 16},
}
SPACE = {"trial": {**TRIAL, "density": 1.0}, "grid": {"density": [0.5]}}
WAYS = {
    "again": [],
    "extended": ["--set", "grid.density=[0.5, 0.2]"],
    "dry run": ["--dry-run"],
    "verified": ["--verify"],
    "failed again": ["--retry-failed"],
}


def images(folder: Path, seed: int) -> Path:
    return write_both(folder, pictures(30, (8, 8), seed), pictures(9, (8, 8), seed + 100))


@pytest.fixture
def folders(here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders A and B of other images, and ``moved`` with A's; the space is on A."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    for name, seed in (("A", 0), ("B", 1), ("moved", 0)):
        images(here / name, seed)
    (here / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return here


def command(folder: str, *more: str, name: str = "s") -> list[str]:
    return ["--space", "space.yaml", "--name", name, "--set", f"trial.data_dir={folder}", *more]


def fingerprint(folder: Path) -> str:
    return data.load_data("parquet", str(folder)).fingerprint


def parts(here: Path) -> tuple[str, ...]:
    return fingerprint(here / "A"), fingerprint(here / "B"), "'A'", "'B'", "data_dir", "--name"


@pytest.mark.parametrize("way", WAYS)
def test_a_finished_sweep_refuses_other_data(way: str, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("A")) == COMPLETE
    before = figures(folders / "results/s")
    wrong(capsys, command("B", *WAYS[way]), "but s used", *parts(folders))
    assert figures(folders / "results/s").equals(before)
    assert main(command("moved", *WAYS[way])) == COMPLETE  # the same content elsewhere


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_sweep_refuses_other_data(way: str, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longer = ["--set", "trial.finetune.epochs=2"]
    assert main(command("A", *longer, "--set", "max_epochs=1")) == STOPPED  # no trial began: only sweep.yaml says it
    wrong(capsys, command("B", *longer, *WAYS[way]), *parts(folders))
    assert main(command("moved", *longer, *WAYS[way])) == COMPLETE


@pytest.mark.parametrize("way", WAYS)
def test_a_sweep_of_an_older_version_is_judged_by_its_trials(
    way: str, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("A")) == COMPLETE
    path = folders / "results/s/sweep.yaml"
    documents = [{**document, "data": None} for document in yaml.safe_load_all(path.read_text())]
    path.write_text(yaml.safe_dump_all([{k: v for k, v in d.items() if v is not None} for d in documents]))
    assert SweepFolder(path.parent).data() == []
    wrong(capsys, command("B", *WAYS[way]), *parts(folders))


def test_an_unfinished_trial_says_what_it_computed_with(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    config = parse({**TRIAL, "data_dir": "A"})
    for _ in range(20):  # a step each, the shared trial's first
        state = run(config, folders / "one", TrialHost(folders / "stages", should_stop=lambda: True))
        if state.progress:
            break
    assert state.status == "preempted"
    used = data_used(config.model_dump(mode="json"), state)
    assert used == DataUsed.of({"dataset": "parquet", "data_dir": "A"}, fingerprint(folders / "A"))


def test_two_folders_of_one_data_set_in_one_space_must_agree(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {"other": {"when": {"density": 0.2}, "trial": {"data_dir": "B"}}}
    (folders / "space.yaml").write_text(yaml.safe_dump({**SPACE, "grid": {"density": [0.5, 0.2]}, "cases": cases}))
    wrong(capsys, command("A", "--dry-run"), fingerprint(folders / "A"), fingerprint(folders / "B"), "two sweeps")
    cases["other"]["trial"]["data_dir"] = "moved"
    (folders / "space.yaml").write_text(yaml.safe_dump({**SPACE, "grid": {"density": [0.5, 0.2]}, "cases": cases}))
    assert main(command("A")) == COMPLETE


def test_what_is_taken_from_an_earlier_sweep_used_the_same_data(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searched = {**SPACE, "search": {"finetune.lr": {"loguniform": [0.01, 0.1]}}, "samples": 2}
    (folders / "space.yaml").write_text(yaml.safe_dump(searched))
    assert main(command("A", name="earlier")) == COMPLETE
    (folders / "space.yaml").write_text(yaml.safe_dump({**searched, "from_sweep": "earlier"}))
    for dry in ([], ["--dry-run"]):
        wrong(capsys, command("B", *dry), "from_sweep 'earlier'", *parts(folders)[:4], "leave from_sweep out")
    assert main(command("moved")) == COMPLETE
    assert len(json.loads((folders / "results/s/warm.json").read_text())["cells"]["density=0.5"]["observations"]) == 2


def test_single_trials_keep_to_their_data(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "trial.yaml").write_text(yaml.safe_dump(TRIAL))

    def single(folder: str, *more: str) -> int:
        return trials_main(["trial.yaml", "--set", f"data_dir={folder}", *more])

    assert single("A") == 0
    for more in ([], ["--set", "density=0.2"]):  # the same trial, and another beside it
        capsys.readouterr()
        assert single("B", *more) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        for part in parts(folders):
            assert part in said
    assert single("moved") == 0
    assert single("B", "--name", "other") == 0
    states = [sweeper.load(folders / "results" / name).trials["data"].iloc[0] for name in ("single", "other")]
    assert states == [fingerprint(folders / "A"), fingerprint(folders / "B")]


def test_a_machine_with_other_data_than_the_driver_fails_the_trial(folders: Path) -> None:
    config = parse({**TRIAL, "data_dir": "B"})
    state = run(config, folders / "one", TrialHost(folders / "stages", data=fingerprint(folders / "A")))
    assert state.status == "failed"
    assert state.error is not None
    for part in (fingerprint(folders / "A"), fingerprint(folders / "B"), "give every machine the same data"):
        assert part in state.error["message"]


def test_pieces_of_a_trial_use_its_data(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse({**TRIAL, "data_dir": str(folders / "A")})
    raw = data.load_data(*config.data_key)
    copy = NetworkCopy.of(config, build_net(config, raw, resolve_device("cpu")))
    copy.restore()
    forget()
    shutil.rmtree(folders / "A")
    images(folders / "A", 1)
    monkeypatch.setattr(data, "_loaded", {})  # another machine
    with pytest.raises(data.DataError, match="give every machine the same data"):
        copy.restore()


def test_a_shared_trial_on_other_data_is_not_taken(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder's name holds six digits of the fingerprint, which others may share."""
    monkeypatch.setattr("trials.running.trial.source_name", lambda source, raw: source.id)
    assert run(parse({**TRIAL, "data_dir": "A"}), folders / "a", TrialHost(folders / "stages")).status == "complete"
    state = run(parse({**TRIAL, "data_dir": "B"}), folders / "b", TrialHost(folders / "stages"))
    assert state.status == "failed"
    assert state.error is not None
    assert fingerprint(folders / "A") in state.error["message"]


def test_every_option_of_data_is_part_of_their_name() -> None:
    assert tuple(field.name for field in dataclasses.fields(data.DataOptions)) == OPTIONS


@pytest.mark.parametrize("field", ["dataset", "image_column", "label_column", "image_size"])
def test_data_of_another_name_may_differ(field: str) -> None:
    one = DataUsed.of({"dataset": "parquet", "data_dir": "A"}, "1" * 16)
    other = DataUsed.of({"dataset": "parquet", field: 48 if field == "image_size" else "x", "data_dir": "B"}, "2" * 16)
    refuse_other_data("s", [one], [other], "")
    assert DataUsed.read(other.document()) == other


def test_a_sweep_of_two_data_sets_by_an_older_version_is_shown_as_such(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("A", "--set", "grid.density=[0.5, 0.2]")) == COMPLETE
    capsys.readouterr()
    assert main(["--show", "s"]) == COMPLETE
    assert "mixed data" not in capsys.readouterr().out
    path = next((folders / "results/s/trials").glob("*/state.json"))
    state = json.dumps(document(path)).replace(fingerprint(folders / "A"), fingerprint(folders / "B"))
    write_document(path, json.loads(state))
    assert main(["--show", "s"]) == COMPLETE
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mixed data")]
    assert fingerprint(folders / "A") in line
    assert fingerprint(folders / "B") in line
    wrong(capsys, command("A", "--set", "grid.density=[0.5, 0.2]"), *parts(folders)[:2])
