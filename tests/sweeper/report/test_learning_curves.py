"""Learning curves: epochs over all stages, thinning, and what is marked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweeper.report.elements.curves import over_all_epochs, thinned
from sweeper.report.figures.learning_curves import draw
from sweeper.report.packed import packed
from tests.sweeper.report.drawn import compiled, marks, scene, texts_in
from tests.sweeper.report.made_sweeps import made
from trials.errors import UserError


def test_epochs_count_on_over_stages_and_levels() -> None:
    rows = [("a", "pretrain", 0, 1), ("a", "pretrain", 0, 2), ("a", "train", 1, 0), ("a", "train", 1, 1)]
    rows += [
        ("a", "train", 2, 0),
        ("a", "train", 2, 1),
        ("b", "prune", 0, 3),
        ("b", "prune", 0, 4),
        ("b", "tune", 0, 1),
    ]
    found = over_all_epochs(pd.DataFrame(rows, columns=["trial", "stage", "level", "epoch"]))
    assert found["total_epoch"].tolist() == [1, 2, 2, 3, 3, 4, 3, 4, 5]
    assert found["span"].tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 1]
    assert len(over_all_epochs(found.head(0))) == 0


def curve(trial: str, epochs: int, best: int) -> pd.DataFrame:
    value = np.linspace(0.1, 0.5, epochs)
    value[best] = 0.9
    half = epochs // 2
    stage = ["prune"] * half + ["finetune"] * (epochs - half)
    return pd.DataFrame({"trial": trial, "stage": stage, "level": 0, "epoch": range(epochs), "value": value})


def test_long_curves_keep_the_ends_of_stages_and_the_best_epoch() -> None:
    rows = pd.concat([curve("a", 1601, 777), curve("b", 150, 3), curve("c", 500, 499)], ignore_index=True)
    found = thinned(rows, "value")
    left = found.rows.groupby("trial")["epoch"].agg(list)
    assert {trial: len(epochs) for trial, epochs in left.items()}["b"] == 150
    for trial, must, total in ("a", {0, 799, 800, 777, 1600}, 1601), ("c", {0, 249, 250, 499}, 500):
        assert must <= set(left[trial])
        assert 195 <= len(left[trial]) <= 200
        assert max(np.diff(left[trial])) <= 2 * total / 190 + 1
        assert left[trial] == sorted(left[trial])
    assert found.said.startswith("2 of 3 curves thinned from up to 1,601 to ")
    assert thinned(curve("b", 150, 3), "value").said == ""


def test_the_best_epoch_of_losses_is_the_lowest_one(tmp_path: Path) -> None:
    rows = curve("a", 1601, 777).assign(value=lambda found: -found["value"])
    assert 777 in thinned(rows, "value", sign=-1).rows["epoch"].tolist()
    gathered = made(tmp_path / "s", methods=["imp"], densities=[0.5], seeds=1, samples=1, epochs=999)
    losses = gathered.sweep.epochs["val_loss"].where(gathered.sweep.epochs.index != 1301, -5.0)
    epochs = gathered.sweep.epochs.drop(columns="val_accuracy").assign(val_loss=losses)
    rows = draw(replace(gathered, sweep=replace(gathered.sweep, epochs=epochs)), column="val_loss").rows
    assert len(rows) < 210
    assert rows["val_loss_nats"].min() == -5.0


def test_stages_that_end_with_their_best_epoch_are_said(tmp_path: Path) -> None:
    gathered = made(tmp_path / "s")
    epochs = gathered.sweep.epochs
    for rule, said in (("last", False), ("best_val", True)):
        ruled = replace(gathered, sweep=replace(gathered.sweep, epochs=epochs.assign(report=rule)))
        assert any("the last point is the network of the best epoch" in note for note in draw(ruled).notes) == said


def test_all_curves_fit_into_the_page_and_what_was_left_out_is_said() -> None:
    rows = pd.concat([curve(f"trial-{i}", 300, 7) for i in range(50)], ignore_index=True)
    found = thinned(rows, "value", most_bytes=40_000)
    assert len(json.dumps(packed(found.rows, 4), separators=(",", ":"))) < 42_000
    assert "50 of 50 curves thinned from up to 300 to " in found.said
    assert "so that the page stays small" in found.said
    assert (found.rows.groupby("trial")["value"].max() == 0.9).all()


def test_unknown_values_are_never_the_best() -> None:
    rows = curve("a", 500, 3).assign(value=np.nan)
    assert len(thinned(rows, "value").rows) <= 200


def test_the_cell_of_the_best_trial_comes_first_and_the_best_are_told_apart(tmp_path: Path) -> None:
    figure = draw(made(tmp_path / "s"))
    compiled(figure)
    cell = next(param for param in figure.spec["params"] if param["name"] == "cell")
    assert cell["value"] == cell["bind"]["options"][0] == "method=imp,density=0.5,seed=1"
    assert len(cell["bind"]["options"]) == 8
    counts = figure.rows.drop_duplicates("trial")["role"].value_counts().to_dict()
    assert counts == {"best of its cell": 8, "complete": 8}
    assert {"pretrain", "finetune", "validation accuracy [%]"} <= set(texts_in(scene(figure)))
    assert figure.rows["epoch"].max() == 6
    alone = draw(made(tmp_path / "s"), cell="method=bip,density=0.1,seed=0", column="val_loss")
    assert set(alone.rows["cell"]) == {"method=bip,density=0.1,seed=0"}
    assert "validation loss [nats]" in texts_in(scene(alone))


def test_the_ends_of_failed_and_pruned_trials_are_marked(tmp_path: Path) -> None:
    status = ["complete", "failed", "pruned", "running"]
    gathered = made(tmp_path / "s", methods=["imp"], densities=[0.5], seeds=1, samples=4, status=status.__getitem__,
                    message="<script>alert(1)</script>")  # fmt: skip
    figure = draw(gathered)
    compiled(figure)
    shapes = sorted(str(item["shape"]) for item in marks(scene(figure), "symbol") if item.get("size") == 90)
    assert shapes == ["cross", "triangle-right"]
    assert "marked where they end: 1 failed, 1 pruned" in figure.notes
    without = gathered.sweep.epochs[gathered.sweep.epochs["trial"] != gathered.sweep.trials["trial"].iloc[1]]
    notes = draw(replace(gathered, sweep=replace(gathered.sweep, epochs=without))).notes
    assert "1 trials have no epoch yet and no curve: 1 failed" in notes


def test_the_bands_are_the_stages_of_the_best_trial_even_if_another_one_is_longer(tmp_path: Path) -> None:
    gathered = made(tmp_path / "s", methods=["imp"], densities=[0.5], seeds=1, samples=2)
    epochs, (_, worse) = gathered.sweep.epochs, gathered.sweep.trials["trial"]
    longer = epochs[epochs["trial"] == worse].assign(stage="other", epoch=lambda rows: 10 * rows["epoch"])
    both = pd.concat([epochs[epochs["trial"] != worse], longer])
    texts = set(texts_in(scene(draw(replace(gathered, sweep=replace(gathered.sweep, epochs=both))))))
    assert {"pretrain", "finetune"} <= texts
    assert "other" not in texts


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    gathered = made(tmp_path / "s")
    with pytest.raises(UserError, match="cell is 'nowhere', but must be one of"):
        draw(gathered, cell="nowhere")
    with pytest.raises(UserError, match="column is 'accuracy', but must be one of"):
        draw(gathered, column="accuracy")
    with pytest.raises(UserError, match="s2 has no epoch yet"):
        draw(made(tmp_path / "s2", begun=0))
    assert set(draw(made(tmp_path / "s3", status=lambda _: "failed")).rows["role"]) == {"failed"}


def test_a_thousand_curves_fit(tmp_path: Path) -> None:
    gathered = made(tmp_path / "s", methods=["a", "b", "c", "d"], densities=[0.5, 0.1], seeds=5, samples=25, epochs=20)
    figure = draw(gathered)
    assert figure.rows["trial"].nunique() == 1000
    whole = [json.dumps(packed(figure.rows, figure.digits), separators=(",", ":")), json.dumps(figure.spec)]
    assert sum(map(len, whole)) < 2_500_000
