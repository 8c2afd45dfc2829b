"""WideResNets: what they hold, how their parts are named, and what a shortcut takes."""

from __future__ import annotations

import torch

from tests.trials.models.model_table import PARAMETERS, on_meta, prunable
from trials.models.wide_resnet import PreActivationBlock


def wide_resnet_weights(depth: int, widen: int) -> int:
    """Conv and linear weights by hand: per stage, the first block's two convolutions and shortcut, then the others."""
    planes, blocks, total = 16, (depth - 4) // 6, 3 * 16 * 9
    for width in (16 * widen, 32 * widen, 64 * widen):
        shortcut = planes * width if planes != width else 0
        total += planes * width * 9 + (2 * blocks - 1) * width * width * 9 + shortcut
        planes = width
    return total + planes * 10


def test_wide_resnets_lack_the_dead_block_and_nothing_else() -> None:
    for depth, widen in ((28, 10), (28, 4), (28, 1), (34, 10), (40, 2)):
        assert PARAMETERS[f"wrn_{depth}_{widen}"][1] == wide_resnet_weights(depth, widen)
    # The dead block of wrn_28_10 is a second first stage: 16 -> 160 planes, four blocks, a shortcut.
    weights = 16 * 160 * 9 + 7 * 160 * 160 * 9 + 16 * 160
    batchnorm = 2 * (16 + 7 * 160)
    assert weights == 1_638_400
    total, prunable_weights = PARAMETERS["wrn_28_10"]
    assert (total + weights + batchnorm, prunable_weights + weights) == (38_119_866, 38_099_632)


def test_wide_resnet_names_and_where_a_shortcut_is() -> None:
    layers = list(prunable(on_meta("wrn_28_4")))
    assert layers[:4] == ["conv1", "block1.layer.0.conv1", "block1.layer.0.conv2", "block1.layer.0.convShortcut"]
    assert layers[-2:] == ["block3.layer.3.conv2", "fc"]
    shortcuts = [name for name in prunable(on_meta("wrn_28_1")) if "Shortcut" in name]
    assert shortcuts == ["block2.layer.0.convShortcut", "block3.layer.0.convShortcut"]  # block1 has 16 planes too


def test_wide_resnet_shortcut_takes_the_activated_input() -> None:
    block = PreActivationBlock(2, 4, stride=2).eval()
    with torch.no_grad():
        for layer in (block.conv1, block.conv2):
            layer.weight.zero_()
        x = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
        assert block.convShortcut is not None
        assert torch.equal(block(x), block.convShortcut(block.bn1(x).relu()))
        same_planes = PreActivationBlock(2, 2, stride=1).eval()
        same_planes.conv2.weight.zero_()
        assert torch.equal(same_planes(x), x)
