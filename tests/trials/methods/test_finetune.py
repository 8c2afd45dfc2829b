"""Finetuning of a pruned checkpoint: under the file's mask, and the bits of a method that finetunes by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.folders import checkpoint_of, rows_of, same
from tests.trials.networks.sources import DATA, refusal_of, started, started_from, tiny
from tests.trials.pruned_files import masked_file
from tests.trials.small_trials import PRUNABLE, RECIPE, config_of, folder_of, run_in
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.bip.finetune import FinetuneConfig
from trials.methods.parsing import parse
from trials.methods.preconditions import require_runnable
from trials.networks.export import export
from trials.networks.named_files import resolved
from trials.sparsity import prunable

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory, few_digits: None) -> dict[str, Path]:
    """Exports of a trial that was pruned and not finetuned, and its folder."""
    folder = tmp_path_factory.mktemp("pruned")
    config = config_of("one_shot", density=0.4, finetune=None)
    assert run_in(folder, config).status == "complete"
    found = {"trial": folder_of(config, folder)}
    for form in ("dense", "prune"):
        found[form] = folder / f"{form}.pt"
        export(found["trial"], found[form], form)
    return found


def finetuned(path: Path, storage: Path, **fields: Any) -> Path:
    config = resolved(config_of("finetune", source_net=str(path), **fields))
    require_runnable(config, DATA)
    state = run_in(storage, config)
    assert state.status == "complete", state.error
    return folder_of(config, storage)


@pytest.mark.parametrize("form", ["dense", "prune"])
def test_it_gives_the_bits_of_a_trial_that_finetunes_by_itself(
    form: str, pruned: dict[str, Path], tmp_path: Path
) -> None:
    """The stage's name and the seed decide the order of images, so that both train on the same batches."""
    recipe = {**RECIPE, "lr": 0.05}
    whole = config_of("one_shot", density=0.4, finetune=recipe)
    assert run_in(tmp_path, whole).status == "complete"
    folder = finetuned(pruned[form], tmp_path, finetune=recipe)
    one, other = (checkpoint_of(f)["net"] for f in (folder, folder_of(whole, tmp_path)))
    assert same(one["model"], other["model"])
    assert same(one["masks"], other["masks"])
    rows, begun = rows_of(folder)["epochs"], rows_of(pruned["trial"])["epochs"][-1]
    assert [row["stage"] for row in rows] == ["finetune"] * 3
    assert (rows[0]["epoch"], rows[0]["val_accuracy"]) == (0, begun["val_accuracy"])  # as the file has it
    assert {row["density"] for row in rows} == {begun["density"]}
    assert all("density_missed" not in row["warnings"] for row in rows)


def test_zeros_of_a_file_without_a_mask_may_be_trained(pruned: dict[str, Path], tmp_path: Path) -> None:
    folder = finetuned(pruned["dense"], tmp_path, zeros="trained")
    assert checkpoint_of(folder)["net"]["masks"] == {}
    assert rows_of(folder)["epochs"][-1]["density"] == 1


def test_a_dense_file_is_finetuned_as_a_whole(tmp_path: Path) -> None:
    torch.save(tiny().state_dict(), tmp_path / "dense.pt")
    folder = finetuned(tmp_path / "dense.pt", tmp_path)
    assert [row["density"] for row in rows_of(folder)["epochs"]] == [1, 1, 1]


def test_the_masks_are_the_files(tmp_path: Path) -> None:
    given = torch.load(masked_file("tiny", 10, 1), weights_only=True)["masks"]
    net = checkpoint_of(finetuned(Path(masked_file("tiny", 10, 1)), tmp_path))["net"]
    assert same(net["masks"], given)
    assert all(not net["model"][name][~mask].any() for name, mask in given.items())
    assert sum(int(mask.sum()) for mask in given.values()) < PRUNABLE


@pytest.mark.parametrize("distribution", ["global", "uniform"])
def test_scores_give_the_mask(distribution: str, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(2)
    scores = {
        f"{name.removesuffix('weight')}popup_scores": torch.randn(weight.shape, generator=draw)
        for name, weight in prunable(tiny()).items()
    }
    content = {"state_dict": {**tiny().state_dict(), **scores}}
    said = refusal_of(content, tmp_path, method="finetune")
    assert "source_mask: {density: K, distribution: global}" in said
    net = started(content, tmp_path, "finetune", source_mask={"density": 0.1, "distribution": distribution})
    assert abs(net.start_density - 0.1) < 1e-3
    masks = started(content, tmp_path, "imp-none", source_mask={"density": 0.1, "distribution": distribution}).masks
    assert same(net.masks, masks)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"source_net": None}, "source_net is missing, but method finetune goes on from a network: name a file"),
        ({"pretrain": RECIPE}, "pretrain is given, but method finetune trains nothing before"),
        ({"source_net": "torchvision"}, "source_net is 'torchvision', but model is 'tiny'"),
        ({"density": 0.5}, "key is 'density'"),
        ({"zeros": "kept"}, "zeros is 'kept', but must be 'masked' or 'trained'"),
    ],
)
def test_what_is_no_start_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        config_of("finetune", **fields)
    assert said in str(refused.value)
    assert str(refused.value).isprintable()


def test_another_models_file_is_refused() -> None:
    with pytest.raises(UserError, match="give the model it was saved from"):
        started_from(Path(masked_file("lenet5", 10, 1)), "finetune")
    with pytest.raises(UserError, match="source_net is"):
        started_from(Path(masked_file("tiny", 7, 1)), "finetune", DataHeader("few_digits", 10, 1, (8, 8), 400))


def test_the_recipe_is_the_released_one() -> None:
    """OPTML-Group/BiP at c51fc35, configs/*/finetune.yml: the same for CIFAR-10, CIFAR-100 and TinyImageNet."""
    config = parse({"method": "finetune", "dataset": "cifar10", "model": "resnet20s", "source_net": "pruned.pt"})
    assert isinstance(config, FinetuneConfig)
    recipe = config.finetune
    assert (recipe.epochs, recipe.lr, recipe.schedule) == (100, 0.1, "cosine")
    assert (recipe.weight_decay, recipe.momentum, recipe.batch_size) == (5e-4, 0.9, 128)
    released = parse({**config.model_dump(exclude_defaults=True), "method": "finetune", "variant": "original"})
    assert released.finetune.schedule == "cosine_released"  # type: ignore[attr-defined]
    own = parse({**config.model_dump(exclude={"finetune"}), "variant": "original", "finetune": {"lr_steps": "0:0.1"}})
    assert own.finetune.lr_schedule()(5) == 0.1  # type: ignore[attr-defined]
