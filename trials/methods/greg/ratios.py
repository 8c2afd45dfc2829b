"""Parse GReg's ``stage_pr`` and ``skip_layers`` and turn them into one pruning ratio per layer.

Released code: MingSun-Tse/Regularization-Pruning at a4044028, option.py and pruner/meta_pruner.py.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from trials.methods.greg.groups import GroupPattern
from trials.methods.greg.layer_table import SHORTCUT, LayerTable, NumberedLayer

_RANGE = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?")
_SKIP = re.compile(r"\d+(\.(\d+|None)(\.(-1|\d+|None))?)?")

Span = tuple[int, int, float]
"""(first, last, ratio): layers ``first`` to ``last``, both included, and their ratio."""


def read_stage_pr(value: object) -> object:
    """Parse ratios into one number, one number per stage (a tuple), or a tuple of spans of layers.

    Accepts GReg's texts, ``[0,0.5,0.5,0]`` for residual nets and ``[1-15:0.7, 3:0.5]`` for others, brackets optional,
    and mappings such as ``{"1-15": 0.7}``. The returned spans are ascending and do not overlap; later items win. So
    equal ratios give equal values. Other values are returned unchanged, for the field's type to refuse.

    Raises:
        ValueError: a ratio is outside [0, 1], or a text has neither form.
    """
    if isinstance(value, str):
        if "{" in value or "}" in value:
            raise ValueError(f"stage_pr is {value!r}, but has no braces: write [...] or leave the brackets out")
        text = value.strip().removeprefix("[").removesuffix("]")
        if ":" in text:
            return _by_layer([item.partition(":")[::2] for item in text.split(",")], value)
        return tuple(_ratio(item, value) for item in text.split(",") if item.strip())
    if isinstance(value, Mapping):
        return _by_layer(list(value.items()), value)
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, (list, tuple)) and len(item) == 3 for item in value):
            return _by_layer([(f"{first}-{last}", ratio) for first, last, ratio in value], value)
        if any(isinstance(item, str) and ":" in item for item in value):  # GReg's text without quotes, as YAML reads it
            return _by_layer([str(item).partition(":")[::2] for item in value], value)
        return tuple(_ratio(item, value) for item in value)
    return value if value is None or isinstance(value, bool) else _ratio(value, value)


def _ratio(item: Any, value: object) -> float:
    try:
        ratio = float(item)
    except (ValueError, TypeError):
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise ValueError(f"stage_pr is {value!r}, but its ratios must be numbers from 0 to 1, and {item!r} is not")
    return ratio


def _by_layer(items: Sequence[tuple[Any, Any]], value: object) -> tuple[Span, ...]:
    """Ascending spans that do not overlap, without spans of ratio 0. One span of ratio 0 if nothing is pruned."""
    spans: list[Span] = []
    for layers, ratio in items:
        match = _RANGE.fullmatch(str(layers).strip())
        if match is None:
            raise ValueError(f"stage_pr is {value!r}, but its items must be layer:ratio or first-last:ratio")
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if last < first:
            raise ValueError(f"stage_pr is {value!r}, but {layers} ends before it begins")
        spans = [part for span in spans for part in _outside(span, first, last)]
        spans.append((first, last, _ratio(ratio, value)))
    joined: list[Span] = []
    for first, last, ratio in sorted(span for span in spans if span[2]):
        if joined and joined[-1][1] + 1 == first and joined[-1][2] == ratio:
            joined[-1] = (joined[-1][0], last, ratio)
        else:
            joined.append((first, last, ratio))
    return tuple(joined) or ((0, 0, 0.0),)


def _outside(span: Span, first: int, last: int) -> Iterable[Span]:
    """The parts of a span outside first..last."""
    if span[0] < first:
        yield span[0], min(span[1], first - 1), span[2]
    if span[1] > last:
        yield max(span[0], last + 1), span[1], span[2]


def read_skip_layers(value: object) -> object:
    """Parse layers to skip into a tuple of texts, from GReg's ``[1.0,2.3,3]`` or a list of texts and integers.

    Raises:
        ValueError: an item does not name a layer.
    """
    if isinstance(value, str):
        value = [item for item in value.strip().removeprefix("[").removesuffix("]").split(",") if item.strip()]
    if not isinstance(value, (list, tuple)):
        return value
    for item in value:
        if isinstance(item, float):
            raise ValueError(f"skip_layers has the number {item}, but 3.10 is not 3.1 here: put it in quotes")  # noqa: TRY004
        if isinstance(item, bool) or not isinstance(item, (str, int)) or not _SKIP.fullmatch(str(item).strip()):
            raise ValueError(f"skip_layers has {item!r}, but must have layers: stage.block.conv (as 2.3), or an index")
    return tuple(str(item).strip() for item in value)


Ratios = float | tuple[float, ...] | tuple[Span, ...]
StageRatios = Annotated[Ratios, BeforeValidator(read_stage_pr)]
SkippedLayers = Annotated[tuple[str, ...], BeforeValidator(read_skip_layers)]


def shown_ratios(stage_pr: Ratios) -> str:
    """Ratios as they may be written in a config, for messages.

    >>> shown_ratios(0.5), shown_ratios((0.0, 0.5)), shown_ratios(((0, 2, 0.5), (4, 4, 0.3)))
    ('0.5', '[0, 0.5]', '[0-2:0.5, 4:0.3]')
    """
    if isinstance(stage_pr, float):
        return f"{stage_pr:g}"
    return f"[{', '.join(map(_shown_item, stage_pr))}]"


def _shown_item(item: float | Span) -> str:
    if isinstance(item, float):
        return f"{item:g}"
    first, last, ratio = item
    return f"{first}:{ratio:g}" if first == last else f"{first}-{last}:{ratio:g}"


def largest_ratio(stage_pr: Ratios) -> float:
    """The largest ratio that ``stage_pr`` gives to any layer or stage."""
    if isinstance(stage_pr, float):
        return stage_pr
    return max((item[2] if isinstance(item, tuple) else item for item in stage_pr), default=0.0)


def layer_ratios(
    table: LayerTable,
    stage_pr: Ratios,
    skip_layers: Sequence[str],
    pattern: GroupPattern,
    *,
    released: bool = False,
) -> dict[str, float]:
    """Return the pruning ratio of every layer, by module name; 0 for protected layers.

    A single number is the ratio of every layer that ``pattern`` may prune except the first, as in GReg's Table 1. With
    filters and channels, linear layers and layers that enter or leave a sum with a shortcut are protected.

    Args:
        released: follow the released code: ``skip_layers`` matches text prefixes (3.1 also matches 3.10) and is
            ignored in residual nets with pattern ``weight``; linear layers keep their ratio, although filters and
            channels are never removed from them.

    Raises:
        ValueError: the ratios do not have the form that this network takes, prune the image's channels or the stem, or
            name a layer that does not exist. The end of a span may lie beyond the last layer, as in the released code.
    """
    ratios = _asked(table, stage_pr, pattern, released)
    skipped = _skipped(table, skip_layers, pattern, released)
    ratios = {layer.name: 0.0 if layer.path in skipped else ratios[layer.name] for layer in table.layers}
    if pattern != "weight":
        for layer in table.layers:
            if _is_protected(layer, pattern):
                ratios[layer.name] = 0.0
        _check_ends(table, stage_pr, ratios, pattern)
        if not released:
            _protect_linear(table, stage_pr, ratios, pattern)
    return ratios


def _asked(table: LayerTable, stage_pr: Ratios, pattern: GroupPattern, released: bool) -> dict[str, float]:
    """The ratio of every layer by ``stage_pr`` alone, before protection."""
    if isinstance(stage_pr, float):
        first = table.layers[0].name
        chosen = [la.name for la in table.layers if la.name != first and (pattern == "weight" or not la.linear)]
        return {layer.name: stage_pr if layer.name in chosen else 0.0 for layer in table.layers}
    spans = [item for item in stage_pr if isinstance(item, tuple)]
    if spans:
        return _asked_by_layer(table, spans)
    return _asked_by_stage(table, [item for item in stage_pr if not isinstance(item, tuple)], released)


def _asked_by_layer(table: LayerTable, spans: Sequence[Span]) -> dict[str, float]:
    if table.residual and any(ratio for *_, ratio in spans):
        raise ValueError(
            f"stage_pr is {spans}, by layer, but the model is residual: give one number for all stages, or one "
            f"for each of its {table.stages} (stem, stages, classifier)"
        )
    ratios = {layer.name: 0.0 for layer in table.layers}
    count = len(table.layers)
    for first, last, ratio in spans:
        if first >= count:
            raise ValueError(f"stage_pr has layer {first}, but the model has layers 0 to {count - 1}")
        ratios |= {layer.name: ratio for layer in table.layers[first : last + 1]}
    return ratios


def _asked_by_stage(table: LayerTable, stage_pr: Sequence[float], released: bool) -> dict[str, float]:
    if not table.residual:
        raise ValueError(
            f"stage_pr is {list(stage_pr)}, one per stage, but the model is not residual: give one number for all "
            "layers, or ratios by layer, as 1-15:0.7"
        )
    if len(stage_pr) < table.stages or (any(stage_pr[table.stages :]) and not released):
        raise ValueError(
            f"stage_pr has {len(stage_pr)} ratios, but the model takes {table.stages}: stem, "
            f"{table.stages - 2} stages, classifier"
        )
    return {layer.name: stage_pr[layer.stage or 0] for layer in table.layers}


def _skipped(table: LayerTable, skip_layers: Sequence[str], pattern: GroupPattern, released: bool) -> set[str]:
    """Paths of the layers that ``skip_layers`` names."""
    if released and table.residual and pattern == "weight":
        return set()
    by_text = released and table.residual
    paths = [layer.path for layer in table.layers]
    found: set[str] = set()
    for item in skip_layers:
        hits = {path for path in paths if (path.startswith(item) if by_text else f"{path}.".startswith(f"{item}."))}
        if not hits and not released:
            raise ValueError(f"skip_layers has {item!r}, but no layer has that name: give {paths[0]} to {paths[-1]}")
        found |= hits
    return found


def _is_protected(layer: NumberedLayer, pattern: GroupPattern) -> bool:
    """Whether a residual sum fixes the layer's number of filters or of channels, so that it cannot be pruned."""
    if layer.conv is None:
        return False
    return layer.conv == SHORTCUT or (layer.last_in_block if pattern == "filter" else layer.conv == 0)


def _check_ends(table: LayerTable, stage_pr: Ratios, ratios: Mapping[str, float], pattern: GroupPattern) -> None:
    first = table.layers[0]
    if ratios[first.name] and (table.residual or pattern == "channel"):
        what = "filters enter a sum" if pattern == "filter" else "channels are the image's"
        raise ValueError(
            f"stage_pr is {shown_ratios(stage_pr)}, but pattern {pattern!r} cannot prune the first layer, whose "
            f"{what}: give {first.name} the ratio 0"
        )


def _protect_linear(table: LayerTable, stage_pr: Ratios, ratios: dict[str, float], pattern: GroupPattern) -> None:
    for layer in table.layers:
        if layer.linear and ratios[layer.name]:
            warnings.warn(
                f"stage_pr is {shown_ratios(stage_pr)}, but linear layers stay whole with pattern {pattern!r}: "
                f"{layer.name} is pruned by 0",
                stacklevel=2,
            )
            ratios[layer.name] = 0.0
