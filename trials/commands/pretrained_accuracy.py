"""Evaluate pretrained networks on ImageNet (top-1, top-5) at every pruning ratio, as published for global pruning.

Images are read and decoded once for all networks and ratios: each batch goes through every pruned network before the
next one is read. Only masks are stored per pruned network; its weights are computed from them for each batch.

Backward-only pruning (``gradient``, "gredient" in the released test.py) leaves the forward pass as it is, so its
accuracy is the unpruned network's, as that code's README says. The rows show what the backward passes would drop. The
released code fails on convolutions with a bias (AlexNet, VGG); here they are evaluated like any other.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from trials.config.recipes import BackwardConfig
from trials.data import Batch
from trials.errors import UserError, exact, unknown_name
from trials.seeding import generator
from trials.sparsity import PATTERNS, Masks, prunable
from trials.sparsity.backward import BackwardPruner
from trials.sparsity.dropping import drop, shares, spare

PATTERN_NAMES = ("kernel", "weight", "kernel_mean", "filter_l1")
PRUNE_TYPES = ("global", "gradient")
_GRANULARITIES = {"filter": "filter_l1"}  # names in the published tables that differ from this project's


@dataclass(frozen=True)
class Ratio:
    """A pruning ratio: a share p_prune of the units are candidates, each of which is pruned with probability p_bern."""

    p_prune: float
    p_bern: float
    pattern: str
    prune_type: str = "global"

    @property
    def key(self) -> tuple[float | str, ...]:
        """A key that is equal for ratios that prune the same; without candidates, p_bern and pattern do not matter."""
        backward = () if self.prune_type == "global" else (self.prune_type,)
        return (
            self.p_prune,
            self.p_bern if self.p_prune else 1.0,
            self.pattern if self.p_prune else "kernel",
            *backward,
        )


@dataclass(frozen=True)
class Asked:
    """One row of a table: a network, a ratio, and the published figures for them."""

    network: str
    ratio: Ratio
    published: Mapping[str, str]


def read_reference(path: Path) -> list[Asked]:
    """Read a CSV table with the columns table, network, granularity_in_code, p_prune, p_bern, acc1_percent, ...

    Raises:
        UserError: the file cannot be read, has no rows or lacks a column, or a value is out of range.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        asked = [_asked(row) for row in rows]
    except OSError as error:
        raise UserError(f"reference is '{path}', but must be a file that can be read ({error})") from None
    except (KeyError, ValueError) as error:
        raise UserError(
            f"reference is '{path}', but must be CSV with the columns network, granularity_in_code, p_prune, p_bern "
            f"({type(error).__name__}: {error})"
        ) from None
    if not asked:
        raise UserError(f"reference is '{path}', but has no rows")
    return asked


def _asked(row: Mapping[str, str]) -> Asked:
    pattern = _GRANULARITIES.get(row["granularity_in_code"], row["granularity_in_code"])
    published = {f"published_{key}": row[key] for key in ("acc1_percent", "acc5_percent", "loss") if row.get(key)}
    return Asked(
        row["network"],
        check_ratio(Ratio(float(row["p_prune"]), float(row["p_bern"]), pattern)),
        {"table": row.get("table", ""), **published},
    )


def check_ratio(ratio: Ratio) -> Ratio:
    """Return ``ratio`` unchanged; raises UserError if one of its fields is out of range."""
    if not 0 <= ratio.p_prune < 1:
        raise UserError(f"p_prune is {exact(ratio.p_prune)}, but must be in [0, 1)")
    if not 0 <= ratio.p_bern <= 1:
        raise UserError(f"p_bern is {exact(ratio.p_bern)}, but must be in [0, 1]")
    if ratio.pattern not in PATTERN_NAMES:
        raise UserError(unknown_name("pattern", ratio.pattern, PATTERN_NAMES))
    if ratio.prune_type not in PRUNE_TYPES:
        raise UserError(unknown_name("prune-type", ratio.prune_type, PRUNE_TYPES))
    return ratio


def masks_of(model: nn.Module, ratio: Ratio, seed: int) -> Masks:
    """Return a mask for every convolution; random numbers depend only on seed, ratio and layer."""
    pattern = PATTERNS[ratio.pattern]
    scores = {name: weight.detach().abs() for name, weight in prunable(model, linear=False).items()}
    return spare(
        drop(scores, ratio.p_prune, pattern=pattern),
        ratio.p_bern,
        pattern=pattern,
        generators=lambda layer: generator(seed, "bernoulli", *map(str, ratio.key), layer),
    )


class PrunedNetwork:
    """A masked network with its loss and top-1 and top-5 counts, accumulated on the device.

    Attributes:
        shares: shares of units, of convolution weights and of all parameters that are zero.
    """

    def __init__(self, model: nn.Module, ratio: Ratio, seed: int) -> None:
        self.model = model
        self.masks = masks_of(model, ratio, seed) if ratio.p_prune and ratio.prune_type == "global" else {}
        everything = self.masks or {n: torch.ones_like(w, dtype=torch.bool) for n, w in prunable(model).items()}
        self.shares = shares(model, everything, PATTERNS[ratio.pattern if self.masks else "weight"])
        device = next(model.parameters()).device
        self.totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, top-1, top-5
        self.count = 0

    def logits(self, x: Tensor) -> Tensor:
        """Return the outputs [B, classes]."""
        weights = dict(self.model.named_parameters())
        masked = {name: weights[name] * mask for name, mask in self.masks.items()}
        logits: Tensor = functional_call(self.model, masked, (x,))
        return logits.float()

    def add(self, x: Tensor, y: Tensor) -> None:
        logits = self.logits(x)
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices == y[:, None]
        loss = F.cross_entropy(logits, y, reduction="sum")
        self.totals += torch.stack([loss.double(), top[:, 0].sum().double(), top.sum().double()])
        self.count += len(y)

    def figures(self) -> dict[str, float]:
        loss, top1, top5 = (self.totals / max(self.count, 1)).tolist()
        return {"acc1_percent": 100 * top1, "acc5_percent": 100 * top5, "loss": loss, "images": self.count}


class BackwardPrunedNetwork(PrunedNetwork):
    """A network whose backward passes are pruned; its forward passes, which are evaluated, are not.

    Attributes:
        shares: shares of zeros in the forward pass (none), and of the candidates of the backward passes.
    """

    def __init__(self, model: nn.Module, ratio: Ratio, seed: int) -> None:
        super().__init__(model, ratio, seed)
        self.config = BackwardConfig(p_prune=ratio.p_prune, p_bern=ratio.p_bern, pattern=ratio.pattern)  # type: ignore[arg-type]  # checked by pydantic
        self.generators = lambda layer: generator(seed, "bernoulli", *map(str, ratio.key), layer)
        with self._pruner() as pruner:
            pruner.refresh()
            self.shares |= pruner.columns()

    def _pruner(self) -> BackwardPruner:
        return BackwardPruner(self.model, self.config, self.generators)

    def logits(self, x: Tensor) -> Tensor:
        with self._pruner():
            logits: Tensor = self.model(x)
        return logits.float()


def evaluate_networks(
    models: Mapping[str, nn.Module], asked: Sequence[Asked], batches: Iterable[Batch], seed: int
) -> Iterator[dict[str, Any]]:
    """Yield a row for each of ``asked``: its network and ratio, measured figures, shares of zeros, published figures.

    Args:
        models: by name, in evaluation mode, on the device of the batches.
        batches: the test images; iterated once.
    """
    networks: dict[tuple[str, Any], PrunedNetwork] = {}
    for row in asked:
        key = (row.network, row.ratio.key)
        if key not in networks:
            kind = BackwardPrunedNetwork if row.ratio.prune_type == "gradient" else PrunedNetwork
            networks[key] = kind(models[row.network], row.ratio, seed)
    with torch.no_grad():
        for x, y in batches:
            for network in networks.values():
                network.add(x, y)
    for row in asked:
        found = networks[row.network, row.ratio.key]
        ratio = row.ratio
        yield {
            "table": "",
            **row.published,
            "network": row.network,
            "prune_type": ratio.prune_type,
            "pattern": ratio.pattern,
            "p_prune": ratio.p_prune,
            "p_bern": ratio.p_bern,
            "nominal_ratio": ratio.p_prune * ratio.p_bern,
            **{key: value for key, value in found.shares.items() if key != "backward_nominal_ratio"},
            **found.figures(),
        }
