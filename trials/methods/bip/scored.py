"""Masks from trained scores, with a straight-through gradient; shared by HYDRA and BiP.

HYDRA: https://arxiv.org/abs/2002.10509. BiP: https://arxiv.org/abs/2210.04092. Released code: OPTML-Group/BiP at
c51fc35, models/layers.py.

Every weight theta has a score s. The mask m keeps the largest |s|, and the network computes with z = m theta. The
gradient passes straight through the top-k:

    dL/ds = g theta sign(s)        dL/dtheta = g m        g = dL/dz,  sign(0) = 0

The model holds z, so that one plain backward pass gives g; the stage holds theta and s.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from trials.config.recipes import Recipe
from trials.config.source_config import StartsDense
from trials.config.trial_config import HasVariant
from trials.data_header import DataHeader
from trials.errors import UserError, exact
from trials.methods.asked import AskedShare, share_of
from trials.methods.base import Stage, generator_for
from trials.methods.budgets import Budget, LeftLayer, Shaped, layers_with, left_with, require_left, require_untied
from trials.methods.model_facts import facts_of
from trials.methods.n_of_m import TakesNM
from trials.methods.rounding import HasRounding, NamedShape, pruned_once, with_pattern
from trials.sparsity import DISTRIBUTIONS, build_masks, prunable, prunable_by
from trials.sparsity.select_wide import RowMajor
from trials.training import launches
from trials.training.net import Net
from trials.training.strides import beside, stretches

RELEASED = "cosine_released"

_Layer = TypeVar("_Layer", bound=Shaped)


class ScoredConfig(TakesNM, HasVariant, HasRounding, StartsDense):
    """Fields of methods that train scores.

    Attributes:
        density: share of weights to keep in the whole network (pattern weight), or of filters or input channels to keep
            in each convolution (patterns filter and channel; the classifier stays dense and is not counted).
        score_init: ``copy`` starts the scores at the weights; ``random`` draws them from U(-b, b), b = 1/sqrt(fan_in),
            and multiplies every weight by 1/sqrt(density); ``alias`` lets score and weight share memory, as the
            released code does unintentionally.
        first_conv: ``auto`` keeps the first convolution dense with pattern channel, because its input channels are the
            image's; ``pruned`` and ``dense`` apply to every pattern.
        pattern: what is kept or removed together: weights, filters, input channels, or N of M weights.

    ``variant: original`` rounds as released.
    """

    density: float = Field(gt=0, le=1)
    pattern: Literal["weight", "filter", "channel", "nm"] = "weight"
    score_init: Literal["copy", "random", "alias"] = "copy"
    first_conv: Literal["auto", "pruned", "dense"] = "auto"

    @property
    def revision(self) -> int:
        return 2 if self.score_init == "random" and self.memory_format == "channels_last" else 1

    @property
    def revised_because(self) -> str:
        if self.revision == 1:
            return ""
        return "random scores in channels_last were moved by other scores' gradients"

    def scored(self, net: Net) -> dict[str, Tensor]:
        """The weights that have scores, in module order."""
        weights = prunable_by(net.model, self.units)
        first = next(iter(prunable(net.model, linear=self.units.linear)), None) if self.keeps_first else None
        return {name: weight for name, weight in weights.items() if name != first}

    @property
    def keeps_first(self) -> bool:
        """Whether the first layer stays dense."""
        return self.first_conv == "dense" or (self.first_conv == "auto" and self.pattern == "channel")

    @property
    def distribution(self) -> str:
        """Global for pattern weight, per layer for the others."""
        return "global" if self.pattern == "weight" else "uniform"

    @property
    def decides_budgets(self) -> tuple[Hashable, ...]:
        return self.density, self.pattern, self.keeps_first

    @property
    def never_differs(self) -> bool:
        return self.density == 1 or self.pattern == "nm"

    def levels_of(self, layers: Sequence[NamedShape]) -> Iterator[Budget]:
        chosen = self._without_first(with_pattern(layers, self.pattern), layers)
        return pruned_once(chosen, self.pattern, self.distribution, self.density, self.count)

    def _without_first(self, chosen: Sequence[_Layer], layers: Sequence[Shaped]) -> tuple[_Layer, ...]:
        """The layers that are chosen of all ``layers``, without the first of all if that stays dense."""
        first = next((one.name for one in layers if self.units.linear or len(one.shape) > 2), None)
        return tuple(one for one in chosen if not self.keeps_first or one.name != first)

    def require_scored(self, model: nn.Module, data: DataHeader) -> None:
        """Check that some layers have scores and that the density prunes some of their units.

        Raises:
            UserError: there are none, or they cannot have masks, or all or no units would stay.
        """
        facts = facts_of(model, data)
        chosen = layers_with(facts, self.units, self.model)
        layers = self._without_first(chosen, facts.layers)
        if not layers:
            raise UserError(
                f"pattern is {self.pattern!r}, but {self.model} has no layer for it beside {chosen[0].name}, which "
                "stays dense: give first_conv 'pruned', another pattern or another model"
            )
        require_untied(layers, self.model)
        if not self.file_starts:
            self._require_some(layers)

    def require_scored_left(self, layers: Sequence[LeftLayer]) -> None:
        """Check that the density prunes some units of the network that a file gives, which has no mask.

        Raises:
            UserError: all or no units would stay.
        """
        self._require_some(self._without_first(left_with(layers, self.units), layers))

    def _require_some(self, layers: Sequence[Shaped]) -> None:
        if self.density < 1:
            before = Budget.dense(layers, self.units)
            budget = before.pruned(layers, self.distribution, self.density, self.count)
            require_left(budget, layers, self.pattern, f"density is {exact(self.density)}")

    def asked_share(self, model: nn.Module) -> AskedShare:
        """Ask for ``density`` of the weights or groups that have scores."""
        weights = self.scored(Net(model)) or prunable(model)
        slack = 1 if self.pattern == "weight" or self.rounding == "nearest" else len(weights)
        return share_of(weights, self.density, self.pattern, slack=slack)

    def top(self, scores: Mapping[str, Tensor], row_major: RowMajor | None = None) -> dict[str, Tensor]:
        """m = top(|s|, density), by weight name: global for pattern weight, per layer for filters and channels.

        ``row_major``: of the scores, see :func:`trials.sparsity.select.select`.
        """
        return build_masks(
            scores,
            density=self.density,
            pattern=self.units,
            distribution=DISTRIBUTIONS[self.distribution],
            absolute=True,
            count=self.count,
            row_major=row_major,
        )


class ScoredStage(Stage):
    """Base of stages whose mask is computed from scores. Subclasses define the step."""

    changes_network = True

    def __init__(self, config: ScoredConfig, recipe: Recipe) -> None:
        super().__init__("prune", recipe)
        self.config: Any = config
        self.initial: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None

    def enter(self, net: Net) -> None:
        weights = self.config.scored(net)
        if self.config.score_init == "random":
            generator = generator_for(self.config, "scores")
            scores = {name: random_scores(weight, generator) for name, weight in weights.items()}
            with torch.no_grad():
                for weight in prunable(net.model).values():
                    weight.mul_(1 / math.sqrt(self.config.density))
        else:
            scores = {name: weight.detach().clone() for name, weight in weights.items()}
        self.initial = ({name: weight.detach().clone() for name, weight in weights.items()}, scores)
        net.set_masks(self.config.top(scores))

    def attach(self, net: Net) -> None:
        self.net = net
        weights = self.config.scored(net)
        self.z = weights
        theta, scores = self.initial or (weights, weights)
        self.initial = None
        self.theta = {name: theta[name].detach().clone() for name in weights}
        alias = self.config.score_init == "alias"  # then the score is another tensor on the weight's memory
        self.scores = {n: t.detach() if alias else scores[n].detach().clone() for n, t in self.theta.items()}
        at_once = launches.few_launches(net.device) and self.config.pattern == "weight"
        self.row_major = RowMajor.of(list(self.scores.values())) if at_once else None
        self.norms = [p for m in net.model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
        self.others = {name: p for name, p in net.model.named_parameters() if name not in weights}

    def layers(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield (theta, s, m, g) of every scored layer, after a backward pass."""
        multipliers = self.net.multipliers()
        for name, z in self.z.items():
            assert z.grad is not None
            yield self.theta[name], self.scores[name], multipliers[name], z.grad

    def update_masks(self) -> None:
        """m <- top(|s|, density); z <- m theta."""
        self.net.update_masks(self.config.top(self.scores, self.row_major), self.theta)

    def set_score_gradients(self) -> None:
        """Set the scores' gradients from dL/dz, after a backward pass. Overwrites dL/dz."""
        layers = list(self.layers())
        if launches.few_launches(self.net.device):
            every_theta, every_s, every_m, every_g = (list(each) for each in zip(*layers, strict=True))
            self.gradients(every_g, every_theta, every_s, every_m)
        else:
            for layer in layers:
                for theta, s, m, g in stretches(*layer):
                    self.gradient(g, theta, s, m)
        for _, s, _, g in layers:
            s.grad = g

    def gradient(self, g: Tensor, theta: Tensor, s: Tensor, m: Tensor) -> Tensor:
        """Return the scores' gradient from g = dL/dz, for a layer or a part of one. Overwrites g."""
        return score_gradient(g, theta, s)

    def gradients(self, g: list[Tensor], theta: list[Tensor], s: list[Tensor], m: list[Tensor]) -> None:
        """Like :meth:`gradient`, for all layers in few operators; g becomes the scores' gradients."""
        torch._foreach_mul_(g, theta)
        torch._foreach_mul_(g, torch._foreach_sign(s))

    def state_dict(self) -> dict[str, Any]:
        return {"theta": self.theta, "scores": self.scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name in self.theta:
                self.theta[name].copy_(state["theta"][name])
                self.scores[name].copy_(state["scores"][name])


def score_gradient(g: Tensor, theta: Tensor, s: Tensor) -> Tensor:
    """dL/ds = g theta sign(s) of one layer. Overwrites g."""
    return g.mul_(theta).mul_(s.sign())


def random_scores(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Draw s ~ U(-b, b), b = 1/sqrt(fan_in), with the weight's shape, dtype, device and strides.

    Drawn on the CPU in row-major order, so that values are the same on every device and in every memory format.
    """
    bound = 1 / math.sqrt(weight[0].numel())
    uniform = torch.rand(weight.shape, generator=generator, dtype=torch.float64)
    return beside(weight, uniform.mul_(2 * bound).sub_(bound))


def released_schedules(content: Mapping[str, Any], recipes: Sequence[str]) -> dict[str, Any]:
    """Return ``content`` with the released code's learning-rate schedule in every recipe that sets no rates itself."""
    filled = dict(content)
    for name in recipes:
        recipe = filled.get(name, {})
        if isinstance(recipe, Mapping) and not recipe.get("lr_steps"):
            filled[name] = {"schedule": RELEASED, **recipe}
    return filled
