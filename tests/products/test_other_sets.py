"""The tests of recorded vectors on other sets: with other nets, and with parts of a set missing."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trials.another_set import SOURCES, write_set
from tests.trials.test_recorded_set import READERS, REPOSITORY

pytestmark = pytest.mark.products

LEFT_UNREAD = "tests/trials/test_recorded_set.py::test_nothing_of_the_set_is_left_unread"
WHOLE = "tests/trials/test_recorded_set.py::test_files_are_whole"


def outcomes(root: Path, tests: list[str], report: Path) -> Iterator[tuple[str, str]]:
    """(test, reason if it was skipped else "") of a run on the set, in which nothing may fail."""
    command = [sys.executable, "-m", "pytest", f"--junitxml={report}", *tests]
    environment = {**os.environ, "SWEEPER_VECTORS": str(root)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    for case in ET.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        yield str(case.get("name")), "" if skipped is None else str(skipped.get("message"))


def readers() -> list[str]:
    return [*(f"tests/trials/{name}" for name in READERS), WHOLE]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets") / "other"
    write_set(root)
    return root


def test_other_nets_are_read_and_agree(other: Path, tmp_path: Path) -> None:
    """Groups, kernels that are not square, strides by axis, no bias, other numbers of layers, fewer keys."""
    found = dict(outcomes(other, readers(), tmp_path / "report.xml"))
    steps = [path.name for path in (other / "bip").glob("other_*.npz")]
    assert len(steps) == 7
    wanted = [f"test_steps[{name}]" for name in steps]
    wanted += [f"test_bilevel_steps[other_{kind}_unstructured.npz]" for kind in ("code", "paper")]
    wanted += ["test_finetuning_under_a_constant_mask[other_finetune_unstructured.npz]", "test_forward[f64]"]
    wanted += ["test_global_prune_npz[exact]", "test_gradient_prune_bernoulli_npz", "test_saliency[saliency-None]"]
    wanted += ["test_gradient_prune_npz[gradient_prune_f64.npz-dtype0-1e-09-1e-11]", "test_masks[own__glob]"]
    wanted += [f"test_{name}[compact_own_channel.npz]" for name in ("outputs", "flops_and_parameters")]
    wanted += ["test_compact_networks_are_the_released_ones[compact_own_channel.npz]"]
    wanted += ["test_stage_pr[x-original]", "test_stage_pr[x-corrected]"]
    assert {name: found[name] for name in wanted} == dict.fromkeys(wanted, "")
    skipped = [reason for reason in found.values() if reason]
    assert skipped
    assert all(f"the set {other} has no " in reason or "has no such model" in reason for reason in skipped), skipped


@pytest.mark.parametrize("missing", [*SOURCES, "all"])
@pytest.mark.parametrize("empty", [False, True], ids=["without", "empty"])
def test_a_missing_source_is_skipped_by_name(missing: str, empty: bool, tmp_path: Path) -> None:
    root = tmp_path / "set"
    gone = tuple(SOURCES) if missing == "all" else (missing,)
    write_set(root, without=gone)
    for source in gone:
        (root / source if empty else root).mkdir(parents=True, exist_ok=True)
    reasons = [reason for _, reason in outcomes(root, readers(), tmp_path / "report.xml") if reason]
    for source in gone:
        names = {"greg_speedups": "greg_speedups", "greg": "of greg", "bip": "bip"}
        assert any(names.get(source, source) in reason for reason in reasons), source


def test_files_that_no_test_knows_are_named(other: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_set(root)
    (root / "bip" / "surplus.bin").write_bytes(b"0")
    (root / "unknown").mkdir()
    (root / "unknown" / "more.json").write_text('{"a": {"b": 1}}')
    ((_, reason),) = outcomes(root, [LEFT_UNREAD], tmp_path / "report.xml")
    assert "values that no test reads" in reason
    assert "unknown/more.json /a/b" in reason
    assert "bip/surplus.bin" in reason
