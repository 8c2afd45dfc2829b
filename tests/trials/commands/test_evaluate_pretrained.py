"""The command that reproduces the published tables, on random weights and a few made-up images."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from tests.trials.layouts import write_imagenet, write_imagenet_parquet
from trials.__main__ import main
from trials.commands.evaluate_pretrained import PRETRAINED_COLUMNS, REFERENCE
from trials.commands.pretrained_accuracy import BackwardPrunedNetwork, Ratio, check_ratio, masks_of, read_reference
from trials.data.encoded import FolderImages
from trials.data.sets.imagenet import load_validation
from trials.errors import DataError, UserError
from trials.networks import torchvision_weights
from trials.sparsity import PATTERNS
from trials.sparsity.dropping import drop_count, pruned, shares
from trials.storage.place import place

SMALL = ["--resize", "18", "--crop-size", "16", "--batch-size", "4", "--device", "cpu"]
CLASSES = 3


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights of resnet18 for three classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(models.resnet18(num_classes=CLASSES).state_dict(), path)
    return path


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def reference_of(tmp_path: Path, wanted: Callable[[dict[str, str]], bool]) -> Path:
    """A file with the wanted rows of the published table."""
    rows = rows_of(REFERENCE.read_text())
    path = tmp_path / "reference.csv"
    with path.open("w") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(row for row in rows if wanted(row))
    return path


def test_the_table_is_reproduced(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = reference_of(tmp_path, lambda row: row["network"] == "resnet18" and float(row["p_prune"]) in (0.2, 0.08))
    folder, published = write_imagenet(tmp_path / "data"), rows_of(path.read_text())
    command = ["evaluate_pretrained", "--data-dir", str(folder), "--reference", str(path), *SMALL]
    assert main([*command, "--weights", f"resnet18={weights}"]) == 0
    found = rows_of(capsys.readouterr().out)
    assert len(found) == len(published) >= 3
    data = load_validation(folder, crop_size=16, resize=18)
    for row, known in zip(found, published, strict=True):
        assert tuple(row) == PRETRAINED_COLUMNS
        assert (row["table"], row["network"]) == (known["table"], known["network"])
        assert row["published_acc1_percent"]
        assert int(row["images"]) == len(data.test_labels) == 6
        expected, measured = by_hand(row, weights, data)
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-4), name
        for name, value in measured.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-4), name
    assert len({row["weight_sparsity"] for row in found}) == 3


def by_hand(row: dict[str, str], weights: Path, data: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of one row, computed with the weights set to zero."""
    from trials.data import to_loader

    model = models.resnet18(num_classes=CLASSES)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    ratio = Ratio(float(row["p_prune"]), float(row["p_bern"]), row["pattern"])
    pattern = PATTERNS[ratio.pattern]
    masks = masks_of(model, ratio, seed=0)
    measured = shares(model, masks, pattern)
    if ratio.p_bern == 1:
        units = sum(pattern.unit_scores(mask.float()).numel() for mask in masks.values())
        assert measured["unit_sparsity"] == drop_count(ratio.p_prune, units) / units
    losses, right = [], 0
    loader = to_loader(data, device="cpu", val_fraction=0, split_seed=0)
    with pruned(model, masks), torch.no_grad():
        for x, y in loader.eval_batches("test", 6):
            logits = model(x)
            losses.append(float(nn.functional.cross_entropy(logits, y, reduction="sum")))
            right += int((logits.argmax(1) == y).sum())
    figures = {"acc1_percent": 100 * right / 6, "acc5_percent": 100.0, "loss": sum(losses) / 6}
    return figures, {**measured, "nominal_ratio": ratio.p_prune * ratio.p_bern}


def test_images_are_read_once_for_all_networks(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    original = FolderImages.read

    def read(self: FolderImages, index: int) -> bytes:
        reads.append(index)
        return original(self, index)

    monkeypatch.setattr(FolderImages, "read", read)
    monkeypatch.setattr("trials.data.streamed.available_workers", lambda: 0)
    command = ["evaluate_pretrained", "--data-dir", str(write_imagenet(tmp_path)), "--network", "resnet18", *SMALL]
    command += ["--p-prune", "0,0.3", "--p-bern", "1,0.5", "--pattern", "weight", "--to", str(tmp_path / "t.csv")]
    assert main([*command, "--weights", f"resnet18={weights}"]) == 0
    assert reads == list(range(6))
    rows = rows_of((tmp_path / "t.csv").read_text())
    assert [float(row["p_prune"]) for row in rows] == [0, 0, 0.3, 0.3]
    for row in rows:
        nominal = float(row["p_prune"]) * float(row["p_bern"])
        assert float(row["nominal_ratio"]) == pytest.approx(nominal)
        assert float(row["unit_sparsity"]) == float(row["weight_sparsity"]) == pytest.approx(nominal, abs=1e-3)
        assert float(row["parameter_sparsity"]) <= float(row["weight_sparsity"])


def test_every_published_row_can_be_asked_for() -> None:
    asked, rows = read_reference(REFERENCE), rows_of(REFERENCE.read_text())
    assert len(asked) == len(rows) > 20
    assert {row.network for row in asked} <= set(models.list_models(module=models))
    assert {row.ratio.pattern for row in asked} == {"kernel", "filter_l1"}
    for row, known in zip(asked, rows, strict=True):
        assert row.ratio.p_prune == float(known["p_prune"])
        assert row.published["published_acc1_percent"] == known["acc1_percent"]


@pytest.mark.parametrize("layout", ["val only", "classes themselves", "parquet"])
def test_validation_images_are_enough(layout: str, tmp_path: Path) -> None:
    whole = (write_imagenet_parquet if layout == "parquet" else write_imagenet)(tmp_path / "whole")
    if layout == "parquet":
        for shard in whole.glob("data/train-*"):
            shard.unlink()
    else:
        (whole / "train").rename(tmp_path / "away")
    folder = whole / "val" if layout == "classes themselves" else whole
    data = load_validation(folder, crop_size=16, resize=18)
    assert (data.num_classes, len(data.test_labels)) == (CLASSES, 6)
    assert data.test_labels.tolist() == sorted(data.test_labels.tolist())


def test_no_validation_images(tmp_path: Path) -> None:
    (write_imagenet(tmp_path) / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"holds no validation images of imagenet: it must have val/<class>/"):
        load_validation(tmp_path)


def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["evaluate_pretrained", "--data-dir", str(tmp_path / "data"), *SMALL, *arguments]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_offline_the_error_names_the_file_to_bring_and_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(url: str, *_: Any, **__: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    write_imagenet(tmp_path / "data")
    line = fails(tmp_path, capsys)
    for part in ("weights of resnet18", str(tmp_path / "torch"), "no route", "https://", "--weights resnet18=FILE"):
        assert part in line


def test_the_hub_cache_is_used(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    content = weights.read_bytes()
    named = SimpleNamespace(url=f"https://example.org/resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth")
    monkeypatch.setattr(models, "get_model_weights", lambda _: {"IMAGENET1K_V1": named})
    cached = tmp_path / "torch" / "hub" / "checkpoints" / Path(named.url).name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    folder = write_imagenet(tmp_path / "data")
    assert (
        main(["evaluate_pretrained", "--data-dir", str(folder), "--network", "resnet18", "--p-prune", "0", *SMALL]) == 0
    )
    assert rows_of(capsys.readouterr().out)[0]["weight_sparsity"] == "0"


def test_weights_are_named_as_source_net_is(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative, from the home folder, and in a bucket, whose address stays as it is."""
    folder = write_imagenet(tmp_path / "data")
    command = ["evaluate_pretrained", "--data-dir", str(folder), "--network", "resnet18", "--p-prune", "0", *SMALL]
    monkeypatch.setenv("HOME", str(weights.parent))
    monkeypatch.chdir(weights.parent)
    for given in ("~/resnet18.pth", "resnet18.pth"):
        assert main([*command, "--weights", f"resnet18={given}"]) == 0
    seen: list[object] = []

    def stop(model: nn.Module, path: object, field: str) -> None:
        seen.append(path)
        raise UserError("seen")

    monkeypatch.setattr(torchvision_weights, "load_into", stop)
    assert main([*command, "--weights", "resnet18=s3://bucket/some/x.pth"]) == 2
    assert seen == [place("s3://bucket/some/x.pth")]
    capsys.readouterr()


def test_wrong_input_is_one_line(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be a folder" in fails(tmp_path, capsys)
    write_imagenet(tmp_path / "data")
    resnet18 = ("--network", "resnet18")
    assert "did you mean 'resnet18'" in fails(tmp_path, capsys, "--network", "resnet81")
    for option, value in (("--p-prune", "0.1"), ("--p-bern", "1"), ("--pattern", "weight")):
        said = fails(tmp_path, capsys, option, value)  # without a network, of which the table would not take it
        assert f"{option[2:]} is given, but the published tables have their own: name networks (--network)" in said
    assert "p_prune is 1, but must be in [0, 1)" in fails(tmp_path, capsys, *resnet18, "--p_prune", "0,1")
    assert "p_bern is 2" in fails(tmp_path, capsys, *resnet18, "--p-bern", "2")
    assert "must be NETWORK=FILE" in fails(tmp_path, capsys, *resnet18, "--weights", "here.pth")
    assert "must name a network of the table" in fails(tmp_path, capsys, *resnet18, "--weights", "vgg11=x.pth")
    assert "can be read" in fails(tmp_path, capsys, *resnet18, "--weights", f"resnet18={tmp_path / 'no.pth'}")
    for no_path in ("~no_such_user/x.pth", "s3://no_such_bucket*/x.pth", "s3://"):
        said = fails(tmp_path, capsys, *resnet18, "--weights", f"resnet18={no_path}")
        assert f"weights of resnet18 is {no_path!r}, but must be a path or s3://BUCKET/NAME" in said
    other = fails(tmp_path, capsys, "--network", "resnet34", "--weights", f"resnet34={weights}")
    assert "weights of resnet34" in other
    assert "lacks" in other
    assert "leave one of them out" in fails(tmp_path, capsys, *resnet18, "--reference", "table.csv")
    broken = tmp_path / "broken.csv"
    broken.write_text("a,b\n1,2\n")
    assert "but must be CSV with the columns" in fails(tmp_path, capsys, "--reference", str(broken))
    with pytest.raises(UserError, match="pattern is 'filter', but must be one of"):
        check_ratio(Ratio(0.1, 1, "filter"))


@pytest.mark.parametrize("pattern", [None, "kernel"])
def test_gradient_pruning_leaves_the_accuracies_as_they_are(
    pattern: str | None, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the README of the released code says; the rows show what its backward passes drop."""
    command = ["evaluate_pretrained", "--data-dir", str(write_imagenet(tmp_path)), "--network", "resnet18", *SMALL]
    command += ["--p-prune", "0,0.3,0.7", "--p-bern", "0.5,1", "--weights", f"resnet18={weights}"]
    assert main([*command, "--p-prune", "0"]) == 0
    dense = rows_of(capsys.readouterr().out)[0]
    chosen = ["--pattern", pattern] if pattern else []
    assert main([*command, "--prune_type", "gradient", *chosen]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert [(row["p_prune"], row["p_bern"]) for row in rows] == [
        (p, b) for p in ("0", "0.3", "0.7") for b in ("0.5", "1")
    ]
    for row in rows:
        assert tuple(row) == PRETRAINED_COLUMNS
        assert (row["prune_type"], row["pattern"]) == ("gradient", pattern or "weight")
        assert [row[name] for name in ("acc1_percent", "acc5_percent", "loss")] == [
            dense[name] for name in ("acc1_percent", "acc5_percent", "loss")
        ]
        assert [float(row[name]) for name in PRETRAINED_COLUMNS if name.endswith("_sparsity")] == [0, 0, 0]
        assert float(row["backward_candidate_units"]) == pytest.approx(float(row["p_prune"]), abs=1e-4)
        share = float(row["backward_candidate_weights"])
        assert (
            share == pytest.approx(float(row["p_prune"]), abs=1e-4)
            if pattern is None
            else share <= float(row["p_prune"])
        )


def test_gradient_pruning_changes_the_gradient_of_images_and_nothing_else() -> None:
    """Convolutions with a bias too, on which the released code fails; the model is left as it was."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 4)).eval()
    found = BackwardPrunedNetwork(model, check_ratio(Ratio(0.6, 1.0, "weight", "gradient")), seed=0)
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    gradients = [torch.autograd.grad(logits[:, 0].sum(), x)[0] for logits in (model(x), found.logits(x))]
    assert torch.equal(model(x), found.logits(x))
    assert not torch.allclose(*gradients)
    assert not any("forward" in vars(layer) for layer in model.modules())


def test_gradient_pruning_has_no_published_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate_pretrained", "--data-dir", str(tmp_path), "--prune-type", "gradient"]) == 2
    said = capsys.readouterr().err
    assert "prune-type is 'gradient', but the published tables are of global pruning" in said
    with pytest.raises(UserError, match="prune-type is 'gredient'"):
        check_ratio(Ratio(0.1, 1.0, "weight", "gredient"))
