"""Parse a trial's config: turn a mapping of fields to values into the typed config of its method."""

from __future__ import annotations

from collections.abc import Mapping

from trials.config.trial_config import TrialConfig
from trials.errors import UserError, unknown_name
from trials.frozen import validate
from trials.methods import segments
from trials.methods.registry import METHODS


def parse(content: object) -> TrialConfig:
    """Return the typed config of a mapping, chosen by its ``method`` field.

    Raises:
        UserError: ``content`` is no valid config; the message names the field, its value, the rule and the way out.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"a trial is {content!r}, but must be a mapping of fields to values")
    if "method" not in content:
        raise UserError(f"method is missing: add method: one of {', '.join(sorted(METHODS))}")
    method = content["method"]
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(unknown_name("method", method, METHODS))
    config: TrialConfig = validate(METHODS[method].Config, content, "")
    segments.check_segments(config)
    return config
