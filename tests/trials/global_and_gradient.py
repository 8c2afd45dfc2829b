"""Read the reference vectors of global, layer and gradient pruning; nets and numbers come from the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tests.trials.described_nets import module_of, sequential
from tests.trials.recorded_set import Arrays, absent, manifest

SOURCE = "global_and_gradient"
MANIFEST: dict[str, Any] = manifest(SOURCE)


def load(name: str, dtype: torch.dtype | None = None) -> Arrays:
    """A file's arrays; floating ones in ``dtype``, if given."""
    return Arrays(SOURCE, name, dtype).required()


def convs() -> list[str]:
    """The names of the net's convolutions, in order."""
    return list(MANIFEST["conv_layers_in_order"])


def build_net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """The manifest's net with the recorded parameters."""
    given = load("inputs.npz").under("param/")
    net = sequential(MANIFEST["net"], list(given))
    net.load_state_dict(given)
    assert [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)] == convs()
    return net.to(dtype)


def single(arrays: Arrays) -> nn.Conv2d:
    """The one convolution of a file, from its arrays, else its description in the manifest, else the arrays' shapes."""
    weight, x, cotangent = arrays["weight"], arrays["x"], arrays["cotangent"]
    name = arrays.file.rpartition("/")[2]
    described = str(MANIFEST.get("files", {}).get(name, ""))
    options: dict[str, Any] = {}
    if "Conv2d(" in described:
        layer = module_of(described[described.index("Conv2d(") :])
        assert isinstance(layer, nn.Conv2d)
        options = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
    for key in ("stride", "padding", "dilation", "groups"):
        if key in arrays:
            value = arrays[key].reshape(-1).tolist()
            options[key] = value[0] if len(value) == 1 else tuple(value)
    options.setdefault("groups", x.shape[1] // weight.shape[1])
    if "padding" not in options:  # with stride 1
        kernel = [d * (k - 1) for k, d in zip(weight.shape[2:], _pair(options.get("dilation", 1)), strict=True)]
        sides = zip(cotangent.shape[2:], x.shape[2:], kernel, strict=True)
        options["padding"] = tuple((out - size + k) // 2 for out, size, k in sides)
    conv = nn.Conv2d(x.shape[1], weight.shape[0], tuple(weight.shape[2:]), bias=False, **options)
    conv.weight = nn.Parameter(weight.clone())
    if conv(x).shape != cotangent.shape:
        absent(f"stride, padding, dilation or groups of the convolution in {arrays.file}")
    return conv


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)  # type: ignore[return-value]


def of_convs(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """``arrays[prefix/conv]`` by weight name, in the manifest's order."""
    return {f"{name}.weight": arrays[f"{prefix}/{name}"] for name in convs()}


def squeezed(mask: Tensor, shape: torch.Size) -> Tensor:
    """The mask of units, [O, I] for kernels, of a mask of weights; the mask must be constant within each unit."""
    if mask.shape == shape:
        return mask
    units = mask.flatten(len(shape))
    assert torch.equal(units.any(-1), units.all(-1))
    return units.any(-1)
