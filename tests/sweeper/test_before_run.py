"""What the dry run and a run say of trials that can run nowhere, and of what only this machine lacks."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from sweeper import before_run
from sweeper.cli import main
from sweeper.options import COMPLETE
from sweeper.space import space as space_module
from tests.sweeper.command_line import wrong

TRIAL = "trial: {{method: one_shot, dataset: {dataset}, model: {model}, pretrain: {{epochs: 1}}{more}}}\n"
GRID = "grid: {density: [0.5]}\nobjective: val_accuracy\ndirection: maximize\n"


def space(folder: Path, more: str = "", *, dataset: str = "digits", model: str = "tiny", also: str = "") -> list[str]:
    text = TRIAL.format(dataset=dataset, model=model, more=more and f", {more}") + GRID + also
    (folder / "here.yaml").write_text(text)
    return ["--space", str(folder / "here.yaml"), "--storage", str(folder / "results")]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 4 cores without cards, which belongs to no cluster."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(before_run, "usable_cores", lambda: 4)
    monkeypatch.setattr(before_run, "cards", lambda: 0)


@pytest.mark.parametrize(
    ("method", "fields", "grid"),
    [
        *[(method, "pattern: filter", "density: [0.5]") for method in ("bip", "hydra", "one_shot")],
        *[(method, "pattern: channel", "density: [0.5]") for method in ("bip", "hydra", "one_shot")],
        ("global_prune", "", "p_prune: [0.3]"),
        ("layer_prune", "score: l1", "p_prune: [0.3]"),
        *[(method, "", "stage_pr: [0.5]") for method in ("l1", "greg1", "greg2", "oracle")],
        ("prune_iterative", "pattern: filter", "levels: [2]"),
        ("regrow", "unit: filter", "rounds: [1]"),
        ("dwp", "", "p_prune: [0.3]"),
    ],
)
@pytest.mark.parametrize("run", ["--dry-run", "--serial"])
def test_convolutions_are_not_looked_for_in_a_perceptron(
    method: str, fields: str, grid: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = space(tmp_path, fields, model="mlp_7_relu")
    sets = ["--set", f"trial.method={method}", "--set", f"grid={{{grid}}}"]
    wrong(capsys, [*arguments, *sets, run], "mlp_7_relu", "the trial at")
    assert not (tmp_path / "results").exists()


MISSING = [
    ("data_dir: absent", "digits", "", "data_dir is"),
    ("data_dir: absent", "parquet", "", "its trials are not checked on them"),
    ("'device': 'cuda:3'", "digits", "", "device is 'cuda:3'"),
    ("", "digits", "resources: {gpu: 4}\n", "resources.gpu is 4, but this machine has 0 cards"),
    ("", "digits", "resources: {gpu: 0.25}\n", "resources.gpu is 0.25"),
    ("", "digits", "resources: {memory: 900TB}\n", "resources.memory is 900000 GB, but this machine has "),
    ("", "digits", "resources: {cpu: 64}\n", "resources.cpu is 64, but this machine has 4 cores"),
]


@pytest.mark.parametrize(("more", "dataset", "also", "said"), MISSING)
def test_what_is_missing_here_is_said_by_the_dry_run_and_refused_by_a_run(
    more: str, dataset: str, also: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = space(tmp_path, more, dataset=dataset, also=also)
    assert main([*arguments, "--dry-run"]) == COMPLETE
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not here: ")]
    assert said in line
    wrong(capsys, arguments, said)


def test_all_that_is_missing_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = space(tmp_path, "data_dir: absent, device: 'cuda:3'", also="resources: {cpu: 64, gpu: 4}\n")
    assert main([*arguments, "--dry-run"]) == COMPLETE
    assert capsys.readouterr().out.count("not here: ") == 4
    wrong(capsys, arguments, "data_dir", "cuda:3", "resources.cpu", "resources.gpu")


@pytest.mark.parametrize("alone", [{}, {"RAY_ADDRESS": "local"}, {"RAY_ADDRESS": ""}], ids=str)
@pytest.mark.parametrize("words", [[], ["--address", "local"]], ids=" ".join)
def test_no_cluster_has_what_this_machine_lacks(
    alone: dict[str, str],
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in alone.items():
        monkeypatch.setenv(name, value)
    arguments = [*space(tmp_path, "device: 'cuda:3'", also="resources: {cpu: 64, gpu: 4}\n"), *words]
    assert main([*arguments, "--dry-run"]) == COMPLETE
    assert capsys.readouterr().out.count("not here: ") == 3
    wrong(capsys, arguments, "cuda:3", "resources.cpu", "resources.gpu")


@pytest.mark.parametrize("joined", ["--address", "RAY_ADDRESS"])
def test_a_cluster_may_have_what_this_machine_lacks(
    joined: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "127.0.0.1:1"
    arguments = space(tmp_path, "device: 'cuda:3'", also="resources: {cpu: 64, gpu: 4}\n")
    if joined == "--address":
        arguments += ["--address", address]
    else:
        monkeypatch.setenv(joined, address)
    assert main([*arguments, "--dry-run"]) == COMPLETE
    assert "not here" not in capsys.readouterr().out


def test_a_cluster_that_ray_has_noted_may_have_it_too(tmp_path: Path) -> None:
    assert not before_run.may_join(None)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    assert before_run.may_join(None)
    assert not before_run.may_join("local")


@pytest.mark.fault("tmp-unfit")
def test_what_another_user_keeps_private_is_no_cluster_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def refused(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("ray_current_cluster"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refused)
    assert not before_run.may_join(None)


@pytest.mark.parametrize("name", ["cuda:x", "gpu", "meta"])
def test_a_device_that_exists_nowhere_is_wrong_input(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong(capsys, [*space(tmp_path, f"device: '{name}'"), "--dry-run"], f"device is '{name}'")


def test_absent_data_of_known_sizes_are_checked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = space(tmp_path, "data_dir: absent, normalise: imagenet")
    wrong(capsys, [*arguments, "--dry-run"], "normalise is 'imagenet', but digits has 1 channels")


@pytest.mark.parametrize("method", ["one_shot", "imp"])
def test_every_corner_of_a_search_is_checked(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = "density" if method == "one_shot" else "levels"
    searched = "{density: {uniform: [0.005, 0.5]}}" if method == "one_shot" else "{levels: {int: [1, 30]}}"
    arguments = space(tmp_path, "distribution: uniform_plus")
    changes = (f"trial.method={method}", "grid={seed: [0]}", f"search={searched}", "samples=2")
    sets = [part for change in changes for part in ("--set", change)]
    wrong(capsys, [*arguments, *sets, "--dry-run"], "uniform_plus", f"the trial at seed=0, {path}=")


def test_a_corner_is_parsed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[object] = []
    parse = space_module.parse
    monkeypatch.setattr(space_module, "parse", lambda content: parsed.append(content) or parse(content))
    search = "search={finetune.lr: {choice: [1, 0.1]}, augment: {choice: [true, false]}}"
    arguments = [*space(tmp_path), "--set", search, "--set", "samples=2", "--dry-run"]
    assert main(arguments) == COMPLETE
    assert len(parsed) == 4


def test_cards_that_are_here_are_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(before_run, "cards", lambda: 4)
    assert main([*space(tmp_path, also="resources: {gpu: 4}\n"), "--dry-run"]) == COMPLETE
    assert "not here" not in capsys.readouterr().out


@pytest.mark.fault("old-ray")
@pytest.mark.parametrize("found", ["2.58.1", "2.50.0", "1.13.0", "2.9.3"])
def test_a_ray_without_tokens_by_default_is_refused(
    found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(before_run, "version", lambda name: found)
    wrong(capsys, [*space(tmp_path), "--dry-run"], f"Ray is {found}", "at least 2.59", "CVE-2026-27482")


@pytest.mark.parametrize("found", ["2.59.0", "2.60.0", "3.0.0.dev0"])
def test_newer_rays_are_taken(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before_run, "version", lambda name: found)
    before_run.require_ray()


def test_the_project_asks_pip_for_the_same_ray() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python >= 3.11
    asked = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["dependencies"]
    least = ".".join(map(str, before_run.LEAST_RAY))
    assert f"ray[default,tune]>={least}" in asked
