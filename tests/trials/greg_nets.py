"""GReg's reference vectors, and their toy networks (vectors/greg/README.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conftest import VECTORS
from trials import models
from trials.training.net import Net

WHAT: dict[str, Any] = {"dataset": "digits", "model": "tiny"}
GREG = VECTORS / "greg"
MANIFEST: dict[str, Any] = json.loads((GREG / "manifest.json").read_text())


def files(kind: str) -> list[str]:
    return [name for name, about in MANIFEST["files"].items() if about["kind"] == kind]


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(GREG / name, allow_pickle=False) as file:
        return {key: torch.from_numpy(np.array(file[key])) for key in file.files if file[key].dtype.kind != "U"}


def under(content: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix)}


def conv(planes_in: int, planes: int, size: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(planes_in, planes, size, stride, padding=size // 2, bias=bias)


class TinyVgg(nn.Module):
    def __init__(self, cfg: Sequence[int | str], num_classes: int, input: Sequence[int]) -> None:
        super().__init__()
        self.features = nn.Sequential()
        planes = input[0]
        for item in cfg:
            if isinstance(item, str):
                self.features.append(nn.MaxPool2d(2))
            else:
                self.features.extend([conv(planes, item), nn.BatchNorm2d(item), nn.ReLU()])
                planes = item
        self.classifier = nn.Linear(planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class TinyPlain(nn.Module):
    """Convolutions with bias and without batch norm; the pool's output is flattened into ``fc1``."""

    def __init__(self, chans: Sequence[int], hidden: int, num_classes: int, input: Sequence[int]) -> None:
        super().__init__()
        self.features = nn.Sequential()
        planes = input[0]
        for width in chans:
            self.features.extend([conv(planes, width, bias=True), nn.ReLU()])
            planes = width
        self.features.append(nn.MaxPool2d(4))
        self.fc1 = nn.Linear(planes * (input[1] // 4) * (input[2] // 4), hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(self.features(x).flatten(1))))


class SubsampleAndPad(nn.Module):
    def __init__(self, planes: int) -> None:
        super().__init__()
        self.pad = planes // 4

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class Block(nn.Module):
    """A basic block or a bottleneck with torchvision's names; without parameters in the shortcut if ``option_a``."""

    def __init__(self, planes_in: int, planes: int, stride: int, bottleneck: bool, option_a: bool) -> None:
        super().__init__()
        shape = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        out = 4 * planes if bottleneck else planes
        widths = [planes_in, *[planes] * (len(shape) - 1), out]
        for number, (size, step) in enumerate(shape, start=1):
            self.add_module(f"conv{number}", conv(widths[number - 1], widths[number], size, step))
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
    def __init__(self, kind: dict[str, Any]) -> None:
        super().__init__()
        option_a = kind["type"] == "tiny_cifar_resnet"
        bottleneck = kind.get("block") == "bottleneck"
        planes = kind["width"]
        self.conv1, self.bn1 = conv(kind["input"][0], planes), nn.BatchNorm2d(planes)
        self.stages = len(kind["blocks"])
        for stage, depth in enumerate(kind["blocks"]):
            width = kind["width"] * 2**stage
            blocks = nn.Sequential()
            for block in range(depth):
                stride = 2 if stage and not block else 1
                blocks.append(Block(planes, width, stride, bottleneck, option_a))
                planes = 4 * width if bottleneck else width
            self.add_module(f"layer{stage + 1}", blocks)
        self.head = "linear" if option_a else "fc"
        self.add_module(self.head, nn.Linear(planes, kind["num_classes"]))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return getattr(self, self.head)(x.mean((2, 3)))


def build(kind: dict[str, Any]) -> nn.Module:
    if kind["type"] == "tiny_vgg":
        return TinyVgg(kind["cfg"], kind["num_classes"], kind["input"])
    if kind["type"] == "tiny_plain":
        return TinyPlain(kind["chans"], kind["hidden"], kind["num_classes"], kind["input"])
    assert kind["type"] in ("tiny_cifar_resnet", "tiny_tv_resnet"), kind
    return TinyResnet(kind)


def initial(name: str, dtype: torch.dtype) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network of a file at its start, and the file's arrays."""
    content = arrays(name)
    model = build(MANIFEST["files"][name]["net"])
    given = {key: value for key, value in under(content, "init/").items() if "/" not in key}
    own = {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}
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
