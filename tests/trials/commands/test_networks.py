"""``python -m trials inspect``, ``evaluate``, ``recovered`` and ``saliency``: what they say of stored networks."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch.nn import functional as F

from tests.trials.folders import checkpoint_of, rows_of
from tests.trials.sealed_files import document, write_document
from tests.trials.small_trials import BASE, CONFIGS
from trials import __main__ as command
from trials.analysis import load_trial
from trials.data import load_data
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.sparsity import prunable
from trials.training.build import build_loader

pytestmark = pytest.mark.usefixtures("few_digits")


def made(storage: Path, name: str, **fields: Any) -> Path:
    """The folder of a trial that ``python -m trials`` has run."""
    content = {**BASE, **CONFIGS[name], **fields}
    path = storage / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    assert command.main([str(path), "--storage", str(storage / "s"), "--threads", "1"]) == 0
    return storage / "s" / "single" / "trials" / parse(content).id


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, few_digits: None) -> Path:
    """A trial with a mask of 30 % of the weights."""
    return made(tmp_path_factory.mktemp("trial"), "one_shot")


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """What a command prints with --json."""
    capsys.readouterr()
    assert command.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def layers(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, dict[str, Any]]:
    (network,) = said(capsys, "inspect", *arguments)
    return {row["layer"]: row for row in network["layers"]}


def test_inspect_counts_what_the_mask_keeps(trial: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, masks = layers(capsys, trial), checkpoint_of(trial)["net"]["masks"]
    for name, mask in masks.items():
        row = found[name.removesuffix(".weight")]
        assert (row["total"], row["kept"], row["pruned"]) == (mask.numel(), int(mask.sum()), int((~mask).sum()))
        assert row["shape"] == "x".join(map(str, mask.shape))
        assert row["sparsity"] == pytest.approx(1 - float(mask.double().mean()))
    last = rows_of(trial)["epochs"][-1]
    assert (found["all"]["kept"], found["all"]["total"]) == (last["kept"], last["prunable"])
    assert found["all"]["sparsity"] == pytest.approx(last["sparsity"])
    assert {row["by"] for row in found.values()} == {"mask"}


@pytest.mark.parametrize(("form", "by"), [("dense", "values"), ("prune", "mask")])
def test_inspect_reads_what_export_writes(
    form: str, by: str, trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.pt"
    assert command.main(["export", str(trial), "--to", str(file), "--form", form]) == 0
    found, same = layers(capsys, file), layers(capsys, trial)
    assert {name: row["kept"] for name, row in found.items()} == {name: row["kept"] for name, row in same.items()}
    assert {row["by"] for row in found.values()} == {by}


@pytest.mark.parametrize("as_file", [False, True])
def test_inspect_counts_a_compact_network_against_the_dense_one(
    as_file: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = made(tmp_path, "l1")
    last = rows_of(network)["epochs"][-1]
    if as_file:
        assert command.main(["export", str(network), "--to", str(tmp_path / "c.pt"), "--form", "compact"]) == 0
        network = tmp_path / "c.pt"
    found = layers(capsys, network)
    assert (found["all"]["kept"], found["all"]["total"]) == (last["kept"], last["prunable"])
    assert found["conv2"]["shape"] == "16x8x3x3"
    assert found["all"]["sparsity"] > 0.5


def test_inspect_matches_filters_of_a_narrowed_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = made(tmp_path, "l1", finetune=None)
    (stage,) = (tmp_path / "s" / "stages").iterdir()
    net = checkpoint_of(network)["net"]
    found = layers(capsys, network, "--dense", stage)
    kept = net["kept"]["conv1.weight"].tolist()  # conv1 reads the whole image, so its filters are whole
    assert (found["conv1"]["kept"], found["conv1"]["filters"], found["conv1"]["of"]) == (kept, 8, 16)
    capsys.readouterr()
    assert command.main(["inspect", str(network), "--dense", str(stage)]) == 0
    out = capsys.readouterr().out
    filters = [len(checkpoint_of(network)["net"]["model"][f"conv{i}.weight"]) for i in (1, 2, 3)]
    assert f"sparsity of filters: {1 - sum(filters) / (16 + 32 + 48):.4f}" in out


def test_inspect_prints_a_table_of_each_network(trial: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert command.main(["inspect", str(trial), str(trial)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.count(trial.name) == 2
    assert sum("conv2" in line for line in lines) == 2
    assert lines[lines.index(trial.name) + 1].split() == ["layer", "shape", "total", "kept", "pruned", "sparsity", "by"]


def test_inspect_puts_the_densities_of_trials_side_by_side(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = made(tmp_path, "one_shot", density=0.5)
    rows = said(capsys, "inspect", trial, other, "--densities")
    masks = [checkpoint_of(folder)["net"]["masks"] for folder in (trial, other)]
    for row in rows:
        shares = [float(found[f"{row['layer']}.weight"].double().mean()) for found in masks]
        assert [row[trial.name], row[other.name]] == pytest.approx(shares)
    assert len(rows) == 4
    assert command.main(["inspect", str(made(tmp_path, "dense")), "--densities"]) == 2
    assert "no trial has a mask" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "said_of_it"), [(b"", "is empty"), (b"nothing", "torch cannot read it")])
def test_inspect_refuses_what_is_no_network(
    content: bytes, said_of_it: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.pt"
    file.write_bytes(content)
    assert command.main(["inspect", str(file)]) == 2
    error = capsys.readouterr().err
    assert said_of_it in error
    assert error.count("\n") == 1
    assert command.main(["inspect", str(tmp_path / "absent")]) == 2


def test_evaluate_runs_networks_in_the_precision_of_their_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = made(tmp_path, "one_shot", precision="bf16")
    (row,) = said(capsys, "evaluate", network)
    assert row["accuracy"] == pytest.approx(rows_of(network)["epochs"][-1]["test_accuracy"])


def test_evaluate_says_the_accuracy_of_the_row_and_of_classes(trial: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = rows_of(trial)["epochs"][-1]
    (row,) = said(capsys, "evaluate", trial)
    assert row["accuracy"] == pytest.approx(last["test_accuracy"])
    assert row["sparsity"] == pytest.approx(last["sparsity"])
    (row,) = said(capsys, "evaluate", trial, "--split", "val")
    assert row["accuracy"] == pytest.approx(last["val_accuracy"])
    classes = said(capsys, "evaluate", trial, "--by-class")
    images = torch.bincount(load_data("few_digits").test_labels, minlength=10).tolist()
    assert [row["images"] for row in classes] == images
    right = [row["predicted"][row["class"]] for row in classes]
    assert sum(right) == round(last["test_accuracy"] * 100)
    assert [row["top1_accuracy"] for row in classes] == pytest.approx(
        [r / n for r, n in zip(right, images, strict=True)]
    )
    assert command.main(["evaluate", str(trial), "--by-class"]) == 0


def test_recovered_names_images_that_only_the_second_network_gets_right(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = made(tmp_path, "dense")
    found = said(capsys, "recovered", trial, other, "--most", "3")
    assert said(capsys, "recovered", trial, trial) == {}
    raw = load_data("few_digits")
    hits = []
    for folder in (trial, other):
        config, net = load_trial(folder)
        batches = build_loader(config, raw, net.device).eval_batches("test", 500)
        hits.append(torch.cat([net.model.eval()(x).argmax(1) == y for x, y in batches]))
    expected = (~hits[0] & hits[1]).nonzero()[:, 0].tolist()
    assert {int(number): positions for number, positions in found.items()} == {
        number: [p for p in expected if int(raw.test_labels[p]) == number][:3]
        for number in sorted({int(raw.test_labels[p]) for p in expected})
    }


def test_saliency_writes_tables_of_kept_weights_and_figures(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "found"
    assert command.main(["saliency", str(trial), "--to", str(to), "--split", "test", "--batch-size", "100"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{to} holds classes.parquet, layers.parquet")
    assert {path.suffix for path in to.iterdir()} == {".parquet", ".png"}
    for picture in to.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    classes, by_layer, biased = (
        pq.read_table(to / f"{name}.parquet").to_pylist() for name in ("classes", "layers", "biased")
    )
    config, net = load_trial(trial)
    ((x, y),) = build_loader(config, load_data("few_digits"), net.device).eval_batches("test", 100)
    weight, mask = prunable(net.model)["conv2.weight"], net.masks["conv2.weight"]
    for number in range(10):
        loss = F.cross_entropy(net.model.eval()(x[y == number]), y[y == number])
        (gradient,) = torch.autograd.grad(loss, weight)
        expected = (gradient.square() * weight.square()).detach()[mask]
        (row,) = (row for row in classes if (row["layer"], row["class"]) == ("conv2", number))
        assert row["kept"] == int(mask.sum())
        assert row["images"] == int((y == number).sum())
        assert row["mean"] == pytest.approx(float(expected.mean()), rel=1e-3)
        assert row["std"] == pytest.approx(float(expected.std(correction=0)), rel=1e-3)
    assert [row["layer"] for row in by_layer] == ["conv1", "conv2", "conv3", "linear"]
    of_conv2 = [row for row in biased if row["layer"] == "conv2"]
    assert len(of_conv2) == next(row["biased"] for row in by_layer if row["layer"] == "conv2")
    assert len(of_conv2) == pytest.approx(0.1 * int(mask.sum()), abs=2)
    assert all(mask.reshape(-1)[row["index"]] for row in of_conv2)
    assert [row["range"] for row in of_conv2] == sorted((row["range"] for row in of_conv2), reverse=True)


def test_saliency_without_matplotlib_says_so_before_it_reads_an_image(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    capsys.readouterr()
    assert command.main(["saliency", str(trial), "--to", str(tmp_path / "x")]) == 2
    assert "saliency without --no-figures needs matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    arguments = ["--no-figures", "--batches", "1", "--layers", "conv1", "linear", "--order", "first"]
    assert command.main(["saliency", str(trial), "--to", str(tmp_path / "x"), *arguments]) == 0
    assert {path.name for path in (tmp_path / "x").iterdir()} == {
        f"{n}.parquet" for n in ("classes", "layers", "biased")
    }
    assert {row["layer"] for row in pq.read_table(tmp_path / "x" / "layers.parquet").to_pylist()} == {"conv1", "linear"}


def test_classes_without_images_have_no_saliency(trial: Path, tmp_path: Path) -> None:
    arguments = ["--no-figures", "--batches", "1", "--batch-size", "4"]
    assert command.main(["saliency", str(trial), "--to", str(tmp_path), *arguments]) == 0
    rows = pq.read_table(tmp_path / "classes.parquet").to_pylist()
    assert any(row["images"] == 0 for row in rows)
    assert all((row["mean"] is None) == (row["images"] == 0) for row in rows)
    seen = {row["class"] for row in rows if row["images"]}
    assert {row["class"] for row in pq.read_table(tmp_path / "biased.parquet").to_pylist()} <= seen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "conv9"], "--layers is 'conv9', but must be one of"),
        (["--percentile", "101"], "--percentile is 101, but must be between 0 and 100"),
        (["--data-dir", "/nowhere"], "data_dir is '/nowhere', which is missing"),
    ],
)
def test_saliency_refuses_in_one_line(
    arguments: list[str], message: str, trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert command.main(["saliency", str(trial), "--to", str(tmp_path), "--no-figures", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("value", ["x", "nan", ""])
def test_numbers_of_options_are_named_by_their_option(
    value: str, trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by the name of a function that reads them."""
    file = str(tmp_path / "x")
    for option, words in (
        ("--percentile", ["saliency", str(trial), "--to", file]),
        ("--batches", ["saliency", str(trial), "--to", file]),
        ("--image-size", ["convert_pickle", file, "--to", file]),
        ("--seconds", ["convert_pickle", file, "--to", file]),
        ("--crop-size", ["evaluate_pretrained", "--data-dir", file]),
        ("--p-prune", ["evaluate_pretrained", "--data-dir", file]),
    ):
        with pytest.raises(SystemExit) as ended:
            command.main([*words, option, value])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert f"argument {option}" in said
        assert f": {value!r}, but must be a " in said


def test_images_that_cannot_be_read_are_not_blamed_on_the_folder_to_write(
    trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: Any, **__: Any) -> Any:
        raise OSError("image 3 is gone")

    monkeypatch.setattr("trials.commands.saliency.saliency_by_class", unreadable)
    with pytest.raises(OSError, match="image 3 is gone"):
        command.main(["saliency", str(trial), "--to", str(tmp_path), "--no-figures"])


def test_a_weight_that_matters_alike_for_all_classes_is_not_biased(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of images of a single class every range is 0, and so is the percentile."""
    one = ["--split", "val", "--batches", "1", "--batch-size", "1"]
    assert command.main(["saliency", str(trial), "--to", str(tmp_path), "--no-figures", *one]) == 0
    biased = pq.read_table(tmp_path / "biased.parquet")
    assert (biased.num_rows, biased.column_names) == (0, ["layer", "index", "range", "class"])
    assert {row["biased"] for row in pq.read_table(tmp_path / "layers.parquet").to_pylist()} == {0}


def test_saliency_that_is_refused_leaves_no_folder(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for network, to in ((tmp_path, tmp_path / "a" / "b"), (trial, tmp_path / "file"), (trial, tmp_path / "file" / "c")):
        capsys.readouterr()
        assert command.main(["saliency", str(network), "--to", str(to), "--no-figures"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


READERS = {
    "evaluate": ["evaluate", "TRIAL"],
    "by class": ["evaluate", "--by-class", "TRIAL"],
    "inspect": ["inspect", "TRIAL"],
    "densities": ["inspect", "--densities", "TRIAL"],
    "dense": ["inspect", "TRIAL", "--dense", "TRIAL"],
    "saliency": ["saliency", "TRIAL", "--no-figures", "--to", "OUT"],
    "recovered": ["recovered", "TRIAL", "TRIAL"],
    "export": ["export", "TRIAL", "--to", "OUT"],
    "compare": ["compare", "TRIAL", "TRIAL"],
    "profile": ["profile", "--device", "cpu", "--threads", "1", "TRIAL"],
}
"""The commands that read a trial's network."""


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("running", 1), ("preempted", 1), ("pruned", 0)])
def test_what_is_read_of_an_unfinished_trial_is_shown_and_exits_with_1(
    name: str, status: str, code: int, trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a script that goes on only after 0 expects. A trial that its search stopped has finished."""
    copy = tmp_path / "copy"
    shutil.copytree(trial, copy)
    state = document(copy / "state.json")
    write_document(copy / "state.json", {**state, "status": status})
    words = [{"TRIAL": str(copy), "OUT": str(tmp_path / "out")}.get(word, word) for word in READERS[name]]
    capsys.readouterr()
    assert command.main(words) == code
    said = capsys.readouterr()
    assert set(said.err.splitlines()) == {f"note: copy is {status}: this is its last committed network"}
    assert said.out or name == "recovered"  # of a trial with itself, no image
    assert (tmp_path / "out").exists() == ("OUT" in READERS[name])


@pytest.mark.parametrize("name", READERS)
def test_no_network_is_announced_of_a_trial_that_has_committed_none(
    name: str, trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trial, copy)
    state = document(copy / "state.json")
    write_document(copy / "state.json", {**state, "status": "preempted", "commits": []})
    words = [{"TRIAL": str(copy), "OUT": str(tmp_path / "out")}.get(word, word) for word in READERS[name]]
    capsys.readouterr()
    assert command.main(words) == 2
    said = capsys.readouterr().err
    assert said == f"error: {str(copy)!r} must be the folder of a trial that has committed a checkpoint, but has none\n"


@pytest.mark.parametrize("words", [["evaluate"], ["inspect"], ["saliency", "--no-figures", "--to"]], ids=lambda w: w[0])
def test_trials_that_are_not_whole_are_named(
    words: list[str], trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unfinished one is read with a note; one whose files are damaged is refused."""
    copy = tmp_path / "copy"
    shutil.copytree(trial, copy)
    state = document(copy / "state.json")
    write_document(copy / "state.json", {**state, "status": "failed"})
    arguments = [*words, *([str(tmp_path / "out")] if "--to" in words else []), str(copy)]
    capsys.readouterr()
    assert command.main(arguments) == 1
    assert capsys.readouterr().err == "note: copy is failed: this is its last committed network\n"
    for name in ("config.json", "state.json")[words == ["inspect"] :]:
        kept = (copy / name).read_bytes()
        (copy / name).write_text('{"config":')
        assert command.main(arguments) == 2
        error = capsys.readouterr().err.replace("note: copy is failed: this is its last committed network\n", "")
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        (copy / name).write_bytes(kept)


def test_a_network_on_other_data_than_its_own_is_refused(trial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trials.analysis as analysis

    raw = load_data("few_digits")
    changed = type(raw)(**{**vars(raw), "fingerprint": "0" * 16})
    monkeypatch.setattr(analysis, "load_data", lambda *_: changed)
    with pytest.raises(UserError, match=r"was trained on few_digits with fingerprint 400.*but the data here have 0000"):
        load_trial(trial)


@pytest.mark.parametrize(
    "words", [["inspect", "{}"], ["export", "{}", "--to", "{}.pt"], ["compare", "{}", "{}"]], ids=" ".join
)
def test_a_link_to_a_trial_that_a_user_has_made_is_followed(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "best").symlink_to(made(tmp_path, "one_shot"))
    assert command.main([word.format(tmp_path / "best") for word in words]) == 0


def test_a_link_in_circles_is_no_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert command.main(["inspect", str(tmp_path / "loop")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
