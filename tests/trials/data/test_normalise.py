"""``normalise``: the data set's constants, ImageNet's, or none, in every split and kind of data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.trials.batches import epoch, made_up, pixels
from tests.trials.layouts import load_large, write_imagenet
from tests.trials.small_trials import RECIPE, config_of, folder_of, run_in
from trials.__main__ import main
from trials.config.trial_config import TrialConfig
from trials.data import OnDevice, RawData, Source, load_data, normalised, to_loader
from trials.errors import UserError
from trials.networks.stored import inputs_of
from trials.training.build import build_loader

pytestmark = pytest.mark.usefixtures("nothing_resident")


def every_batch(source: Source, augment: bool) -> list[torch.Tensor]:
    data: Any = to_loader(source, device="cpu", val_fraction=0.2, split_seed=0)
    parts = [data.eval_batches(split, 16) for split in ("train", "val", "test")]
    return [x for x, _ in epoch(data, augment=augment)] + [x for part in parts for x, _ in part]


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("kind", ["black", "mean", "streamed"])
@pytest.mark.usefixtures("small_crops")
def test_without_it_every_split_has_pixels_from_0_to_1(kind: str, augment: bool, tmp_path: Path) -> None:
    raw: Source = load_large(write_imagenet(tmp_path)) if kind == "streamed" else made_up(pad=0)
    if isinstance(raw, RawData):
        raw = dataclasses.replace(raw, pad=2, pad_colour="black" if kind == "black" else "mean")
    plain = every_batch(normalised(raw, "none"), augment)
    usual = every_batch(normalised(raw, "dataset"), augment)
    assert len(plain) == len(usual) > 3
    for without, with_it in zip(plain, usual, strict=True):
        assert without.min() >= 0
        assert without.max() <= 1
        values = pixels(with_it, raw)
        if kind == "mean" and augment:  # what is padded is the mean's colour there, and black without
            values = torch.where((with_it == 0).all(1, keepdim=True), 0, values)
        assert torch.equal((without * 255).round().to(torch.uint8), values)


def test_gray_images_have_one_channel(few_digits: None) -> None:
    config = config_of("dense", normalise="none")
    loader = build_loader(config, load_data(*config.data_key), torch.device("cpu"))
    assert isinstance(loader, OnDevice)
    black, white = loader.pixel_range()
    assert (black.flatten().tolist(), white.flatten().tolist()) == ([0.0], [1.0])


def test_it_is_part_of_the_name_and_true_and_false_are_understood() -> None:
    names = {value: config_of("dense", normalise=value).id for value in ("dataset", "none", "imagenet")}
    assert len(set(names.values())) == 3
    assert names["dataset"] == config_of("dense").id == config_of("dense", normalise=True).id
    assert names["none"] == config_of("dense", normalise=False).id
    for wrong in ("off", 0, None):
        with pytest.raises(UserError, match=r"normalise is .*, but must be 'dataset', 'imagenet' or 'none'"):
            config_of("dense", normalise=wrong)


def stored(config: TrialConfig, storage: Path) -> Path:
    assert run_in(storage, config).status == "complete"
    folder = folder_of(config, storage)
    (folder / "config.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    return folder


def test_a_trial_trains_on_it_and_what_is_exported_says_so(
    few_digits: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {"train": {**RECIPE, "epochs": 1}}
    folders = {value: stored(config_of("dense", normalise=value, **recipe), tmp_path) for value in ("none", "dataset")}
    assert inputs_of(folders["none"]) == "pixels scaled to 0..1, not normalised"
    assert inputs_of(folders["dataset"]) == "pixels scaled to 0..1, normalised by few_digits's mean and deviation"
    assert inputs_of(tmp_path) == ""
    for form, name in (("dense", "net.pt"), ("onnx", "net.onnx")):
        assert main(["export", str(folders["none"]), "--to", str(tmp_path / name), "--form", form]) == 0
        assert "its inputs are pixels scaled to 0..1, not normalised" in capsys.readouterr().out
    said = {entry.key: entry.value for entry in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert said["inputs"] == inputs_of(folders["none"])
    plain = torch.load(tmp_path / "net.pt", weights_only=True)
    assert main(["export", str(folders["dataset"]), "--to", str(tmp_path / "net.pt")]) == 0
    assert not np.array_equal(plain["conv1.weight"], torch.load(tmp_path / "net.pt", weights_only=True)["conv1.weight"])
