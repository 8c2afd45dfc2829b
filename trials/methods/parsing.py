"""Parse a trial's config: turn a mapping of fields to values into the typed config of its method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trials.config.figure_names import require_fields, require_reports
from trials.config.stored_content import as_then
from trials.config.trial_config import TrialConfig
from trials.errors import UserError, shown, unknown_name
from trials.frozen import validate
from trials.methods import segments
from trials.methods.base import Method, Stage
from trials.methods.registry import METHODS
from trials.plugins.blaming import blaming
from trials.plugins.importing import require_admitted


def parse(content: object) -> TrialConfig:
    """Return the typed config of a mapping, chosen by its ``method`` field.

    Raises:
        UserError: ``content`` is no valid config; the message names the field, its value, the rule and the way out.
    """
    config = _parse(content)
    if not METHODS.built_in(config.method):
        require_fields(config)
        require_reports(METHODS[config.method].reports, config)
    return config


def _parse(content: object) -> TrialConfig:
    if not isinstance(content, Mapping):
        raise UserError(f"a trial is {content!r}, but must be a mapping of fields to values")
    if "method" not in content:
        raise UserError(f"method is missing: add method: one of {', '.join(sorted(METHODS))}")
    method = content["method"]
    if not isinstance(method, str):
        raise UserError(unknown_name("method", method, METHODS.names()))
    kind = METHODS.require(method, "method", _plugins_of(content))
    config: TrialConfig = validate(kind.Config, content, "")
    if not METHODS.built_in(method):
        _require_stages(kind, config)
    segments.check_segments(config)
    return config


def _require_stages(kind: type[Method], config: TrialConfig) -> None:
    """Check that a method from outside this package yields stages.

    Raises:
        UserError: its ``stages`` fails, or yields something else.
    """
    said = f"method is {config.method!r}, whose stages()"
    with blaming(f"{said} failed"):
        found: object = kind(config).stages()
        stages = list(found) if isinstance(found, Iterable) else None
    if stages is None:
        raise UserError(f"{said} returned {type(found).__name__}: it must yield stages (trials.extend.Stage)")
    if wrong := next((stage for stage in stages if not isinstance(stage, Stage)), None):
        raise UserError(f"{said} yields {shown(wrong)}: it must yield stages (trials.extend.Stage)")
    if not stages:
        raise UserError(f"{said} yields nothing: a trial needs at least one stage")


def _plugins_of(content: Mapping[str, object]) -> tuple[str, ...]:
    """The plug-ins that a config lists, if they are a list of strings; its own check refuses others."""
    listed = content.get("plugins")
    return tuple(map(str, listed)) if isinstance(listed, list | tuple) else ()


def parse_stored(content: Mapping[str, object]) -> TrialConfig:
    """Like :func:`parse`, of a stored config: fields that were added since have what was computed before them.

    Figures' names are not checked: earlier versions ran trials with any.

    Raises:
        UserError: another version wrote it and this version cannot read it, or it needs code that has not been
            admitted.
    """
    for listed in _plugins_of(content):
        require_admitted(listed)
    method = METHODS.get(str(content.get("method")))
    return _parse(content if method is None else as_then(content, method.Config))
