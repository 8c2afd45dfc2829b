"""Fit the weights of a file to a model: prefixes of wrappers, masks, scores, and what does not fit."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from trials.compact import Kept, require_rows, shrink
from trials.errors import UserError
from trials.networks.formats import Weights, printable
from trials.networks.masks_beside import MASKS_WAY_OUT

_ANYWHERE = ("module", "_orig_mod")
"""Parts of names that DataParallel and torch.compile put before what they wrap, also inside a model."""

_FIRST = ("model", "net", "network", "backbone")
"""First parts of names of models that lie in an object, as Lightning's do."""

_COUNTERS = ("n_averaged", "total_ops", "total_params")
"""Last parts of names of counters that AveragedModel and thop keep among the weights."""

_DUPLICATE, _ORIGINAL = "sub_block1", "block1"
"""A stage that the wide ResNets of BiP's and HYDRA's code build twice; no forward pass calls the duplicate."""

_HEADS = ("fc", "linear")
"""Names of the last layer: BiP's resnet20s to resnet56s have the first where the models here have the second."""

_SCORES = "popup_scores"

_RANKED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of scores that can be ranked."""


@dataclass(frozen=True)
class Fitted:
    """Weights that fit a model.

    Attributes:
        state: effective weights and buffers, by the model's names.
        masks: bool, by weight name; empty for dense weights.
        scores: scores that rank weights, by weight name, and from which a mask can be made (BiP, HYDRA).
        rivals: scores of layers that no forward pass calls, by weight name: they compete with ``scores`` in one ranking
            of the whole network, as they did when it was trained.
        kept: rows of the dense network that are left of a compact one.
    """

    state: dict[str, Tensor]
    masks: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)
    rivals: dict[str, Tensor] = field(default_factory=dict)
    kept: Kept = field(default_factory=dict)


def fitted(weights: Weights, model: nn.Module, what: str, name: str | None = None) -> Fitted:
    """Fit weights to a model, which is not changed and may lie on the meta device.

    Args:
        what: names the file at the beginning of messages.
        name: the model's name, which a compact network must be of.

    Raises:
        UserError: names or shapes differ; the message says which.
    """
    if weights.kept:
        model = _shrunk(weights, model, what, name)
    own = model.state_dict()
    named = own_names(weights.tensors, own, what)
    rivals = _without_duplicate(named, own)
    state, masks, scores = _parts(_without_counters(named, own), own)
    _require_fit(state, own, what)
    if weights.masks:
        masks = _beside(weights, masks, own, what)
    masks = _masks(masks, state, model, what)
    ranking, rivals = _ranking(scores, rivals, own, what)
    if masks and ranking:
        raise UserError(
            f"{what}, but holds masks and scores ({_SCORES}), which may say different things: leave one out"
        )
    state |= {key: state[key] * mask.to(state[key].dtype) for key, mask in masks.items()}
    return Fitted(state, masks, ranking, rivals, weights.kept)


def _beside(weights: Weights, pairs: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The masks beside the state dict by the model's names, which they must have, with the weights' shapes."""
    key = ascii(weights.masks_key)
    if pairs:
        raise UserError(f"{what}, but holds masks under {key} and as weight_mask: leave one of them out")
    masks = own_names(weights.masks, own, what)
    _without_duplicate(masks, own)
    for name, mask in masks.items():
        if name not in own or own[name].shape != mask.shape:
            raise UserError(f"{what}, but holds masks under {key}, and that of {printable(name)} fits no weight: "
                            f"{MASKS_WAY_OUT}")  # fmt: skip
    return masks


def _shrunk(weights: Weights, model: nn.Module, what: str, name: str | None) -> nn.Module:
    """The model on the meta device, with the rows that the compact network has."""
    made = dict(weights.architecture or {})
    if name is not None and made.get("model") != name:
        raise UserError(
            f"{what}, a compact {made.get('model')}, but model is {name!r}: give the model it was made from"
        )
    smaller = copy.deepcopy(model).to("meta")
    try:
        require_rows(smaller, weights.kept)
        shrink(smaller, weights.kept)
    except (ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{what}, a compact network that does not fit the model ({reason}): export it again") from None
    return smaller


def own_names(tensors: Mapping[str, Tensor], own: Mapping[str, Any], what: str) -> dict[str, Tensor]:
    """The tensors by their names without wrappers' prefixes, where the model has no such part in its own names."""
    parts = {part for name in own for part in name.split(".")}
    first = {name.partition(".")[0] for name in own}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = ".".join(part for part in name.split(".") if part not in _ANYWHERE or part in parts)
        while (head := short.partition("."))[0] in _FIRST and head[0] not in first and head[2]:
            short = head[2]
        if short in found:
            raise UserError(
                f"{what}, but holds {printable(short)} twice, with different prefixes: leave one of them out"
            )
        found[short] = tensor
    return _heads_named(found, own)


def _heads_named(tensors: dict[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors with the model's name of its last layer, if the file has the other of the two."""
    theirs, ours = (f"{head}." for head in _HEADS)
    if not any(name.startswith(ours) for name in own) or any(name.startswith(theirs) for name in own):
        return tensors
    if any(name.startswith(ours) for name in tensors):
        return tensors
    return {
        ours + name.removeprefix(theirs) if name.startswith(theirs) else name: tensor
        for name, tensor in tensors.items()
    }


def _without_duplicate(tensors: dict[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """Take the duplicate of a stage out of the tensors, if the model has the stage only once; returns its scores."""
    first = {name.partition(".")[0] for name in own}
    if _ORIGINAL not in first or _DUPLICATE in first:
        return {}
    gone = {name: tensors.pop(name) for name in list(tensors) if name.startswith(f"{_DUPLICATE}.")}
    return {name: tensor for name, tensor in gone.items() if name.endswith(f".{_SCORES}")}


def _without_counters(tensors: Mapping[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name in own or name.rpartition(".")[2] not in _COUNTERS}


def _parts(
    tensors: Mapping[str, Tensor], own: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The state dict, the masks (weight_mask) and the scores, the last two by their weights' names.

    A mask stands beside weight_orig, as torch.nn.utils.prune has it, or beside the weight itself.
    """
    state: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    scores: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        base = name[: -len("_orig")]
        if name not in own and name.endswith("_orig") and f"{base}_mask" in tensors and base not in tensors:
            state[base] = tensor
        elif name not in own and name.endswith("_mask") and (f"{base}_orig" in tensors or base in tensors):
            masks[base] = tensor
        elif name not in own and name.rpartition(".")[2] == _SCORES:
            scores[f"{name.removesuffix(_SCORES)}weight"] = tensor
        else:
            state[name] = tensor
    return state, masks, scores


def _require_fit(state: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str) -> None:
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    for names, how in (
        (missing, "lacks"),
        (unexpected, "has weights unknown to the model:"),
        (shapes, "has in other shapes"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            why, way = _other_images(state, own) if names is shapes else _other_names(state, own, missing)
            raise UserError(f"{what}, but {how} {', '.join(map(printable, names[:3]))}{more}{why}: {way}")
    for name, tensor in state.items():
        if own[name].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{what}, but has {name} as {kind}, and must have floating-point numbers: convert it")
        if tensor.is_floating_point() and not torch.isfinite(tensor.to(own[name].dtype)).all():
            raise UserError(f"{what}, but has values in {name} that are not finite: give an earlier checkpoint")


def _other_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor], missing: Collection[str]) -> tuple[str, str]:
    """Why names differ and the way out: where none of them is known, perhaps only a prefix does."""
    if not missing:
        more = [name for name in state if name not in own]
        if any("mask" in name.rpartition(".")[2] for name in more):
            return "", f"if they are masks, {MASKS_WAY_OUT}"
        return "", "give the model it was saved from, or delete them from the file if they are a loss's or a counter's"
    if state.keys() & own.keys() or not state:
        return "", "give the model it was saved from"
    first = printable(next(iter(state)))
    return f" (its names are as {first})", "give the model it was saved from, or strip their prefix"


def _other_images(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[str, str]:
    """Why shapes differ and the way out, if only the first layer's channels or the last layer's classes do."""
    weights = [name for name in own if name.endswith(".weight") and own[name].dim() > 1]
    others = {name for name in own if name in state and own[name].shape != state[name].shape}
    first, last = weights[0], weights[-1]
    head = {last, last.removesuffix("weight") + "bias"}
    if others <= head and own[last].shape[1:] == state[last].shape[1:]:
        said = f" ({state[last].shape[0]} classes, but the data have {own[last].shape[0]})"
        return said, "give weights that were trained on as many classes"
    if others == {first} and own[first].dim() == state[first].dim() == 4:
        said = f" ({state[first].shape[1]} channels of images, but the data have {own[first].shape[1]})"
        return said, "give weights that were trained on such images"
    return "", "give the model it was saved from"


def _masks(masks: Mapping[str, Tensor], state: Mapping[str, Tensor], model: nn.Module, what: str) -> dict[str, Tensor]:
    """The masks as bool; none if all of them keep everything."""
    found = {}
    for name, mask in masks.items():
        if mask.shape != state[name].shape or not ((mask == 0) | (mask == 1)).all():
            raise UserError(f"{what}, but the mask of {name} must hold 0 and 1 in its shape: write it again")
        layer = model.get_submodule(name.rpartition(".")[0])
        if name.endswith(".weight") and isinstance(layer, nn.Conv2d | nn.Linear):
            found[name] = mask.bool()
        elif not mask.bool().all():
            raise UserError(
                f"{what}, but masks {name}, and only weights of convolutions and linear layers have masks here: "
                "make that mask permanent (torch.nn.utils.prune.remove)"
            )
    return found if any(not mask.all() for mask in found.values()) else {}


def _ranking(
    scores: Mapping[str, Tensor], rivals: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The scores and their rivals, of one type; nothing if all are constant, as those of a dense training are."""
    for name, score in scores.items():
        if name not in own or score.shape != own[name].shape:
            raise UserError(
                f"{what}, but its {_SCORES} of {printable(name)} fit no weight: give the model it was saved from"
            )
    every = {**scores, **rivals}
    for name, score in every.items():
        if not torch.isfinite(_comparable(score)).all():
            raise UserError(f"{what}, but has {_SCORES} of {printable(name)} that are not finite: give an earlier one")
    if not any((score != score.flatten()[0]).any() for score in map(_comparable, scores.values())):
        return {}, {}
    for name, score in every.items():
        if score.dtype not in _RANKED:
            kind = str(score.dtype).removeprefix("torch.")
            raise UserError(
                f"{what}, but has {_SCORES} of {printable(name)} as {kind}, and must have floating-point numbers of 16 "
                "bits or more: convert them"
            )
    common = reduce(torch.promote_types, (score.dtype for score in every.values()))
    return {n: score.to(common) for n, score in scores.items()}, {n: score.to(common) for n, score in rivals.items()}


def _comparable(score: Tensor) -> Tensor:
    """The scores in a type that torch compares."""
    return score if score.dtype in _RANKED or score.is_complex() else score.double()
