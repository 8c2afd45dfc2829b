"""Messages for space files that cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.space.checks import check_space
from sweeper.space.load import load_space
from tests.sweeper.space_files import SMALL, refusal, small, written
from trials.methods.registry import METHODS

METHOD_NAMES = ", ".join(sorted(METHODS))
REFUSED: list[tuple[dict[str, Any], str]] = [
    # sections
    ({"trial": 3}, "trial is 3, but must be a mapping of keys to values"),
    ({"gird": {}}, "key is 'gird', but must be one of: "),
    ({"name": "x"}, "name is 'x', but a space is named after its file: remove it"),
    ({"about": yaml.safe_load("!!binary aGk=")}, "about is b'hi', but must be text, a number"),
    ({"samples": 2**63}, "samples is 9223372036854775808, but must fit in 64 bits"),
    ({"seed": float("nan")}, "seed is nan, but must be finite"),
    ({"grid": {3: [1]}}, "grid has the key 3, but keys must be text"),
    ({"grid": ["density"]}, "grid is ['density'], but must be a mapping of dotted paths to lists of values"),
    ({"search": "mask_lr"}, "search is 'mask_lr', but must be a mapping of dotted paths to distributions"),
    ({"profiles": [1]}, "profiles is [1], but must be a mapping"),
    ({"stop_when": "plateau"}, "stop_when is 'plateau', but must be a mapping of: plateau, terminator"),
    ({"stop_when": {"plateau": 5}}, "stop_when.plateau is 5, but must be a mapping of: samples, improvement"),
    ({"callbacks": ["tensorboard", {"name": "tensorboard"}]}, "callbacks[1] is 'tensorboard' again, and both would"),
    (
        {"callbacks": [{"name": "tensorboard", "folder": ""}]},
        "callbacks[0].folder is '', but must be text that",
    ),
    # grid
    ({"grid/density": []}, "grid.density is [], but must have at least one value"),
    ({"grid/density": 0.5}, "grid.density is 0.5, but must be a list of values or the name of a ladder: linear, lth"),
    ({"grid/density": "lht"}, "grid.density is 'lht', but must be one of: linear, lth (did you mean 'lth'?)"),
    ({"grid/density": [0.5, 0.2, 0.5]}, "grid.density has 0.5 twice, but must have every value once"),
    ({"grid/seed": [1, 1.0]}, "grid.seed has 1.0 twice"),
    ({"grid/density": [[0.5]]}, "grid.density has [0.5], but its values must be text, numbers, true, false or null"),
    ({"grid/density": [float("inf")]}, "grid.density[0] is inf, but must be finite"),
    ({"grid/a..b": [1]}, "grid has the path 'a..b', but paths are names joined by dots"),
    ({"grid/device": ["cpu", "cuda"]}, "grid has device, which does not change what a trial computes: set it in trial"),
    ({"grid/split_seed": list(range(2000))}, "grid has 12000 cells, but must have at most 10000"),
    # search
    (
        {"search/mask_lr": [0.1, 0.2]},
        "search.mask_lr is [0.1, 0.2], but must be a mapping such as {uniform: [0.1, 0.2]}",
    ),
    (
        {"search/mask_lr": {"normal": [0, 1]}},
        "search.mask_lr: distribution is 'normal', but must be one of: choice, int",
    ),
    ({"search/mask_lr": {"uniform": [1, 2], "int": [1, 2]}}, "search.mask_lr is both uniform and int, but must be one"),
    ({"search/mask_lr": {"uniform": [1, 2], "log": True}}, "search.mask_lr has the key 'log' beside its distribution"),
    ({"search/mask_lr": {"uniform": [1]}}, "search.mask_lr.uniform is [1], but must be [low, high]: two numbers"),
    ({"search/mask_lr": {"uniform": [0.1, "1"]}}, "search.mask_lr.uniform is [0.1, '1'], but must be [low, high]"),
    ({"search/mask_lr": {"uniform": [True, 2]}}, "search.mask_lr.uniform is [True, 2], but must be [low, high]"),
    (
        {"search/mask_lr": {"uniform": [0.3, 0.3]}},
        "search.mask_lr.uniform is [0.3, 0.3], but low must be less than high",
    ),
    ({"search/mask_lr": {"loguniform": [0, 1]}}, "search.mask_lr.loguniform is [0, 1], but low must be above 0"),
    (
        {"search/prune.epochs": {"int": [0, 2], "log": True}},
        "search.prune.epochs.int is [0, 2], but low must be above 0",
    ),
    ({"search/prune.epochs": {"int": [1, 2], "log": 1}}, "search.prune.epochs.log is 1, but must be true or false"),
    (
        {"search/prune.epochs": {"int": [1, 2.5]}},
        "search.prune.epochs.int is [1, 2.5], but its bounds must be integers",
    ),
    ({"search/mask_lr": {"choice": []}}, "search.mask_lr.choice is [], but must have at least one value"),
    ({"search/mask_lr": {"choice": [1, 1]}}, "search.mask_lr.choice has 1 twice"),
    ({"search/mask_lr": {"choice": "lth"}}, "search.mask_lr.choice is 'lth', but must be a list of values"),
    # between sections
    ({"search/density": {"uniform": [0.1, 1]}}, "density is both in grid and in search, but must be in one of them"),
    (
        {"grid/finetune": [None], "grid/finetune.lr": [0.1]},
        "finetune.lr lies inside finetune, but grid and search must",
    ),
    ({"search": {}}, "samples is 4, but must be 1 where search is empty"),
    # the rest
    ({"samples": 0}, "samples is 0, but must be greater than or equal to 1"),
    ({"samples": "4"}, "samples is '4', but must be a valid integer"),
    (
        {"sampler": "grdi"},
        "sampler is 'grdi', but must be one of: cmaes, gp, grid, nsga2, nsga3, qmc, random, tpe (did you",
    ),
    ({"direction": "up"}, "direction is 'up', but must be 'maximize' or 'minimize'"),
    ({"objective": "test_accuracy"}, "objective is 'test_accuracy', but selection must never see the test set"),
    ({"objective": "val_acc"}, "objective is 'val_acc', but must be one of: analytic_density, "),
    ({"resources": [1]}, "resources is [1], but must be a mapping of keys to values"),
    ({"resources/cpu": 0}, "resources.cpu is 0, but must be greater than or equal to 0.0001"),
    ({"resources/gpu": -1}, "resources.gpu is -1, but must be greater than or equal to 0"),
    ({"resources/gpu": 1.5}, "resources.gpu is 1.5, but must be a whole number, or a fraction up to 1"),
    ({"resources/memory": "8 XB"}, "resources.memory is '8 XB', but must be bytes, or a number with a unit"),
    ({"resources/memory": 0}, "resources.memory is 0, but must be greater than or equal to 1"),
    (
        {"resources/accelerator_type": "an H100"},
        "resources.accelerator_type is 'an H100', but must be one of Ray's names",
    ),
    ({"resources/custom": [1]}, "resources.custom is [1], but must be a mapping of Ray's names to amounts"),
    ({"resources/custom": {"GPU": 1}}, "resources.custom has 'GPU', but that is resources.gpu: set it there"),
    (
        {"resources/custom": {"license": 0}},
        "resources.custom.license is 0, but must be greater than or equal to 0.",
    ),
    ({"resources/custom": {"TPU": 1.5}}, "resources.custom.TPU is 1.5, but must be a whole number"),
    ({"resources/tpu": 1}, "resources: key is 'tpu', but must be one of: accelerator_type, cpu, custom, gpu, memory"),
    ({"retries": -1}, "retries is -1, but must be greater than or equal to 0"),
    ({"max_concurrent": 0}, "max_concurrent is 0, but must be greater than or equal to 1"),
    # found by trying the cells
    (
        {"grid/density": [0.5, 1.5]},
        "density is 1.5, but must be less than or equal to 1 (the trial at density=1.5,seed=0",
    ),
    ({"grid/density": ["half"]}, "density is 'half', but must be a valid number (the trial at density=half,seed=0"),
    ({"grid/densty": [1]}, "key is 'densty', but must be one of: "),
    ({"grid/prune.epoch": [1]}, "prune: key is 'epoch', but must be one of: backward, batch_size, epochs"),
    ({"grid/density.x": [1], "grid/seed": [0]}, "density.x lies inside density"),
    ({"trial/pretrain": 3, "grid/pretrain.epochs": [1]}, "pretrain is 3, but must be a mapping: grid or search sets"),
    ({"trial/pretrain": {"epochs": -1}}, "pretrain.epochs is -1, but must be greater than or equal to 0"),
    ({"trial/method": "bop"}, f"method is 'bop', but must be one of: {METHOD_NAMES} (did you mean"),
    ({"trial/method": ["bip"]}, f"method is ['bip'], but must be one of: {METHOD_NAMES}"),
    ({"trial": {}}, f"method is missing: add method: one of {METHOD_NAMES}"),
    ({"trial/model": "resnet21s"}, "model is 'resnet21s', but must be one of: "),
    ({"trial/dataset": "cifar"}, "dataset is 'cifar', but must be one of: cifar10, cifar100, digits"),
    (
        {"search/mask_lr": {"uniform": [0, 1]}},
        "mask_lr is 0.0, but must be greater than 0 (the trial at density=0.5,seed=0, ",
    ),
    ({"search/mask_lr": {"choice": [0.1, 0.2, -1]}}, "mask_lr is -1, but must be greater than 0"),
    ({"search/prune.epochs": {"uniform": [1, 2]}}, "prune.epochs is 1.0, but must be a valid integer"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED, ids=[says[:60] for _, says in REFUSED])
def test_refused_in_one_line_with_value_and_rule(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    def load_and_check() -> None:
        check_space(small(tmp_path, changes))

    assert refusal(load_and_check).startswith(says)


def test_unknown_space_and_profile(tmp_path: Path) -> None:
    says = refusal(lambda: load_space("bip_unstructred"))
    assert says.startswith("space is 'bip_unstructred', but must be one of: adaptive_budget, ")
    assert "did you mean 'bip_unstructured'?" in says
    assert "or give the path of a YAML file" in says
    assert refusal(lambda: small(tmp_path, profile="dmo")) == (
        "profile is 'dmo', but must be one of: demo, plain (did you mean 'demo'?)"
    )
    assert refusal(lambda: small(tmp_path, {"profiles": {}}, profile="demo")) == (
        "profile is 'demo', but small has no profiles: leave it out"
    )
    assert refusal(lambda: small(tmp_path, {"profiles/demo": 3}, profile="demo")).startswith(
        "profiles.demo is 3, but must be"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is None, but must be a mapping"),
        ("[1, 2]", "is [1, 2], but must be a mapping"),
        ("a: [", "is not YAML"),
        ("trial: {}\ntrial: {}", "key 'trial' occurs twice"),
        ("trial: &a [*a]", "the alias *a names nothing before it, or what holds it"),
        ("trial: &a {x: *a}\nprofiles: {demo: {trial: &b {x: *b}}}", "the alias *a names nothing before it"),
        ("a: &a [1,1,1,1,1,1,1,1,1]\n" + "\n".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(7)
        ), "its aliases stand for more than 2000000 values"),
        (f"samples: {hex(10**5000)}", "samples is an integer of 16610 bits, but must fit in 64 bits"),
        ("about: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)  # fmt: skip
def test_files_that_hold_no_space(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(lambda: load_space(written(tmp_path, text), profile="demo"))


def test_missing_files_and_invalid_names(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(lambda: load_space(str(tmp_path / "none.yaml")))
    assert "cannot be read" in refusal(lambda: load_space(f"{tmp_path}/"))
    path = written(tmp_path, SMALL, "my space")
    assert refusal(lambda: load_space(path)).startswith(f"{path} is named 'my space', but names must consist of")
