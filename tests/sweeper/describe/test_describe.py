"""``--describe``: every name has a page, generated from the classes; every field of every class has a meaning."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from pydantic import BaseModel
from rich.console import Console

from sweeper.cli import COMPLETE, main
from sweeper.describe.fields import described_fields, known_names, yaml_text
from sweeper.describe.meanings import meanings_of
from sweeper.describe.methods import method_page
from sweeper.describe.refusals import checked, refused_by
from sweeper.describe.stages import lines_of
from sweeper.describe.topics import KINDS, SECTION_CLASSES, print_pages, section_meanings
from sweeper.space.options.constraints import Constraint
from sweeper.space.options.objectives import Objective
from sweeper.space.options.pbt import Pbt
from sweeper.space.options.pruners import PRUNERS
from sweeper.space.options.resources import Resources
from sweeper.space.options.samplers import SAMPLERS
from tests.sweeper.command_line import wrong
from tests.sweeper.compare_methods.test_costs import iterations
from trials.data import DATASETS
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.sparsity import SCORES
from trials.yaml_text import parse_yaml

QUICK = ("mlp_7_linear", "mlp_7_relu", "lenet5", "resnet20s", "tiny")
"""Models whose checks take no time."""


def pages(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["--describe", *arguments]) == COMPLETE
    return capsys.readouterr().out


def test_what_can_be_described_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    out = pages(capsys=capsys)
    words = set(out.replace(",", " ").split())
    assert words >= {*METHODS, *MODELS, *DATASETS, *SAMPLERS, *PRUNERS, *section_meanings(), "cosine_restart", "lth"}


def test_every_name_has_a_page_that_fits_into_80_columns() -> None:
    for kind, (names, page) in KINDS.items():
        for name in names:
            shown = page(name)
            assert name in shown.title
            said = io.StringIO()
            shown.print(Console(file=said, width=10_000, no_color=True, soft_wrap=True))
            prose = [line for line in said.getvalue().splitlines() if kind != "method" or line.startswith("  ")]
            assert len(said.getvalue().splitlines()) > 1, (kind, name)
            assert max(map(len, prose)) <= 80 or kind == "method", (kind, name)


def test_a_terminal_gets_tables_of_80_columns() -> None:
    said = io.StringIO()
    method_page("imp").print(Console(file=said, width=80, force_terminal=True, color_system=None))
    table = said.getvalue()[said.getvalue().index("stages of a trial") :].splitlines()
    assert "┃" in said.getvalue() or "│" in said.getvalue()
    assert max(map(len, table)) <= 80
    assert "rewind_epoch" in said.getvalue()


@pytest.mark.parametrize("method", METHODS)
def test_the_page_of_a_method_says_every_field_with_range_and_meaning(method: str) -> None:
    page = method_page(method)
    rows = {name.partition(" ")[0]: text for table in page.tables for name, text in table.rows}
    for one in described_fields(METHODS[method].Config):
        assert one.meaning, one.path
        if ".backward." not in one.path:
            assert one.meaning in rows[one.path]
    assert "https://" in " ".join(page.paragraphs) or method in ("dense", "finetune")


def test_fields_are_said_as_the_config_takes_them() -> None:
    found = {one.path: (one.default, one.values) for one in described_fields(METHODS["bip"].Config)}
    assert found["density"] == ("required", "number > 0, <= 1")
    assert found["mask_schedule"][0] == "step"
    assert found["mask_schedule"][1].startswith("constant | cosine")
    assert found["prune.weight_decay"] == ("0.0001", "number >= 0")
    assert found["image_size"] == ("null", "whole number >= 1 | null")
    assert found["model"] == ("required", f"one of {len(MODELS)} names")
    one_shot = {one.path: one for one in described_fields(METHODS["one_shot"].Config)}
    assert list(known_names(one_shot["score"].info.metadata) or ()) == list(SCORES)
    assert list(known_names(one_shot["dataset"].info.metadata) or ()) == list(DATASETS)


@pytest.mark.parametrize("kind", [*SAMPLERS.values(), *PRUNERS.values(), Pbt, Resources, Objective, Constraint])
def test_options_have_meanings(kind: type[BaseModel]) -> None:
    assert set(kind.model_fields) - {"name"} <= set(meanings_of(kind))


def test_sections_have_meanings() -> None:
    assert all(section_meanings().values())


@pytest.mark.parametrize("value", [1e-6, 0.1, 1, True, None, "cosine", (1, 2.5), 5e-4, 1e22, {"a": 1}])
def test_defaults_are_yaml(value: object) -> None:
    assert parse_yaml(yaml_text(value), "here") == (list(value) if isinstance(value, tuple) else value)


def test_stages_and_costs_come_from_the_method() -> None:
    bip = lines_of(parse({"method": "bip", "density": 0.1, "model": "tiny", "dataset": "digits"}))
    assert [(line.name, line.epochs, line.cost) for line in bip] == [("pretrain", 200, 200), ("prune", 100, 200)]
    (dense, imp) = lines_of(parse({"method": "imp", "levels": 3, "model": "tiny", "dataset": "digits"}))
    assert (dense.note.startswith("shared"), imp.count, imp.epochs) == (True, 3, 200)
    regrow = lines_of(parse({"method": "regrow", "model": "tiny", "dataset": "digits"}))
    assert [line.name for line in regrow] == ["pretrain", "prune", "regrow", "finetune"]
    assert regrow[2].cost is None


@pytest.mark.parametrize(
    "fields", [{}, {"reg_granularity_prune": 0.02, "update_reg_interval": 7}, {"reg_upper_limit": 0.05}]
)
@pytest.mark.parametrize("method", ["greg1", "greg2"])
def test_growing_ends_within_what_is_said(method: str, fields: dict[str, float]) -> None:
    config = parse(
        {"method": method, "model": "tiny", "dataset": "digits", "stage_pr": 0.5, "pattern": "weight", **fields}
    )
    steps, most = iterations(config), getattr(next(METHODS[method](config).stages()), "most_steps")  # noqa: B009
    assert steps <= most <= steps * 1.05


@pytest.mark.parametrize("method", METHODS)
def test_refusals_are_those_of_the_checks(method: str) -> None:
    quick = [model for model in MODELS if model in QUICK]
    now, stored = checked(method, quick), refused_by(method)
    assert now == {pattern: [m for m in models if m in QUICK] for pattern, models in stored.items()}
    assert set().union(*stored.values()) <= set(MODELS)


def test_models_say_which_methods_refuse_them(capsys: pytest.CaptureFixture[str]) -> None:
    out = pages("mlp_7_relu", capsys=capsys)
    assert "parameters" in out
    assert "global_prune" in out
    assert "imp " not in out


def test_a_name_of_several_kinds_has_several_pages(capsys: pytest.CaptureFixture[str]) -> None:
    out = pages("random", capsys=capsys)
    assert "sampler random" in out
    assert "score random" in out


def test_unknown_names_are_refused_with_the_nearest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong(capsys, ["--describe", "grge1"], "'grge1'", "did you mean 'greg1'", "--describe alone")
    wrong(capsys, ["--describe", "asha"], "asha is called halving here")


def test_a_page_takes_no_time_once_modules_are_loaded() -> None:
    began = time.perf_counter()
    method_page("regrow_iterative")
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("race", ["in replicates", "replicates.race = false"]),
        ("plateau", ["stop_when.plateau = null", "stop_when.plateau.samples required"]),
        ("terminator.error", ["stop_when.terminator.error = null"]),
        ("patience", ["in pruner patient", "pruner.patience required", "in a trial of dense", "train.patience = null"]),
        ("memory", ["resources.memory = null"]),
        ("mlflow", ["callback mlflow", "tracking_uri", "timeout_s = 60.0"]),
        ("prune.lr", ["in a trial of bip, hydra", "prune.lr = 0.1"]),
    ],
)
def test_a_field_is_found_by_its_name(name: str, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = " ".join(pages(name, capsys=capsys).split())
    for part in says:
        assert part in out


@pytest.mark.parametrize("section", ["replicates", "resources", "stop_when"])
def test_every_field_of_a_section_can_be_described(section: str) -> None:
    for one in described_fields(SECTION_CLASSES[section]):
        found = io.StringIO()
        print_pages(one.path, Console(file=found, width=80, no_color=True))
        assert one.path.rpartition(".")[2] in found.getvalue()
