"""The model card: front matter that the Hub's library reads, figures from rows, names that stay names."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import trials
from tests.trials.hub.exported import FAMILIES, Exported, fields_of
from trials.__main__ import main
from trials.errors import one_line
from trials.hub.card import CardFacts, model_card
from trials.hub.export import export_folder
from trials.hub.known_data import KnownData
from trials.hub.layout import BuiltModel, ModelConfig
from trials.hub.markdown import code, fenced, prose, table
from trials.single import Trial

MARKDOWN = MarkdownIt("commonmark").enable("table")
ODD = (
    *("a|b", "`", "``a`", "\\", "\\|", "a\nb", "---", "<script>", "</details>", "&amp;", "*x*", "_x_", "[a](b)", "- a"),
    *("![x](y)", "# a", "1. a", "ü", "\u202e", "\ud800", " a", "a ", "~~a~~", "$a$", "{{a}}", "'", '"', ": a", "a: b"),
)
NAMES = st.text(st.characters(codec=None, exclude_categories=()), max_size=12) | st.sampled_from(ODD)


def front_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def text_of(token: Any) -> str:
    """The text that a reader sees of an inline token."""
    return "".join(one.content for one in token.children if one.type in ("text", "code_inline"))


def cells_of(markdown: str) -> list[list[str]]:
    """The text of every row of every table."""
    rows: list[list[str]] = []
    tokens = MARKDOWN.parse(markdown)
    for before, token in itertools.pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if before.type in ("td_open", "th_open"):
            rows[-1].append(text_of(token))
    return rows


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hubs_library_reads_the_front_matter(family: str, exported: Exported) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="extra hub")
    path, trial = exported.folder(family) / "README.md", exported.trial(family)
    front = hub.metadata_load(path)
    assert front == front_of(path.read_text())
    assert front["library_name"] == "sparsity-sweeper"
    assert {"pruning", "sparsity", trial.config.method} <= set(front["tags"])
    assert "license" not in front
    assert "\n# license: yours to choose" in path.read_text()
    card = hub.ModelCard.load(path)
    assert card.data.model_name == trial.id
    found = {(one.dataset_split, one.metric_type): one.metric_value for one in card.data.eval_results}
    figures = {split: trial.result[f"{short}_accuracy"] for split, short in (("validation", "val"), ("test", "test"))}
    assert found == {(split, "accuracy"): value for split, value in figures.items()}


def test_every_figure_is_of_the_rows(exported: Exported) -> None:
    trial = exported.trial("bip")
    card = (exported.folder("bip") / "README.md").read_text()
    rows, last, result = cells_of(card), trial.rows["epochs"][-1], trial.result
    assert ["validation", f"{last['val_accuracy']:.4f}", f"{last['val_loss']:.4f}", "40"] in rows
    assert ["test", f"{last['test_accuracy']:.4f}", f"{last['test_loss']:.4f}", "100"] in rows
    layers = [row for row in trial.rows["layers"] if row["stage"] == "finetune"]
    assert len(layers) == 4
    for row in layers:
        counts = [f"{row['total']:,}", f"{row['kept']:,}", f"{row['density']:.4f}", f"{row['flops']:,}"]
        assert [row["layer"], *counts] in rows
    for name, dense, masked, compact in (
        ("FLOPs per image", "dense_flops", "flops", "compact_flops"),
        ("parameters", "dense_parameters", "parameters", "compact_parameters"),
    ):
        assert [name, *(f"{result[key]:,}" for key in (dense, masked, compact))] in rows
    assert f"Asked: to keep 0.2 of 19,056 weights. Measured: density {result['density']:.6g} over 19,056" in card
    assert "https://arxiv.org/abs/2210.04092" in card
    assert "OPTML-Group/BiP at c51fc35" in card
    assert "The network is that of the last epoch of stage finetune (epoch 1)." in card
    assert trial.state.environments[-1]["torch"] in card
    assert ["data", f"few_digits, fingerprint {result['data']}"] in rows
    assert ["seed", "3 (validation split: 0)"] in rows


def test_the_best_epoch_and_warnings_are_said(exported: Exported, tmp_path: Path) -> None:
    fields = fields_of("dense", report="best_val", seed=4, train={"epochs": 2, "lr": 1e-6})
    trial = trials.run(fields, exported.storage / "single", threads=1)
    assert trial.result["warnings"] == ["chance_level"]
    export_folder(trial, tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    last = trial.rows["epochs"][-1]
    assert f"that of epoch {last['best_epoch']} of stage {last['stage']} with the best validation accuracy" in card
    assert "`chance_level`: the validation accuracy is no better than guessing" in card
    assert "not pruned: 19,056 of its 19,056 prunable weights are kept" in card


def test_an_unfinished_trial_claims_nothing(exported: Exported, tmp_path: Path) -> None:
    trial = exported.trial("one_shot")
    stopped = dataclasses.replace(trial, state=dataclasses.replace(trial.state, status="preempted", result={}))
    export_folder(stopped, tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "**The trial has not finished** (it is preempted)" in card
    assert "model-index" not in card
    assert "## Accuracy" not in card
    assert "## Sparsity" not in card
    network = trials.load_pretrained(tmp_path / "hub")
    assert (network.about.result, network.about.density) == ({}, None)


def test_nothing_of_this_machine_is_published(exported: Exported, tmp_path: Path) -> None:
    for family in FAMILIES:
        for path in exported.folder(family).iterdir():
            assert str(exported.storage).encode() not in path.read_bytes()
    trial: Trial = exported.trial("one_shot")
    fields = {"method": "finetune", "source_net": str(tmp_path / "dense.pt"), "finetune": {"epochs": 1}}
    assert main(["export", str(trial.folder), "--to", str(tmp_path / "dense.pt"), "--form", "prune"]) == 0
    started = trials.run({**fields, "dataset": "few_digits", "model": "tiny"}, exported.storage / "single", threads=1)
    export_folder(started, tmp_path / "hub")
    for path in (tmp_path / "hub").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "source_net: dense.pt" in card
    assert started.config.file_hashes["source_net"] in card


def test_the_sweep_is_named(exported: Exported, tmp_path: Path) -> None:
    trial = exported.trial("one_shot")
    shutil.copytree(str(trial.folder), tmp_path / "my_sweep" / "trials" / trial.id)
    (tmp_path / "my_sweep" / "sweep.yaml").write_text("")
    export_folder(trials.load(tmp_path / "my_sweep" / "trials" / trial.id), tmp_path / "hub")
    rows = cells_of((tmp_path / "hub" / "README.md").read_text())
    assert ["trial", f"{trial.id}, of the sweep my_sweep"] in rows
    assert ["trial", trial.id] in cells_of((exported.folder("one_shot") / "README.md").read_text())


def test_the_command(exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, to = str(exported.trial("one_shot").folder), str(tmp_path / "hub")
    assert main(["export", folder, "--to", to, "--form", "hub"]) == 0
    assert capsys.readouterr().out.startswith(f"{to} holds one_shot-")
    assert trials.load_pretrained(to).about.trial == exported.trial("one_shot").id
    (tmp_path / "hub" / "notes").write_text("")
    assert main(["export", folder, "--to", to, "--form", "hub"]) == 2
    assert re.fullmatch(r"error: --to is .*, and it has notes: give another one\n", capsys.readouterr().err)
    assert main(["export", folder, "--to", str(tmp_path / "net.pt"), "--data-dir", "."]) == 2
    assert "only --form hub reads data: leave it out" in capsys.readouterr().err


@given(st.lists(NAMES, min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_names_in_tables_stay_text(names: list[str]) -> None:
    rows = cells_of(table(["name", ">n"], [(code(name), "1") for name in names]))
    assert rows[0] == ["name", "n"]
    assert [row[0].strip() for row in rows[1:]] == [one_line(name).strip() for name in names]
    assert all(row[1:] == ["1"] for row in rows[1:])


@given(NAMES)
@settings(max_examples=200, deadline=None)
def test_prose_stays_text(name: str) -> None:
    tokens = MARKDOWN.parse(prose(name))
    kinds = {one.type for one in tokens} - {"paragraph_open", "inline", "paragraph_close"}
    assert kinds == set()
    assert "".join(text_of(one) for one in tokens if one.type == "inline") == one_line(name).strip()


@given(NAMES)
def test_fences_hold(name: str) -> None:
    text = f"a\n{name}\n```\nb".replace("\r", "")
    tokens = MARKDOWN.parse(fenced(text, "yaml"))
    assert [one.type for one in tokens] == ["fence"]


@given(NAMES, NAMES.filter(bool), NAMES, NAMES)
@settings(max_examples=40, deadline=None)
def test_a_card_of_any_names(
    tmp_path_factory: pytest.TempPathFactory, dataset: str, model: str, layer: str, name: str
) -> None:
    row = {"layer": layer, "total": 4, "kept": 2, "density": 0.5, "flops": 8}
    result = {"val_accuracy": 0.5, "test_accuracy": 0.25, "density": 0.5, "sparsity": 0.5, "kept": 2, "prunable": 4}
    config = {"method": "one_shot", "dataset": dataset, "seed": 0, "split_seed": 0, "file_hashes": {}}
    built = BuiltModel(model=model, num_classes=2, in_channels=1, image_size=(8, 8), precision="float32")
    described = ModelConfig(version="0", architecture=built, trial="one_shot-0", method="one_shot", status="complete",
                            config=config, result=result, classes=(name, "b"), files={})  # fmt: skip
    data = KnownData((0.5,), (0.5,), (name, "b"), {"train": 1, "val": 1, "test": 1})
    card = model_card(CardFacts(described, data, name, (name,), "", (row,), {}, "", f"dataset: {json.dumps(dataset)}",
                                (name,), name))  # fmt: skip
    front = front_of(card)
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == one_line(dataset)
    rows = cells_of(card)
    assert [cell.strip() for cell in [one_line(layer).strip(), "4", "2", "0.5000", "8"]] in [
        [c.strip() for c in r] for r in rows
    ]
    assert ["0", one_line(name).strip()] in [[cell.strip() for cell in one] for one in rows]
    assert "<script" not in MARKDOWN.render(card.split("\n---\n", 1)[1])
    hub = pytest.importorskip("huggingface_hub", reason="extra hub")
    path = tmp_path_factory.mktemp("card") / "README.md"
    path.write_bytes(card.encode())
    assert hub.metadata_load(path) == front
