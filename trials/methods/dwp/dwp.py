"""DWP: measure how well adversarial images from randomly pruned surrogates transfer to another network.

Diversified weight pruning, https://arxiv.org/abs/2208.08677.

    surrogate  a dense network, trained with the trial's seed
    victim     another dense network, with another seed or architecture; the attack does not use it
    attack     MI-FGSM with G, the mean input gradient of N randomly pruned copies of the surrogate; for comparison,
               also with the gradient of the unpruned surrogate

``transfer_rate`` is the share of the images that the victim classifies correctly that it classifies wrongly after the
attack (targeted: as the target class). ``_dense`` is the same without DWP. ``white_box`` attacks the surrogate itself.
No network is pruned permanently: density is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trials.config.recipes import BackwardConfig, Recipe, one_of
from trials.config.source_config import StartsDense
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.base import Method, Stage, TrainStage
from trials.methods.dense import dense_source
from trials.methods.dwp.attacks import Attack, Fooled, InputGradient, input_gradient
from trials.methods.dwp.drop import require_droppable
from trials.methods.dwp.surrogates import Surrogates
from trials.methods.model_facts import facts_of
from trials.models import MODELS
from trials.seeding import generator
from trials.sparsity import PATTERNS
from trials.training.net import Net

BATCH = 250


class DwpConfig(StartsDense):
    """Attack a victim through randomly pruned copies of a network trained by ``pretrain``.

    Attributes:
        p_prune: share of units that are candidates for pruning.
        p_bern: probability that a candidate is pruned, drawn for each surrogate.
        pattern: the unit of pruning; the paper prunes single weights.
        surrogates: N, the number of pruned copies that a gradient is averaged over.
        pruned_pass: prune ``both`` passes of a surrogate (the paper), or only its ``backward`` pass.
        epsilon: largest change of a pixel, for pixels in 0..1.
        steps: iterations of MI-FGSM.
        momentum: mu of MI-FGSM.
        targeted: move towards a random class per image (the paper) instead of away from the image's own class.
        images: largest number of validation images, and of test images, to attack.
        victim_seed: seed of the victim, which is otherwise trained like the surrogate.
        victim_model: model of the victim; null is the surrogate's model.
    """

    method: Literal["dwp"] = "dwp"
    p_prune: float = Field(default=0.3, ge=0, lt=1)
    p_bern: float = Field(default=0.5, ge=0, le=1)
    pattern: Literal["weight", "kernel", "kernel_mean", "filter_l1"] = "weight"
    surrogates: int = Field(default=5, ge=1)
    pruned_pass: Literal["both", "backward"] = "both"
    epsilon: float = Field(default=16 / 255, gt=0, le=1)
    steps: int = Field(default=10, ge=1)
    momentum: float = Field(default=1.0, ge=0)
    targeted: bool = False
    images: int = Field(default=1000, ge=1)
    victim_seed: int = Field(default=1000, ge=0)
    victim_model: Annotated[str, one_of(MODELS)] | None = None

    @model_validator(mode="after")
    def _victim_is_another(self) -> DwpConfig:
        if self.victim_seed == self.seed and self.victim_model in (None, self.model) and self.source_net is None:
            raise ValueError(f"victim_seed is {self.victim_seed}, like seed, but must give another network: change it")
        return self

    @property
    def pruning(self) -> BackwardConfig:
        return BackwardConfig(p_prune=self.p_prune, p_bern=self.p_bern, pattern=self.pattern, refresh_every=0)

    @property
    def attack(self) -> Attack:
        return Attack(self.epsilon, self.steps, self.momentum, self.targeted)


class Transfer(TrainStage):
    """The attack stage; trains nothing."""

    def __init__(self, config: DwpConfig) -> None:
        super().__init__("attack", Recipe(epochs=0))
        self.config = config
        self.rates: dict[str, float] = {}

    def observe(self, net: Net) -> None:
        victim = self.context.network("victim")
        net.model.eval()
        for split in ("val", "test"):
            for name, gradient in self._gradients(net, split).items():
                transfer, white_box = self._attack(gradient, net, victim, split)
                self.rates[f"{split}_transfer_rate{name}"] = transfer
                self.rates[f"{split}_white_box_rate{name}"] = white_box

    def _gradients(self, net: Net, split: str) -> dict[str, InputGradient]:
        def generators(layer: str) -> torch.Generator:
            return generator(self.config.seed, "dwp", split, layer, device=net.device)

        config = self.config
        surrogates = Surrogates(
            net.model,
            config.pruning,
            count=config.surrogates,
            pruned_pass=config.pruned_pass,
            generators=generators,
        )
        found: dict[str, InputGradient] = {"": surrogates, "_dense": partial(input_gradient, net.model)}
        passes = {"": surrogates.count, "_dense": 1}
        return {name: _counted(gradient, net, passes[name]) for name, gradient in found.items()}

    def _attack(self, gradient: InputGradient, net: Net, victim: Net, split: str) -> tuple[float, float]:
        """Return (transfer rate, white-box rate) on a split."""
        targets, pixels = generator(self.config.seed, "targets", split), self.context.data.pixel_range()
        counts = [(other, Fooled.zero(net.device)) for other in (victim, net)]
        for x, y in _first(self.config.images, self.context.look, split):
            predictions = [_classes(other, x) for other, _ in counts]
            target = _targets(y, _logits(net, x[:1]).shape[1], targets) if self.config.targeted else None
            changed = self.config.attack(gradient, x, y if target is None else target, pixels)
            for before, (other, fooled) in zip(predictions, counts, strict=True):
                fooled.add(before, _classes(other, changed), y, target)
        (_, transfer), (_, white_box) = counts
        return transfer.rate(), white_box.rate()

    def columns(self) -> dict[str, float]:
        return {"nominal_ratio": self.config.p_prune * self.config.p_bern, **self.rates}


def _counted(gradient: InputGradient, net: Net, passes: int) -> InputGradient:
    """The gradient, whose ``passes`` forward and backward passes are counted as work of ``net``."""

    def found(x: Tensor, labels: Tensor) -> Tensor:
        net.work.add(passes * len(x))
        return gradient(x, labels)

    return found


def _first(
    images: int, batches: Callable[[str, int], Iterator[tuple[Tensor, Tensor]]], split: str
) -> Iterator[tuple[Tensor, Tensor]]:
    left = images
    for x, y in batches(split, min(BATCH, images)):
        yield x[:left], y[:left]
        left -= len(y[:left])
        if not left:
            return


def _targets(y: Tensor, classes: int, source: torch.Generator) -> Tensor:
    """A random class other than the image's own, for every image; drawn on the CPU."""
    return (y + torch.randint(1, classes, (len(y),), generator=source).to(y.device)) % classes


def _logits(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = net.model(x)
    return logits


def _classes(net: Net, x: Tensor) -> Tensor:
    return _logits(net, x).argmax(1)


class Dwp(Method):
    """DWP: surrogate and victim, both shared trials -> the attack."""

    Config = DwpConfig
    config: DwpConfig
    reports: ClassVar[tuple[str, ...]] = (
        *(f"{s}_transfer_rate{n}" for s in ("val", "test") for n in ("", "_dense")),
        *(f"{s}_white_box_rate{n}" for s in ("val", "test") for n in ("", "_dense")),
        "nominal_ratio",
    )

    def source(self) -> TrialConfig | None:
        return dense_source(self.config)

    def references(self) -> Mapping[str, TrialConfig]:
        config = self.config
        other = {"seed": config.victim_seed, "model": config.victim_model or config.model, "source_net": None}
        victim = dense_source(config.model_copy(update=other))
        assert victim is not None
        return {"victim": victim}

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config = self.config
        require_droppable(facts_of(model, data), config, config.p_prune, PATTERNS[config.pattern])
        if config.targeted and data.num_classes == 1:
            raise UserError(f"targeted is True, but {data.name} has one class, so no image has another as its target")

    def stages(self) -> Iterator[Stage]:
        yield Transfer(self.config)
