"""Single-layer analysis: regrow one layer at a time and correlate its gain with its SSIM.

In a copy of the sparse network one layer is regrown, and the copy is finetuned briefly. A control copy is finetuned
without regrowth; its gain is the effect of finetuning alone. The network itself does not change.

After https://arxiv.org/abs/2511.11675 (released code: EnumaCaliber/Bidirection-Prune-Regrowth at b40cb9f,
single_layer_regrowth_analysis.py), which has no control, and gives every layer as much of the budget as fits into it
(``budgets: full``). Layers of many weights then gain more for that reason alone; ``budgets: equal`` is the default.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trials.config.recipes import one_of
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import Preempted, UserError, listed
from trials.methods.asked import AskedShare
from trials.methods.base import Method, Stage
from trials.methods.regrow.episodes import Bench, EpisodeOutcome, EpisodeRecipe, run_episode
from trials.methods.regrow.growth import Growth, RegrowingConfig, require_reference
from trials.methods.regrow.room import require_episodes, room_of
from trials.regrowth.channels import units
from trials.regrowth.correlation import correlations
from trials.regrowth.initial import INITIAL
from trials.regrowth.layer_signals import allocation_rows
from trials.training.net import Batch, Net
from trials.training.network_copy import forget


class LongRecipe(EpisodeRecipe):
    """300 epochs, stopped after 30 without improvement."""

    epochs: int = Field(default=300, ge=0)
    patience: int | None = Field(default=30, ge=1)


class SingleLayerConfig(RegrowingConfig):
    """Regrow ``budget_fraction`` of all weights in each target layer in turn, and in none for the control.

    Layers that nothing was pruned in are left out, unless ``layers`` names them: then the trial is refused.

    Attributes:
        budget_fraction: share of all weights (with ``unit: filter``, of all filters) that a layer regrows; null is no
            limit but the layers' capacities, their pruned weights.
        budgets: ``equal``: every layer regrows the same number, which is at most the smallest capacity among the target
            layers. ``full``: every layer regrows the whole budget, or all of its pruned weights where these are fewer,
            as in the released code; without a ``budget_fraction``, each layer is made dense.
        in_flight: number of layers evaluated in parallel.
    """

    method: Literal["single_layer"] = "single_layer"
    selection: Literal["saliency", "gradient", "reference", "random"] = "reference"
    initial: Annotated[str, one_of(INITIAL)] = "reference_or_normal"
    order: Literal["ssim", "network", "shuffled"] = "network"
    episode: LongRecipe = LongRecipe()
    budget_fraction: float | None = Field(default=None, gt=0, lt=1)
    budgets: Literal["equal", "full"] = "equal"
    in_flight: int = Field(default=1, ge=1)

    @property
    def parallel_pieces(self) -> int:
        return self.in_flight


class TryLayers(Stage):
    """The analysis stage: episode 0 is the control; episode l + 1 regrows the budget in target layer l (0-based)."""

    streams = ()

    def __init__(self, config: SingleLayerConfig) -> None:
        super().__init__("regrow", config.episode)
        self.epochs = 1
        self.config = config
        self.growth: Growth | None = None
        self.bench: Bench | None = None
        self.outcomes: list[tuple[float, float]] = []
        self.first = 0
        self.measured = False

    def attach(self, net: Net) -> None:
        self.net = net
        self.total = sum(units(mask, self.config.unit).numel() for mask in net.masks.values())

    def begin_epoch(self, epoch: int) -> None:
        pass

    def grower(self) -> Growth:
        """SSIM and scores of the sparse network. Measured on first use; a resumed process measures the same values.

        Layers that nothing was pruned in are no targets, unless ``layers`` names them.
        """
        if self.growth is None:
            with self.net.work.held(self.measured):  # a resumed process measures again what was counted before
                self.growth = Growth(self.config, self.net, self.context, 0)
            self.measured = True
            if self.config.layers is None:
                self.growth.targets = self.growth.targets.with_room()
        return self.growth

    def budget(self) -> int:
        """Number of weights (or filters) to regrow in a layer; with ``budgets: full``, as far as they fit into it.

        Raises:
            UserError: it would be 0.
        """
        targets, fraction = self.grower().targets, self.config.budget_fraction
        full = [
            name.removesuffix(".weight")
            for name, capacity in zip(targets.names, targets.capacities, strict=True)
            if not capacity
        ]
        if full:
            raise UserError(_full(full))
        if not targets.names:
            raise UserError(
                f"ssim_threshold is {self.config.ssim_threshold}, but nothing was pruned in the layers below it: raise "
                "it, or prune more"
            )
        most = (min if self.config.budgets == "equal" else max)(targets.capacities)
        budget = most if fraction is None else min(most, int(round(fraction * self.total, 6)))
        if not budget:
            raise UserError(_too_small(fraction, self.total, self.config.unit))
        return budget

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        nothing = torch.zeros((), device=self.net.device)
        growth, tried = self.grower(), len(self.outcomes)
        layers, budget = len(growth.targets.names), self.budget()
        numbers = range(tried, min(tried + self.config.in_flight, layers + 1))
        shares = list(enumerate((min(budget, room) for room in growth.targets.capacities), start=1))
        counts = [[share if number == layer else 0 for layer, share in shares] for number in numbers]
        episodes = [growth.episode(n, count, tried == self.first) for n, count in zip(numbers, counts, strict=True)]
        if self.bench is None:
            self.bench = Bench.of(self.config, self.net, 0, self.config.episode)
        try:
            outcomes: list[EpisodeOutcome] = self.context.map(run_episode, self.bench, episodes)
        except Preempted:  # the trial gets the same request and commits
            return nothing, nothing.long()
        self.net.work.add(sum(outcome.gradient_evaluations for outcome in outcomes))
        for number, count, outcome in zip(numbers, counts, outcomes, strict=True):
            self._record(number, count, outcome)
        self.finished = len(self.outcomes) == layers + 1
        return nothing, nothing.long()

    def _record(self, number: int, counts: Sequence[int], outcome: EpisodeOutcome) -> None:
        self.outcomes.append((outcome.accuracy, outcome.immediate))
        rows = allocation_rows(self.grower().targets, counts, step=0, episode=number, budget=self.budget())
        figures = {"reward": outcome.accuracy, **outcome.figures()}
        self.context.rows.setdefault("allocations", []).extend({**row, **figures} for row in rows)

    def end_epoch(self, net: Net, epoch: int) -> None:
        forget()

    def columns(self) -> dict[str, float]:
        """Budget, control accuracy, and correlations of SSIM with the accuracy gain over the control, where defined."""
        if len(self.outcomes) < 2:
            return {}
        (control, at_once), *tried = self.outcomes
        gains = {
            "gain": [accuracy - control for accuracy, _ in tried],
            "immediate_gain": [immediate - at_once for _, immediate in tried],
        }
        found = {"budget": float(self.budget()), "control_accuracy": control}
        pairs = [(ssim, i) for i, ssim in enumerate(self.grower().targets.ssim) if not math.isnan(ssim)]
        for kind, values in gains.items():
            measured = correlations([ssim for ssim, _ in pairs], [values[i] for _, i in pairs])
            found |= {f"{figure}_{kind}": value for figure, value in measured.items()}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"outcomes": [list(pair) for pair in self.outcomes], "measured": self.measured}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.outcomes = [(accuracy, immediate) for accuracy, immediate in state["outcomes"]]
        self.measured = state.get("measured", True)
        self.first = len(self.outcomes)


def _full(layers: Sequence[str]) -> str:
    return (
        f"layers has {listed(layers)}, where nothing was pruned and so nothing can regrow: name the others in layers, "
        "or leave layers out"
    )


def _too_small(fraction: float | None, total: int, unit: str) -> str:
    return f"budget_fraction is {fraction}, but must regrow at least one of {total} {unit}s: raise it"


class SingleLayer(Method):
    """Single-layer analysis, one stage; the sparse network itself does not change."""

    Config = SingleLayerConfig
    config: SingleLayerConfig

    def source(self) -> TrialConfig | None:
        return self.config.sparse_config()

    def check_trials(self, model: nn.Module) -> None:
        require_reference(self.config, model)

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        sparse = self.config.sparse_config()
        return (sparse.asked_share(model, sparse.levels),)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config, room = self.config, room_of(self.config, model, data)
        require_episodes(config, model, data)
        full = room.full()
        if not room.most:
            raise UserError(f"prune removes no {room.unit}s of {listed(room.targets)}, so none can regrow: prune more")
        if config.layers is not None and config.ssim_threshold is None and full:
            raise UserError(_full(full))
        if config.layers is not None and config.ssim_threshold is None and room.pruned < len(room.targets):
            raise UserError(
                f"prune removes {room.pruned} {room.unit}s, but each of {len(room.targets)} layers must lose one that "
                "can regrow: prune more, or name fewer layers"
            )
        if config.budget_fraction is not None and not int(round(config.budget_fraction * room.units, 6)):
            raise UserError(_too_small(config.budget_fraction, room.units, room.unit))

    def stages(self) -> Iterator[Stage]:
        yield TryLayers(self.config)
