"""Every option of every method: memory formats agree; a resume in channels_last, or deterministic, changes no bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trials.folders import assert_same_outcome, checkpoint_of, rows_of, same, timeless
from tests.trials.small_trials import folder_of, run_in
from tests.trials.training.test_strides import assert_agree, leaves, lies_channels_last, outcome
from tests.trials.variants import variants
from trials.methods.parsing import parse
from trials.running import progress

pytestmark = [pytest.mark.products, pytest.mark.usefixtures("few_digits")]

VARIANTS = variants()

ENOUGH = 200
"""More attempts than any of these trials needs."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage in which the trials share their dense networks."""
    return tmp_path_factory.mktemp("numerics")


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_both_memory_formats_give_the_same_results(fields: dict[str, Any], storage: Path) -> None:
    contiguous, last = (outcome(storage, fields, form) for form in ("contiguous", "channels_last"))
    assert lies_channels_last(last)
    assert_agree(contiguous, last)


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_a_resume_at_every_commit_point_gives_the_same_bits_in_channels_last(
    fields: dict[str, Any], storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, attempts = parse({**fields, "memory_format": "channels_last"}), 1
    assert run_in(storage, config).status == "complete"
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    while (state := run_in(tmp_path, config, should_stop=lambda: True)).status == "preempted":
        attempts += 1
        assert attempts < ENOUGH, "it makes no progress"
    assert state.status == "complete", state.error
    assert attempts > 1
    assert_same_outcome(folder_of(config, tmp_path), folder_of(config, storage))


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_deterministic_changes_no_bit_on_a_cpu(fields: dict[str, Any], storage: Path) -> None:
    folders = []
    for config in (parse({**fields, "deterministic": on, "device": "cpu"}) for on in (False, True)):
        state = run_in(storage, config)
        assert state.status == "complete", state.error
        folders.append(folder_of(config, storage))
    rows = [{p: v for p, v in leaves(timeless(rows_of(path))) if not p.endswith("stage_id")} for path in folders]
    assert same(*rows)
    assert same(*(checkpoint_of(folder)["net"] for folder in folders))
