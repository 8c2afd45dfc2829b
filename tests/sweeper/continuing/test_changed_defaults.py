"""A default that has changed in the code is refused, and the way out continues the sweep."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import COMPLETE, main
from tests.sweeper.continuing.small_sweeps import (
    BASE,
    begin,
    changed,
    command,
    refused,
    unfinish,
)
from tests.trials.sealed_files import document, write_document
from trials.methods.magnitude.imp import ImpConfig
from trials.methods.magnitude.one_shot import OneShotConfig
from trials.methods.parsing import parse
from trials.running.trial import TrialHost, run

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


def test_a_shared_trial_of_another_content_is_not_taken(tmp_path: Path, few_digits: None) -> None:
    """Another sweep of the storage, by a version with another default, has left it under the same name."""
    config = parse({**BASE, "density": 0.5, "finetune": None})
    assert run(config, tmp_path / "a", TrialHost(tmp_path / "stages")).status == "complete"
    (shared,) = (tmp_path / "stages").iterdir()
    content = document(shared / "config.json")
    assert (content["id"], content["config"]["method"]) == (shared.name.rpartition("-")[0], "dense")
    content["config"]["train"]["momentum"] = 0.5
    write_document(shared / "config.json", content)
    state = run(config, tmp_path / "b", TrialHost(tmp_path / "stages"))
    assert state.status == "failed"
    assert state.error is not None
    assert f"shared trial {shared.name} was made with 0.5 as its train.momentum" in state.error["message"]
    (shared / "config.json").unlink()  # as of an earlier version
    assert run(config, tmp_path / "b", TrialHost(tmp_path / "stages")).status == "complete"
    assert not (shared / "config.json").exists()
