"""Files and folders that a config names: their content is in the trial's name, and they are there before it starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.buckets import BUCKET, served
from tests.trials.configs import SMALLEST
from tests.trials.folders import rows_of
from tests.trials.sealed_files import change_document
from tests.trials.small_trials import config_of, folder_of, run_in
from trials import models
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods import segments
from trials.methods.dense import dense_source, fields_of_source
from trials.methods.parsing import parse
from trials.methods.preconditions import require_runnable
from trials.methods.registry import METHODS
from trials.networks.named_files import resolved
from trials.storage.place import place

pytestmark = pytest.mark.usefixtures("few_digits")

DATA = DataHeader("few_digits", 10, 1, (8, 8), 400)
FIELDS = [(method, field) for method, kind in METHODS.items() for field in kind.Config.named_files]
BASES = {"base_pr_model": "l1-weight", "reference": "l1-weight"}


def test_every_field_that_is_a_path_is_declared() -> None:
    """Text fields without a list of values name files; data_dir is no part of a trial's name."""
    free = {"method", "dataset", "model", "device", "data_dir", "image_column", "label_column"}
    for kind in METHODS.values():
        for name, field in kind.Config.model_fields.items():
            if field.annotation == (str | None) and not field.metadata and name not in free:
                assert name in kind.Config.named_files, (kind.Config.__name__, name)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory, few_digits: None) -> dict[str, list[Path]]:
    """Two files of weights and the folders of two finished trials; the content differs."""
    folder, found = tmp_path_factory.mktemp("named"), {"weights": [], "trial": []}
    for seed in (0, 1):
        path = folder / f"{seed}.pt"
        torch.save(models.build("tiny", num_classes=10, in_channels=1, seed=seed).state_dict(), path)
        found["weights"].append(path)
        config = config_of("l1-weight", seed=seed, source_net=str(path))
        assert run_in(folder, config).status == "complete"
        found["trial"].append(folder_of(config, folder))
    return found


def config_with(method: str, field: str, path: str, **fields: Any) -> TrialConfig:
    content = {**SMALLEST[method], "dataset": "few_digits", field: path, **fields}
    if field == "base_pr_model":
        content.pop("stage_pr")
        content["pattern"] = "weight"
    if method == "imp":
        content["rewind"] = "learning_rate"
    return parse(content)


def named(things: dict[str, list[Path]], method: str, field: str, number: int = 0) -> Path:
    return things[METHODS[method].Config.named_files[field]][number]


def copied(source: Path, to: Path) -> Path:
    """A copy of a file or folder; what lies there goes."""
    if source.is_dir():
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(source, to)
    else:
        shutil.copy(source, to)
    return to


each_field = pytest.mark.parametrize(("method", "field"), FIELDS)


@each_field
def test_content_is_in_the_name_and_the_path_is_not(
    method: str, field: str, things: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = named(things, method, field)
    here = copied(source, tmp_path / "here")
    config = resolved(config_with(method, field, str(here)))
    assert getattr(config, field) == str(here)
    assert list(config.file_hashes) == [field]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(here)
    (tmp_path / "sub").mkdir()
    for given in ("here", "./here", "sub/../here", "~/here", str(copied(source, tmp_path / "there")), "link"):
        other = resolved(config_with(method, field, given))
        assert other.id == config.id
        assert Path(getattr(other, field)).is_absolute()
    before = config_with(method, field, str(here)).id  # of a config that nobody resolved: its path stands in its name
    assert config.id != before
    copied(named(things, method, field, 1), here)
    changed = resolved(config_with(method, field, str(here)))
    assert changed.id != config.id
    assert config_with(method, field, str(here)).id == before


@each_field
def test_a_stored_config_is_parsed_without_its_files(
    method: str, field: str, things: dict[str, list[Path]], tmp_path: Path
) -> None:
    here = copied(named(things, method, field), tmp_path / "here")
    config = resolved(config_with(method, field, str(here)))
    stored = config.model_dump(mode="json")
    (shutil.rmtree if here.is_dir() else os.unlink)(here)
    assert parse(stored) == config
    assert parse(stored).id == config.id


@each_field
def test_another_content_than_the_stored_one_is_refused(
    method: str, field: str, things: dict[str, list[Path]], tmp_path: Path
) -> None:
    here = copied(named(things, method, field), tmp_path / "here")
    config = resolved(config_with(method, field, str(here)))
    assert resolved(config) == config
    copied(named(things, method, field, 1), here)
    now = resolved(config_with(method, field, str(here))).file_hashes[field]
    with pytest.raises(UserError) as refused:
        resolved(config)
    assert all(part in str(refused.value) for part in (field, str(here), now, config.file_hashes[field], "restore"))


def absent(path: Path) -> None:
    """Nothing lies there."""


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


def text(path: Path) -> None:
    path.write_text("hello")


def damaged_state(path: Path) -> None:
    path.mkdir()
    (path / "state.json").write_text("{")


BAD = {
    "weights": [absent, folder, pipe, loop],
    "trial": [absent, folder, pipe, loop, text, damaged_state],
}


@pytest.mark.parametrize(
    ("method", "field", "make"),
    [(method, field, make) for method, field in FIELDS for make in BAD[METHODS[method].Config.named_files[field]]],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    method: str, field: str, make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "it")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        resolved(config_with(method, field, "it"))
    said = str(refused.value)
    assert said.isprintable()
    assert said.startswith(f"{field} is 'it' ({tmp_path / 'it'}), but ")


@pytest.mark.parametrize("given", ["", "~nobody-of-this-name/x", "gs://bucket/x", "s3://", "a\0b"])
@pytest.mark.parametrize("field", [("bip", "source_net"), ("l1", "base_pr_model"), ("regrow", "reference")])
def test_what_is_no_path_is_refused(field: tuple[str, str], given: str) -> None:
    with pytest.raises(UserError, match=f"^{field[1]} is "):
        resolved(config_with(*field, given))


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is simulated, because the tests may run as root, who may read every file."""
    (tmp_path / "it").write_bytes(b"x")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(UserError, match=r"source_net is .*must be a file that can be read \(Permission denied\)"):
        resolved(config_with("bip", "source_net", str(tmp_path / "it")))


def test_a_trials_folder_as_weights_names_export(things: dict[str, list[Path]]) -> None:
    trial = things["trial"][0]
    with pytest.raises(
        UserError, match=f"the folder of a trial: name the FILE of python -m trials export {trial} --to FILE"
    ):
        resolved(config_with("bip", "source_net", str(trial)))
    (checkpoint, *_) = (trial / "checkpoint").iterdir()
    config = resolved(config_with("bip", "source_net", str(checkpoint)))
    with pytest.raises(UserError, match="a checkpoint of a trial: export the trial"):
        require_runnable(config, DATA)


@pytest.mark.parametrize("field", ["base_pr_model", "reference"])
def test_an_unfinished_trial_is_refused(field: str, things: dict[str, list[Path]], tmp_path: Path) -> None:
    method = {"base_pr_model": "l1", "reference": "regrow"}[field]
    trial = copied(things["trial"][0], tmp_path / "trial")
    change_document(trial / "state.json", status="running")
    with pytest.raises(UserError, match="finished trial, and there is one that is running"):
        resolved(config_with(method, field, str(trial)))
    copied(things["trial"][0], trial)
    for checkpoint in (trial / "checkpoint").iterdir():
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=f"^{field} is .*is damaged"):
        resolved(config_with(method, field, str(trial)))


@pytest.mark.parametrize("field", ["base_pr_model", "reference"])
def test_a_trial_of_another_model_is_refused_before_anything_starts(field: str, things: dict[str, list[Path]]) -> None:
    method = {"base_pr_model": "l1", "reference": "regrow"}[field]
    fields = {"inherit_pruned": "index"} if method == "l1" else {}
    config = resolved(config_with(method, field, str(things["trial"][0]), **fields))
    require_runnable(config, DATA)
    other = resolved(config_with(method, field, str(things["trial"][0]), model="lenet5", **fields))
    with pytest.raises(UserError, match=f"^{field} is .*same model"):
        require_runnable(other, DATA)


def test_names_are_no_files() -> None:
    config = config_of("bip", source_net="torchvision", model="ResNet18")
    assert resolved(config) is config
    plain = config_of("bip")
    assert resolved(plain) is plain


def test_objects_of_a_store_keep_their_address(things: dict[str, list[Path]]) -> None:
    given = f"s3://{BUCKET}/net.pt"
    with served():
        place(given).write_bytes(things["weights"][0].read_bytes())
        config = resolved(config_with("one_shot", "source_net", given))
        require_runnable(config, DATA)
        with pytest.raises(UserError, match=r"source_net is 's3://.*there is none"):
            resolved(config_with("one_shot", "source_net", f"s3://{BUCKET}/other.pt"))
    assert config.source_net == given  # type: ignore[attr-defined]
    assert config.id == resolved(config_with("one_shot", "source_net", str(things["weights"][0]))).id


# --- derived trials


def test_hashes_are_of_fields_that_name_files() -> None:
    for fields in ({}, {"source_net": "torchvision", "model": "ResNet18"}):
        with pytest.raises(UserError, match="file_hashes has source_net, but only fields that name a file"):
            config_of("bip", **fields, file_hashes={"source_net": "0123456789abcdef"})
    with pytest.raises(UserError, match="file_hashes has density"):
        config_of("bip", file_hashes={"density": "0123456789abcdef"})
    for wrong in ("0123", "0123456789abcdeF", "../0123456789abc"):
        with pytest.raises(UserError, match="must have 16 hex digits"):
            config_of("bip", source_net="x", file_hashes={"source_net": wrong})


def test_derived_trials_take_the_hashes_of_their_own_fields(things: dict[str, list[Path]]) -> None:
    weights, trial = (str(things[kind][0]) for kind in ("weights", "trial"))
    config: Any = resolved(config_of("regrow", source_net=weights, reference=trial))
    assert set(config.file_hashes) == {"source_net", "reference"}
    sparse = config.sparse_config()
    assert sparse.file_hashes == {"source_net": config.file_hashes["source_net"]}
    assert sparse.id != config.model_copy(update={"file_hashes": {}}).sparse_config().id
    without = resolved(config_of("regrow", reference=trial))
    assert fields_of_source(without, TrialConfig)["file_hashes"] == {}
    assert dense_source(without).file_hashes == {}  # type: ignore[arg-type, union-attr]
    victim = METHODS["dwp"](resolved(config_of("dwp", source_net=weights))).references()["victim"]
    assert victim.file_hashes == {}


def test_segments_keep_the_hashes(things: dict[str, list[Path]]) -> None:
    config = resolved(config_of("bip", source_net=str(things["weights"][0]), until_epoch=1))
    child = segments.child(config, {"mask_lr": 0.2}, 2)
    assert child.file_hashes == config.file_hashes
    (parent,) = segments.ancestors(child)
    assert parent.id == config.id


# --- when the trial runs


def test_a_file_that_changes_before_the_trial_runs_fails_it_in_one_line(
    things: dict[str, list[Path]], tmp_path: Path
) -> None:
    path = copied(things["weights"][0], tmp_path / "net.pt")
    config = resolved(config_of("one_shot", source_net=str(path)))
    copied(things["weights"][1], path)
    state = run_in(tmp_path, config)
    assert state.status == "failed"
    assert state.error is not None
    now = resolved(config_of("one_shot", source_net=str(path))).file_hashes["source_net"]
    said = state.error["message"]
    assert state.error["type"] == "UserError"
    assert said.isprintable()
    assert all(part in said for part in (str(path), now, config.file_hashes["source_net"], "restore that file"))
    copied(things["weights"][0], path)
    assert run_in(tmp_path, config).status == "complete"


@pytest.mark.parametrize("field", ["base_pr_model", "reference"])
def test_a_trial_that_changes_before_it_is_read_fails_it(
    field: str, things: dict[str, list[Path]], tmp_path: Path
) -> None:
    trial = copied(things["trial"][0], tmp_path / "trial")
    fields = {"base_pr_model": {"stage_pr": None}, "reference": {"initial": "reference"}}[field]
    name = {"base_pr_model": "l1-weight", "reference": "regrow-rule"}[field]
    config = resolved(config_of(name, **{field: str(trial), **fields}))
    copied(things["trial"][1], trial)
    state = run_in(tmp_path, config)
    assert state.status == "failed"
    assert state.error is not None
    assert "restore that file" in state.error["message"]


def test_equal_content_gives_one_shared_trial(things: dict[str, list[Path]], tmp_path: Path) -> None:
    rows = []
    for i in (0, 1):
        path = copied(things["weights"][0], tmp_path / f"{i}.pt")
        config = resolved(config_of("regrow-rule", source_net=str(path), seed=3, batchnorm_batches=i))
        assert run_in(tmp_path, config).status == "complete"
        rows.append(rows_of(folder_of(config, tmp_path))["epochs"][0]["stage_id"])
    assert rows[0] == rows[1]
    assert len(list((tmp_path / "stages").iterdir())) == 1
