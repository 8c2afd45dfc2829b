"""Every profile compares the same methods: one rule, one dense start, the same densities."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.cli import main
from sweeper.space.space_files import SPACES
from tests.sweeper.compare_methods.profiles import LEFT_OUT, PROFILES, TUNED, compared, configs
from trials.config.trial_config import TrialConfig
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.sparsity import prunable
from trials.training.net import Net


def dense_start(config: TrialConfig) -> TrialConfig:
    source = METHODS[config.method](config).source()
    assert source is not None
    return source if source.method == "dense" else dense_start(source)


@pytest.mark.parametrize("profile", PROFILES)
def test_one_rule_says_which_epoch_counts(profile: str | None) -> None:
    assert {config.report for config in configs(compared(profile))} == {"last"}
    other = compared(profile, "trial.report=best_val")
    assert {config.reported for config in configs(other)} == {"best_val"}


@pytest.mark.parametrize("profile", PROFILES)
def test_all_cells_of_a_seed_start_from_one_dense_network(profile: str | None) -> None:
    """Also every sample of a search, whose best one is confirmed from the dense networks of the other seeds."""
    space = compared(profile)
    found = {(config.seed, dense_start(config).id) for config in configs(space)}
    assert sorted(seed for seed, _ in found) == ([0, 1, 2, 3] if profile in TUNED else [0, 1, 2])


def test_left_out_methods_are_listed() -> None:
    text = " ".join((SPACES / "compare_methods.yaml").read_text().split())
    said = text.partition("Left out: ")[2].partition(". ")[0]
    assert all(name in said for name in LEFT_OUT)
    assert len({compared(profile).grid["method"].values for profile in PROFILES}) == 1


def asked_density(config: Any, sizes: dict[str, Net]) -> float:
    """The share of all weights that the config keeps."""
    if hasattr(config, "density"):
        return float(config.density)
    if config.method in ("imp", "prune_iterative"):
        return float((1 - config.prune_fraction) ** config.levels)
    if config.method == "adaptive_sparsity":
        return float(1 - config.starget)
    if config.method == "regrow":
        return float((1 - config.prune.prune_fraction) ** config.prune.levels + config.regrow_fraction)
    net = sizes[config.model]
    total = sum(weight.numel() for weight in prunable(net.model).values())
    if config.method in ("global_prune", "layer_prune"):
        convolutions = sum(weight.numel() for weight in prunable(net.model, linear=False).values())
        return float(1 - config.p_prune * convolutions / total)
    return float(1 - sum(config.counts(net).values()) / total)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_method_is_asked_for_the_same_densities(profile: str | None) -> None:
    space = compared(profile)
    channels = 1 if profile == "demo" else 3
    model = configs(space)[0].model
    sizes = {model: Net(MODELS[model](num_classes=10, in_channels=channels))}
    by_method: dict[str, list[float]] = {}
    for cell in space.cells():
        if cell.values.get("seed", 0) == 0:
            config = space.config(cell)
            by_method.setdefault(config.method, []).append(asked_density(config, sizes))
    ladder = list(space.grid["density"].values)
    for method, densities in by_method.items():
        assert densities == pytest.approx(ladder, abs=2e-4), method


def test_a_dry_run_tells_dense_networks_from_sparse_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "compare_methods", "--profile", "demo", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-6].startswith("36 cells x (4 + 3) samples = 252 trials of ")
    assert lines[-5] == "dense networks to train first, shared: 1, and 3 sparse networks derived from these"
    assert lines[-3] == "dense networks to train for that, shared: 3"
    assert lines[-1].startswith("estimate: at most ")
