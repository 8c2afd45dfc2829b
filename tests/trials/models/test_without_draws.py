"""A model whose parameters are overwritten is built without drawing them: everything else in it is as always."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trials.contract import OWN
from tests.trials.folders import assert_same_outcome, checkpoint_of
from tests.trials.small_trials import CONFIGS, config_of, folder_of, run_in
from trials import models
from trials.analysis import load_trial
from trials.models import MODELS, build
from trials.models.without_draws import built_without_draws
from trials.running import trial
from trials.running.progress import Progress
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")

LARGE = ("wrn_34_10", "wrn_28_10", "resnet152", "resnet101", "ResNet50", "ResNet34")
"""Built in the same way as smaller ones; tests/products/test_sources.py has them."""

SHAPE = {"num_classes": 7, "in_channels": 3, "seed": 3}


def attributes(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Plain attributes of all modules, as text."""
    own = {name: vars(module) for name, module in model.named_modules()}
    return {n: {k: repr(v) for k, v in found.items() if k[:1] != "_"} for n, found in own.items()}


def same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)


def assert_is_itself_once_loaded(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole, bare = build(name, **SHAPE), build(name, **SHAPE, values=False)
    assert torch.equal(torch.get_rng_state(), before)
    parameters = dict(whole.named_parameters())
    assert [n for n, _ in bare.named_parameters()] == list(parameters)
    for key, parameter in bare.named_parameters():
        drawn = parameter.dim() > 1  # biases are, too, in some models
        assert parameter.isnan().all() if drawn else parameter.isnan().all() or same_bits(parameter, parameters[key])
        assert parameter.requires_grad == parameters[key].requires_grad
    assert attributes(bare) == attributes(whole)
    bare.load_state_dict(whole.state_dict())
    tensors = [{**dict(model.named_parameters()), **dict(model.named_buffers())} for model in (whole, bare)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(same_bits(tensors[0][key], tensors[1][key]) for key in tensors[0])


@pytest.mark.parametrize("name", [name for name in MODELS if name not in LARGE])
def test_our_models_are_themselves_once_they_are_loaded(name: str) -> None:
    assert_is_itself_once_loaded(name)


class Base(nn.Module):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.head = nn.Linear(8, num_classes)
        self.more()

    def more(self) -> None:
        """What a model does after its layers are made."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


def with_more(more: Callable[[Any], Any]) -> type[Base]:
    return type("Model", (Base,), {"more": lambda self: more(self) and None})


def projected(net: Any) -> None:
    """A fixed random projection that no state dict holds."""
    net.register_buffer("projection", torch.randn(8, 8), persistent=False)


def noisy(net: Any) -> None:
    net.noise = torch.empty(8).normal_()


def remembering(net: Any) -> None:
    net.first = [parameter.detach().clone() for parameter in net.parameters()]


def copying(net: Any) -> None:
    net.teacher = [copy.deepcopy(net.stem)]


def scaled(net: Any) -> None:
    net.stem.weight.data.mul_(2)


def listing(net: Any) -> None:
    net.values = net.head.bias.tolist()


def hidden(net: Any) -> None:
    net.apart = [nn.Parameter(torch.empty(8))]
    nn.init.normal_(net.apart[0])


def joined(net: Any) -> None:
    net.norm = torch.cat([net.stem.bias, net.head.bias]).norm().item()


def looked_up(net: Any) -> None:
    net.table = torch.zeros(8)
    net.table.copy_(net.stem.bias)


def orthogonal(net: Any) -> None:
    nn.init.orthogonal_(net.head.weight)


def weight_norm(net: Any) -> None:
    torch.nn.utils.parametrizations.weight_norm(net.stem)


def spectral_norm(net: Any) -> None:
    torch.nn.utils.parametrizations.spectral_norm(net.head)


def multiplied(net: Any) -> None:
    net.stem.weight = nn.Parameter(net.stem.weight * 2)


VALUES_MATTER = (
    *(projected, noisy, remembering, copying, scaled, listing, hidden, joined, looked_up),
    *(orthogonal, weight_norm, spectral_norm, multiplied),
)
"""What a constructor may do so that the model without draws could be another one."""


def halved(net: Any) -> None:
    with torch.no_grad():
        net.stem.weight.mul_(0.5)
        net.head.weight.copy_(net.head.weight)


def zeros(net: Any) -> None:
    nn.init.zeros_(net.head.bias)
    net.register_buffer("steps", torch.arange(3), persistent=False)


def own_generator(net: Any) -> None:
    """Draws from a generator of its own, also what is no parameter."""
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        net.head.bias.normal_(generator=draws)
    net.noise = torch.randn(3, generator=draws)


def without_draws(builder: Callable[..., nn.Module]) -> nn.Module | None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return built_without_draws(partial(builder, num_classes=10, in_channels=1), torch.default_generator)


@pytest.mark.parametrize("more", VALUES_MATTER)
def test_models_that_may_depend_on_initial_values_are_told(more: Callable[[Any], Any]) -> None:
    assert without_draws(Base) is not None
    assert without_draws(with_more(more)) is None


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_a_model_that_decides_by_its_values_is_told() -> None:
    assert without_draws(OWN["branching"]) is None


@pytest.mark.parametrize("more", [halved, zeros, own_generator])
def test_models_that_do_not_depend_on_them_are_built(more: Callable[[Any], Any]) -> None:
    bare = without_draws(with_more(more))
    assert bare is not None
    assert bare.stem.weight.isnan().all()  # type: ignore[union-attr, operator]
    if more is own_generator:
        draws = torch.Generator().manual_seed(1)
        assert torch.equal(bare.head.bias, torch.empty(10).normal_(generator=draws))  # type: ignore[union-attr, arg-type]
        assert torch.equal(bare.noise, torch.randn(3, generator=draws))  # type: ignore[arg-type]


@pytest.mark.parametrize("more", [*VALUES_MATTER, own_generator])
def test_models_of_others_have_their_values(more: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if their name is one of ours: nothing is known of what their forward pass does."""
    for name in ("mine", "tiny"):
        monkeypatch.setitem(MODELS, name, with_more(more))
        whole, bare = (build(name, num_classes=10, in_channels=1, seed=3, values=values) for values in (True, False))
        states = [model.state_dict() for model in (whole, bare)]
        assert all(same_bits(states[0][key], states[1][key]) for key in states[0])
        for key in ("noise", "projection", "table"):
            if hasattr(whole, key):
                assert same_bits(getattr(whole, key), getattr(bare, key))
        assert getattr(whole, "values", None) == getattr(bare, "values", None)


def test_a_model_of_ours_that_would_need_them_is_built_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = with_more(projected)
    monkeypatch.setitem(MODELS, "mine", kind)
    monkeypatch.setitem(models._OURS, "mine", kind)
    whole, bare = (build("mine", num_classes=10, in_channels=1, seed=3, values=values) for values in (True, False))
    assert torch.equal(whole.projection, bare.projection)  # type: ignore[arg-type]
    assert torch.equal(whole.stem.weight, bare.stem.weight)  # type: ignore[union-attr, arg-type]


def test_a_trial_of_such_a_model_is_evaluated_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Projecting(Base):
        def more(self) -> None:
            projected(self)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.stem(x)).mean((2, 3)) @ self.projection)  # type: ignore[operator, no-any-return]

    monkeypatch.setitem(MODELS, "mine", Projecting)
    config = config_of("one_shot", model="mine")
    ends = run_in(tmp_path, config, should_stop=lambda: True)
    while ends.status == "preempted":
        ends = run_in(tmp_path, config, should_stop=lambda: True)
    assert run_in(tmp_path / "whole", config).status == ends.status == "complete"
    assert_same_outcome(folder_of(config, tmp_path), folder_of(config, tmp_path / "whole"))


# --- which trials draw


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each network that trials build has its initial values; in their order."""
    original, found = trial.build_net, []

    def note(*given: Any) -> Net:
        net = original(*given)
        found.append(not any(parameter.isnan().any() for parameter in net.model.parameters()))
        return net

    monkeypatch.setattr(trial, "build_net", note)
    return found


DRAWN: dict[str, list[bool]] = {
    "dense": [False, True],  # a sweep's dense trial copies the shared one, which is run once it is needed
    "one_shot": [False, True],
    "imp-weights": [True, True],  # rewinds to the values at the start
    "imp-weights-early": [False, True],
    "imp-learning_rate": [False, True],
    "l1-weight": [False, True],
    "adaptive_sparsity": [True],  # starts from scratch
    "dwp": [False, True, True, False],  # starts from a shared trial; a stage reads another
}


@pytest.mark.parametrize("name", DRAWN)
def test_only_trials_that_start_from_their_values_draw_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = drawn(monkeypatch)
    assert run_in(tmp_path, config_of(name)).status == "complete"
    assert sorted(found) == sorted(DRAWN[name])


def test_trials_that_continue_draw_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("adaptive_sparsity", checkpoint_every_s=0.0)
    original = Progress.commit

    def stops(self: Progress, *given: Any, **fields: Any) -> None:
        original(self, *given, **fields)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "commit", stops)
        with pytest.raises(KeyboardInterrupt):
            run_in(tmp_path, config)
    found = drawn(monkeypatch)
    assert run_in(tmp_path, config).status == "complete"
    assert found == [False]
    run_in(tmp_path / "whole", config)
    assert_same_outcome(folder_of(config, tmp_path), folder_of(config, tmp_path / "whole"))


def test_a_trial_that_starts_from_a_file_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = drawn(monkeypatch)
    assert "source_net" in CONFIGS["finetune"]
    assert run_in(tmp_path, config_of("finetune")).status == "complete"
    assert found == [False]


def test_stored_networks_are_whole(tmp_path: Path) -> None:
    config = config_of("one_shot-filter")
    run_in(tmp_path, config)
    folder = folder_of(config, tmp_path)
    (folder / "config.json").write_text(f'{{"config": {config.model_dump_json()}}}')
    _, net = load_trial(folder)
    stored = checkpoint_of(folder)["net"]["model"]
    assert all(same_bits(value, stored[key]) for key, value in net.model.state_dict().items())
