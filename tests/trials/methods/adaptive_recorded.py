"""Vectors recorded from the released code of the adaptive sparsity loss, and their network."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from tests.trials.described_nets import sequential
from tests.trials.recorded_set import Arrays, absent, manifest
from trials.methods.adaptive.adaptive_sparsity import AdaptiveSparsityConfig
from trials.methods.parsing import parse
from trials.training.net import Net

MANIFEST: dict[str, Any] = manifest("adaptive_sparsity")
PRECISIONS = {"f64": torch.float64, "f32": torch.float32}
TOLERANCES = {torch.float64: (1e-8, 1e-10), torch.float32: (2e-4, 2e-5)}


def file_of(name: str) -> Arrays:
    """One file's arrays."""
    return Arrays("adaptive_sparsity", f"{name}.npz").required()


def numbers(file: Arrays, pattern: str) -> list[int]:
    """The numbers that ``pattern``'s group finds at the beginning of keys, ascending."""
    found = sorted({int(match[1]) for key in file if (match := re.match(pattern, key))})
    return found or absent(f"array {pattern} in {file.file}")


def layers() -> list[str]:
    """The sparsified layers, in order."""
    return list(MANIFEST["sparsified_layers_in_order"])


def close(ours: Tensor | float, reference: Tensor, what: str) -> None:
    ours = torch.as_tensor(ours, dtype=reference.dtype).detach()
    rtol, atol = TOLERANCES[reference.dtype]
    torch.testing.assert_close(
        ours.reshape(reference.shape), reference, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}"
    )


def build_model() -> nn.Sequential:
    """The manifest's net with the recorded parameters."""
    given = file_of("inputs").under("init/")
    model = sequential(MANIFEST["net"]["layers"], list(given))
    if lacking := {key for key in model.state_dict() if not key.endswith("num_batches_tracked")} - set(given):
        absent(f"array init/{sorted(lacking)[0]} in adaptive_sparsity/inputs.npz")
    tracked = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    model.load_state_dict({**tracked, **given})
    return model


def config_of(**fields: Any) -> AdaptiveSparsityConfig:
    optimizer = MANIFEST["optimizer"]
    assert optimizer.get("type", "SGD") == "SGD"
    assert not optimizer.get("dampening")
    assert not optimizer.get("nesterov")
    assert not optimizer.get("weight_decay_thresholds")
    train = {
        "epochs": 1,
        "lr": optimizer["lr_weights"],
        "momentum": optimizer.get("momentum", 0.0),
        "weight_decay": optimizer.get("weight_decay_weights", 0.0),
        "schedule": "constant",
    }
    content = {"method": "adaptive_sparsity", "dataset": "digits", "model": "tiny", "train": train}
    content |= {key: MANIFEST[key] for key in ("starget", "lv", "pthres") if key not in fields}
    content["threshold_lr_factor"] = optimizer["lr_thresholds"] / optimizer["lr_weights"]
    config = parse({**content, **fields})
    assert isinstance(config, AdaptiveSparsityConfig)
    return config


def zeros(net: Net) -> list[int]:
    return [int((~mask).sum()) for mask in net.masks.values()]
