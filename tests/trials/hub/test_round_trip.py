"""A network comes back from its model folder as the trial has it: bits of outputs, masks, density, preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import trials
from tests.trials.hub.exported import FAMILIES, Exported, fields_of
from trials.data import load_data, to_loader
from trials.errors import UserError
from trials.hub.export import export_folder
from trials.models import MODELS
from trials.single import config_of

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_network_is_the_trials(family: str, exported: Exported) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    trial, folder = exported.trial(family), exported.folder(family)
    network = trials.load_pretrained(folder)
    expected, masks = trial.network(), trial.masks()
    with torch.no_grad():
        assert torch.equal(network(IMAGES), expected(IMAGES))
    assert not network.training
    assert type(network) is type(expected)
    assert network.about.masks.keys() == masks.keys()
    assert all(torch.equal(network.about.masks[name], mask) for name, mask in masks.items())
    assert network.about.density == trial.result["density"]
    assert network.about.result == trial.result
    assert (network.about.trial, network.about.method) == (trial.id, trial.config.method)
    state = load_file(folder / "model.safetensors")
    assert state.keys() == expected.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())
    with safe_open(folder / "masks.safetensors", "pt") as file:
        assert set(file.keys()) == set(masks)


def test_only_what_removes_filters_for_good_is_smaller(exported: Exported) -> None:
    kept = {name: json.loads((exported.folder(name) / "config.json").read_text())["kept"] for name in FAMILIES}
    assert {name for name, rows in kept.items() if rows} == {"greg1"}
    assert len(kept["greg1"]["conv2.weight"]) < MODELS["tiny"](num_classes=10, in_channels=1).conv2.out_channels
    whole = trials.load_pretrained(exported.folder("one_shot"))
    dense = MODELS["tiny"](num_classes=10, in_channels=1)
    assert [p.shape for p in whole.parameters()] == [p.shape for p in dense.parameters()]


def test_inputs_are_prepared_as_the_trials_were(exported: Exported) -> None:
    about = trials.load_pretrained(exported.folder("one_shot")).about
    raw = load_data("few_digits")
    loader = to_loader(raw, device="cpu", val_fraction=0.1, split_seed=0)
    expected, labels = next(iter(loader.eval_batches("test", 100)))
    assert torch.equal(about.preprocess(raw.test_images), expected)
    assert torch.equal(about.preprocess(raw.test_images[0]), expected[:1])
    assert torch.allclose(about.preprocess(raw.test_images / 255), expected, atol=1e-5)
    pictures = [Image.fromarray(image[0].numpy()) for image in raw.test_images[:2]]
    assert torch.equal(about.preprocess(pictures), expected[:2])
    assert torch.equal(about.preprocess(pictures[0].convert("RGB")), expected[:1])
    network = trials.load_pretrained(exported.folder("one_shot"))
    right = (network(expected).argmax(1) == labels).float().mean()
    assert float(right) == pytest.approx(about.result["test_accuracy"])
    assert about.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(2, 3, 8, 8), r"images are \[2, 3, 8, 8\], but must be \[N, 1, 8, 8\]"),
        (torch.zeros(1, 9, 8), r"images are \[1, 9, 8\]"),
        (torch.full((1, 1, 8, 8), 2.0), r"must be uint8 with values 0\.\.255, or floats with values 0\.\.1"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), r"must be uint8"),
        (torch.full((1, 1, 8, 8), float("nan")), r"must be uint8"),
        (Image.new("L", (9, 8)), r"images have \(height, width\) \(8, 9\), but must have \(8, 8\)"),
        ([], r"images are list, but must be a tensor, or Pillow images"),
    ],
)
def test_images_of_another_kind_are_refused(images: object, says: str, exported: Exported) -> None:
    with pytest.raises(UserError, match=says):
        trials.load_pretrained(exported.folder("one_shot")).about.preprocess(images)


def test_without_the_data_what_is_unknown_is_left_out(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trials.data import DATASETS

    def absent(_data_dir: Path | None) -> None:
        raise UserError("few_digits is not here")

    trial = exported.trial("one_shot")
    monkeypatch.setitem(DATASETS, "few_digits", absent)
    monkeypatch.setattr("trials.data._loaded", {})
    known = export_folder(trial, tmp_path / "hub")
    assert known.why_not == "few_digits is not here"
    network, card = trials.load_pretrained(tmp_path / "hub"), (tmp_path / "hub" / "README.md").read_text()
    assert network.about.mean is None
    assert network.about.classes == ()
    with pytest.raises(UserError, match=r"exported without its data.*--data-dir"):
        network.about.preprocess(IMAGES)
    assert "How inputs are normalised is not known" in card
    assert "preprocess" not in card
    assert "images |" not in card
    with pytest.raises(UserError, match=r"^--data-dir is .*, but must hold the trial's data: few_digits is not here"):
        export_folder(trial, tmp_path / "other", str(tmp_path))


def test_other_data_are_not_taken_for_the_trials(exported: Exported, tmp_path: Path) -> None:
    trial = exported.trial("one_shot")
    described = export_folder(_of_other_data(trial), tmp_path / "hub")
    assert "but the trial used" in described.why_not
    assert trials.load_pretrained(tmp_path / "hub").about.mean is None


def _of_other_data(trial: trials.Trial) -> trials.Trial:
    import dataclasses

    return dataclasses.replace(trial, config=trial.config.model_copy(update={"dataset": "digits"}))


def test_the_recipe_of_a_card_is_the_trial(exported: Exported) -> None:
    for family in FAMILIES:
        card = (exported.folder(family) / "README.md").read_text()
        (recipe,) = [part.split("```")[0] for part in card.split("```yaml\n")[1:]]
        assert config_of(yaml.safe_load(recipe)).id == exported.trial(family).id


def test_float64_and_bf16(exported: Exported, tmp_path: Path) -> None:
    for precision in ("float64", "bf16"):
        fields = fields_of("one_shot", precision=precision, pretrain={"epochs": 1}, finetune=None)
        trial = trials.run(fields, exported.storage / "single", threads=1)
        export_folder(trial, tmp_path / precision)
        network = trials.load_pretrained(tmp_path / precision)
        dtype = torch.float64 if precision == "float64" else torch.float32
        assert {p.dtype for p in network.parameters()} == {dtype}
        assert network.about.preprocess(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).dtype == dtype
        with torch.no_grad():
            assert torch.equal(network(IMAGES.to(dtype)), trial.network()(IMAGES.to(dtype)))
