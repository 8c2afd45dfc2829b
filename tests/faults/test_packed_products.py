"""What every command makes of a packed sweep: the same as of one that lies in folders of its trials."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import sweeper
import trials
from sweeper.cli import COMPLETE, FAILURES, main
from sweeper.dashboard.study_copy import write_copy
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing import automatic
from sweeper.search.failures import commit_failure
from tests.sweeper.command_line import put_in_place_of_ray
from trials.__main__ import main as trial_command
from trials.running.trial import TrialHost, run
from trials.storage.place import Place

pytestmark = [pytest.mark.slow_faults, pytest.mark.fault("packed-sweep")]

TRIAL = "{method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 1}, finetune: {epochs: 1}}"
SEARCH = "search: {finetune.lr: {loguniform: [0.001, 1.0]}}\nseed: 3\nretries: 0\n"
REPLICATED = f"""
trial: {TRIAL}
grid: {{density: [0.5, 0.2]}}
{SEARCH}sampler: tpe
samples: 2
replicates: {{values: {{seed: [0, 1]}}}}
"""
POPULATION = f"""
trial: {{method: one_shot, dataset: digits, model: tiny, pretrain: {{epochs: 1}}, finetune: {{epochs: 4}}}}
grid: {{density: [0.5]}}
{SEARCH}pbt: {{population: 3, interval: 1, generations: 2}}
"""
CONFIRMED = f"""
trial: {TRIAL}
grid: {{density: [0.5]}}
{SEARCH}sampler: random
samples: 2
"""
STEPS = {
    "replicated": (
        [],
        ["--retry-failed"],
        ["--set", "samples=3"],
        ["--set", "samples=3", "--set", "replicates.values.seed=[0,1,2]"],
        ["--set", "samples=3", "--set", "replicates.values.seed=[0,1,2]", "--verify"],
    ),
    "population": ([], ["--retry-failed"], ["--set", "pbt.generations=3"]),
    "confirmed": ([], ["--retry-failed"], ["--set", "confirm.seed=[7]"]),
}
SPACES = {"replicated": REPLICATED, "population": POPULATION, "confirmed": CONFIRMED}
TIMES = re.compile(r"seconds|started|ended|host|device|environment|timing|_hours|_s$")


def run_here(pack: bool) -> Callable[..., bool]:
    """Runs a plan's trials in this process; its second one fails at first. On the way, trials are packed."""

    def run_plan(plan: Any, *_: Any, **__: Any) -> bool:
        count = 0
        while (assignment := plan.next()) is not None:
            folder = plan.folder.trial_folder(assignment.trial_id)
            count += 1
            if count == 2 and not plan.folder.path.joinpath("failed-once").exists():
                (plan.folder.path / "failed-once").touch()
                commit_failure(plan._records[assignment.trial_id].folder, "RuntimeError", "by chance", failures=9)
            else:
                run(assignment.config, folder, TrialHost(plan.folder.stages))
            plan.ended(assignment.trial_id)
            if pack:
                automatic.pack_if_many(plan.folder, plan.running)
        return False

    return run_plan


def untimed(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows without what differs between two runs of the same."""
    kept = table[[name for name in table.columns if not TIMES.search(name)]]
    return [{name: repr(value) for name, value in row.items()} for row in kept.to_dict("records")]


def asked_of(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What every command and call answers about a sweep."""
    sweep = sweeper.load(path)
    assert not sweep.damaged
    found: dict[str, Any] = {
        name: untimed(getattr(sweep, name)) for name in ("trials", "epochs", "layers", "allocations", "lineage")
    }
    for name in ("best", "points", "summary"):
        found[name] = untimed(getattr(sweep, name)())
    studies = [sweep.study(cell) for cell in sorted(set(sweep.trials["cell"].dropna()))]
    found["studies"] = [
        [(one.state, one.params, one.values, one.intermediate_values) for one in study.trials] for study in studies
    ]
    copy = write_copy(SweepFolder(path)).storage
    found["dashboard"] = [
        sorted(repr((one.state, one.params, one.values)) for one in copy.get_all_trials(study._study_id))
        for study in copy.get_all_studies()
    ]
    found["standing"] = str(sweep.standing())
    trial = str(sweep.best()["trial"][0])
    folder = path / "trials" / trial
    for command in (["inspect", str(folder)], ["profile", str(folder)], ["evaluate", str(folder)]):
        capsys.readouterr()
        assert trial_command(command) == 0
        said = capsys.readouterr().out.replace(str(path.parent), "STORAGE")
        found[command[0]] = (
            re.sub(r"\s*\d+\.\d{4}|\s+", " ", said) if command[0] == "profile" else said
        )  # it measures times
    to, hub = path.parent / "exported.pt", path.parent / "hub"
    to.unlink(missing_ok=True)
    shutil.rmtree(hub, ignore_errors=True)
    assert trial_command(["export", str(folder), "--to", str(to)]) == 0
    assert trial_command(["export", str(folder), "--form", "hub", "--to", str(hub)]) == 0
    found["exported"] = to.read_bytes()
    found["hub"] = {one.name: one.read_bytes() for one in hub.rglob("*.safetensors")}
    assert found["hub"]
    found["loaded"] = {k: v.tolist() for k, v in trials.load(folder).network().state_dict().items()}
    report: Place = sweep.report()
    text = report.read_bytes().decode()
    found["report"] = [trial for trial in sweep.trials["trial"] if trial in text]
    assert main(["--show", path.name, "--storage", str(path.parent)]) in (COMPLETE, FAILURES)
    found["shown"] = re.sub(r"[\d.]+ ?(s|min|h)\b", "", capsys.readouterr().out).replace(str(path.parent), "STORAGE")
    return found


@pytest.mark.parametrize("kind", SPACES)
def test_every_command_makes_the_same_of_a_packed_sweep(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / f"{kind}.yaml"
    space.write_text(SPACES[kind])
    where = {packed: tmp_path / ("packed" if packed else "plain") for packed in (False, True)}
    for step in STEPS[kind]:
        answers, codes = {}, {}
        for packed, storage in where.items():
            monkeypatch.setattr(automatic, "PACK_ABOVE", 0 if packed else 10**9)
            put_in_place_of_ray(monkeypatch, run_here(packed))
            codes[packed] = main(["--space", str(space), "--storage", str(storage), *step])
            answers[packed] = asked_of(storage / kind, capsys)
        left = {one.name for one in (where[True] / kind / "trials").iterdir()}
        assert left <= {str(one) for one in sweeper.load(where[True] / kind).failed["trial"]}
        assert codes[True] == codes[False] == (FAILURES if step == [] or kind == "population" else COMPLETE)
        for name, answer in answers[False].items():
            assert answers[True][name] == answer, name
    for one, other in ((True, False), (False, True)):
        found = sweeper.load(where[one] / kind).compare(sweeper.load(where[other] / kind))
        assert (found["difference"].dropna() == 0).all()


def test_a_search_that_starts_from_a_packed_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "confirmed.yaml").write_text(CONFIRMED)
    (tmp_path / "later.yaml").write_text(CONFIRMED + "from_sweep: {sweep: confirmed, points: 1}\n")
    found = []
    for packed in (False, True):
        storage = tmp_path / str(packed)
        monkeypatch.setattr(automatic, "PACK_ABOVE", 0 if packed else 10**9)
        put_in_place_of_ray(monkeypatch, run_here(packed))
        given = ["--storage", str(storage)]
        main(["--space", str(tmp_path / "confirmed.yaml"), *given])
        assert main(["--space", str(tmp_path / "confirmed.yaml"), *given, "--retry-failed"]) == COMPLETE
        main(["--space", str(tmp_path / "later.yaml"), *given])
        assert main(["--space", str(tmp_path / "later.yaml"), *given, "--retry-failed"]) == COMPLETE
        capsys.readouterr()
        assert main(["--compare", "confirmed", "later", *given]) == COMPLETE
        found.append((untimed(sweeper.load(storage / "later").trials), capsys.readouterr().out))
    assert found[0] == found[1]
