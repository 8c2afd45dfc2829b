"""Callbacks of a space: what is refused, and that a sweep may go on with others (what they are told: test_tune_run)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sweeper.cli import COMPLETE, WRONG_INPUT, main
from tests.sweeper.tracked import PLUG_IN, SPACE


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SPACE)
    (tmp_path / "track.py").write_text(PLUG_IN)
    return tmp_path


def test_a_sweep_goes_on_with_other_callbacks(here: Path, ran: list[str]) -> None:
    assert main(["--space", "small.yaml"]) == COMPLETE
    (here / "small.yaml").write_text(SPACE.partition("callbacks:")[0])
    assert main(["--space", "small.yaml"]) == COMPLETE
    assert len(ran) == 2


REFUSED = {
    "tensorbord": r"callbacks\[0\] is 'tensorbord', but must be one of: comet, mlflow, tensorboard, wandb \(did you",
    "wandb": r"callbacks has 'wandb', which needs wandb, .*pip install 'sparsity-sweeper\[trackers\]'",
    "os:system": r"callbacks\[0\] is 'os:system', but plugins lists no os",
    "':Track'": r"callbacks\[0\] is ':Track', but a name with a colon is module:attribute, as in ",
    "'track:'": r"callbacks\[0\] is 'track:', but a name with a colon is module:attribute, as in ",
    "track:Plain": r"callbacks has 'track:Plain', but .*Plain is no ray.tune.Callback: derive it from that",
    "{name: tensorboard, folder: a}, {name: tensorboard, folder: ./a}": r"callbacks\[1\] writes to the folder of cal",
    "{name: tensorboard, folder: a/b/..}, {name: tensorboard, folder: a}": r"callbacks\[1\] writes to the folder of ",
    "track:Trak": r"track has no Trak \(it has .*Track",
    "{name: 'track:Track', too: x}": r"'track:Track', which cannot be called with its options \(missing a required arg",
    "{name: tensorboard, foo: 1}": r"option of the callback tensorboard is 'foo', but must be one of: folder, time",
    "{name: mlflow, traking_uri: runs}": r"of the callback mlflow is 'traking_uri', .*did you mean 'tracking_uri'\?",
    "{name: tensorboard, timeout_s: 1.0e+10}": r"timeout_s is 10000000000(\.0)?, but must be .*9223372036",
    "{name: tensorboard, timeout_s: .inf}": r"timeout_s is inf, but must be",
    "{name: tensorboard, artifacts: [masks]}": r"has 'tensorboard' with artifacts, but its files hold none: leave art",
    "{name: mlflow, artifacts: [mask]}": r"has 'mlflow', whose artifacts is 'mask', but must be one of: .*'masks'\?",
    "{name: mlflow, artifacts: 3}": r"whose artifacts is 3, but must be a list of masks, dense, prune, compact: write",
    "{name: mlflow, artifacts: [[masks]]}": r"has 'mlflow', whose artifacts is \['masks'\], but must be one of: comp",
    "{name: wandb, api_key: secret}": r"'wandb' with api_key, but a space .* no place for a key: .* set WANDB_API_KEY",
    "{name: mlflow, tracking_token: a}": r"'mlflow' with tracking_token, but .* set MLFLOW_TRACKING_TOKEN in the env",
    "{name: comet, api_key: a}": r"'comet' with api_key, but .* set COMET_API_KEY in the environment of the command",
    "3": r"callbacks\[0\] is 3, but must be a name or \{name: NAME",
}


@pytest.mark.parametrize("entry", REFUSED)
def test_what_cannot_be_made_is_refused_before_anything_starts(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], entry: str
) -> None:
    (here / "small.yaml").write_text(f"{SPACE.partition('callbacks:')[0]}callbacks: [{entry}]\n")
    assert main(["--space", "small.yaml"]) == WRONG_INPUT
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(REFUSED[entry], error), error
    assert ran == []
    assert not (here / "results").exists()
