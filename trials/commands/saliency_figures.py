"""Figures of the saliency of weights for every class. Needs matplotlib, which is not installed with the trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trials.analysis import LayerSaliency
from trials.regrowth.saliency import class_statistics

BLUE = "#0072B2"


def _means(found: Mapping[str, LayerSaliency], images: Sequence[int]) -> tuple[list[str], list[int], Tensor]:
    """Layers with kept weights, classes that were seen, and the mean saliency, [layers, classes]."""
    layers = [layer for layer, saliency in found.items() if len(saliency.indices)]
    seen = [number for number, count in enumerate(images) if count]
    return layers, seen, torch.stack([found[layer].values[seen].double().mean(1) for layer in layers])


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def heat_map(found: Mapping[str, LayerSaliency], images: Sequence[int]) -> Any:
    """Draw the mean saliency of every layer (rows) for every class (columns), relative to the layer's mean."""
    layers, seen, means = _means(found, images)
    relative = means / means.mean(1, keepdim=True).clamp_min(1e-300)
    figure = _figure(2.5 + 0.35 * len(seen), 1.2 + 0.25 * len(layers))
    axis = figure.subplots()
    shown = axis.imshow(relative.numpy(), aspect="auto", cmap="viridis")
    axis.set_xticks(range(len(seen)), [str(number) for number in seen])
    axis.set_yticks(range(len(layers)), layers, fontsize="small")
    axis.set(xlabel="class", title="mean saliency / mean over the classes")
    figure.colorbar(shown, ax=axis)
    return figure


def by_class(found: Mapping[str, LayerSaliency], images: Sequence[int]) -> Any:
    """Draw the mean saliency of all kept weights for every class, as bars."""
    layers, seen, means = _means(found, images)
    sizes = torch.tensor([len(found[layer].indices) for layer in layers], dtype=torch.float64)
    figure = _figure(2 + 0.4 * len(seen), 3.2)
    axis = figure.subplots()
    axis.bar([str(number) for number in seen], ((means * sizes[:, None]).sum(0) / sizes.sum()).tolist(), color=BLUE)
    axis.set(xlabel="class", ylabel="mean saliency of a kept weight")
    return figure


def by_layer(found: Mapping[str, LayerSaliency], images: Sequence[int]) -> Any:
    """Draw the classes' mean saliencies in every layer, as points, on a logarithmic scale."""
    layers, _, means = _means(found, images)
    figure = _figure(2 + 0.35 * len(layers), 4)
    axis = figure.subplots()
    for number, values in enumerate(means):
        axis.plot([number] * len(values), values.tolist(), color=BLUE, marker="_", linestyle="")
    if bool((means > 0).any()):
        axis.set_yscale("log")
    axis.set_xticks(range(len(layers)), layers, rotation=90, fontsize="small")
    axis.set(ylabel="mean saliency for a class")
    return figure


def unevenness(found: Mapping[str, LayerSaliency], images: Sequence[int]) -> Any:
    """Draw how uneven the classes are in every layer: standard deviation of their means / their mean, as bars."""
    layers, seen, _ = _means(found, images)
    values = [float(class_statistics(found[layer].values[seen]).unfairness) for layer in layers]
    figure = _figure(4.5, 1 + 0.25 * len(layers))
    axis = figure.subplots()
    axis.barh(layers, values, color=BLUE)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize="small")
    axis.set(xlabel="standard deviation of the class means / their mean")
    return figure


FIGURES: dict[str, Callable[[Mapping[str, LayerSaliency], Sequence[int]], Any]] = {
    "heat_map": heat_map,
    "by_class": by_class,
    "by_layer": by_layer,
    "unevenness": unevenness,
}
"""The figures by the name of their file."""
