"""Every method, started from a file with a mask, a compact network or dense weights: right, or refused by the check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils import prune

from tests.trials.folders import checkpoint_of, rows_of
from tests.trials.small_trials import CONFIGS, PRUNABLE, RECIPE, config_of, folder_of, run_in
from trials import compact, models
from trials.compact import Architecture, silent
from trials.config.source_config import HasSource
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.preconditions import require_runnable
from trials.methods.registry import METHODS
from trials.networks.export import FORMS, export
from trials.networks.named_files import resolved
from trials.sparsity import prunable
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")

DATA = DataHeader("few_digits", 10, 1, (8, 8), 400)
NAMES = [
    name
    for name, content in CONFIGS.items()
    if issubclass(METHODS[content["method"]].Config, HasSource) and not name.startswith("imp-weights")
]
MASKED = {"one_shot", "finetune", "imp-learning_rate", "imp-none", "prune_iterative"}
COMPACT = {
    "one_shot",
    "one_shot-filter",
    "one_shot-nm",
    "finetune",
    "imp-learning_rate",
    "imp-none",
    "prune_iterative",
} | {name for name in CONFIGS if name.startswith(("bip", "hydra", "adaptive")) or name.endswith("coupled")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, few_digits: None) -> dict[str, Path]:
    """Exports of a trial with a mask (density 0.4), and of one without six filters of the first convolution."""
    folder = tmp_path_factory.mktemp("exported")
    masked = config_of("one_shot", density=0.4, finetune=None)
    assert run_in(folder, masked).status == "complete"
    found = {form: folder / f"{form}.pt" for form in FORMS}
    for form in ("dense", "prune", "onnx"):
        export(folder_of(masked, folder), found[form], form)
    net = Net(models.build("tiny", num_classes=10, in_channels=1, seed=5))
    with torch.no_grad():
        for name in ("conv1.weight", "bn1.weight", "bn1.bias"):
            net.model.get_parameter(name)[:6] = 0
    net.shrink(silent(net.model), "filter")
    architecture = Architecture("tiny", 10, 1, (8, 8))
    compact.save(found["compact"], architecture, net.kept, net.model.state_dict())
    return found


def starting(name: str, path: Path, **fields: Any) -> TrialConfig:
    return resolved(config_of(name, source_net=str(path), **fields))


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_is_kept_or_refused(name: str, exported: dict[str, Path], tmp_path: Path) -> None:
    config = starting(name, exported["prune"])
    if name not in MASKED:
        with pytest.raises(UserError, match="mask") as refused:
            require_runnable(config, DATA)
        assert str(refused.value).isprintable()
        if METHODS[config.method](config).source() is not None:  # the file starts a trial that this one starts from
            return
        state = run_in(tmp_path, config)  # as the worker says it
        assert (state.status, state.error and state.error["message"]) == ("failed", str(refused.value))
        return
    require_runnable(config, DATA)
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    given, net = torch.load(exported["prune"], weights_only=True), checkpoint_of(folder_of(config, tmp_path))["net"]
    for weight, mask in net["masks"].items():
        assert not (mask & ~given[f"{weight}_mask"].bool()).any()
        assert not net["model"][weight][~mask].any()
    kept = sum(int(mask.sum()) for mask in net["masks"].values())
    was = sum(int(given[f"{weight}_mask"].sum()) for weight in net["masks"])
    assert kept == was if name == "finetune" else kept < was
    assert state.result["density"] == kept / PRUNABLE


@pytest.mark.parametrize("name", NAMES)
def test_a_compact_network_runs_or_is_refused(name: str, exported: dict[str, Path], tmp_path: Path) -> None:
    config = starting(name, exported["compact"])
    if name not in COMPACT:
        with pytest.raises(UserError, match="compact network") as refused:
            require_runnable(config, DATA)
        assert str(refused.value).isprintable()
        return
    require_runnable(config, DATA)
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    net = checkpoint_of(folder_of(config, tmp_path))["net"]
    assert net["model"]["conv1.weight"].shape[0] == 10
    assert net["kept"]["conv1.weight"].tolist() == list(range(6, 16))
    if not name.startswith("adaptive"):  # which aims at its density, and has no time to reach it here
        assert state.result is not None
        assert not {"density_missed", "nothing_pruned"} & set(state.result["warnings"])
    assert run_in(tmp_path, config) == state


@pytest.mark.parametrize("name", NAMES)
def test_dense_weights_start_every_method(name: str, exported: dict[str, Path]) -> None:
    require_runnable(starting(name, exported["dense"]), DATA)


@pytest.mark.parametrize("form", FORMS)
def test_every_export_is_a_source_or_refused(form: str, exported: dict[str, Path], tmp_path: Path) -> None:
    """A trial that changes nothing computes with the network that was exported."""
    config = starting("imp-none", exported[form], levels=1, prune_fraction=1e-9, finetune={**RECIPE, "epochs": 0})
    if form == "onnx":
        with pytest.raises(UserError, match="must be a whole checkpoint of tensors"):
            require_runnable(config, DATA)
        return
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    net = checkpoint_of(folder_of(config, tmp_path))["net"]
    content = torch.load(exported[form], weights_only=True)
    given = content["state_dict"] if form == "compact" else content
    for name, value in net["model"].items():
        pair = given.get(f"{name}_orig"), given.get(f"{name}_mask")
        assert torch.equal(value, given[name] if pair[0] is None else pair[0] * pair[1])
    masks = [mask for name, mask in content.items() if name.endswith("_mask")]
    kept = sum(int(mask.sum()) for mask in masks) or sum(net["model"][name].numel() for name in net["masks"])
    assert rows_of(folder_of(config, tmp_path))["epochs"][-1]["kept"] == kept
    assert (form == "dense") == (kept == PRUNABLE)


@pytest.mark.parametrize("density", [0.4, 0.39, 0.1])
def test_one_shot_prunes_within_a_mask_to_a_share_of_all_weights(
    density: float, exported: dict[str, Path], tmp_path: Path
) -> None:
    state = run_in(tmp_path, starting("one_shot", exported["prune"], density=density, finetune=None))
    assert state.result["kept"] == pytest.approx(density * PRUNABLE, abs=1)


def test_a_density_above_the_masks_is_refused(exported: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"density is 0\.5, but the mask of source_net keeps only 0\.4"):
        require_runnable(starting("one_shot", exported["prune"], density=0.5), DATA)


@pytest.mark.parametrize("name", ["one_shot-filter", "prune_iterative"])
def test_groups_are_not_pruned_within_a_mask(name: str, exported: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="pattern is 'filter', but the network of source_net has a mask"):
        require_runnable(starting(name, exported["prune"], pattern="filter", keep=[]) if name != "one_shot-filter"
                         else starting(name, exported["prune"], density=0.3), DATA)  # fmt: skip


@pytest.mark.parametrize("name", ["one_shot-coupled", "prune_iterative-coupled"])
def test_coupled_groups_start_from_whole_or_compact_networks(name: str, exported: dict[str, Path]) -> None:
    require_runnable(starting(name, exported["dense"]), DATA)
    require_runnable(starting(name, exported["compact"]), DATA)
    with pytest.raises(UserError, match=r"couple is true, but the network of source_net has a mask \(density 0\.4"):
        require_runnable(starting(name, exported["prune"]), DATA)


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("one_shot-coupled", {"density": 0.2}, "density is 0.2, which keeps 1 of 6 coupled units, but each of 3"),
        ("one_shot-coupled", {"density": 0.95}, "of 6 coupled units none would be pruned"),
        ("prune_iterative-coupled", {"levels": 3}, "at level 3 of 3, which keeps 2 of 6 coupled units, but each of 3"),
    ],
)
def test_coupled_budgets_count_the_units_of_a_compact_network(
    name: str, fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    require_runnable(config_of(name, **fields), DATA)
    with pytest.raises(UserError, match=f"source_net is .* of tiny's {PRUNABLE} weights, and .*{said}"):
        require_runnable(starting(name, smaller(tmp_path / "net.pt", **SMALL), **fields), DATA)


@pytest.mark.parametrize("name", ["one_shot-nm", "bip-nm", "hydra-nm"])
def test_n_of_m_counts_the_channels_of_a_compact_network(name: str, tmp_path: Path) -> None:
    """Layers whose channels are no multiple of M there stay dense; a network of such layers only is refused."""
    config = starting(name, smaller(tmp_path / "some.pt", conv1=8, conv2=6, conv3=6), nm="2:4")
    require_runnable(config, DATA)
    state = run_in(tmp_path, config)
    net = checkpoint_of(folder_of(config, tmp_path))["net"]
    assert list(net["masks"]) == ["conv2.weight"]
    assert net["masks"]["conv2.weight"].view(6, 2, 4, 9).sum(2).eq(2).all()
    assert state.result is not None
    assert "density_missed" not in state.result["warnings"]
    with pytest.raises(UserError, match="layers with a multiple of 4 input channels only, of which it has none"):
        require_runnable(starting(name, smaller(tmp_path / "none.pt", conv1=6, conv2=6, conv3=6), nm="2:4"), DATA)


def test_thresholds_go_by_the_sizes_of_a_compact_network(tmp_path: Path) -> None:
    """What is asked of it does not count layers that are too small there for a threshold."""
    source, recipe = smaller(tmp_path / "net.pt", conv1=8, conv2=8, conv3=4), {**RECIPE, "lr": 1e-3}
    exact = {"exact_target": True, "mode": "fixed", "pthres": 300, "starget": 0.5}
    config = starting("adaptive_sparsity", source, train=recipe, **exact)
    state = run_in(tmp_path, config)
    net = checkpoint_of(folder_of(config, tmp_path))["net"]
    assert state.result is not None
    assert (len(net["masks"]), "density_missed" in state.result["warnings"]) == (1, False)


@pytest.mark.parametrize("name", ["bip", "hydra", "adaptive_sparsity", "l1"])
def test_a_compact_network_that_still_has_a_mask_is_refused_for_that(name: str, tmp_path: Path) -> None:
    """What could not be cut is masked there; BiP, HYDRA and thresholds would let it return."""
    content = torch.load(smaller(tmp_path / "net.pt", conv1=8), weights_only=True)
    masks = {"conv3.weight": torch.rand(content["state_dict"]["conv3.weight"].shape) > 0.5}
    torch.save({**content, "masks": masks}, tmp_path / "net.pt")
    ways = "a compact network without a mask (couple: true makes one), " if name in COMPACT else ""
    with pytest.raises(UserError) as refused:
        require_runnable(starting(name, tmp_path / "net.pt"), DATA)
    assert "holds a compact network with a mask of what could not be cut (density 0." in str(refused.value)
    assert f"would drop it: give dense weights, {ways}or a method that goes on from a mask" in str(refused.value)
    require_runnable(starting("finetune", tmp_path / "net.pt"), DATA)


def test_a_compact_network_of_another_model_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a compact tiny, but model is 'lenet5'"):
        require_runnable(starting("bip", exported["compact"], model="lenet5"), DATA)
    with pytest.raises(UserError, match=r"in other shapes linear\.weight, linear\.bias \(10 classes"):
        require_runnable(starting("bip", exported["compact"]), DataHeader("few_digits", 7, 1, (8, 8), 400))
    content = torch.load(exported["compact"], weights_only=True)
    for kept in (
        {"conv9.weight": torch.arange(3)},
        {"conv1.weight": torch.arange(40)},
        {"conv1.weight": torch.arange(3)},
    ):
        torch.save({**content, "kept": kept}, tmp_path / "net.pt")
        with pytest.raises(UserError, match="source_net is") as refused:
            require_runnable(starting("bip", tmp_path / "net.pt"), DATA)
        assert str(refused.value).isprintable()


def test_the_check_reads_a_file_once(exported: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(exported["dense"].read_bytes())
    configs = [starting("bip", path, seed=seed) for seed in range(3)]
    require_runnable(configs[0], DATA)
    path.unlink()
    for config in configs:
        require_runnable(config, DATA)


SMALL = {"conv1": 2, "conv2": 2, "conv3": 2}
"""Filters of a compact network whose layers are too small for many shares of the whole model's."""


def masked(path: Path, **densities: float) -> Path:
    """A file with a mask that keeps a share of each layer's largest weights; all of a layer without one."""
    model = models.build("tiny", num_classes=10, in_channels=1, seed=1)
    for layer, density in densities.items():
        prune.l1_unstructured(model.get_submodule(layer), "weight", amount=1 - density)
    torch.save(model.state_dict(), path)
    return path


def smaller(path: Path, **filters: int) -> Path:
    """A compact network of so many filters a layer."""
    net = Net(models.build("tiny", num_classes=10, in_channels=1, seed=5))
    weights = prunable(net.model)
    net.shrink({f"{n}.weight": torch.arange(k, len(weights[f"{n}.weight"])) for n, k in filters.items()}, "filter")
    compact.save(path, Architecture("tiny", 10, 1, (8, 8)), net.kept, net.model.state_dict())
    return path


NO_EPOCHS = {**RECIPE, "epochs": 0}
FIRST_DENSE = dict.fromkeys(("conv2", "conv3", "linear"), 0.01)
THIN = {"conv1": 1 / 144, **FIRST_DENSE}
LATE: dict[str, Any] = {"levels": 3, "prune_fraction": 0.6, "distribution": "uniform_plus", "finetune": NO_EPOCHS}
LONG: dict[str, Any] = {"levels": 14, "prune_fraction": 0.4, "distribution": "uniform", "finetune": NO_EPOCHS}
ROUNDED_UP = {"rounding": "released"}  # keeps the last weight of a layer


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("imp-none", LATE, r"at level \d of 3, but distribution uniform_plus must remove"),
        ("prune_iterative", {**LATE, "keep": []}, r"at level \d of 3, but distribution uniform_plus must remove"),
        ("one_shot", {"density": 0.005, "distribution": "uniform_plus"}, "uniform_plus must remove"),
    ],
)
def test_budgets_count_what_a_mask_keeps(name: str, fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    dense = masked(tmp_path / "dense.pt")
    require_runnable(starting(name, dense, **{**fields, "distribution": "global"}), DATA)
    with pytest.raises(UserError, match=f"whose network has .* of tiny's {PRUNABLE} weights, and .*{said}") as refused:
        require_runnable(starting(name, masked(tmp_path / "net.pt", **FIRST_DENSE), **fields), DATA)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("name", "fields"), [("imp-none", {**LONG, **ROUNDED_UP}), ("prune_iterative", {**LONG, **ROUNDED_UP, "keep": []})]
)
def test_levels_that_would_prune_nothing_of_what_a_mask_keeps_are_refused(
    name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    path = masked(tmp_path / "net.pt", **THIN)
    said = "none would be pruned: ask for fewer levels|no weight would be left of"
    with pytest.raises(UserError, match=said) as refused:
        require_runnable(starting(name, path, **fields), DATA)
    assert str(refused.value).isprintable()
    require_runnable(starting(name, path, **{**fields, "levels": 1}), DATA)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("one_shot-filter", {"density": 0.93}),
        ("one_shot-filter", {"density": 0.95, "pattern": "channel"}),
        ("one_shot", {"density": 0.999}),
        ("one_shot", {"density": 0.02, "distribution": "uniform_plus"}),
        ("prune_iterative", {"pattern": "filter", "levels": 2, "prune_fraction": 0.03, "keep": []}),
        *((name, {"density": 0.95, "pattern": what}) for name in ("bip", "hydra") for what in ("filter", "channel")),
        *((name, {"density": 0.999}) for name in ("bip", "hydra")),
        ("adaptive_sparsity", {"pthres": 1000}),
    ],
)
def test_budgets_count_the_units_of_a_compact_network(name: str, fields: dict[str, Any], tmp_path: Path) -> None:
    whole = {**fields, "distribution": "global"} if "distribution" in fields else fields
    require_runnable(starting(name, masked(tmp_path / "dense.pt"), **whole), DATA)
    said = "whose network has .* weights, and (.*none would be pruned|distribution uniform_plus must remove|pthres is)"
    with pytest.raises(UserError, match=said) as refused:
        require_runnable(starting(name, smaller(tmp_path / "net.pt", **SMALL), **fields), DATA)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_mask_that_keeps_nothing_is_refused(name: str, tmp_path: Path) -> None:
    state = torch.load(masked(tmp_path / "net.pt", conv1=0.5, conv2=0.5, conv3=0.5, linear=0.5), weights_only=True)
    empty = {name: torch.zeros_like(value) if name.endswith("_mask") else value for name, value in state.items()}
    torch.save(empty, tmp_path / "empty.pt")
    with pytest.raises(UserError, match="its mask keeps no weight") as refused:
        require_runnable(starting(name, tmp_path / "empty.pt"), DATA)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("distribution", ["global", "uniform", "uniform_plus", "erk"])
@pytest.mark.parametrize("name", ["imp-none", "prune_iterative", "one_shot"])
@pytest.mark.parametrize("start", ["first dense", "thin", "empty layer", "compact"])
def test_what_passes_the_check_prunes_as_asked(name: str, start: str, distribution: str, tmp_path: Path) -> None:
    """An accepted budget is met at every level; a layer that a mask has emptied may stay so."""
    path = tmp_path / "net.pt"
    densities = {"first dense": FIRST_DENSE, "thin": THIN, "empty layer": {**THIN, "conv2": 0.0, "linear": 0.3}}
    if start == "compact":
        smaller(path, **SMALL)
    else:
        masked(path, **densities[start])
    fields: dict[str, Any] = {"distribution": distribution, "finetune": NO_EPOCHS}
    levels: list[dict[str, Any]] = [{"levels": 6, "prune_fraction": 0.3}, {"levels": 1, "prune_fraction": 0.3}]
    for more in [{"density": 0.005}, {"density": 0.008}] if name == "one_shot" else levels:
        config = starting(name, path, **fields, **more)
        try:
            require_runnable(config, DATA)
        except UserError:
            continue
        state = run_in(tmp_path, config)
        assert state.status == "complete", state.error
        assert state.result is not None
        assert not {"density_missed", "nothing_pruned"} & set(state.result["warnings"])
        if distribution == "global":
            return
    assert distribution != "global", "one ranking over all layers always has enough to prune"
