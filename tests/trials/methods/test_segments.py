"""Trials whose hyperparameters change between segments: which values apply when, and bit-identical continuation."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.folders import assert_same_outcome, rows_of, timeless
from tests.trials.killing import Killed, deaths, killed_at_write
from tests.trials.small_trials import CONFIGS, config_of, folder_of, run_in
from trials.config.schedules import Schedule
from trials.config.trial_config import TrialConfig
from trials.errors import UserError
from trials.methods import Stage, segments
from trials.methods.bip.hydra import TrainScores
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.running import trial
from trials.storage.rows import COMPACT
from trials.training.build import build_net
from trials.training.net import Net
from trials.training.optimizers import Sgd

pytestmark = pytest.mark.usefixtures("few_digits")

OTHER: dict[str, Any] = {  # a value other than the default
    "lr": 0.03,
    "momentum": 0.5,
    "weight_decay": 0.02,
    "batch_size": 64,
    "schedule": "step",
    "mask_lr": 0.02,
    "mask_schedule": "constant",
    "implicit_step": 0.3,
    "implicit_gradient": "none",
}

RECIPES = {
    "dense": "train",
    "one_shot": "finetune",
    "finetune": "finetune",
    "bip": "prune",
    "bip-original": "prune",
    "hydra": "prune",
}
"""A recipe of the first stage."""


def test_every_mutable_hyperparameter_is_tried_here() -> None:
    assert {CONFIGS[name]["method"] for name in RECIPES} == {name for name, method in METHODS.items() if method.mutable}
    assert {path.rpartition(".")[2] for method in METHODS.values() for path in method.mutable} == set(OTHER)


def member(name: str, ends: list[int], rates: list[float], *, epochs: int = 3) -> TrialConfig:
    """The trial of the last of several segments, which differ in the learning rate."""
    recipe = RECIPES[name]
    own = {**CONFIGS[name][recipe], "epochs": epochs, "schedule": "constant"}
    config = config_of(name, **{recipe: {**own, "lr": rates[0]}}, until_epoch=ends[0])
    for end, rate in zip(ends[1:], rates[1:], strict=True):
        config = segments.child(config, {f"{recipe}.lr": rate}, end)
    return config


def test_the_parent_is_the_same_lineage_without_the_last_segment() -> None:
    child = member("bip", [1, 2, 3], [0.1, 0.2, 0.05])
    assert [a.id for a in segments.ancestors(child)] == [
        member("bip", [1, 2], [0.1, 0.2]).id,
        member("bip", [1], [0.1]).id,
    ]
    rates = [segments.config_at(child, epoch).prune.lr for epoch in range(4)]  # type: ignore[attr-defined]
    assert rates == [0.1, 0.2, 0.05, 0.05]
    assert parse(child.model_dump(mode="json")).id == child.id
    others = [member("bip", [1, 2, 3], [0.1, 0.3, 0.05]), member("bip", [1, 3], [0.1, 0.05])]
    assert len({child.id, *(other.id for other in others)}) == 3


def test_the_lineage_does_not_change_the_shared_trial() -> None:
    sources = [METHODS["bip"](member("bip", *args)).source() for args in (([1], [0.1]), ([1, 2], [0.1, 0.2]))]
    assert sources[0] == sources[1] == METHODS["bip"](config_of("bip")).source()


@pytest.mark.parametrize("name", ["regrow", "regrow-rule", "regrow-filter", "single_layer"])
def test_a_segment_does_not_shorten_the_trial_it_starts_from(name: str) -> None:
    config = config_of(name)
    segment = config.model_copy(update={"until_epoch": 1})
    assert METHODS[config.method](segment).source() == METHODS[config.method](config).source()


@pytest.mark.parametrize("name", RECIPES)
def test_a_chain_of_segments_gives_the_results_of_one_trial(name: str, tmp_path: Path) -> None:
    ends, rates = [1, 2, 3], [0.1, 0.2, 0.05]
    last = member(name, ends, rates)
    stage = segments.first_stage(last).name
    ran: list[list[tuple[str, int]]] = []
    for count in (1, 2, 3):
        ran.append([])
        config = member(name, ends[:count], rates[:count])
        state = run_in(tmp_path / "on", config, report=lambda row: ran[-1].append((row["stage"], row["epoch"])))
        assert (state.status, state.error) == ("complete", None)
        assert 0 <= state.result["test_accuracy"] <= 1
    assert ran[1] == [(stage, 2)]
    assert ran[2][0] == (stage, 3)
    run_in(tmp_path / "whole", last)
    assert_same_outcome(folder_of(last, tmp_path / "on"), folder_of(last, tmp_path / "whole"))
    rows = [row for row in rows_of(folder_of(last, tmp_path / "on"))["epochs"] if row["stage_id"] is None]
    first = [row for row in rows if row["stage"] == stage and row["epoch"]]
    assert [row["lr"] for row in first] == rates
    assert [row["test_loss"] is not None for row in first] == [False, False, True]


def test_unchanged_hyperparameters_are_the_uninterrupted_trial(tmp_path: Path) -> None:
    for ends in ([1], [1, 2], [1, 2, 3]):
        config = member("bip", ends, [0.1] * len(ends))
        run_in(tmp_path, config)
    undivided = parse({**config.model_dump(mode="json"), "lineage": [], "until_epoch": None})
    run_in(tmp_path, undivided)
    assert_same_outcome(folder_of(config, tmp_path), folder_of(undivided, tmp_path))


ENDS, RATES = [1, 2, 3], [0.1, 0.2, 0.05]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, few_digits: None) -> Path:
    """A storage with the first two of three segments; ``whole`` holds the third, computed without them."""
    storage = tmp_path_factory.mktemp("family")
    for count in (1, 2):
        run_in(storage, member("hydra", ENDS[:count], RATES[:count]))
    run_in(storage / "whole", member("hydra", ENDS, RATES))
    return storage


@pytest.mark.parametrize("gone", ["folder", "checkpoint", "damaged", "unfinished"])
def test_without_its_parents_checkpoint_it_goes_back_further(gone: str, family: Path, tmp_path: Path) -> None:
    shutil.copytree(family, tmp_path, dirs_exist_ok=True)
    last, folder = member("hydra", ENDS, RATES), folder_of(member("hydra", ENDS[:2], RATES[:2]), tmp_path)
    for path in (folder / "checkpoint").glob("*.pt"):
        path.write_bytes(b"not a checkpoint") if gone == "damaged" else path.unlink()
    if gone == "folder":
        shutil.rmtree(folder)
    elif gone == "unfinished":
        (folder / "state.json").unlink()
    ran: list[int] = []
    run_in(tmp_path, last, report=lambda row: ran.append(row["epoch"]) if row["stage"] == "prune" else None)
    assert ran == [2, 3]
    assert_same_outcome(folder_of(last, tmp_path), folder_of(last, tmp_path / "whole"))


def test_kills_at_every_write_do_not_change_the_results(tmp_path: Path) -> None:
    ends, rates = [1, 2], [0.1, 0.05]
    config = parse({**member("bip", ends, rates).model_dump(mode="json"), "checkpoint_every_s": 0.0})
    run_in(tmp_path / "whole", config)
    run_in(tmp_path, member("bip", ends[:1], rates[:1]))
    for number, place in itertools.islice(deaths(seed=4, longest=8), 12):
        with contextlib.suppress(Killed), killed_at_write(number, place):
            run_in(tmp_path, config)
    run_in(tmp_path, config)
    assert_same_outcome(folder_of(config, tmp_path), folder_of(config, tmp_path / "whole"))


def test_stages_after_the_first_follow_the_last_segment_only(tmp_path: Path) -> None:
    for ends in ([1], [1, 3]):
        run_in(tmp_path, member("bip", ends, [0.1, 0.2][: len(ends)]))
        stages = {
            row["stage"] for row in rows_of(folder_of(member("bip", ends, [0.1, 0.2][: len(ends)]), tmp_path))["epochs"]
        }
        assert ("finetune" in stages) == (ends[-1] == 3)


def attached(config: TrialConfig, before: tuple[Stage, Net] | None = None) -> tuple[Stage, Net]:
    """The first stage in its second epoch: new, or continued from ``before``."""
    stage = segments.first_stage(config)
    if before is None:
        net = build_net(config, trial.load_data(config.dataset, config.data_dir), torch.device("cpu"))
        stage.enter(net)
        stage.attach(net)
    else:
        net = before[1]
        stage.attach(net)
        stage.load_state_dict(before[0].state_dict())
    stage.begin_epoch(1)
    return stage, net


def in_use(stage: Stage) -> dict[str, list[Any]]:
    """The hyperparameters in the stage's optimizers, and all others that it computes with."""
    found: dict[str, list[Any]] = {"batch_size": [stage.recipe.batch_size]}
    for optimizer in (value for value in vars(stage).values() if isinstance(value, Sgd)):
        for group in optimizer.optimizer.param_groups:
            assert group["lr"] is optimizer.lr
            for name in ("lr", "momentum", "weight_decay"):
                found.setdefault(name, []).append(float(group[name]))
    for name in ("implicit_step", "implicit_gradient"):
        if hasattr(stage, name):
            value = getattr(stage, name)
            found[name] = [value if isinstance(value, str) else pytest.approx(float(value), rel=1e-6)]
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_the_next_step_uses_the_new_value(name: str) -> None:
    """For every hyperparameter that a method declares mutable, as read from the optimizer that takes the step."""
    config = parse({**config_of(name).model_dump(mode="json"), "until_epoch": 1})
    before, net = attached(config)
    batch = (torch.rand(8, 1, 8, 8), torch.arange(8))
    before.step(*[batch] * len(before.streams))
    for path in sorted(METHODS[config.method].mutable):
        field = path.rpartition(".")[2]
        changed = segments.child(config, {path: OTHER[field]}, 2)
        expected, _ = attached(changed)  # built with the new value from the start
        after, _ = attached(changed, (before, net))
        assert in_use(after) == in_use(expected), path
        assert in_use(after) != in_use(before), path
        after.step(*[batch] * len(after.streams))
        assert after.columns() == pytest.approx(expected.columns())


def test_momentum_is_carried_over_and_its_factor_is_not() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    old, new = (Sgd([weight], lr=0.1, momentum=m, weight_decay=0.0) for m in (0.9, 0.5))
    weight.grad = torch.tensor([1.0])
    old.step()  # buffer 1, weight 0.9
    new.load_state_dict(old.state_dict())
    new.set_lr(0.2)
    weight.grad = torch.tensor([0.0])
    new.step()  # buffer 0.5
    assert float(weight.detach()) == pytest.approx(0.9 - 0.2 * 0.5)


def test_a_schedule_runs_over_the_whole_stage() -> None:
    config = parse({**config_of("bip").model_dump(mode="json"), "prune": {"epochs": 10, "lr": 0.2}, "until_epoch": 4})
    assert segments.first_stage(config).schedule(3) == Schedule("cosine", 0.2, 10)(3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"until_epoch": 3}, "until_epoch is 3, but stage prune has 2 epochs: give at most these"),
        ({"until_epoch": 0}, "until_epoch is 0, but must be greater than or equal to 1"),
        ({"lineage": [{"until_epoch": 1, "values": {}}]}, "lineage has 1 segments, but until_epoch is missing: add it"),
        (
            {"until_epoch": 2, "lineage": [{"until_epoch": 2, "values": {}}]},
            "lineage ends a segment at epoch 2, but the one before at 2: put them in order",
        ),
        (
            {"until_epoch": 2, "lineage": [{"until_epoch": 1, "values": {"density": 0.5}}]},
            "lineage has density, which is fixed once a trial of hydra has begun: only prune.batch_size, prune.lr, "
            "prune.momentum, prune.schedule, prune.weight_decay may change",
        ),
        (
            {"until_epoch": 2, "lineage": [{"until_epoch": 1, "values": {"prune.lr": -1.0}}]},
            "prune.lr is -1.0, but must be greater than 0",
        ),
        ({"until_epoch": 2, "lineage": [{"until_epoch": 1}]}, "lineage.0.values is missing: add it"),
    ],
)
def test_invalid_lineages_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        config_of("hydra", **fields)
    assert str(error.value) == said


def test_a_method_that_declares_nothing_changes_nothing() -> None:
    with pytest.raises(UserError, match="fixed once a trial of imp has begun: none of its hyperparameters may"):
        config_of("imp-none", until_epoch=2, lineage=[{"until_epoch": 1, "values": {"finetune.lr": 0.1}}])


def test_a_stage_that_ends_itself_is_not_divided() -> None:
    with pytest.raises(UserError, match="but prune of greg1 has no fixed number of epochs: remove them"):
        parse({"method": "greg1", "dataset": "digits", "model": "tiny", "stage_pr": {"1": 0.5}, "until_epoch": 1})


def test_a_stage_that_is_finished_early_ends_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within a segment: its continuation goes on with the next stage."""
    monkeypatch.setattr(TrainScores, "finished", property(lambda self: self.sgd.lr > 0.15), raising=False)
    for ends, rates in (([1], [0.1]), ([1, 2], [0.1, 0.2]), ([1, 2, 3], [0.1, 0.2, 0.05])):
        config = member("hydra", ends, rates)
        state = run_in(tmp_path, config)
        assert (state.status, state.error) == ("complete", None)
    rows = [row for row in rows_of(folder_of(config, tmp_path))["epochs"] if row["stage_id"] is None]
    assert [row["epoch"] for row in rows if row["stage"] == "prune" and row["epoch"]] == [1, 2]
    assert any(row["stage"] == "finetune" for row in rows)


def test_segments_name_the_same_hyperparameters() -> None:
    segments = [{"until_epoch": 1, "values": {"prune.lr": 0.1}}, {"until_epoch": 2, "values": {"mask_lr": 0.1}}]
    with pytest.raises(UserError, match="each must name the same ones"):
        config_of("bip", prune={"epochs": 3}, until_epoch=3, lineage=segments)


def test_the_copied_rows_are_the_parents(tmp_path: Path) -> None:
    parent, child = member("hydra", [1], [0.1]), member("hydra", [1, 2], [0.1, 0.2])
    run_in(tmp_path, parent)
    run_in(tmp_path, child)
    theirs, ours = (timeless(rows_of(folder_of(config, tmp_path)))["epochs"] for config in (parent, child))
    at_the_end = ("test_loss", "test_accuracy", *COMPACT)
    assert all(theirs[-1][name] is not None for name in at_the_end)
    assert ours[len(theirs) - 1] == {**theirs[-1], **dict.fromkeys(at_the_end)}
    assert ours[: len(theirs) - 1] == theirs[:-1]
