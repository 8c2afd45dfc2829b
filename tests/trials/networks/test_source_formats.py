"""Files of weights as people have them: containers, prefixes, pairs of weight and mask, and what cannot be read."""

from __future__ import annotations

import argparse
import pathlib
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tests.trials.networks.sources import (
    DATA,
    assert_weights,
    one_line,
    prefixed,
    refusal_of,
    started,
    started_from,
    tiny,
)
from tests.trials.small_trials import config_of
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.starting import require_fitting
from trials.networks.formats import CONTAINERS
from trials.networks.load import load_into
from trials.sparsity import prunable

pytestmark = pytest.mark.usefixtures("few_digits")

# --- containers and prefixes


PREFIXES = ("", "module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "_orig_mod.module.", "model.module.",
            "module.model._orig_mod.")  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("container", ["", "state_dict", "model", "net", "model.state_dict"])
def test_prefixes_and_containers(container: str, prefix: str, tmp_path: pathlib.Path) -> None:
    state = tiny().state_dict()
    content: Any = prefixed(state, prefix)
    for key in reversed(list(filter(None, container.split(".")))):
        content = {key: content, "epoch": 3, "best_acc": np.float32(0.5), "optimizer": {"param_groups": [{"lr": 0.1}]}}
    assert_weights(started(content, tmp_path), state)


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_is_known(container: str, tmp_path: pathlib.Path) -> None:
    state = tiny().state_dict()
    assert_weights(started({container: state, "arch": "tiny"}, tmp_path), state)


class Wrapped(nn.Module):
    """A model whose own names have the parts of wrappers."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(2, 2)
        self.module = nn.Sequential(nn.Linear(2, 2))


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_models_own_names_are_not_stripped(prefix: str, tmp_path: pathlib.Path) -> None:
    one, other = Wrapped(), Wrapped()
    torch.save(prefixed(one.state_dict(), prefix), tmp_path / "net.pt")
    load_into(other, tmp_path / "net.pt")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_wrapper_inside_a_model(tmp_path: pathlib.Path) -> None:
    state = tiny().state_dict()
    inside = {f"{name.rpartition('.')[0]}.module.{name.rpartition('.')[2]}": value for name, value in state.items()}
    assert_weights(started(inside, tmp_path), state)


@pytest.mark.parametrize("keys", [("state_dict", "model"), ("net", "ema"), ("state_dict", "state_dict_ema")])
def test_two_state_dicts_are_refused_by_name(keys: tuple[str, str], tmp_path: pathlib.Path) -> None:
    said = refusal_of({key: tiny(seed=i).state_dict() for i, key in enumerate(keys)}, tmp_path)
    assert all(repr(key) in said for key in keys)


def test_one_weight_under_two_prefixes_is_refused(tmp_path: pathlib.Path) -> None:
    state = tiny().state_dict()
    assert "holds conv1.weight twice" in refusal_of({**state, "module.conv1.weight": state["conv1.weight"]}, tmp_path)


# --- beside the weights


@pytest.mark.parametrize(
    "beside",
    [np.float64(0.1), np.float32(0.1), np.int64(3), np.bool_(True), np.arange(3), np.array([0.5]), 3, "x", None],
)
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_beside_the_weights(beside: object, flat: bool, zipped: bool, tmp_path: pathlib.Path) -> None:
    state = tiny().state_dict()
    content = {**state, "best": beside} if flat else {"state_dict": state, "best": beside}
    torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    assert_weights(started_from(tmp_path / "net.pt"), state)


UNREADABLE: dict[str, tuple[Callable[[], object], str]] = {
    "module": (tiny, "torch.nn.modules."),
    "module beside": (lambda: {"state_dict": tiny().state_dict(), "model": tiny()}, "torch.nn.modules."),
    "Namespace": (lambda: {"state_dict": tiny().state_dict(), "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
    "path": (lambda: {"state_dict": tiny().state_dict(), "to": pathlib.PurePosixPath("x")}, "pathlib.PurePosixPath"),
    "function": (lambda: {"state_dict": tiny().state_dict(), "f": print}, "print"),
}


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_weights_are_named_in_one_line(what: str, zipped: bool, tmp_path: pathlib.Path) -> None:
    make, said = UNREADABLE[what]
    torch.save(make(), tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError) as refused:
        started_from(tmp_path / "net.pt")
    assert said in one_line(str(refused.value))
    assert 'torch.save({"state_dict": model.state_dict()}, "weights.pt")' in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"", b"weights", b"PK\x03\x04", b"\x80\x02.", (20).to_bytes(8, "little") + b'{"a": 1}            ']
)
def test_files_of_another_kind_are_refused_in_one_line(content: bytes, tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(UserError) as refused:
        started_from(tmp_path / "net.pt")
    assert "write" in one_line(str(refused.value))


@pytest.mark.parametrize(
    "content", [{}, [1], {"state_dict": {}}, {1: torch.zeros(1)}, {"generator": {"w": torch.ones(1)}}]
)
def test_content_without_a_state_dict_is_refused(content: object, tmp_path: pathlib.Path) -> None:
    assert "must hold a state dict" in refusal_of(content, tmp_path)


def test_damaged_files_are_refused_in_one_line(tmp_path: pathlib.Path) -> None:
    draw, whole = random.Random(3), []
    for zipped in (True, False):
        torch.save(
            {"state_dict": tiny().state_dict(), "n": 1}, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped
        )
        whole.append((tmp_path / "net.pt").read_bytes())
    refused = 0
    for _ in range(60):
        content = bytearray(draw.choice(whole))
        for _ in range(draw.randint(1, 20)):
            content[draw.randrange(2000)] = draw.randrange(256)
        (tmp_path / "net.pt").write_bytes(content[: draw.choice([len(content), draw.randrange(1, len(content))])])
        try:
            load_into(tiny(), tmp_path / "net.pt")
        except UserError as error:
            one_line(str(error))
            refused += 1
    assert refused > 40


# --- what does not fit


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"num_classes": 5}, "linear.weight, linear.bias (5 classes, but the data have 10): give weights that were"),
        ({"in_channels": 3}, "conv1.weight (3 channels of images, but the data have 1): give weights that were"),
        ({"num_classes": 5, "in_channels": 3}, "conv1.weight, linear.weight, linear.bias: give the model it was saved"),
    ],
)
def test_weights_for_other_images(shape: dict[str, int], says: str, tmp_path: pathlib.Path) -> None:
    assert says in refusal_of(tiny(**shape).state_dict(), tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path: pathlib.Path) -> None:
    state = dict(tiny().state_dict())
    state["conv2.weight"] = state["conv2.weight"] / 0
    assert "conv2.weight that are not finite" in refusal_of(state, tmp_path)


# --- masks as torch.nn.utils.prune keeps them


def pruned(amount: float, layers: int = 9, seed: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A state dict with pairs of weight_orig and weight_mask, and the masks by weight name."""
    model, masks = tiny(seed), {}
    for name in list(prunable(model))[:layers]:
        module = model.get_submodule(name.removesuffix(".weight"))
        prune.l1_unstructured(module, "weight", amount=amount)
        masks[name] = module.weight_mask.bool()
    return dict(model.state_dict()), masks


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.model."])
@pytest.mark.parametrize("container", [None, "state_dict"])
@pytest.mark.parametrize("layers", [1, 9])
def test_pairs_of_weight_and_mask_keep_the_mask(
    layers: int, container: str | None, prefix: str, tmp_path: pathlib.Path
) -> None:
    state, masks = pruned(0.6, layers)
    content = prefixed(state, prefix)
    net = started({container: content} if container else content, tmp_path, "imp-none")
    weights = prunable(net.model)
    assert list(net.masks) == list(weights)
    for name, mask in net.masks.items():
        assert torch.equal(mask, masks.get(name, torch.ones_like(mask)))
        assert torch.equal(weights[name], state[f"{name}_orig"] * mask if name in masks else state[name])


def test_masks_that_keep_everything_are_none(tmp_path: pathlib.Path) -> None:
    state, _ = pruned(0.0)
    net = started(state, tmp_path, "bip")
    assert net.masks == {}
    assert torch.equal(net.model.get_parameter("conv1.weight"), state["conv1.weight_orig"])


def test_masks_that_cannot_be_kept_are_refused(tmp_path: pathlib.Path) -> None:
    state, _ = pruned(0.5)
    bias = {k: v for k, v in state.items() if k != "linear.bias"} | {"linear.bias_orig": state["linear.bias"]}
    assert "masks linear.bias" in refusal_of({**bias, "linear.bias_mask": torch.zeros(10)}, tmp_path)
    assert "the mask of conv1.weight must hold 0 and 1" in refusal_of(
        {**state, "conv1.weight_mask": torch.tensor(0.5)}, tmp_path
    )
    alone = {name: value for name, value in state.items() if name != "conv1.weight_mask"}
    assert "lacks conv1.weight" in refusal_of(alone, tmp_path)


# --- torchvision's


def test_torchvisions_weights_are_for_its_images_only() -> None:
    config = config_of("bip", source_net="torchvision", model="ResNet18")
    with pytest.raises(
        UserError, match="1000 classes and reads 3 channels, but the data have 10 classes and 1 channels"
    ):
        require_fitting(config, DATA)
    require_fitting(config, DataHeader("imagenet", 1000, 3, (224, 224), 10))


def test_an_ordered_dict_is_a_mapping(tmp_path: pathlib.Path) -> None:
    state = tiny().state_dict()
    assert isinstance(state, OrderedDict)
    assert_weights(started(OrderedDict(model=state), tmp_path), state)


def test_unknown_prefixes_and_integers_are_said(tmp_path: pathlib.Path) -> None:
    state = dict(tiny().state_dict())
    assert "(its names are as student.conv1.weight): " in refusal_of(prefixed(state, "student."), tmp_path)
    whole = {**state, "conv2.weight": state["conv2.weight"].to(torch.int8)}
    assert "conv2.weight as int8" in refusal_of(whole, tmp_path)


def test_names_in_a_file_cannot_break_the_line(tmp_path: pathlib.Path) -> None:
    state = tiny().state_dict()
    refusal_of({**state, "conv9\x1b[31m\n.weight": torch.zeros(1)}, tmp_path)
    refusal_of({"a\nb": {}}, tmp_path)


def test_numbers_of_numpy_1(tmp_path: pathlib.Path) -> None:
    """Files of before numpy 2 name its inner module numpy.core."""
    state = tiny().state_dict()
    content = {"state_dict": state, "lr": np.float64(0.1), "n": np.arange(2)}
    torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=False)
    old = (tmp_path / "net.pt").read_bytes().replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in old
    (tmp_path / "net.pt").write_bytes(old)
    assert_weights(started_from(tmp_path / "net.pt"), state)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weight: weight.to_sparse(), "layout sparse_coo"),
        (lambda weight: weight.flatten(1).to_sparse_csr(), "layout sparse_csr"),
        (lambda weight: weight.to("meta"), "without values"),
        (lambda weight: weight.double() * 1e300, "not finite"),  # as the model's float32
        (lambda weight: weight.to(torch.complex64), "floating-point"),
        (lambda weight: weight.int(), "floating-point"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_tensors_that_are_no_weights_are_refused(
    change: Callable[[Tensor], Tensor], said: str, wrapped: bool, tmp_path: pathlib.Path
) -> None:
    state = dict(tiny().state_dict())
    state["conv2.weight"] = change(state["conv2.weight"])
    told = refusal_of({"state_dict": state} if wrapped else state, tmp_path)
    assert said in told
    assert "conv2.weight" in told


def test_numpy_arrays_in_place_of_tensors_are_named(tmp_path: pathlib.Path) -> None:
    told = refusal_of({name: tensor.numpy() for name, tensor in tiny().state_dict().items()}, tmp_path)
    assert "torch.from_numpy" in told


COUNTED: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(3), **prefixed(state, "module.")},
    "thop": lambda state: {
        **state,
        **{f"{layer}{n}": torch.zeros(1) for layer in ("", "conv1.") for n in ("total_ops", "total_params")},
    },
}


@pytest.mark.parametrize("by", COUNTED)
@pytest.mark.parametrize("container", [None, "state_dict", "ema"])
def test_counters_among_the_weights_are_left_out(by: str, container: str | None, tmp_path: pathlib.Path) -> None:
    state = tiny().state_dict()
    content = COUNTED[by](state)
    assert_weights(started({container: content} if container else content, tmp_path), state)


def test_what_torch_averages(tmp_path: pathlib.Path) -> None:
    model = tiny()
    assert_weights(started(torch.optim.swa_utils.AveragedModel(model).state_dict(), tmp_path), model.state_dict())


@pytest.mark.parametrize("more", ["criterion.weight", "loss.pos_weight", "conv9.weight", "ema_decay"])
def test_more_than_the_model_has_is_to_be_deleted(more: str, tmp_path: pathlib.Path) -> None:
    told = refusal_of({"state_dict": {**tiny().state_dict(), more: torch.ones(10)}}, tmp_path)
    assert f"weights unknown to the model: {more}" in told
    assert "delete them from the file" in told


@pytest.mark.parametrize("name", ["conv1.mask", "mask", "conv9.weight_mask", "conv1.weight.mask"])
def test_masks_are_not_to_be_deleted(name: str, tmp_path: pathlib.Path) -> None:
    told = refusal_of({**tiny().state_dict(), name: torch.ones(16, 1, 3, 3)}, tmp_path)
    assert name in told
    assert "weight_orig and weight_mask" in told
    assert "delete" not in told


@pytest.mark.parametrize("beside", [{"optimizer": {"param_groups": []}}, {"args": {"lr": 0.1}}, {"model": {}}])
@pytest.mark.parametrize("container", [None, "model", "net"])
def test_weights_beside_a_mapping_are_to_have_a_key(
    beside: dict[str, Any], container: str | None, tmp_path: pathlib.Path
) -> None:
    content = {**tiny().state_dict(), **beside}
    told = refusal_of({container: content, "epoch": 1} if container else content, tmp_path)
    assert next(iter(beside)) in told
    assert "beside single weights" in told
    assert "put the weights under a key of their own" in told
