"""N:M: along input channels of every layer that has them, by any score; in trials with its density implied."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

import trials.sparsity as sp
from tests.trials.folders import checkpoint_of, rows_of
from tests.trials.small_trials import folder_of, run_in
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.models import MODELS
from trials.sparsity import SCORES, n_of_m, prunable
from trials.training.net import Net

DIGITS = {"dataset": "digits", "model": "tiny", "pretrain": {"epochs": 1}}


def groups_along_inputs(mask: Tensor, m: int) -> Tensor:
    """[groups, m]: every m consecutive input channels at one position of the kernel of one row."""
    return mask.movedim(1, -1).reshape(-1, m)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.Conv2d(16, 16, (1, 3), groups=2),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.Conv2d(16, 8, 1).to(memory_format=torch.channels_last),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
        nn.Linear(10, 6),
    )


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2), (4, 8)])
def test_every_group_keeps_its_n_best(score: str, n: int, m: int) -> None:
    model = net()
    masks = sp.prune(model, score=score, pattern=n_of_m(n, m))
    assert list(masks) == [f"{i}.weight" for i in (1, 3, 6, 7) if model[i].weight.shape[1] % m == 0]
    for name, mask in masks.items():
        groups = groups_along_inputs(mask, m)
        assert (groups.sum(1) == n).all()
        if score != "random":
            size = groups_along_inputs(model.get_parameter(f"{name}_orig").abs(), m)
            assert (size.masked_fill(~groups, torch.inf).amin(1) >= size.masked_fill(groups, -torch.inf).amax(1)).all()
    assert sp.density(model) > n / m  # layers that have no such groups stay dense


@pytest.mark.parametrize(
    ("dtype", "n", "m"), [(torch.float16, 2, 4), (torch.bfloat16, 2, 4), (torch.float32, 1, 2)], ids=str
)
@pytest.mark.parametrize("layer", [nn.Linear(128, 64), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 32, 1)], ids=str)
def test_torchs_semi_structured_format_holds_the_weights(layer: nn.Module, dtype: torch.dtype, n: int, m: int) -> None:
    """Compressed as torch's kernels want it, [rows, inputs] with a convolution's input channels innermost, and back."""
    pruned: Any = copy.deepcopy(layer).to(dtype)
    sp.prune(pruned, pattern=n_of_m(n, m))
    weight = pruned.weight.detach().movedim(1, -1).flatten(1).contiguous()
    compressed, order = sparse_semi_structured_from_dense_cutlass(weight)
    assert compressed.numel() == weight.numel() // 2
    back = sparse_semi_structured_to_dense_cutlass(compressed, order)
    assert torch.equal(back != 0, weight != 0)
    torch.testing.assert_close(back, weight, rtol=1e-4, atol=0)  # torch's own way back is not exact in float32


@pytest.mark.parametrize(("n", "m"), [(4, 2), (0, 4), (4, 4), (2.0, 4), (True, 4), ("2", "4")])
def test_n_and_m_are_checked(n: Any, m: Any) -> None:
    n_of_m(2, 4)  # equal to 2.0 and 4
    with pytest.raises(ValueError, match="but of every m weights n stay, so that 1 <= n < m: give 2 and 4"):
        n_of_m(n, m)


@pytest.mark.parametrize("first", ["auto", "pruned", "dense"])
@pytest.mark.parametrize(("model", "rest"), [("tiny", 3), ("mlp_7_relu", 7)])
def test_only_the_first_layer_can_be_left_dense(first: str, model: str, rest: int) -> None:
    """That of tiny has no four input channels; another is no less pruned for it."""
    config: Any = parse({**DIGITS, "model": model, "method": "hydra", "nm": "2:4", "first_conv": first})
    built = MODELS[model](num_classes=10, in_channels=1)
    every = [name for name, weight in prunable(built).items() if weight.shape[1] % 4 == 0]
    stays = first == "dense" and model == "mlp_7_relu"
    assert list(config.scored(Net(built))) == every[stays:]
    assert len(every) - stays == rest - stays


def test_of_equal_weights_the_first_are_dropped() -> None:
    layer = nn.Linear(8, 3)
    nn.init.ones_(layer.weight)
    mask = sp.prune(layer, pattern="nm")["weight"]
    assert mask.tolist() == [[False, False, True, True] * 2] * 3


def test_a_mask_that_is_there_is_kept_to() -> None:
    layer = nn.Linear(16, 16)
    first = sp.prune(layer, density=0.6)["weight"]
    mask = sp.prune(layer, pattern="nm")["weight"]
    assert not (mask & ~first).any()
    assert (groups_along_inputs(mask, 4).sum(1) <= 2).all()


def test_another_density_is_refused() -> None:
    with pytest.raises(ValueError, match=r"density is 0\.3, but the pattern keeps 0\.5: leave out density"):
        sp.prune(nn.Linear(8, 8), density=0.3, pattern="nm")
    with pytest.raises(ValueError, match="pattern nm prunes: no Conv2d or Linear with a multiple of 4"):
        sp.prune(nn.Linear(6, 6), pattern="nm")


@pytest.mark.parametrize(
    "config",
    [
        {"method": "one_shot", "nm": [2, 4], "score": "lamp", "finetune": {"epochs": 1}},
        {"method": "one_shot", "nm": [1, 4], "score": "random", "finetune": None},
        {"method": "bip", "nm": [2, 4], "prune": {"epochs": 1}, "finetune": {"epochs": 1}},
        {"method": "hydra", "nm": [2, 8], "prune": {"epochs": 1}, "finetune": {"epochs": 1}},
        {"method": "hydra", "pattern": "nm", "score_init": "random", "prune": {"epochs": 1}, "finetune": {"epochs": 1}},
    ],
    ids=lambda config: f"{config['method']}-{config.get('nm')}",
)
@pytest.mark.usefixtures("few_digits")
def test_trials_keep_n_of_m_through_training(config: dict[str, Any], tmp_path: Path) -> None:
    parsed: Any = parse({**DIGITS, **config})
    n, m = parsed.nm
    state = run_in(tmp_path, parsed)
    assert state.status == "complete", state.error
    folder = folder_of(parsed, tmp_path)
    assert rows_of(folder)["epochs"][-1]["density"] == n / m
    net = checkpoint_of(folder)["net"]
    assert net["masks"]
    for name, mask in net["masks"].items():
        assert (groups_along_inputs(mask, m).sum(1) == n).all(), name
        assert not net["model"][name][~mask].any()


def test_the_density_is_implied_and_named_once() -> None:
    ways = [{"nm": [2, 4]}, {"nm": "2:4"}, {"pattern": "nm"}, {"pattern": "nm", "nm": [2, 4], "density": 0.5}]
    configs: list[Any] = [parse({**DIGITS, "method": "one_shot", **way}) for way in ways]
    assert {config.density for config in configs} == {0.5}
    assert len({config.id for config in configs}) == 1
    assert parse({**DIGITS, "method": "one_shot", "density": 0.5}).id != configs[0].id


@pytest.mark.parametrize("method", ["one_shot", "bip", "hydra"])
def test_low_densities_and_thirds_are_named_once(method: str) -> None:
    """The lower rates of BiP and HYDRA at low densities are for single weights that compete over the network."""
    for nm, density in (("1:100", 0.01), ("1:3", 0.3333333333)):
        ways: list[dict[str, Any]] = [{"nm": nm}, {"nm": nm, "pattern": "nm"}, {"nm": nm, "density": density}]
        configs: list[Any] = [parse({**DIGITS, "method": method, **way}) for way in ways]
        assert len({config.id for config in configs}) == 1
        assert method == "one_shot" or configs[0].prune.lr == 0.1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"method": "one_shot", "nm": [2, 4], "density": 0.3}, "density is 0.3, but nm [2, 4] keeps 0.5"),
        ({"method": "one_shot", "nm": [2, 4], "pattern": "weight", "density": 0.5}, "but pattern is 'weight'"),
        ({"method": "one_shot", "nm": [2, 4], "pattern": "weight"}, "but pattern is 'weight'"),
        *(
            ({"method": method, "nm": nm}, f"nm is {nm!r}, but of every M weights N stay, 1 <= N < M: write [2, 4]")
            for method in ("one_shot", "bip", "hydra")
            for nm in ([4, 4], [0, 4], [4, 2], [2], 4, "2-4", "2:", [2.0, 4], [True, 4], [-1, 4])
        ),
        ({"method": "one_shot", "nm": [2, 4], "distribution": "erk"}, "leave out distribution"),
        ({"method": "imp", "pattern": "nm"}, "imp prunes pattern 'weight' only"),
    ],
)
def test_what_cannot_be_is_refused_by_the_config(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse({**DIGITS, **config})
    assert message in str(refused.value)
