"""The files that docs/extending.md shows do what the page says: they keep their contracts and run in a space."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from sweeper.cli import COMPLETE, main
from sweeper.space.load import from_document
from sweeper.space.options.callbacks import CALLBACKS, read_callbacks
from tests.sweeper.sweeps import asked, run_space
from trials import extend
from trials.methods.parsing import parse
from trials.plugins import importing
from trials.running.trial import TrialHost, run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^In `([\w/.]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files in a working folder."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importing, "_admitted", {})
    yield tmp_path
    importing._drop("mylab")


def test_the_page_has_both_methods_whole() -> None:
    shown = [f"mylab/{name}.py" for name in ("nets", "data", "snip", "rigl", "parts", "search", "track")]
    assert sorted(FILES) == sorted(["space.yaml", "check_mylab.py", *shown])
    assert FILES["mylab/snip.py"] == (ROOT / "tests" / "plugin" / "sample_plugin" / "snip.py").read_text()


def test_what_it_imports_of_this_project_is_pinned() -> None:
    for name, content in FILES.items():
        for module, names in re.findall(
            r"^from ((?:trials|sweeper)[\w.]*) import (\([^)]*\)|.*)$", content, re.MULTILINE
        ):
            assert module in ("trials.extend", "trials.testing"), name
            if module == "trials.extend":
                assert {each.strip() for each in names.strip("()").split(",") if each.strip()} <= set(extend.__all__)


def test_its_checks_pass(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(here)
    runpy.run_path("check_mylab.py")


def test_its_space_can_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "space.yaml", "--dry-run"]) == COMPLETE
    assert "4 trials" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["mylab.snip:Snip", "mylab.rigl:RigL"])
def test_a_trial_of_its_space_reaches_its_density(method: str, here: Path) -> None:
    fields = {**yaml.safe_load(FILES["space.yaml"])["trial"], "method": method, "density": 0.2, "plugins": ["./mylab"]}
    extra = {"update_every": 4} if method.endswith("RigL") else {}
    config = parse(importing.admit_listed({**fields, **extra}, here))
    state = run(config, here / "trials" / config.id, TrialHost(here / "stages"))
    assert state.status == "complete", state.error
    assert state.result["density"] == pytest.approx(0.2, abs=1e-4)
    assert state.result["val_accuracy"] > 0.8
    assert config.id.startswith(f"{method.partition(':')[2]}-")


def test_its_parts_can_be_named(here: Path) -> None:
    trial = {
        "method": "one_shot",
        "model": "mylab.nets:SmallNet",
        "dataset": "mylab.data:blobs",
        "score": "mylab.parts:relative",
        "distribution": "mylab.parts:by_size",
        "pattern": "mylab.parts:INPUTS",
    }
    importing.admit_listed({"plugins": ["./mylab"]}, here)
    sampler = yaml.safe_load(re.findall(r"```yaml\n(sampler: .*?)```", PAGE, flags=re.DOTALL)[0])["sampler"]
    content = {
        "name": "parts",
        "seed": 1,
        "plugins": [str(here / "mylab")],
        "trial": trial,
        "grid": {"density": [0.5]},
        "search": {"finetune.lr": {"loguniform": [0.001, 0.1]}},
        "sampler": sampler,
        "samples": 2,
    }
    space = from_document(content)
    assert space.document()["sampler"] == sampler
    drawn = asked(run_space(space, here / "sweep", value=lambda config: float(config["finetune"]["lr"])))
    assert len({values["finetune.lr"] for values in drawn.values()}) == 2


def test_its_callback_notes_how_trials_end(here: Path) -> None:
    importing.admit_listed({"plugins": ["./mylab"]}, here)
    (asked,) = yaml.safe_load(re.findall(r"```yaml\n(callbacks: .*?)```", PAGE, flags=re.DOTALL)[0])["callbacks"]
    (read,) = read_callbacks([asked], ["./mylab"])
    read.check()
    callback = CALLBACKS.require(read.name, "callbacks")(**read.arguments)
    trial = SimpleNamespace(trial_id="snip-1", cell="density=0.5", status="TERMINATED")
    callback.on_trial_complete(iteration=0, trials=[], trial=trial)
    assert (here / "best.txt").read_text() == "snip-1 density=0.5 TERMINATED\n"
