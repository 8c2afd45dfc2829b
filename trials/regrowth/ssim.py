"""Structural similarity (SSIM) between the features of a dense and a sparse network, per layer.

A layer's map is its output summed over channels, divided by its L1 norm in every sample, averaged over samples and
scaled to [0, 1]. SSIM follows the defaults of scikit-image's ``structural_similarity``: a box window of min(7, H, W),
lowered to an odd number, unbiased covariances, and data range 1 (Wang et al. 2004,
https://doi.org/10.1109/TIP.2003.819861). It is NaN for layers without maps and for maps smaller than 3, the smallest
window; such layers are left out of rankings.

Positions such as borders dominate a map averaged over many images, so it hardly differs between networks.
``per="sample"`` compares image by image and averages the similarities instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

LARGEST_WINDOW = 7
SMALLEST_WINDOW = 3
K1, K2 = 0.01, 0.03

Features = dict[str, Tensor]


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the SSIM of each pair of maps [N, H, W] in [0, 1], float64 [N]; NaN if they are smaller than a window."""
    window = min(LARGEST_WINDOW, *a.shape[1:])
    window -= 1 - window % 2
    if window < SMALLEST_WINDOW:
        return torch.full((len(a),), math.nan, dtype=torch.float64, device=a.device)
    from pytorch_msssim import ssim  # only trials that use SSIM need it

    # pytorch_msssim uses biased (co)variances; unbiased ones are n/(n-1) times these, and scaling K2 is equivalent
    n = window**2
    box = torch.full((1, 1, 1, window), 1 / window, dtype=torch.float64, device=a.device)
    found: Tensor = ssim(
        a[:, None].double(),
        b[:, None].double(),
        data_range=1.0,
        size_average=False,
        win=box,
        K=(K1, K2 * math.sqrt((n - 1) / n)),
    )
    return found


def spatial_maps(features: Tensor) -> Tensor:
    """Map features [B, C, H, W] to maps [B, H, W]: signed sums over channels, each divided by its L1 norm."""
    sums = features.sum(1)
    return sums / sums.abs().sum((1, 2), keepdim=True).clamp_min(1e-12)


def scaled(maps: Tensor) -> Tensor:
    """Scale each of the maps [N, H, W] to [0, 1]; a constant map is unchanged."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low + 1e-8), maps)


@contextmanager
def _outputs(model: nn.Module, layers: Sequence[str]) -> Iterator[Features]:
    """Collect the modules' 4-D outputs of the last forward pass, copied since later modules may work in place."""
    modules = dict(model.named_modules())
    found: Features = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if output.dim() == 4:
                found[name] = output.detach().clone()

        return hook

    hooks = [modules[name].register_forward_hook(note(name)) for name in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def mean_maps(model: nn.Module, batches: Iterable[Tensor], layers: Sequence[str]) -> Features:
    """Return the scaled mean map [H, W] of each layer with 4-D outputs, over the samples of ``batches`` [B, C, H, W].

    The model should be in eval mode.
    """
    sums: Features = {}
    count = 0
    with torch.no_grad(), _outputs(model, layers) as outputs:
        for x in batches:
            model(x)
            count += len(x)
            for name, output in outputs.items():
                total = spatial_maps(output).sum(0)
                sums[name] = sums[name] + total if name in sums else total
    return {name: scaled((sums[name] / count)[None])[0] for name in layers if name in sums}


def sample_maps(model: nn.Module, x: Tensor, layers: Sequence[str]) -> Features:
    """Return the scaled map of every sample, [B, H, W] per layer with 4-D outputs."""
    with torch.no_grad(), _outputs(model, layers) as outputs:
        model(x)
        return {name: scaled(spatial_maps(outputs[name])) for name in layers if name in outputs}


def similarities(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Features:
    """Return the SSIM of maps [N, H, W] by layer, [N] each; layers of equal size are compared in one call."""
    by_size: dict[torch.Size, list[str]] = {}
    for name, maps in a.items():
        by_size.setdefault(maps.shape, []).append(name)
    found: Features = {}
    for names in by_size.values():
        together = similarity(torch.cat([a[name] for name in names]), torch.cat([b[name] for name in names]))
        found.update(zip(names, together.view(len(names), -1), strict=True))
    return {name: found[name] for name in a}


def layer_similarity(
    dense: nn.Module,
    sparse: nn.Module,
    batches: Iterable[Tensor],
    layers: Sequence[str],
    per: Literal["mean_map", "sample"] = "mean_map",
) -> dict[str, float]:
    """Return the SSIM of every layer in ``layers`` between two networks on the same images; NaN where undefined.

    Args:
        dense, sparse: networks with modules of these names, in eval mode.
        batches: images [B, C, H, W]; read once.
        per: compare the mean maps, or the maps of every sample and average over samples.
    """
    batches = list(batches)
    if per == "mean_map":
        ours, theirs = mean_maps(dense, batches, layers), mean_maps(sparse, batches, layers)
        found = similarities({n: m[None] for n, m in ours.items()}, {n: m[None] for n, m in theirs.items()})
    else:
        parts = [similarities(sample_maps(dense, x, layers), sample_maps(sparse, x, layers)) for x in batches]
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {name: float(found[name].mean()) if name in found else math.nan for name in layers}


def defined(ssim: Mapping[str, float], missing: float | None = None) -> dict[str, float]:
    """Return the layers with a defined SSIM; with ``missing``, all layers, undefined ones with that value."""
    filled = {name: missing if math.isnan(value) else value for name, value in ssim.items()}
    return {name: value for name, value in filled.items() if value is not None}


def ascending(ssim: Mapping[str, float], missing: float | None = None) -> list[str]:
    """Return the layers of :func:`defined` by ascending SSIM; ties keep their order."""
    values = defined(ssim, missing)
    return sorted(values, key=lambda name: values[name])


def below(ssim: Mapping[str, float], threshold: float, missing: float | None = None) -> list[str]:
    """Return the layers with an SSIM strictly below ``threshold``, lowest first, or the single lowest if none is."""
    values = defined(ssim, missing)
    order = ascending(values)
    return [name for name in order if values[name] < threshold] or order[:1]
