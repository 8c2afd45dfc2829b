"""GReg's numbering of layers: by index, or in residual nets by stage, block and convolution.

Released code: MingSun-Tse/Regularization-Pruning at a4044028, pruner/meta_pruner.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import nn

from trials.models import without_values
from trials.sparsity.masks import prunable

_IN_BLOCK = re.compile(r"(?:layer|block)(?P<stage>\d+)\.(?:layer\.)?(?P<block>\d+)\.(?P<place>.+)")
_CONV = re.compile(r"conv(\d+)$")

SHORTCUT = -1


@dataclass(frozen=True)
class NumberedLayer:
    """One convolution or linear layer and its place in the network.

    Attributes:
        name: name of the module.
        index: running number from 0; a convolution on a shortcut has the number of the convolution before it.
        shape: shape of its weight: [N, C, kh, kw] for a convolution, [N, C] for a linear layer.
        stage: stage of a residual net: 0 is the stem, the last one the classifier; None in other networks.
        block: block within its stage, from 0; None outside of blocks.
        conv: number within its block, from 0; -1 for a convolution on the shortcut; None outside of blocks.
        last_in_block: whether its output is added to the shortcut.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    stage: int | None = None
    block: int | None = None
    conv: int | None = None
    last_in_block: bool = False

    @property
    def linear(self) -> bool:
        return len(self.shape) == 2

    @property
    def path(self) -> str:
        """Its name in ``skip_layers``: stage.block.conv in residual nets, otherwise the index."""
        return str(self.index) if self.stage is None else f"{self.stage}.{self.block}.{self.conv}"


@dataclass(frozen=True)
class LayerTable:
    """All layers of a network in module order, and whether it is residual."""

    layers: tuple[NumberedLayer, ...]
    residual: bool

    @property
    def stages(self) -> int:
        """Number of ratios that a residual net takes: one each for the stem, every stage and the classifier."""
        return 1 + max(layer.stage or 0 for layer in self.layers)


def layer_table(model: nn.Module) -> LayerTable:
    """Build the table of a model. A model counts as residual if layers are named by numbered stages and blocks."""
    return numbered({name.removesuffix(".weight"): tuple(weight.shape) for name, weight in prunable(model).items()})


def numbered(shapes: Mapping[str, tuple[int, ...]]) -> LayerTable:
    """Build the table from the weights' shapes, by module name in module order."""
    residual = any(_IN_BLOCK.search(name) for name in shapes)
    layers: list[NumberedLayer] = []
    index = -1
    for name, shape in shapes.items():
        last_stage = max((layer.stage or 0 for layer in layers if layer.block is not None), default=0)
        match = _IN_BLOCK.search(name)
        if match is None:
            index += 1
            stage = (last_stage + 1 if len(shape) == 2 or last_stage else 0) if residual else None
            layers.append(NumberedLayer(name, index, shape, stage))
            continue
        conv = _CONV.match(match["place"])
        index += conv is not None
        place = int(conv[1]) - 1 if conv else SHORTCUT
        layers.append(NumberedLayer(name, index, shape, int(match["stage"]), int(match["block"]), place))
    return LayerTable(tuple(_mark_last(layers)), residual)


def _mark_last(layers: list[NumberedLayer]) -> list[NumberedLayer]:
    last: dict[tuple[int | None, int | None], int] = {}
    for layer in layers:
        if layer.conv is not None:
            last[layer.stage, layer.block] = max(layer.conv, last.get((layer.stage, layer.block), 0))
    ends = [layer.conv is not None and layer.conv == last[layer.stage, layer.block] for layer in layers]
    return [replace(layer, last_in_block=end) for layer, end in zip(layers, ends, strict=True)]


def table_of(model: str) -> LayerTable:
    """The table of a registered model, by name."""
    return _table_of(without_values(model, num_classes=10, in_channels=3))


@lru_cache(maxsize=64)
def _table_of(model: nn.Module) -> LayerTable:
    return layer_table(model)
