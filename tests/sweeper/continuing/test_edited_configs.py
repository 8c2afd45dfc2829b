"""Every committed trial's config.json is what the space derives for its sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import COMPLETE, main
from sweeper.folder.sweep_folder import SweepFolder
from tests.sweeper.continuing.small_sweeps import (
    SPACES,
    begin,
    command,
    every_way,
    refused,
    rewrite,
)


def other_params(content: dict[str, Any]) -> None:
    content["samples"][0]["params"] = {"pretrain.schedule": "cosine", "finetune.momentum": 0.123}


def other_grid(content: dict[str, Any]) -> None:
    content["samples"][0]["grid"] = {"density": 0.3}


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


@pytest.mark.parametrize("edit", EDITS)
def test_a_config_changed_by_hand_is_refused(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], edit: str
) -> None:
    kind, change, says = EDITS[edit]
    folder = begin(kind)
    rewrite(folder, ran[-1], change)
    if edit == "the name":  # otherwise it is no trial of this folder
        Path(str(folder.trial_folder(ran[-1]))).rename(Path(str(folder.trials)) / "one_shot-000000000000")
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


def test_the_folder_of_single_trials_does_not_become_a_sweep(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A trial of ``python -m trials --name small`` may have other values in fields that are no part of its name."""
    folder = SweepFolder(Path("results/small"))
    folder.schedule("one_shot-0123456789ab", {"method": "one_shot", "density": 0.5}, ())
    Path("small.yaml").write_text(yaml.safe_dump(SPACES["plain"]))
    says = "small holds one_shot-0123456789ab, which no sweep has asked for (python -m trials)"
    refused(capsys, folder, ["--space", "small.yaml"], says)
    refused(capsys, folder, ["--space", "small.yaml", "--dry-run"], says)
    assert not ran
