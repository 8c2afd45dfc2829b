"""What may continue a sweep: every committed trial is what the space says now, in name, content and revision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import COMPLETE, main
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.derived_configs import Compared, compare_committed
from sweeper.search.plan import Plan
from sweeper.space.compatibility import contradictions
from sweeper.space.space import Space
from tests.sweeper.command_line import put_in_place_of_ray, wrong
from tests.sweeper.sweeps import ONE_SHOT, begun, finish, make_space, run_out
from trials.config import revisions
from trials.config.revisions import Revised
from trials.methods.bip.bip import BipConfig
from trials.methods.bip.hydra import HydraConfig
from trials.methods.magnitude.imp import ImpConfig
from trials.methods.magnitude.one_shot import OneShotConfig
from trials.methods.parsing import parse
from trials.running.trial import TrialHost, run

BASE: dict[str, Any] = {"method": "one_shot", "dataset": "few_digits", "model": "tiny", "pretrain": {"epochs": 1}}
SPACES: dict[str, dict[str, Any]] = {
    "plain": {"trial": {**BASE, "finetune": {"epochs": 1}}, "grid": {"density": [0.5]}},
    "searched": {
        "trial": {**BASE, "finetune": {"epochs": 1, "momentum": 0.8}},
        "grid": {"density": [0.5]},
        "search": {
            "pretrain.schedule": {"choice": ["constant", "cosine"]},
            "finetune.momentum": {"uniform": [0.1, 0.9], "when": {"pretrain.schedule": "cosine"}},
        },
        "enqueue": [{"pretrain.schedule": "constant"}, {"pretrain.schedule": "cosine"}],
        "sampler": "random",
        "samples": 2,
    },
    "conditional": {
        "trial": {**BASE, "finetune": {"epochs": 1}},
        "grid": {
            "density": [0.2, 0.5],
            "finetune.epochs": {"values": [1, 2], "when": {"density": 0.5}},
        },
    },
    "cases": {
        "trial": {**BASE, "finetune": {"epochs": 1}},
        "grid": {"density": [0.5, 0.2]},
        "cases": {"sparse": {"when": {"density": 0.2}, "trial": {"finetune": {"lr": 0.05}}}},
    },
    "population": {
        "trial": {**BASE, "finetune": {"epochs": 3}},
        "grid": {"density": [0.5]},
        "search": {"finetune.lr": {"loguniform": [0.01, 0.1]}},
        "pbt": {"population": 2, "interval": 1, "generations": 2},
    },
}
LARGER = {
    "plain": ["--set", "grid.density=[0.5, 0.2]"],
    "searched": ["--samples", "3"],
    "conditional": ["--set", "grid.density=[0.2, 0.5, 0.4]"],
    "cases": ["--set", "grid.density=[0.5, 0.2, 0.4]"],
    "population": ["--set", "pbt.generations=3"],
}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ends trials at once, as if they had run; the list holds the ids of those that did."""
    names: list[str] = []

    def run_plan(plan: Plan, *_: Any, **__: Any) -> None:
        while (assignment := plan.next()) is not None:
            finish(plan, assignment.trial_id, lambda _: 0.5)
            plan.ended(assignment.trial_id)
            names.append(assignment.trial_id)

    put_in_place_of_ray(monkeypatch, run_plan)
    monkeypatch.setattr("sweeper.driver.git_commit", lambda: "c" * 40)
    return names


def every_way(folder: SweepFolder, kind: str) -> Iterator[list[str]]:
    """Command lines that resume and extend a sweep, first while it is finished, then while its trials are not."""
    for finished in (True, False):
        if not finished:
            unfinish(folder)
        yield from (command(kind, extends) for extends in (False, True))


def begin(kind: str, space: dict[str, Any] | None = None) -> SweepFolder:
    Path("small.yaml").write_text(yaml.safe_dump(space or SPACES[kind], sort_keys=False))
    assert main(["--space", "small.yaml"]) == COMPLETE
    return SweepFolder(Path("results/small"))


def unfinish(folder: SweepFolder) -> None:
    for record in folder.records():
        (record.folder.path / "state.json").unlink()


def command(kind: str, extends: bool, *more: str) -> list[str]:
    return ["--space", "small.yaml", *(LARGER[kind] if extends else []), *more]


def rewrite(folder: SweepFolder, trial: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder.trial_folder(trial) / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def everything(folder: SweepFolder) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in Path(str(folder.path)).rglob("*")
        if path.is_file() and "lock" not in path.parts
    }


def refused(capsys: pytest.CaptureFixture[str], folder: SweepFolder, words: list[str], *parts: str) -> None:
    """The run and the dry run are refused alike, and nothing is written."""
    before = everything(folder)
    wrong(capsys, words, *parts, "--name")
    assert everything(folder) == before


@pytest.mark.parametrize("extends", [False, True], ids=["resume", "extend"])
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
@pytest.mark.parametrize("kind", SPACES)
def test_the_space_that_began_it_resumes_and_extends_it(
    here: Path, ran: list[str], kind: str, extends: bool, finished: bool
) -> None:
    folder = begin(kind)
    first = list(ran)
    if not finished:
        unfinish(folder)
    assert main(command(kind, extends)) == COMPLETE
    again, new = [name for name in ran[len(first) :] if name in first], set(ran) - set(first)
    assert len(again) == (0 if finished else len(first))
    assert bool(new) == extends
    for record in folder.records():
        assert record.finished


CHANGES: dict[str, tuple[str, str, Any]] = {
    "template": ("plain", "trial/finetune/epochs", 2),
    "template where no condition holds": ("searched", "trial/finetune/momentum", 0.7),
    "template beside the search": ("searched", "trial/finetune/epochs", 2),
    "template where the grid has no value": ("conditional", "trial/finetune/epochs", 3),
    "template before a population": ("population", "trial/pretrain/epochs", 2),
    "a population's stage": ("population", "trial/finetune/epochs", 4),
    "case": ("cases", "cases/sparse/trial/finetune/lr", 0.06),
    "case of other cells": ("cases", "cases/sparse/when/density", 0.5),
    "a further case": ("cases", "cases/more", {"when": {"density": 0.5}, "trial": {"finetune": {"epochs": 2}}}),
    "stage left out": ("plain", "trial/finetune", None),
}


def changed(kind: str, path: str, value: Any) -> dict[str, Any]:
    space = json.loads(json.dumps(SPACES[kind]))
    *parents, last = path.split("/")
    inner = space
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return dict(space)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_space_is_refused_with_the_way_to_continue(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], change: str
) -> None:
    kind, path, value = CHANGES[change]
    folder = begin(kind)
    Path("small.yaml").write_text(yaml.safe_dump(changed(kind, path, value)))
    for words in every_way(folder, kind):
        refused(capsys, folder, words, "trial.", "--resume small")
        refused(capsys, folder, [*words, "--dry-run"], "trial.", "--resume small")
    first = len(ran)
    assert main(["--resume", "small"]) == COMPLETE  # as it was begun
    assert len(ran) == 2 * first


@pytest.mark.parametrize("densities", [[0.2, 0.5], [0.5, 0.2]])
def test_the_order_of_a_grid_decides_nothing(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], densities: list[float]
) -> None:
    space = changed("conditional", "grid/density", densities)
    folder = begin("conditional", space)
    Path("small.yaml").write_text(yaml.safe_dump({**space, "trial": {**BASE, "finetune": {"epochs": 3}}}))
    refused(capsys, folder, ["--space", "small.yaml"], "trial.finetune.epochs is 3, but the sweep was begun with 1")


FINETUNE = type(OneShotConfig.model_fields["finetune"].default)


@pytest.fixture
def default_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str, Any], None]]:
    """Changes a default in the code, as another version would have it."""
    touched: list[tuple[Any, str, Any]] = []

    def rebuild() -> None:
        for model in (FINETUNE, OneShotConfig, ImpConfig):
            model.model_rebuild(force=True)

    def change(model: Any, name: str, value: Any) -> None:
        touched.append((model.model_fields[name], "default", model.model_fields[name].default))
        model.model_fields[name].default = value
        rebuild()

    yield change
    for field, _, value in touched:
        field.default = value
    rebuild()


DEFAULTS: dict[str, tuple[Any, str, Any, str, Any]] = {
    "of the config": (OneShotConfig, "augment", False, "augment", True),
    "of a recipe": (FINETUNE, "momentum", 0.5, "finetune.momentum", 0.9),
}


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
@pytest.mark.parametrize("kind", ["plain", "conditional", "cases", "population"])
@pytest.mark.parametrize("default", DEFAULTS)
def test_a_changed_default_is_refused_and_writing_the_old_one_continues(
    here: Path,
    ran: list[str],
    capsys: pytest.CaptureFixture[str],
    default_of: Callable[[Any, str, Any], None],
    kind: str,
    default: str,
    finished: bool,
) -> None:
    model, name, value, path, before = DEFAULTS[default]
    folder = begin(kind)
    if not finished:
        unfinish(folder)
    default_of(model, name, value)
    said = f"trial.{path} is {value!r}, but "
    way_out = f"trial.{path}={yaml.safe_dump(before).split()[0]}"
    changes = f"the default has changed from {before!r} to {value!r}: set {way_out}, or give another --name"
    for extends in (False, True):
        refused(capsys, folder, command(kind, extends), said, changes)
    first = list(ran)
    assert main(command(kind, False, "--set", way_out)) == COMPLETE
    assert len(ran) == len(first) * (1 if finished else 2)
    assert main(command(kind, True, "--set", way_out)) == COMPLETE
    assert set(ran) > set(first)
    for record in folder.records():
        assert record.content["finetune"]["momentum"] == 0.9
        assert record.content["augment"] is True


def other_params(content: dict[str, Any]) -> None:
    content["samples"][0]["params"] = {"pretrain.schedule": "cosine", "finetune.momentum": 0.123}


def other_grid(content: dict[str, Any]) -> None:
    content["samples"][0]["grid"] = {"density": 0.3}


def test_a_shared_trial_of_another_content_is_not_taken(tmp_path: Path, few_digits: None) -> None:
    """Another sweep of the storage, by a version with another default, has left it under the same name."""
    config = parse({**BASE, "density": 0.5, "finetune": None})
    assert run(config, tmp_path / "a", TrialHost(tmp_path / "stages")).status == "complete"
    (shared,) = (tmp_path / "stages").iterdir()
    content = json.loads((shared / "config.json").read_text())
    assert (content["id"], content["config"]["method"]) == (shared.name.rpartition("-")[0], "dense")
    content["config"]["train"]["momentum"] = 0.5
    (shared / "config.json").write_text(json.dumps(content))
    state = run(config, tmp_path / "b", TrialHost(tmp_path / "stages"))
    assert state.status == "failed"
    assert state.error is not None
    assert f"shared trial {shared.name} was made with 0.5 as its train.momentum" in state.error["message"]
    (shared / "config.json").unlink()  # as of an earlier version
    assert run(config, tmp_path / "b", TrialHost(tmp_path / "stages")).status == "complete"
    assert not (shared / "config.json").exists()


EDITS: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "a field": ("plain", lambda c: c["config"].update(density=0.4), "trial.density is 0.5, but "),
    "a default": ("plain", lambda c: c["config"].update(seed=3), "trial.seed is 0, but "),
    "in a recipe": ("plain", lambda c: c["config"]["finetune"].update(lr=0.7), "trial.finetune.lr is 0.01, but "),
    "a stage": ("plain", lambda c: c["config"].update(finetune=None), "trial.finetune is {"),
    "a field taken away": ("plain", lambda c: c["config"].pop("density"), "trial.density is 0.5, but "),
    "the method": ("plain", lambda c: c["config"].update(method="dense"), "trial.method is 'one_shot', but "),
    "the name": ("plain", lambda c: c.update(id="one_shot-000000000000"), "one_shot-000000000000 has the config of "),
    "a sample's point": ("searched", other_params, "trial."),
    "a sample's cell": ("plain", other_grid, "has the grid values {'density': 0.3}"),
    "a lineage": ("population", lambda c: c["config"]["lineage"][0].update(until_epoch=2), "trial.lineage.0.until"),
    "an end": ("population", lambda c: c["config"].update(until_epoch=3), "trial.until_epoch is 2, but "),
}


def test_a_changed_default_is_known_from_the_trials_of_other_methods(
    here: Path, ran: list[str], default_of: Callable[[Any, str, Any], None]
) -> None:
    """The second method has no trial yet, and a changed default of it as well."""
    space = changed("plain", "grid", {"method": ["one_shot", "imp"]})
    space["trial"] = dict(BASE)
    space["cases"] = {
        "imp": {"when": {"method": "imp"}, "trial": {"levels": 1}},
        "one": {"when": {"method": "one_shot"}, "trial": {"density": 0.5}},
    }
    folder = begin("plain", space)
    for record in folder.records():
        if record.content["method"] == "imp":
            shutil.rmtree(record.folder.path)
    for model in (OneShotConfig, ImpConfig):
        default_of(model, "augment", False)
    assert main(["--space", "small.yaml", "--set", "trial.augment=true"]) == COMPLETE
    assert len(ran) == 3


@pytest.mark.parametrize("edit", EDITS)
def test_a_config_changed_by_hand_is_refused(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], edit: str
) -> None:
    kind, change, says = EDITS[edit]
    folder = begin(kind)
    rewrite(folder, ran[-1], change)
    for words in every_way(folder, kind):
        refused(capsys, folder, words, says)


@pytest.mark.parametrize("kind", SPACES)
def test_fields_that_older_versions_lacked_and_places_count_nothing(here: Path, ran: list[str], kind: str) -> None:
    folder = begin(kind)

    def age(content: dict[str, Any]) -> None:
        config = content["config"]
        for name in ("file_hashes", "image_column", "stratify_split", "capture"):
            del config[name]
        del config["pretrain"]["warmup_lr"]
        config |= {"device": "cuda", "data_dir": "/elsewhere"}

    for trial in list(ran):
        rewrite(folder, trial, age)
    first = list(ran)
    assert main(command(kind, False)) == COMPLETE
    assert ran == first
    assert main(command(kind, True)) == COMPLETE
    assert len(ran) > len(first)


def test_a_trial_of_a_cell_that_is_not_in_the_grid_is_refused_where_sweep_yaml_is_lost(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begin("plain")
    (folder.path / "sweep.yaml").unlink()
    words = ["--space", "small.yaml", "--set", "grid.density=[0.2]"]
    refused(capsys, folder, words, "grid has no cell density=0.5, but one_shot-")
    refused(capsys, folder, ["--space", "small.yaml", "--set", "trial.seed=1"], "trial.seed is 1, but one_shot-")
    assert main(["--space", "small.yaml"]) == COMPLETE
    assert len(ran) == 1


def test_a_segment_whose_parent_is_lost_does_not_stop_the_others(here: Path, ran: list[str]) -> None:
    folder = begin("population")
    (folder.trial_folder(ran[0]) / "config.json").unlink()
    assert main(["--space", "small.yaml"]) == COMPLETE
    assert ran[-1] in ran[:2]  # the gap is filled with the same trial


# --- revisions


def raised(monkeypatch: pytest.MonkeyPatch, applies: Callable[[Any], bool] = lambda _: True, number: int = 2) -> None:
    change = Revised("data", number, applies, "its images were read upside down")
    monkeypatch.setattr(revisions, "REVISED", (*revisions.REVISED, change))


@pytest.mark.parametrize("kind", SPACES)
def test_a_sweep_of_an_older_revision_is_shown_but_not_extended(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = begin(kind)
    first = list(ran)
    raised(monkeypatch)
    why = (
        "was made with revision 1 of its data, but this version computes revision 2 (its images were read upside down)"
    )
    refused(capsys, folder, command(kind, True), why, "--show small")
    assert main(["--space", "small.yaml"]) == COMPLETE
    said = " ".join(capsys.readouterr().out.split())
    assert f"{why}: small is shown, but cannot be extended" in said
    assert main(["--show", "small"]) == COMPLETE
    assert ran == first
    assert main(["--space", "small.yaml", "--name", "anew"]) == COMPLETE
    assert len(ran) == 2 * len(first)
    assert not set(ran[len(first) :]) & set(first)  # other results have other names
    for record in SweepFolder(Path("results/anew")).records():
        assert record.stored.revisions == {"data": 2}
    assert main(command(kind, True, "--name", "anew")) == COMPLETE  # of this revision, it may be extended


@pytest.mark.parametrize("method", ["bip", "hydra"])
def test_random_scores_in_channels_last_of_an_earlier_version_are_not_extended(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    space = changed("plain", "trial/method", method)
    space["trial"] |= {"score_init": "random", "memory_format": "channels_last"}
    config = {"bip": BipConfig, "hydra": HydraConfig}[method]
    with monkeypatch.context() as patch:
        patch.setattr(config, "revision", 1)
        folder = begin("plain", space)
    (record,) = folder.records()
    assert record.config.id != record.id
    why = "was made with revision 1 of its method, but this version computes revision 2 (random scores in channels_last"
    refused(capsys, folder, command("plain", True), why)
    assert main(["--space", "small.yaml"]) == COMPLETE
    assert len(ran) == 1


def test_a_trial_of_no_sample_is_none_that_would_run(
    here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``python -m trials --name`` leaves one."""
    folder = begin("plain")
    (record,) = folder.records()
    folder.schedule("one_shot-0123456789ab", {**record.content, "seed": 7}, ())
    raised(monkeypatch)
    assert main(["--space", "small.yaml"]) == COMPLETE


def test_an_unfinished_or_failed_trial_of_an_older_revision_does_not_go_on(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin("cases")
    raised(monkeypatch)
    (record, _) = folder.records()
    state = record.folder.path / "state.json"
    content = json.loads(state.read_text())
    state.write_text(json.dumps({**content, "status": "preempted"}))
    refused(capsys, folder, ["--space", "small.yaml"], "was made with revision 1 of its data")
    error = {"type": "ValueError", "message": "no", "traceback": ""}
    state.write_text(json.dumps({**content, "status": "failed", "failures": 9, "error": error, "result": {}}))
    refused(capsys, folder, ["--space", "small.yaml", "--retry-failed"], "was made with revision 1 of its data")
    assert main(["--space", "small.yaml"]) == 1  # it is shown with its failure
    assert len(ran) == 2


def test_a_damaged_result_of_an_older_revision_is_not_computed_again(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin("plain")
    unfinish(folder)
    (record,) = folder.records()
    attempt, _ = record.folder.begin()
    row = {"stage": "finetune", "level": 0, "epoch": 1, "stage_id": None, "val_accuracy": 0.5}
    attempt.commit(checkpoint={}, rows={"epochs": [row]}, progress={}, seconds=0.0, status="complete", result=row)
    raised(monkeypatch)
    assert main(["--space", "small.yaml"]) == COMPLETE
    for path in [*Path(str(record.folder.path)).rglob("*.parquet"), *Path(str(record.folder.path)).rglob("*.pt")]:
        path.write_bytes(b"damaged")
    capsys.readouterr()
    assert main(["--space", "small.yaml"]) == 2
    assert "was made with revision 1 of its data" in capsys.readouterr().err
    assert len(ran) == 1


def test_only_the_configs_that_a_change_applies_to_have_its_revision(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin("plain")
    raised(monkeypatch, lambda config: config.density < 0.4 if hasattr(config, "density") else False)
    assert main(command("plain", True)) == COMPLETE  # the new cell alone is concerned
    assert sorted(map(str, (record.stored.revisions for record in folder.records()))) == ["{'data': 2}", "{}"]
    raised(monkeypatch, lambda config: getattr(config, "density", 1) < 0.4, number=3)
    refused(
        capsys, folder, ["--space", "small.yaml", "--set", "grid.density=[0.5, 0.2, 0.6]"],
        "was made with revision 2 of its data, but this version computes revision 3",
    )  # fmt: skip


def test_an_older_version_does_not_extend_a_sweep_of_a_newer_revision(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        raised(patch)
        folder = begin("plain")
    says = "was made with revision 2 of its data, but this version computes revision 1"
    refused(capsys, folder, command("plain", True), says)
    assert main(["--space", "small.yaml"]) == COMPLETE


# --- files that configs name


A, B = "a" * 16, "b" * 16
"""Hashes of two contents."""


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the files that configs name hash to; they are not hashed while it is empty."""
    now: dict[str, str] = {}
    plain = Space.config

    def config(self: Space, *arguments: Any) -> Any:
        return plain(self, *arguments).model_copy(update={"file_hashes": dict(now)})

    monkeypatch.setattr(Space, "config", config)
    return now


def from_file(path: Path) -> Space:
    path.write_bytes(b"weights")
    return make_space(trial={**ONE_SHOT, "source_net": str(path)}, grid={"density": [0.5]})


def begun_from(space: Space, path: Path) -> SweepFolder:
    run_out(begun(space, path))
    return SweepFolder(path)


def test_a_file_that_has_changed_is_named_with_both_hashes(tmp_path: Path, hashes: dict[str, str]) -> None:
    hashes["source_net"] = A
    space = from_file(tmp_path / "a.pt")
    folder = begun_from(space, tmp_path / "sweep")
    assert compare_committed(from_file(tmp_path / "a.pt"), folder.records()) == Compared()
    hashes["source_net"] = B
    said = compare_committed(from_file(tmp_path / "a.pt"), folder.records()).difference
    assert said is not None
    for part in ("trial.source_net is ", "a.pt", A, B, "has changed since the sweep began"):
        assert part in said


def test_an_equal_file_elsewhere_is_the_same_trial(tmp_path: Path, hashes: dict[str, str]) -> None:
    hashes["source_net"] = A
    folder = begun_from(from_file(tmp_path / "a.pt"), tmp_path / "sweep")
    space, moved = from_file(tmp_path / "a.pt"), from_file(tmp_path / "moved.pt")
    assert compare_committed(moved, folder.records()) == Compared()
    assert contradictions(space, moved, [record.content for record in folder.records()]) == []
    hashes["source_net"] = B
    assert compare_committed(moved, folder.records()).difference is not None


def test_files_of_a_sweep_that_hashed_none_are_said_to_be_unknown(
    tmp_path: Path, hashes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = from_file(tmp_path / "a.pt")
    folder = begun_from(space, tmp_path / "sweep")
    (record,) = folder.records()
    rewrite(folder, record.id, lambda content: content["config"].update(source_net="a.pt"))
    config = parse({**record.content, "source_net": "a.pt", "file_hashes": {}})
    rewrite(folder, record.id, lambda content: content.update(id=config.id))
    hashes["source_net"] = A
    other = from_file(tmp_path / "b.pt")
    difference = compare_committed(other, folder.records()).difference
    assert difference is not None
    assert "b.pt" in difference
    for same in ("a.pt", "./a.pt", f"../{tmp_path.name}/a.pt"):
        assert compare_committed(from_file(Path(same)), folder.records()) == Compared(unhashed=("a.pt",))


# --- what is said of other code


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


# --- --resume NAME


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
    wrong(capsys, ["--resume", "small", "--samples", "2"], "samples is 2, but the sweep was begun with 4")


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
