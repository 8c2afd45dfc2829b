"""One trial: its rows, its masks, and what becomes of it when it cannot go on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.running import (
    CONFIGS,
    RECIPE,
    assert_rows_once,
    checkpoint_of,
    config_of,
    folder_of,
    rows_of,
    run_in,
    same,
    source_of,
    timeless,
)
from trials import models, progress, training, trial
from trials.data import load
from trials.ledger import Row, TrialFolder
from trials.methods.base import TrainStage
from trials.methods.bip import Bilevel
from trials.methods.imp import Level
from trials.seeding import derive_seed
from trials.sparsity import keep_count
from trials.training import Net, Sgd

pytestmark = pytest.mark.usefixtures("few_digits")

PRUNABLE = 19_056  # conv and linear weights of tiny on gray images of ten classes
EPOCHS: dict[str, list[tuple[str, int, int]]] = {  # (stage, level, epoch) of every row; 0 is what entering a stage did
    "dense": [],
    "one_shot": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "one_shot-filter": [("prune", 0, 0)],
    "imp-weights": [("train", level, epoch) for level in (1, 2) for epoch in (0, 1, 2)],
    "imp-weights-early": [("train", level, epoch) for level in (1, 2) for epoch in (0, 2)],
    "imp-learning_rate": [("train", level, epoch) for level in (1, 2) for epoch in (0, 1, 2)],
    "imp-none": [("train", level, epoch) for level in (1, 2) for epoch in (0, 1, 2)],
    "regrow": [
        *(("prune", 1, epoch) for epoch in (0, 1)),
        *(row for level in (1, 2) for row in (("regrow", level, 1), ("finetune", level, 1), ("finetune", level, 2))),
    ],
    "regrow-filter": [
        *(("prune", 1, epoch) for epoch in (0, 1)),
        ("regrow", 1, 1),
        *(("finetune", 1, epoch) for epoch in (1, 2)),
    ],
    "regrow-rule": [*(("prune", 1, epoch) for epoch in (0, 1)), ("regrow", 1, 1)],
    "regrow_iterative": [
        *(("prune", level, epoch) for level in (1, 2) for epoch in (0, 1)),
        *(("regrow", level, 1) for level in (1, 2)),
    ],
    "single_layer": [*(("prune", 1, epoch) for epoch in (0, 1)), ("regrow", 0, 1)],
    "prune_iterative": [("prune", level, epoch) for level in (1, 2) for epoch in (0, 1, 2)],
    "bip": [*(("prune", 0, epoch) for epoch in (0, 1, 2)), ("finetune", 0, 1)],
    "bip-both": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "bip-channel": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "bip-original": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "hydra": [*(("prune", 0, epoch) for epoch in (0, 1, 2)), *(("finetune", 0, epoch) for epoch in (1, 2))],
    "hydra-filter-original": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "l1": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "l1-weight": [("remove", 0, 0)],
    "greg1": [*(("prune", 0, epoch) for epoch in (1, 2)), *(("finetune", 0, epoch) for epoch in (0, 1))],
    "greg1-weight-original": [
        *(("prune", 0, epoch) for epoch in (1, 2)),
        *(("finetune", 0, epoch) for epoch in (0, 1, 2)),
    ],
    "greg2-channel": [*(("prune", 0, epoch) for epoch in (1, 2, 3)), *(("finetune", 0, epoch) for epoch in (0, 1))],
    "oracle": [("choose", 0, 1), *(("finetune", 0, epoch) for epoch in (0, 1))],
    "global_prune": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "global_prune-original": [("prune", 0, 0)],
    "layer_prune": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "layer_prune-l1-original": [("prune", 0, 0)],
    "gradient_prune": [("train", 0, epoch) for epoch in (1, 2)],
    "bip-backward": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "dwp": [("attack", 0, 0)],
    "adaptive_sparsity": [("train", 0, epoch) for epoch in (0, 1, 2)],
    "adaptive_sparsity-fixed": [("train", 0, epoch) for epoch in (0, 1, 2)],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_one_row_per_epoch(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    reported: list[Row] = []
    state = run_in(tmp_path, config, report=reported.append)
    assert state.status == "complete", state.error
    rows = rows_of(folder_of(config, tmp_path))
    assert_rows_once(rows)
    keys = [(row["stage"], row["level"], row["epoch"]) for row in rows["epochs"]]
    source = source_of(config, tmp_path)
    pretraining = [] if source is None else [("pretrain", 0, 1), ("pretrain", 0, 2)]
    assert keys == [*pretraining, *EPOCHS[name]]
    assert [(row["stage"], row["level"], row["epoch"]) for row in reported] == keys
    made = {stage.name.partition("-")[0]: stage.name for stage in (tmp_path / "stages").glob("*")}
    shared = {"pretrain": source.name} if source is not None else {}
    if "prune_iterative" in made:
        shared = {"pretrain": made["dense"], "prune": made["prune_iterative"]}
    for row in rows["epochs"]:
        assert row["stage_id"] == shared.get(row["stage"])
        assert (row["train_loss"] is None) == (row["epoch"] == 0 or row["stage"] == "regrow")
        assert row["variant"] == ("corrected" if row["stage_id"] else config.variant)
        assert row["sparsity"] == 1 - row["density"]
        assert row["density"] == row["kept"] / row["prunable"]
        assert row["seconds"] >= 0
        assert not any(isinstance(value, float) and not math.isfinite(value) for value in row.values())
    last = {(row["stage"], row["level"]): row["epoch"] for row in rows["epochs"]}
    for row in rows["epochs"]:  # the test set is looked at when a stage ends, and only then
        assert (row["test_accuracy"] is not None) == (row["epoch"] == last[row["stage"], row["level"]])
    assert state.result["test_accuracy"] == rows["epochs"][-1]["test_accuracy"]
    assert state.result["density"] == rows["epochs"][-1]["density"]
    assert set(progress.RESULT) < state.result.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_say_what_the_masks_are(name: str, tmp_path: Path) -> None:
    """Density, layer counts and zeros, from the rows and from the network that is left."""
    config = config_of(name)
    run_in(tmp_path, config)
    rows, net = rows_of(folder_of(config, tmp_path)), checkpoint_of(folder_of(config, tmp_path))["net"]
    masks, weights = net["masks"], net["model"]
    for key, mask in masks.items():
        assert mask.dtype == torch.bool
        assert not weights[key][~mask].any()
        assert weights[key][mask].all()
    last = rows["epochs"][-1]
    final_layers = [row for row in rows["layers"] if (row["stage"], row["level"]) == (last["stage"], last["level"])]
    assert [row["layer"] for row in final_layers] == ["conv1", "conv2", "conv3", "linear"]
    for row in final_layers:
        mask = masks.get(f"{row['layer']}.weight")
        assert row["kept"] == int((torch.ones_like(weights[f"{row['layer']}.weight"]) if mask is None else mask).sum())
        assert net["kept"] or mask is not None or row["kept"] == row["total"]
    assert last["kept"] == sum(row["kept"] for row in final_layers if f"{row['layer']}.weight" in masks or not masks)
    assert last["flops"] == sum(row["flops"] for row in final_layers)
    pattern = getattr(config, "pattern", "weight")
    if pattern != "weight" and "density" in CONFIGS[name]:
        assert "linear.weight" not in masks
        assert ("conv1.weight" in masks) == (pattern != "channel")  # its input channels are the image's
        for mask in masks.values():
            groups = mask.transpose(0, int(pattern == "channel")).flatten(1)
            assert int(groups.any(1).sum()) == keep_count(CONFIGS[name]["density"], len(groups))
            assert torch.equal(groups.any(1), groups.all(1))
    elif "density" in CONFIGS[name]:
        assert last["kept"] == keep_count(CONFIGS[name]["density"], PRUNABLE)


def test_validation_is_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[bytes] = set()
    original = Net.loss

    def loss(self: Net, x: Tensor, y: Tensor) -> Any:
        if self.model.training:
            seen.update(image.numpy().tobytes() for image in x)
        return original(self, x, y)

    monkeypatch.setattr(Net, "loss", loss)
    config = config_of("bip", augment=False)
    run_in(tmp_path, config)
    data = training.place_data(config, load("few_digits"), torch.device("cpu"))
    held_out = {
        image.numpy().tobytes() for split in ("val", "test") for x, _ in data.eval_batches(split, 50) for image in x
    }
    trained = {image.numpy().tobytes() for x, _ in data.eval_batches("train", 50) for image in x}
    assert seen == trained
    assert not seen & held_out


def test_a_dense_trial_is_the_stage_that_others_start_from(tmp_path: Path) -> None:
    dense, bip = config_of("dense"), config_of("bip")
    run_in(tmp_path, dense)
    (stage,) = (tmp_path / "stages").iterdir()
    assert stage.name.startswith(dense.id)
    folder = folder_of(dense, tmp_path)
    assert same(checkpoint_of(folder)["net"], checkpoint_of(stage)["net"])
    named = {table: [{**row, "stage_id": stage.name} for row in part] for table, part in rows_of(stage).items()}
    assert rows_of(folder) == named
    state, stage_state = TrialFolder(folder).state(), TrialFolder(stage).state()
    assert state is not None
    assert stage_state is not None
    assert state.result == {**stage_state.result, "epochs": 0}  # it has trained none itself
    run_in(tmp_path, bip)
    assert len(list((tmp_path / "stages").iterdir())) == 1
    copied = rows_of(folder_of(bip, tmp_path))["epochs"][:2]
    assert [{key: row[key] for key in named["epochs"][0]} for row in copied] == named["epochs"]


def initial_weights(seed: int) -> dict[str, Tensor]:
    raw = load("few_digits")
    net = models.build("tiny", num_classes=raw.num_classes, in_channels=raw.in_channels, seed=seed)
    return {key: value.clone() for key, value in net.state_dict().items()}


def levels_of(config: Any, storage: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Each level of an imp trial: its masks and weights right after entering it, those it ends with, its first lr."""
    levels: list[dict[str, Any]] = []
    enter, end_epoch = Level.enter, TrainStage.end_epoch

    def copied(net: Net) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in net.model.state_dict().items()}

    def note_enter(self: Level, net: Net) -> None:
        before = copied(net)
        enter(self, net)
        masks = {key: mask.clone() for key, mask in net.masks.items()}
        levels.append({"level": self.level, "before": before, "masks": masks, "start": copied(net), "lrs": []})

    def note_end(self: TrainStage, net: Net, epoch: int) -> None:
        end_epoch(self, net, epoch)
        if isinstance(self, Level):
            levels[-1]["end"] = copied(net)
            levels[-1]["lrs"].append(float(self.sgd.lr))

    monkeypatch.setattr(Level, "enter", note_enter)
    monkeypatch.setattr(TrainStage, "end_epoch", note_end)
    state = run_in(storage, config)
    assert state.status == "complete", state.error
    return levels


@pytest.mark.parametrize(("rewind", "fraction"), [("weights", 0.2), ("learning_rate", 0.2), ("none", 0.5)])
def test_imp_counts_are_exact_and_masks_nested(
    rewind: str, fraction: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {**RECIPE, "epochs": 1}
    config = config_of("imp-weights", levels=6, rewind=rewind, prune_fraction=fraction, pretrain=one, finetune=one)
    levels = levels_of(config, tmp_path, monkeypatch)
    left = PRUNABLE
    previous = {key: torch.ones_like(mask) for key, mask in levels[0]["masks"].items()}
    for level, (name, noted) in enumerate(zip(range(1, 7), levels, strict=True), start=1):
        left = left - int((1 - (1 - fraction)) * left)
        assert name == level == noted["level"]
        assert sum(int(mask.sum()) for mask in noted["masks"].values()) == left
        assert abs(left - PRUNABLE * (1 - fraction) ** level) < level
        for key, mask in noted["masks"].items():
            assert not (mask & ~previous[key]).any()
        # kept are the largest of those that were left, over the whole network
        kept = torch.cat([noted["before"][key][mask].abs() for key, mask in noted["masks"].items()])
        gone = torch.cat([noted["before"][key][previous[key] & ~mask].abs() for key, mask in noted["masks"].items()])
        assert kept.min() >= gone.max()
        previous = noted["masks"]
    rows = [row for row in rows_of(folder_of(config, tmp_path))["epochs"] if row["stage"] == "train"]
    counts = {row["level"]: row["kept"] for row in rows}
    assert counts == {noted["level"]: sum(int(m.sum()) for m in noted["masks"].values()) for noted in levels}


def test_imp_rewinds_weights_to_initialisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("imp-weights")
    levels = levels_of(config, tmp_path, monkeypatch)
    initial = initial_weights(config.seed)
    for noted in levels:
        for key, value in initial.items():
            under_mask = value * noted["masks"][key] if key in noted["masks"] else value
            assert torch.equal(noted["start"][key], under_mask), key
        assert not same(noted["start"], noted["end"])
    lrs = [config.pretrain.lr_schedule()(epoch) for epoch in range(2)]  # type: ignore[attr-defined]
    assert [noted["lrs"] for noted in levels] == [lrs, lrs]


def test_imp_rewinds_to_an_early_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("imp-weights-early")
    levels = levels_of(config, tmp_path, monkeypatch)
    (stage,) = (tmp_path / "stages").iterdir()
    early = checkpoint_of(stage)["net"]["snapshots"]["epoch-1"]
    # the network after one epoch of the same schedule, computed by other means
    seen: list[dict[str, Tensor]] = []
    original = TrainStage.end_epoch

    def note(self: TrainStage, net: Net, epoch: int) -> None:
        seen.append({key: value.clone() for key, value in net.model.state_dict().items()})
        original(self, net, epoch)

    monkeypatch.setattr(TrainStage, "end_epoch", note)
    run_in(tmp_path / "again", config_of("dense"))
    assert same(early, seen[0])
    assert not same(early, seen[1])
    for noted in levels:
        for key, value in early.items():
            under_mask = value * noted["masks"][key] if key in noted["masks"] else value
            assert torch.equal(noted["start"][key], under_mask), key
    assert [noted["lrs"] for noted in levels] == 2 * [[config.pretrain.lr_schedule()(1)]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["imp-learning_rate", "imp-none"])
def test_imp_keeps_weights_where_they_are_not_rewound(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(name)
    for noted in levels_of(config, tmp_path, monkeypatch):
        for key, value in noted["before"].items():
            under_mask = value * noted["masks"][key] if key in noted["masks"] else value
            assert torch.equal(noted["start"][key], under_mask), key
        if name == "imp-none":
            assert noted["lrs"] == [0.01, 0.01]
        else:
            assert noted["lrs"] == [config.pretrain.lr_schedule()(epoch) for epoch in range(2)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["one_shot", "imp-weights", "bip"])
def test_pruned_weights_stay_exactly_zero_at_every_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through momentum and weight decay, both large."""
    strong = {**RECIPE, "momentum": 0.9, "weight_decay": 0.01, "lr": 0.1}
    fields = {key: strong for key in ("pretrain", "prune", "finetune") if key in CONFIGS[name]}
    steps: list[str] = []
    original = Sgd.__init__

    def wrap(self: Sgd, *arguments: Any, **keywords: Any) -> None:
        original(self, *arguments, **keywords)
        step = self.step

        def stepped() -> None:
            step()
            for net in nets:
                parameters = dict(net.model.named_parameters())
                for key, mask in net.masks.items():
                    assert not parameters[key][~mask].any()
                    steps.append(key)

        self.step = stepped  # type: ignore[assignment]

    nets: list[Net] = []
    build = trial.build_net

    def note_net(*arguments: Any) -> Net:
        nets.append(build(*arguments))
        return nets[-1]

    monkeypatch.setattr(trial, "build_net", note_net)
    monkeypatch.setattr(Sgd, "__init__", wrap)
    state = run_in(tmp_path, config_of(name, **fields))
    assert state.status == "complete", state.error
    assert len(steps) >= 6 * 4


def test_masks_are_kept_through_finetuning_after_bip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[dict[str, Tensor]] = []
    original = TrainStage.attach

    def attach(self: TrainStage, net: Net) -> None:
        if self.name == "finetune":
            noted.append({key: mask.clone() for key, mask in net.masks.items()})
        original(self, net)

    monkeypatch.setattr(TrainStage, "attach", attach)
    config = config_of("bip")
    run_in(tmp_path, config)
    assert len(noted) == 1
    assert same(noted[0], checkpoint_of(folder_of(config, tmp_path))["net"]["masks"])


def test_bip_moves_its_masks_and_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    original = Bilevel.end_epoch

    def end_epoch(self: Bilevel, net: Net, epoch: int) -> None:
        original(self, net, epoch)
        noted.append(({k: m.clone() for k, m in net.masks.items()}, {k: t.clone() for k, t in self.theta.items()}))
        for key, theta in self.theta.items():
            assert torch.equal(self.z[key], theta * net.masks[key])

    monkeypatch.setattr(Bilevel, "end_epoch", end_epoch)
    run_in(tmp_path, config_of("bip"))
    (masks_1, theta_1), (masks_2, theta_2) = noted
    assert not same(masks_1, masks_2)
    assert not same(theta_1, theta_2)
    dropped = torch.cat([theta_2[key][~mask].abs().reshape(-1) for key, mask in masks_2.items()])
    assert dropped.max() > 0  # what is masked now is not forgotten


def test_bip_at_full_density_changes_nothing_on_entry(tmp_path: Path) -> None:
    config = config_of("bip", density=1.0)
    run_in(tmp_path, config)
    rows = rows_of(folder_of(config, tmp_path))["epochs"]
    assert rows[2]["epoch"] == 0
    assert rows[2]["val_loss"] == rows[1]["val_loss"]
    assert {row["density"] for row in rows} == {1.0}


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    first, again, other = (
        timeless(rows_of(folder_of(config, tmp_path / where)))
        for where, config in (
            ("a", config_of("one_shot")),
            ("b", config_of("one_shot")),
            ("c", config_of("one_shot", seed=4)),
        )
        if run_in(tmp_path / where, config)
    )
    assert first == again
    assert [row["train_loss"] for row in first["epochs"]] != [row["train_loss"] for row in other["epochs"]]


def test_it_learns(tmp_path: Path) -> None:
    recipe = {"epochs": 8, "batch_size": 32}
    config = config_of("bip", density=0.2, pretrain=recipe, prune=recipe, finetune=None)
    state = run_in(tmp_path, config)
    rows = rows_of(folder_of(config, tmp_path))["epochs"]
    dense = next(row for row in rows if row["stage"] == "pretrain" and row["epoch"] == 8)
    assert dense["test_accuracy"] > 0.85
    assert state.result["test_accuracy"] > dense["test_accuracy"] - 0.05


@pytest.mark.parametrize("name", ["one_shot", "bip"])
def test_a_loss_that_is_not_finite_is_a_failure_with_a_name(name: str, tmp_path: Path) -> None:
    recipe = {**RECIPE, "lr": 1e6}
    fields = {"finetune": recipe} if name == "one_shot" else {"prune": recipe, "mask_lr": 1e6}
    config = config_of(name, **fields)
    state = run_in(tmp_path, config.model_copy(update={"checkpoint_every_s": 0.0}))
    assert (state.status, state.failures) == ("failed", 1)
    assert state.error is not None
    assert state.error["type"] == "NonFiniteLoss"
    stage = "finetune" if name == "one_shot" else "prune"
    assert state.error["message"].startswith(f"the loss of stage {stage}, level 0, epoch ")
    rows = rows_of(folder_of(config, tmp_path))["epochs"]
    assert rows[-1]["stage"] in ("pretrain", stage)
    values = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert all(math.isfinite(value) for value in values)


def test_a_source_that_fails_fails_the_trial_by_name(tmp_path: Path) -> None:
    config = config_of("bip", pretrain={**RECIPE, "lr": 1e6})
    for attempt in (1, 2, 3):
        state = run_in(tmp_path, config)
        assert (state.status, state.failures) == ("failed", attempt)
        assert state.error is not None
        (stage,) = (tmp_path / "stages").iterdir()
        for part in (stage.name, "NonFiniteLoss", "stage pretrain"):
            assert part in state.error["message"]
    stage_state = TrialFolder(stage).state()
    assert stage_state is not None
    assert stage_state.attempt == 3
    state = run_in(tmp_path, config)  # by now nobody tries it again
    assert state.error is not None
    assert "failed 3 times" in state.error["message"]
    assert TrialFolder(stage).state() == stage_state


@pytest.mark.parametrize("split", ["val", "test"])
def test_no_split_has_a_row_of_nan(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = progress.evaluate

    def evaluate(net: Net, data: Any, which: str) -> tuple[float, float]:
        return (math.inf, 0.1) if which == split else original(net, data, which)

    monkeypatch.setattr(progress, "evaluate", evaluate)
    state = run_in(tmp_path, config_of("dense"))
    assert state.status == "failed"
    (stage,) = (tmp_path / "stages").iterdir()
    stage_state = TrialFolder(stage).state()
    assert stage_state is not None
    assert stage_state.error is not None
    assert stage_state.error["type"] == "NonFiniteLoss"


def test_interrupted_by_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("one_shot")

    def interrupt(row: Row) -> None:
        if row["stage"] == "finetune":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, config, report=interrupt)
    state = TrialFolder(folder_of(config, tmp_path)).state()
    assert state is not None
    assert (state.status, state.failures) == ("preempted", 0)
    assert run_in(tmp_path, config).status == "complete"


def test_asked_to_stop_at_most_twice_a_second(tmp_path: Path) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return False

    config = config_of("one_shot")
    assert run_in(tmp_path, config, should_stop=should_stop).status == "complete"
    state = TrialFolder(folder_of(config, tmp_path)).state()
    assert state is not None
    assert asked <= state.seconds / progress.POLL_S + 1


def test_seeds_are_derived_the_same_everywhere() -> None:
    assert derive_seed(0, "order", 1) == 8444176558443591710  # every trial's batches depend on it: never to change
    seeds = {derive_seed(*parts) for parts in [(0,), (1,), ("0",), (0, 0), (0, "a"), ("a", 0), ("a0",), ("a", "0")]}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
def test_precisions_train_and_come_back(precision: str, tmp_path: Path) -> None:
    config = config_of("bip", precision=precision, memory_format="channels_last")
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    weight = checkpoint_of(folder_of(config, tmp_path))["net"]["model"]["conv1.weight"]
    assert weight.dtype == (torch.float64 if precision == "float64" else torch.float32)
    assert state.result["kept"] == keep_count(0.2, PRUNABLE)
