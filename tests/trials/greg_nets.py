"""GReg's reference vectors, and their toy networks (vectors/greg/README.md)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trials.described_nets import sequential
from tests.trials.recorded_set import Arrays, Entry, absent, manifest
from trials import models
from trials.training.net import Net

WHAT: dict[str, Any] = {"dataset": "digits", "model": "tiny"}
MANIFEST: dict[str, Any] = manifest("greg")


def files(kind: str) -> list[str]:
    return [name for name, about in MANIFEST.get("files", {}).items() if about.get("kind") == kind]


def arrays(name: str) -> Arrays:
    return Arrays("greg", name).required()


def conv(
    planes_in: int, planes: int, size: Any = 3, stride: Any = 1, bias: bool = False, groups: int = 1, dilation: Any = 1
) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1; sizes may be one number or [height, width]."""
    kernel, step, gap = (
        tuple(each) if isinstance(each, list | tuple) else (each, each) for each in (size, stride, dilation)
    )
    padding = tuple(gap[axis] * (kernel[axis] - 1) // 2 for axis in (0, 1))
    return nn.Conv2d(planes_in, planes, kernel, step, padding, gap, groups, bias)  # type: ignore[arg-type]


def options(kind: Mapping[str, Any]) -> dict[str, Any]:
    """What a net says of all its convolutions."""
    names = {"kernel": "size", "stride": "stride", "groups": "groups", "bias": "bias", "dilation": "dilation"}
    return {ours: kind[key] for key, ours in names.items() if key in kind}


class Branch(nn.Module):
    """The README's tiny_vgg and tiny_plain: ``features``, then ``classifier``, or ``fc1`` and ``fc2`` if ``hidden``.

    Items of ``cfg`` are the filters of a convolution, ``'M'`` for a 2x2 max pool, or a mapping: ``out`` and the options
    of this one convolution. The first convolution has groups 1 unless its own mapping gives others.
    """

    def __init__(self, kind: Mapping[str, Any]) -> None:
        super().__init__()
        plain = kind["type"] == "tiny_plain"
        norms = kind.get("batchnorm", not plain)
        planes, *image = kind.get("input", [3, 8, 8])[-3:]
        self.features, self.plain = nn.Sequential(), plain
        for item in kind["chans" if plain else "cfg"]:
            if isinstance(item, str):
                self.features.append(nn.MaxPool2d(2))
                continue
            given = options(kind) | ({"groups": 1} if not list(self.features.parameters()) else {})
            own = options(item) if isinstance(item, dict) else {}
            width = item["out"] if isinstance(item, dict) else item
            self.features.append(conv(planes, width, **{"bias": plain, **given, **own}))
            self.features.extend([nn.BatchNorm2d(width), nn.ReLU()] if norms else [nn.ReLU()])
            planes = width
        if not plain:
            self.classifier = nn.Linear(planes, kind["num_classes"])
            return
        self.features.append(nn.MaxPool2d(kind.get("pool", 4)))
        with torch.no_grad():
            pixels = self.features(torch.zeros(1, kind.get("input", [3, 8, 8])[-3], *image)).flatten(1).shape[1]
        self.fc1 = nn.Linear(pixels, kind["hidden"])
        self.fc2 = nn.Linear(kind["hidden"], kind["num_classes"])

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        if self.plain:
            return self.fc2(F.relu(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]
        return self.classifier(x.mean((2, 3)))  # type: ignore[no-any-return]


class SubsampleAndPad(nn.Module):
    def __init__(self, planes: int) -> None:
        super().__init__()
        self.pad = planes // 4

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class Block(nn.Module):
    """A basic block or a bottleneck with torchvision's names; without parameters in the shortcut if ``option_a``."""

    def __init__(
        self, planes_in: int, planes: int, stride: int, bottleneck: bool, option_a: bool, given: dict[str, Any]
    ) -> None:
        super().__init__()
        size = given.get("size", 3)
        shape = [(1, 1), (size, stride), (1, 1)] if bottleneck else [(size, stride), (size, 1)]
        out = 4 * planes if bottleneck else planes
        widths = [planes_in, *[planes] * (len(shape) - 1), out]
        for number, (size, step) in enumerate(shape, start=1):
            rest = {key: given[key] for key in ("groups", "dilation", "bias") if key in given and size != 1}
            self.add_module(f"conv{number}", conv(widths[number - 1], widths[number], size, step, **rest))
            self.add_module(f"bn{number}", nn.BatchNorm2d(widths[number]))
        self.convs = len(shape)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or planes_in != out:
            projection = nn.Sequential(conv(planes_in, out, 1, stride), nn.BatchNorm2d(out))
            self.downsample = SubsampleAndPad(planes) if option_a else projection

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.convs + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = F.relu(y) if number < self.convs else y
        return F.relu(y + self.downsample(x))


class TinyResnet(nn.Module):
    """The README's tiny_cifar_resnet and tiny_tv_resnet; options for convolutions are of those in blocks."""

    def __init__(self, kind: Mapping[str, Any]) -> None:
        super().__init__()
        option_a = kind["type"] == "tiny_cifar_resnet"
        bottleneck = kind.get("block", "basic") == "bottleneck"
        planes = kind["width"]
        self.conv1, self.bn1 = conv(kind.get("input", [3, 8, 8])[-3], planes), nn.BatchNorm2d(planes)
        self.stages = len(kind["blocks"])
        for stage, depth in enumerate(kind["blocks"]):
            width = kind["width"] * 2**stage
            blocks = nn.Sequential()
            for block in range(depth):
                stride = 2 if stage and not block else 1
                blocks.append(Block(planes, width, stride, bottleneck, option_a, options(kind)))
                planes = 4 * width if bottleneck else width
            self.add_module(f"layer{stage + 1}", blocks)
        self.head = "linear" if option_a else "fc"
        self.add_module(self.head, nn.Linear(planes, kind["num_classes"]))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return getattr(self, self.head)(x.mean((2, 3)))  # type: ignore[no-any-return]


def build(kind: Mapping[str, Any], given: Collection[str] = ()) -> nn.Module:
    """The net that a manifest's entry describes: one of the README's toy networks, or a list of ``layers``."""
    if "layers" in kind:
        return sequential(kind["layers"], given)
    if kind["type"] in ("tiny_vgg", "tiny_plain"):
        return Branch(kind)
    if kind["type"] not in ("tiny_cifar_resnet", "tiny_tv_resnet"):
        raise ValueError(
            f"no toy network is called {kind['type']!r}: describe it by its layers (tests/vectors/README.md)"
        )
    return TinyResnet(kind)


def initial(name: str, dtype: torch.dtype) -> tuple[nn.Module, Arrays]:
    """The network of a file at its start, and the file's arrays."""
    content = arrays(name)
    given = {key: content[f"init/{key}"] for key in content.under("init/") if "/" not in key}
    said = MANIFEST["files"][name]["net"]
    classes = {} if "num_classes" in said or "layers" in said else {"num_classes": len(list(given.values())[-1])}
    model = build(Entry({**said, **classes}, said.file, said.path), list(given))
    own = {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}
    if lacking := own - given.keys():
        absent(f"array init/{sorted(lacking)[0]} in {content.file}")
    assert own == {key for key in given if not key.endswith("num_batches_tracked")}
    model.load_state_dict(given, strict=False)
    return model.to(dtype), content


def near(ours: Tensor, reference: Tensor, what: str, *, atol: float = 1e-8, rtol: float = 0.0) -> None:
    told = {"atol": atol, "rtol": rtol, "equal_nan": True, "msg": lambda text: f"{what}: {text}"}
    torch.testing.assert_close(ours.detach(), reference.to(ours.dtype), **told)


def indices(pruned: Tensor) -> list[int]:
    return pruned.flatten().nonzero().flatten().tolist()


def tiny() -> Net:
    return Net(models.build("tiny", num_classes=10, in_channels=1, seed=1).train())
