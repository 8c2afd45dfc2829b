"""Every method on a model of every family: refused in one line before anything starts, or trained."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.trials.contract import METHODS_AT_ONCE, OWN, VARIANTS, configs, images, kept, offered, refused
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.models import (
    MODELS,
    bip_vgg,
    cifar_resnet,
    greg_vgg,
    imagenet_resnet,
    late_stride_wide_resnet,
    resnet_s,
    vgg,
    wide_resnet,
)
from trials.storage.trial_folder import TrialFolder

FAMILIES = {
    "cifar_resnet": partial(cifar_resnet.resnet, cifar_resnet.BasicBlock, (4, 8), (1, 1)),
    "bottlenecks": partial(cifar_resnet.resnet, cifar_resnet.Bottleneck, (4, 8), (1, 1)),
    "resnet_s": partial(resnet_s.resnet_s, 1),
    "wide_resnet": partial(wide_resnet.wide_resnet, 10, 1),
    "late_stride_wide_resnet": partial(late_stride_wide_resnet.late_stride_wide_resnet, 10, 1),
    "vgg": partial(vgg.vgg, ((8,), (16, 16))),
    "bip_vgg": partial(bip_vgg.bip_vgg, "8 M 16 M", False),
    "bip_vgg_bn": partial(bip_vgg.bip_vgg, "8 M 16 M", True),
    "greg_vgg": partial(greg_vgg.greg_vgg, "8 M 16 16"),
    "imagenet_resnet": partial(imagenet_resnet.imagenet_resnet, imagenet_resnet.BasicBlock, (1, 1, 1, 1)),
    **{name: MODELS[name] for name in ("tiny", "lenet5", "mlp_7_relu")},
}
"""A narrow net of every family of trials/models."""

FIXED = {f"trials.models.{name}" for name in ("cifar_alexnet", "densenet", "efficientnet", "googlenet", "shufflenet")}
"""Models that are too slow to run with every method here; tests/products runs every method on them."""

PRUNES_ANY = {"dense", "one_shot", "imp", "bip", "hydra", "finetune", "adaptive_sparsity", "prune_iterative", "regrow"}
"""Methods that prune single weights of any model by default, or go on from such a mask."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagenet_resnet, "WIDE", (4, 8, 12, 16))
        offered(patch, {**FAMILIES, **OWN}, blots=images(1, 8), rgb=images(3, 32))
        yield tmp_path_factory.mktemp("contract")


def content(model: str, fields: dict[str, Any]) -> dict[str, Any]:
    start = {} if fields["method"] in ("dense", "finetune", "adaptive_sparsity", "dwp") else {"pretrain": {"epochs": 0}}
    return {"dataset": "rgb" if model == "imagenet_resnet" else "blots", "model": model, **start, **fields}


def test_every_method_and_family_is_there() -> None:
    assert METHODS_AT_ONCE.keys() == METHODS.keys()
    modules = {builder.func.__module__ for builder in FAMILIES.values() if isinstance(builder, partial)}
    for builder in MODELS.values():
        module = (builder.func if isinstance(builder, partial) else builder).__module__
        assert module in modules | {"trials.models.tiny", "trials.models.small_nets"} | FIXED, (
            "add a net of this family"
        )


@pytest.mark.parametrize("model", [*FAMILIES, *OWN])
def test_a_method_trains_or_is_refused(model: str, storage: Path) -> None:
    trained = {
        name
        for name, fields in configs({name: {} for name in METHODS}).items()
        if kept(content(model, fields), storage)
    }
    if model in FAMILIES or model in ("depthwise", "grouped", "grouped_stem", "repeated", "branching"):
        assert trained >= PRUNES_ANY
    if model == "tiny":
        assert trained == METHODS.keys() - {"oracle"}  # too many candidates
    if model == "mlp_7_relu":
        assert trained.isdisjoint({"l1", "greg1", "greg2", "global_prune", "layer_prune", "gradient_prune", "dwp"})
    if model == "tied":
        assert trained == {"dense", "gradient_prune"}
    if model in ("unused", "wrong_head", "large_images_only"):
        assert not trained


@pytest.mark.parametrize("model", ["mlp_7_relu", "depthwise"])
def test_choices_of_a_method_train_or_are_refused(model: str, storage: Path) -> None:
    trained = {name for name, fields in configs(VARIANTS).items() if kept(content(model, fields), storage)}
    assert {"one_shot-weight-erk", "imp-uniform", "l1-weight", "greg2-weight", "gradient_prune-linear"} <= trained
    never = {
        *("imp-uniform_plus-late", "global_prune-none", "l1-skipped"),
        *("adaptive_sparsity-none", "regrow-too-little", "regrow-too-often", "regrow_iterative-reached"),
        *("single_layer-no-budget", "one_shot-filter-dense", "regrow-filter-empty"),
        *("prune_iterative-filter-empty", "prune_iterative-weight-empty"),
        *("regrow_iterative-out-of-reach", "regrow_iterative-filter-out-of-reach"),
        *(name for name in VARIANTS if "-backward-none-" in name),
    }
    assert trained & never == set()
    assert ("one_shot-uniform_plus-sparse" in trained) == (model == "mlp_7_relu")  # its last layer is small enough


@pytest.mark.parametrize(
    ("model", "fields", "said"),
    [
        ("mlp_7_relu", {"method": "bip", "density": 0.5, "pattern": "filter"}, "has none: give pattern 'weight', or"),
        ("mlp_7_relu", {"method": "regrow", "unit": "filter"}, "has none: give unit 'weight', or"),
        ("mlp_7_relu", {"method": "single_layer", "unit": "filter"}, "has none: give unit 'weight', or"),
        ("depthwise", {"method": "l1", "stage_pr": "[0-2:0.5]"}, "3 (filters of a grouped convolution go with"),
        ("repeated", {"method": "greg1", "stage_pr": 0.5, "pattern": "channel"}, "must keep all their input channels"),
        ("repeated", {"method": "l1", "stage_pr": 0.5}, "again (again is used twice)"),
        ("tied", {"method": "one_shot", "density": 0.5}, "one, other share weights"),
        ("unused", {"method": "dense"}, "never calls spare"),
        ("wrong_head", {"method": "dense"}, "it must make [2, 4]"),
        ("large_images_only", {"method": "dense"}, "images of 1x8x8"),
        ("tiny", {"method": "dense", "normalise": "imagenet"}, "leave normalise out"),
        ("tiny", {"method": "dense", "val_fraction": 0.99}, "must leave some for training"),
        ("tiny", {"method": "dense", "val_fraction": 0.01}, "must leave some for validation"),
        ("tiny", {"method": "one_shot", "density": 0.005, "distribution": "uniform_plus"}, "uniform_plus must remove"),
        ("tiny", {"method": "imp", "levels": 21, "distribution": "uniform_plus"}, "at level "),
        ("tiny", {"method": "imp", "levels": 60, "distribution": "uniform_plus"}, "fewer levels"),
        ("tiny", {"method": "l1", "stage_pr": 0.5, "skip_layers": ["0", "1", "2"]}, "no filter of tiny would be"),
        ("mlp_7_relu", {"method": "l1", "stage_pr": {"0-1": 0.3, "3": 0.5}}, "stage_pr is [0-1:0.3, 3:0.5], but no"),
        ("tiny", {"method": "oracle", "stage_pr": 0.5, "pattern": "weight"}, "max_candidates is 10000"),
        (
            "tiny",
            {"method": "single_layer", "prune": {"distribution": "uniform_plus"}, "layers": ["conv1", "conv2"]},
            "layers has conv1",
        ),
        ("tiny", {"method": "regrow_iterative", "target_sparsity": 0.999}, "nothing would be regrown"),
        (
            "tiny",
            {"method": "regrow_iterative", "target_sparsity": 0.5},
            "5 rounds of at most 0.005 lower the sparsity",
        ),
        ("tiny", {"method": "gradient_prune", "train": {"backward": {"p_prune": 1e-6}}}, "none would be pruned"),
    ],
)
def test_the_line_names_all_layers_and_the_way_out(
    model: str, fields: dict[str, Any], said: str, storage: Path
) -> None:
    assert said in refused(content(model, fields))


@pytest.mark.parametrize(
    "prune",
    [
        {"distribution": "uniform_plus", "prune_fraction": 0.5},  # certainly leaves the first layer whole
        {"distribution": "global", "score": "magnitude", "prune_fraction": 0.0005},  # 4 of 8,000 weights, of any layer
    ],
)
def test_layers_without_room_are_no_targets(prune: dict[str, Any], storage: Path) -> None:
    fields = configs({"single_layer": {}})["single_layer"]
    told = content("tiny", {**fields, "prune": {**fields["prune"], **prune}})
    assert kept(told, storage)
    state = parse(told)
    rows = TrialFolder(storage / "sweep" / "trials" / state.id)
    found = rows.state()
    assert found is not None
    tried = {row["layer"] for row in rows.rows(found.commits[-1])["allocations"]}
    assert tried
    assert tried < {"conv1", "conv2", "conv3", "linear"}


def test_a_level_may_be_too_small_for_a_group_of_its_own(storage: Path) -> None:
    fields = {"method": "prune_iterative", "pattern": "filter", "prune_fraction": 0.005, "finetune": {"epochs": 0}}
    assert kept(content("tiny", {**fields, "levels": 4}), storage)  # of 96 filters: 96, 95, 95, 94
    assert "none would be pruned" in refused(content("tiny", {**fields, "levels": 1}))


@pytest.mark.parametrize("fields", [{"density": 0.5, "finetune": {"batch_size": 26}}, {"density": 0.5}])
@pytest.mark.parametrize("model", ["pooled_norm", "tiny", "mlp_7_relu"])
def test_a_last_batch_of_one_is_refused_where_torch_refuses_it(
    model: str, fields: dict[str, Any], storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "pooled_norm", pooled_norm)
    batch_of_one = "batch_size" in fields.get("finetune", {})  # 27 images to train on
    finetune = {"epochs": 1, **fields.get("finetune", {"batch_size": 64})}
    told = content(model, {"method": "one_shot", **fields, "finetune": finetune})
    assert kept(told, storage) == (model != "pooled_norm" or not batch_of_one)
    if model == "pooled_norm" and batch_of_one:
        assert "the last of 2 batches has one" in refused(told)


def pooled_norm(*, num_classes: int, in_channels: int) -> Any:
    """BN after the global pool, where an image has one value per channel."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(in_channels, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten()),
        nn.Linear(8, num_classes),
    )


@pytest.mark.parametrize("part", ["episode", "batchnorm", "pretrain", "prune.finetune", "finetune"])
def test_every_part_that_trains_is_asked_for_its_last_batch(
    part: str, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "pooled_norm", pooled_norm)
    step: dict[str, Any] = {"epochs": 1, "batch_size": 64}
    alone = {"epochs": 1, "batch_size": 26}
    fields: dict[str, Any] = {
        "method": "regrow",
        "pretrain": alone if part == "pretrain" else step,
        "prune": {"prune_fraction": 0.5, "finetune": alone if part == "prune.finetune" else step},
        "controller": {"episodes": 1},
        "episode": {"epochs": 1 if part == "episode" else 0, "batch_size": 26},
        "batchnorm_batches": 9 if part == "batchnorm" else 0,
        "finetune": alone if part == "finetune" else step,
    }
    assert "one, on which pooled_norm cannot train" in refused(content("pooled_norm", fields))
    if part == "episode":  # half an epoch's batches are read, and so the last one is not
        fields["episode"]["data_fraction"] = 0.5
        assert kept(content("pooled_norm", fields), storage)
