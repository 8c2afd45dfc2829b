"""Sweeps with users' code: how a space lists it, what is stored of it, and what a resume needs."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import sweeper
from sweeper.cli import COMPLETE, main
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.space.checks import check_space
from sweeper.space.load import from_document, load_space
from tests.sweeper.command_line import attempts, wrong
from tests.trials.plugins.canary import NAMES
from tests.trials.plugins.code import write_code
from tests.trials.plugins.conftest import canary, nothing_admitted
from trials.dotted_paths import set_at
from trials.errors import NotAdmitted, UserError
from trials.plugins import importing

__all__ = ["canary", "nothing_admitted"]

pytestmark = pytest.mark.usefixtures("nothing_admitted", "no_stray_handlers")

SPACE: dict[str, Any] = {
    "plugins": ["code/mynets", "code/bare"],
    "trial": {
        "method": "one_shot",
        "dataset": "bare.pruning:few",
        "model": "tiny",
        "density": 0.5,
        "pretrain": {"epochs": 1},
        "finetune": {"epochs": 1},
    },
    "grid": {"model": ["mynets.wide:MyNet", "tiny"]},
}

SAMPLERS = """
from optuna.samplers import RandomSampler

from sweeper.space.options.sampler import Sampler


class Mine(RandomSampler):
    def __init__(self, bias, seed=None):
        super().__init__(seed=seed)
        self.bias = bias


class Options(Sampler):
    name: str
    low: float = 0.0

    def make(self, question, seed, cell_seed):
        return RandomSampler(seed=seed)


class Breaks(RandomSampler):
    def sample_relative(self, study, trial, search_space):
        raise RuntimeError("out of points")


THREE = 3
"""


@pytest.fixture
def folder(here: Path) -> Path:
    """A folder with users' code in ``code`` and the space ``own.yaml`` that lists it."""
    write_code(here / "code")
    (here / "code/bare/samplers.py").write_text(SAMPLERS)
    (here / "own.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
    return here


def space_of(folder: Path, **changes: Any) -> Any:
    (folder / "changed.yaml").write_text(yaml.safe_dump({**SPACE, **changes}, sort_keys=False))
    space = load_space("changed.yaml")
    check_space(space)
    return space


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_admitted", {})
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mynets", "bare")]:
        del sys.modules[name]


def test_a_sweep_runs_is_shown_and_resumes(
    folder: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--space", "own.yaml"]) == COMPLETE
    assert len(ran) == 2
    (document,) = SweepFolder(folder / "results/own").documents()
    paths = [str(folder / "code/mynets"), str(folder / "code/bare")]
    assert document["space"]["plugins"] == paths == list(document["plugins"])
    assert all(len(digest) == 12 for digest in document["plugins"].values())
    trials = sweeper.load(folder / "results/own").trials
    assert set(trials["model"]) == {"mynets.wide:MyNet", "tiny"}
    assert trials["plugin_sources"].str.startswith("mynets=").all()

    new_process(monkeypatch)
    assert main(["--show", "own"]) == COMPLETE
    assert main(["--list"]) == COMPLETE
    assert not {"mynets", "bare"} & sys.modules.keys(), "reports import no users' code"
    wrong(capsys, ["--resume", "own"], f"plugins has {paths[0]!r}", "give --plugins")
    wrong(capsys, ["--resume", "own", "--plugins", "code/mynets"], "give --plugins", "bare")
    assert main(["--resume", "own", "--plugins", "code/mynets", "--plugins", "code/bare"]) == COMPLETE
    assert main(["--space", "own.yaml"]) == COMPLETE
    assert attempts(folder / "results/own") == dict.fromkeys(ran, 1)
    assert len(SweepFolder(folder / "results/own").documents()) == 1


def test_a_figure_with_the_name_of_a_field_is_refused_before_anything_starts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "code/bare/pruning.py"
    file.write_text(f'{file.read_text()}\n\nclass Taken(Mine):\n    reports = ("strength",)\n')
    trial = {**SPACE["trial"], "method": "bare.pruning:Taken"}
    (folder / "own.yaml").write_text(yaml.safe_dump({**SPACE, "trial": trial, "objective": "strength"}))
    wrong(capsys, ["--space", "own.yaml", "--dry-run"], "reports names 'strength', but a field", "rename the figure")
    assert not (folder / "results").exists()


def test_moved_and_changed_code_continues_a_sweep_and_is_told(
    folder: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--space", "own.yaml"]) == COMPLETE
    (folder / "code").rename(folder / "moved")
    new_process(monkeypatch)
    (folder / "own.yaml").write_text((folder / "own.yaml").read_text().replace("code/", "moved/"))
    capsys.readouterr()
    assert main(["--space", "own.yaml"]) == COMPLETE
    assert "plug-ins" not in capsys.readouterr().out
    before = importing.admitted()[0].digest
    with (folder / "moved/mynets/wide.py").open("a") as file:
        file.write("\n# a comment\n")
    assert main(["--space", "own.yaml"]) == COMPLETE
    now = importing.admitted()[0].digest
    assert f"resumes with other plug-ins: mynets {before} -> {now}\n" in capsys.readouterr().out
    assert len(ran) == 2
    documents = SweepFolder(folder / "results/own").documents()
    assert [next(iter(d["plugins"].values())) for d in documents] == [before, before, now]


def test_a_raised_revision_makes_other_trials(folder: Path, ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "own.yaml"]) == COMPLETE
    with (folder / "code/mynets/wide.py").open("a") as file:
        file.write("\nMyNet.revision = 2\n")
    wrong(capsys, ["--space", "own.yaml", "--samples", "1", "--set", "grid.seed=[0, 1]"], "own")
    assert main(["--space", "own.yaml", "--name", "anew"]) == COMPLETE
    assert len(set(ran)) == 3, "the trial of tiny is the same"


def test_those_of_the_template_count_as_the_spaces(folder: Path) -> None:
    trial = {**SPACE["trial"], "plugins": ["code/bare"]}
    space = space_of(folder, plugins=["code/mynets"], trial=trial)
    assert [Path(listed).name for listed in space.plugins] == ["mynets", "bare"]
    assert all(space.config(cell).plugins == space.plugins for cell in space.cells())
    assert from_document(space.document()) == space


def test_a_space_without_plug_ins_is_written_as_before(here: Path) -> None:
    assert "plugins" not in load_space("small.yaml").document()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"plugins": []}, "plugins lists no"),
        ({"plugins": ["code/mynets"]}, "dataset is 'bare.pruning:few', but plugins lists no bare"),
        ({"plugins": ["nowhere"]}, "no module of this name is installed"),
        ({"plugins": ["./nowhere"]}, "which is not there"),
        ({"grid": {"plugins": [["code/mynets"]]}}, "grid has plugins, which does not change what a trial computes"),
        ({"grid": {"model": ["mynets.wide:Wide"]}}, "mynets.wide has no Wide"),
        ({"sampler": "bare.samplers:Mine"}, "missing a required argument: 'bias'"),
        ({"sampler": {"name": "bare.samplers:Mine", "bias": 1, "bios": 2}}, "unexpected keyword argument 'bios'"),
        ({"sampler": "bare.samplers:THREE"}, "it must be a subclass of optuna.samplers.BaseSampler"),
        ({"sampler": {"name": "bare.samplers:Options", "lo": 1}}, "did you mean 'low'?"),
        ({"sampler": "optuna.samplers:RandomSampler"}, "plugins lists no optuna"),
        ({"plugins": 5}, "plugins is 5, but must be a list"),
        ({"trial": {**SPACE["trial"], "plugins": "code/bare"}}, "plugins is 'code/bare', but must be a list"),
        ({"cases": {"x": {"when": {"model": "tiny"}, "trial": {"plugins": ["code/bare"]}}}}, "list them at the top"),
        ({"objective": "regret"}, "'regret', but one_shot does not report it"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(folder: Path, changes: dict[str, Any], said: str) -> None:
    search = {"search": {"finetune.lr": {"uniform": [0.01, 0.1]}}, "samples": 2} if "sampler" in changes else {}
    with pytest.raises(UserError) as caught:
        space_of(folder, **search, **changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "bare.samplers:Mine", "bias": 0.5},
        "bare.samplers:Options",
        {"name": "bare.samplers:Options", "low": 0.1},
        "optuna.samplers:BruteForceSampler",
    ],
)
def test_a_sampler_of_a_plug_in_suggests(folder: Path, ran: list[str], sampler: Any) -> None:
    changes = {
        "plugins": [*SPACE["plugins"], "optuna.samplers"],
        "grid": {},
        "search": {"finetune.batch_size": {"int": [60, 70]}},
        "samples": 2,
        "sampler": sampler,
    }
    space = space_of(folder, **changes)
    assert space.sampler.document() == sampler
    assert from_document(space.document()).sampler == space.sampler
    assert main(["--space", "changed.yaml"]) == COMPLETE
    assert len(ran) == 2
    assert main(["--space", "changed.yaml"]) == COMPLETE
    assert len(ran) == 2


def test_a_sampler_that_fails_is_blamed(folder: Path, ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    search = {"finetune.batch_size": {"int": [60, 70]}}
    space_of(folder, grid={}, search=search, samples=2, sampler="bare.samplers:Breaks")
    said = "sampler is 'bare.samplers:Breaks', whose code failed: RuntimeError: out of points"
    assert main(["--space", "changed.yaml"]) == 2
    assert said in capsys.readouterr().err


def test_a_sweep_goes_on_without_what_only_its_callbacks_needed(
    folder: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "watch.py").write_text("from ray.tune import Callback\n\n\nclass Watch(Callback):\n    pass\n")
    space_of(folder, plugins=[*SPACE["plugins"], "watch.py"], callbacks=["watch:Watch"])
    assert main(["--space", "changed.yaml"]) == COMPLETE
    new_process(monkeypatch)
    (folder / "watch.py").unlink()
    space_of(folder)
    assert main(["--space", "changed.yaml"]) == COMPLETE
    assert len(ran) == 2


def test_conditions_and_cases_may_name_a_method_of_a_plug_in(folder: Path) -> None:
    space = space_of(
        folder,
        grid={"method": ["one_shot", "bare.pruning:Mine"]},
        cases={"mine": {"when": {"method": "bare.pruning:Mine"}, "trial": {"strength": 2.0}}},
        search={"strength": {"uniform": [0.0, 1.0], "when": {"method": "bare.pruning:Mine"}}},
        samples=2,
    )
    plain, mine = space.cells()
    assert not hasattr(space.config(plain), "strength")
    assert space.config(mine).strength == 2.0
    assert space.config(mine).id.startswith("Mine-")


def test_a_stored_space_admits_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = space_of(folder).document()
    new_process(monkeypatch)
    with pytest.raises(NotAdmitted):
        from_document(document)


PLACES = ("trial.model", "trial.method", "trial.score", "trial.plugins", "sampler", "pruner", "objective", "callbacks",
          "from_sweep", "grid.model", "search.score", "cases.x.trial.model", "profiles.p.plugins")  # fmt: skip


def test_no_space_runs_code_that_it_does_not_list(here: Path, canary: Path) -> None:
    """Whatever a space without ``plugins`` holds, and whatever a stored space holds, nothing is imported."""

    @settings(max_examples=100, deadline=None)
    @given(st.dictionaries(st.sampled_from(PLACES), NAMES, min_size=1), st.booleans())
    def fuzz(values: dict[str, Any], stored: bool) -> None:
        content: dict[str, Any] = {"trial": {**SPACE["trial"], "dataset": "digits"}}
        for path, value in values.items():
            if path != "trial.plugins" or stored:
                set_at(content, path, [value] if path == "grid.model" else value)
        (here / "fuzzed.yaml").write_text(yaml.safe_dump(content))
        with contextlib.suppress(UserError):
            check_space(from_document({"name": "x", **content}) if stored else load_space("fuzzed.yaml"))
        assert "canary" not in sys.modules
        assert not canary.exists()

    fuzz()
