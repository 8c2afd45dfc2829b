"""Export networks as ONNX, checked with onnxruntime against torch's outputs before the file is written."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from trials.errors import UserError
from trials.optional import require
from trials.storage import files

OPSET = 18
OTHERWISE = "export it with --form compact"
TOLERANCE, ROUNDINGS = 1e-5, 10
"""How far onnxruntime's logits may be from those of the network in float64.

A logit may be off by 1e-5 of the largest: smaller ones are sums of terms that are as large, so that an error relative
to each logit says nothing. It may also be off by 10 times as much as torch's own logits in the network's precision:
so far goes rounding in this network, which may be deep, or cancel large numbers.
"""


def export_onnx(model: nn.Module, shape: Sequence[int], to: Path, inputs: str = "") -> None:
    """Write a model in eval mode as ONNX: ``images`` [batch, C, H, W] -> ``logits`` [batch, classes], any batch.

    Args:
        shape: [C, H, W] of an image.
        inputs: what the images must be, for the file's metadata (``inputs``); empty writes none.

    Raises:
        UserError: a library is not installed, torch cannot convert the model, or onnxruntime has no implementation
            for its precision.
        AssertionError: onnxruntime's outputs differ from torch's; nothing is written.
        OSError: ``to`` cannot be written.
    """
    needed_libraries()
    model.eval()
    try:
        content = _converted(model, shape, inputs)
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"--form is onnx, but torch cannot convert the network ({_line(error)}): {OTHERWISE}") from None
    _check(content, model, shape)
    files.write(to, content)


def needed_libraries() -> ModuleType:
    """Import what the export needs and torch does not bring; return onnxruntime.

    Raises:
        UserError: a library is not installed.
    """
    *_, onnxruntime = (require(name, "export", "--form onnx") for name in ("onnx", "onnxscript", "onnxruntime"))
    return onnxruntime


def _converted(model: nn.Module, shape: Sequence[int], inputs: str) -> bytes:
    example = torch.zeros(2, *shape, dtype=next(model.parameters()).dtype)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they concern the exporter's own internals
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    if inputs:
        proto.metadata_props.add(key="inputs", value=inputs)
    content: bytes = proto.SerializeToString()
    return content


def _check(content: bytes, model: nn.Module, shape: Sequence[int]) -> None:
    onnxruntime = needed_libraries()
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        precision = str(next(model.parameters()).dtype).removeprefix("torch.")
        raise UserError(
            f"--form is onnx, but onnxruntime cannot compute the network in {precision} ({_line(error)}): "
            f"{OTHERWISE}, or a trial with precision float32"
        ) from None
    exact = copy.deepcopy(model).double()
    for batch in (1, 3):
        generator = torch.Generator().manual_seed(batch)
        images = torch.rand(batch, *shape, generator=generator).to(next(model.parameters()).dtype)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            expected, own = exact(images.double()).numpy(), model(images).double().numpy()
        np.testing.assert_allclose(logits, expected, rtol=0, atol=_tolerance(expected, own, logits.dtype))


def _tolerance(exact: np.ndarray, own: np.ndarray, precision: np.dtype) -> float:
    """How far logits may be from the exact ones, given those that torch computes in ``precision``."""
    finite = np.isfinite(exact) & np.isfinite(own)
    largest = float(np.abs(exact[finite]).max(initial=0.0))
    rounded = float(np.abs(own - exact)[finite].max(initial=0.0))
    return TOLERANCE * largest + ROUNDINGS * rounded + float(np.finfo(precision).tiny)


def _line(error: Exception) -> str:
    """The first line of an error's message, cut to 200 characters."""
    return str(error).strip().partition("\n")[0][:200]
