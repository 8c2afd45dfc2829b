"""Default learning rates of BiP and HYDRA at densities where the published one collapses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trials.configs import SMALLEST
from tests.trials.folders import rows_of
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.errors import UserError
from trials.methods.bip.bip import BipConfig, BipRecipe
from trials.methods.bip.rates import corrected_rate
from trials.methods.parsing import parse
from trials.methods.segments import config_at

LOW = 0.02


def rates(content: dict[str, Any]) -> tuple[float, ...]:
    config: Any = parse(content)
    return (config.prune.lr, config.mask_lr) if config.method == "bip" else (config.prune.lr,)


@pytest.mark.parametrize("method", ["bip", "hydra"])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.05])
def test_the_published_rates_and_names_stay_from_a_twentieth_on(method: str, density: float) -> None:
    content = {**SMALLEST[method], "density": density}
    assert set(rates(content)) == {0.1}
    assert parse(content).id == parse({**content, "prune": {"lr": 0.1}}).id


@pytest.mark.parametrize("method", ["bip", "hydra"])
@pytest.mark.parametrize(("density", "rate"), [(0.049, 0.01), (0.02, 0.005), (0.01, 0.0025), (0.001, 0.00025)])
def test_below_the_default_falls_and_the_name_says_so(method: str, density: float, rate: float) -> None:
    content = {**SMALLEST[method], "density": density}
    assert set(rates(content)) == {rate}
    assert set(rates({**content, "prune": {"epochs": 3}})) == {rate}
    published = {"prune": {"lr": 0.1}, **({"mask_lr": 0.1} if method == "bip" else {})}
    assert parse(content).id != parse({**content, **published}).id
    assert parse(content).id == parse(parse(content).model_dump(mode="json")).id  # as read from config.json


def test_what_a_config_gives_is_never_changed() -> None:
    low = {**SMALLEST["bip"], "density": LOW}
    assert rates({**low, "prune": {"lr": 0.1}}) == (0.1, 0.005)
    assert rates({**low, "mask_lr": 0.1}) == (0.005, 0.1)
    assert rates({**low, "variant": "original"}) == (0.1, 0.1)
    assert rates({**low, "pattern": "filter"}) == (0.1, 0.1)
    assert rates({**low, "score_init": "random"}) == (0.1, 0.1)
    assert rates({**low, "prune": {"lr_steps": "0:0.2"}}) == (0.1, 0.005)
    built = BipConfig(dataset="digits", model="tiny", density=LOW, prune=BipRecipe(epochs=3))
    assert (built.prune.lr, built.prune.epochs, built.prune.weight_decay) == (0.005, 3, 1e-4)
    assert BipConfig(dataset="digits", model="tiny", density=LOW, prune=BipRecipe(lr=0.1)).prune.lr == 0.1


def test_a_population_keeps_the_rates_of_its_segments() -> None:
    content = {**SMALLEST["bip"], "density": LOW, "until_epoch": 4}
    lineage = [{"until_epoch": 2, "values": {"prune.lr": 0.1}}]
    config: Any = parse({**content, "lineage": lineage})
    first: Any = config_at(config, 0)
    assert (first.prune.lr, first.mask_lr, config.prune.lr) == (0.1, 0.005, 0.005)


@pytest.mark.parametrize("method", ["bip", "hydra"])
@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_numbers_of_numpy_are_densities_too(method: str, number: type) -> None:
    assert rates({**SMALLEST[method], "density": number(LOW)}) == pytest.approx(
        rates({**SMALLEST[method], "density": LOW})
    )


@pytest.mark.parametrize("density", ["0.02", None, -1.0, 0.0, [0.02]])
def test_densities_that_are_none_are_refused_as_before(density: object) -> None:
    with pytest.raises(UserError, match="density"):
        parse({**SMALLEST["bip"], "density": density})


@pytest.mark.parametrize("method", ["bip", "hydra"])
@pytest.mark.usefixtures("few_digits")
def test_a_low_density_does_not_end_at_chance_level(method: str, tmp_path: Path) -> None:
    assert corrected_rate(LOW) == 0.005
    config = config_of(
        method, density=LOW, pretrain={"epochs": 8, "batch_size": 32}, prune={"epochs": 8, "batch_size": 32},
        finetune={"epochs": 8, "batch_size": 32, "lr": 0.05},
    )  # fmt: skip
    state = run_in(tmp_path, config)
    assert (state.status, state.result["warnings"]) == ("complete", [])
    own = [row for row in rows_of(folder_of(config, tmp_path))["epochs"] if row["stage"] == "prune" and row["epoch"]]
    assert own[0]["lr"] == 0.005
