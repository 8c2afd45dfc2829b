"""The published test flow of global pruning: pretrained networks, pruned at every ratio, top-1 and top-5 on ImageNet.

The images are read and decoded once for all networks and ratios together: every batch goes through each pruned network
before the next is read. What is kept of a pruned network is its masks; its weights are made of them for each batch.
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

from trials.data import Batch
from trials.errors import UserError, unknown_name
from trials.seeding import generator
from trials.sparsity import PATTERNS, Masks, prunable
from trials.sparsity.dropping import drop, shares, spare

PATTERN_NAMES = ("kernel", "weight", "kernel_mean", "filter_l1")
_GRANULARITIES = {"filter": "filter_l1"}  # what the published tables call them, where we call them otherwise


@dataclass(frozen=True)
class Ratio:
    """One way to prune: p_prune of the units are candidates, each goes with probability p_bern."""

    p_prune: float
    p_bern: float
    pattern: str

    @property
    def key(self) -> tuple[float, float, str]:
        """Equal for ratios that prune the same: where there are no candidates, p_bern does not matter."""
        return (self.p_prune, self.p_bern if self.p_prune else 1.0, self.pattern if self.p_prune else "kernel")


@dataclass(frozen=True)
class Asked:
    """One row of a table: a network, a ratio, and what was published about them."""

    network: str
    ratio: Ratio
    published: Mapping[str, str]


def read_reference(path: Path) -> list[Asked]:
    """The rows of a table with the columns table, network, granularity_in_code, p_prune, p_bern, acc1_percent, ...

    Raises:
        UserError: it cannot be read, or is no such table.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
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
    """``ratio``, if it can be pruned by; raises UserError."""
    if not 0 <= ratio.p_prune < 1:
        raise UserError(f"p_prune is {ratio.p_prune:g}, but must be in [0, 1)")
    if not 0 <= ratio.p_bern <= 1:
        raise UserError(f"p_bern is {ratio.p_bern:g}, but must be in [0, 1]")
    if ratio.pattern not in PATTERN_NAMES:
        raise UserError(unknown_name("pattern", ratio.pattern, PATTERN_NAMES))
    return ratio


def masks_of(model: nn.Module, ratio: Ratio, seed: int) -> Masks:
    """Masks of every convolution; random numbers by seed, ratio and layer."""
    pattern = PATTERNS[ratio.pattern]
    scores = {name: weight.detach().abs() for name, weight in prunable(model, linear=False).items()}
    return spare(
        drop(scores, ratio.p_prune, pattern=pattern),
        ratio.p_bern,
        pattern=pattern,
        generators=lambda layer: generator(seed, "bernoulli", *map(str, ratio.key), layer),
    )


class PrunedNetwork:
    """A network under masks, and what it gets right: counted on the device.

    Attributes:
        shares: of units, of convolutions' weights and of all parameters that are zero.
    """

    def __init__(self, model: nn.Module, ratio: Ratio, seed: int) -> None:
        self.model = model
        self.masks = masks_of(model, ratio, seed) if ratio.p_prune else {}
        everything = self.masks or {n: torch.ones_like(w, dtype=torch.bool) for n, w in prunable(model).items()}
        self.shares = shares(model, everything, PATTERNS[ratio.pattern if self.masks else "weight"])
        device = next(model.parameters()).device
        self.totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, top-1, top-5
        self.count = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        weights = dict(self.model.named_parameters())
        masked = {name: weights[name] * mask for name, mask in self.masks.items()}
        logits = functional_call(self.model, masked, (x,)).float()  # [B, classes]
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices == y[:, None]
        loss = F.cross_entropy(logits, y, reduction="sum")
        self.totals += torch.stack([loss.double(), top[:, 0].sum().double(), top.sum().double()])
        self.count += len(y)

    def figures(self) -> dict[str, float]:
        loss, top1, top5 = (self.totals / max(self.count, 1)).tolist()
        return {"acc1_percent": 100 * top1, "acc5_percent": 100 * top5, "loss": loss, "images": self.count}


def evaluate_networks(
    models: Mapping[str, nn.Module], asked: Sequence[Asked], batches: Iterable[Batch], seed: int
) -> Iterator[dict[str, Any]]:
    """A row for each of ``asked``: what was asked, the figures, the shares that are zero, and what was published.

    Args:
        models: by name, in evaluation mode, on the device the batches come to.
        batches: the test images, once.
    """
    networks: dict[tuple[str, Any], PrunedNetwork] = {}
    for row in asked:
        key = (row.network, row.ratio.key)
        if key not in networks:
            networks[key] = PrunedNetwork(models[row.network], row.ratio, seed)
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
            "pattern": ratio.pattern,
            "p_prune": ratio.p_prune,
            "p_bern": ratio.p_bern,
            "nominal_ratio": ratio.p_prune * ratio.p_bern,
            **found.shares,
            **found.figures(),
        }
