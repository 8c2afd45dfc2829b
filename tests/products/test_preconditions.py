"""Every method on every model: refused in one line before anything starts, or trained."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trials.contract import METHODS_AT_ONCE, configs, images, kept, offered
from trials.models import MODELS

pytestmark = pytest.mark.products


@pytest.fixture(scope="module")
def _data() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        offered(patch, {}, small=images(1, 8), medium=images(3, 32))
        yield


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS_AT_ONCE)
@pytest.mark.usefixtures("_data")
def test_a_method_trains_or_is_refused(method: str, model: str, tmp_path: Path) -> None:
    dataset = "medium" if model.startswith("ResNet") else "small"  # capitalised: for large images
    start = {} if method in ("dense", "finetune", "adaptive_sparsity", "dwp") else {"pretrain": {"epochs": 0}}
    fields = configs({method: {}})[method]
    if method == "single_layer":
        fields["ssim_threshold"] = -1.0  # only the layer of the lowest similarity: a net of fifty takes minutes
    trained = kept({"dataset": dataset, "model": model, **start, **fields}, tmp_path)
    shutil.rmtree(tmp_path)  # checkpoints of all pairs together take a hundred gigabytes
    if method in (
        "dense",
        "one_shot",
        "imp",
        "bip",
        "hydra",
        "finetune",
        "adaptive_sparsity",
        "prune_iterative",
        "regrow",
    ):
        assert trained, "these prune single weights of any model"
