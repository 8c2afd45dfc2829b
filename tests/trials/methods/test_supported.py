"""What a method says of its patterns is what its config takes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trials.configs import SMALLEST
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.methods.supported import patterns_of
from trials.sparsity import PATTERNS


def with_pattern(method: str, pattern: str) -> dict[str, Any]:
    """The smallest config of a method, pruning by ``pattern``; nothing for a method whose patterns have other names."""
    fields = METHODS[method].Config.model_fields
    config = {**SMALLEST[method]}
    if "pattern" in fields or "unit" in fields:
        name = "pattern" if "pattern" in fields else "unit"
        if PATTERNS[pattern].density is not None:
            config["density"] = PATTERNS[pattern].density
        if method == "oracle" and pattern == "channel":
            config["stage_pr"] = "[0:0,1:0.1]"
        return {**config, name: pattern}
    backward = getattr(fields["train"].default, "backward", None) if "train" in fields else None
    return {**config, "train": {"backward": {"pattern": pattern}}} if backward else {}


@pytest.mark.parametrize("method", METHODS)
def test_a_config_takes_exactly_the_patterns_of_its_method(method: str) -> None:
    taken = []
    for pattern in PATTERNS:
        config = with_pattern(method, pattern)
        if not config:
            return  # layer_prune's score says it, adaptive_sparsity and finetune have one
        try:
            parse(config)
            said = ""
        except UserError as error:
            said = str(error)
        assert not said or "pattern" in said or "unit" in said
        if not said:
            taken.append(pattern)
    assert tuple(taken) == patterns_of(METHODS[method])
