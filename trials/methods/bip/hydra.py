"""HYDRA: prune by training mask scores with fixed weights, then finetune.

Sehwag et al. 2020, https://arxiv.org/abs/2002.10509, as implemented by BiP's authors (OPTML-Group/BiP at c51fc35,
trainer/base.py): pattern weight ranks all scores globally instead of using fixed ratios per layer.

    s <- SGD(s, g theta sign(s))        g = dL/dz,  z = m theta
    m <- top(|s|, density)
    then: theta <- SGD(theta, m g)      finetune, m fixed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import model_validator
from torch import Tensor, nn

from trials.config.recipes import Recipe
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.methods.asked import AskedShare
from trials.methods.base import Method, Stage, TrainStage, mutable_of
from trials.methods.bip.rates import with_corrected_rates
from trials.methods.bip.scored import ScoredConfig, ScoredStage, released_schedules
from trials.methods.budgets import LeftLayer
from trials.methods.dense import dense_source
from trials.training.net import Batch, Net
from trials.training.optimizers import Sgd


class HydraConfig(ScoredConfig):
    """Prune a dense network to ``density`` by trained scores, then finetune.

    ``variant: original`` aliases scores and weights, so that the "fixed" weights change with their scores.
    Below a density of 0.05, the default of ``prune.lr`` is lower than the published one, which collapses (rates.py).

    Attributes:
        prune: recipe of the scores.
        batchnorm: ``train`` trains BN's scale and shift together with the scores, as released; ``frozen`` does not.
        finetune: recipe after pruning; null keeps the weights of the dense network.
    """

    method: Literal["hydra"] = "hydra"
    batchnorm: Literal["train", "frozen"] = "train"
    prune: Recipe = Recipe()
    finetune: Recipe | None = Recipe()

    @model_validator(mode="before")
    @classmethod
    def _as_released(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        if content.get("variant") != "original":
            return with_corrected_rates(content)
        filled = released_schedules(content, ("pretrain", "prune", "finetune"))
        return {"score_init": "alias", "first_conv": "pruned", "rounding": "released", **filled}


class TrainScores(ScoredStage):
    """The prune stage of HYDRA: SGD on the scores; recomputes the mask after every step."""

    captures = True

    def attach(self, net: Net) -> None:
        super().attach(net)
        norms = self.norms if self.config.batchnorm == "train" else []
        self.sgd = Sgd.of(self.recipe, [*self.scores.values(), *norms])

    def begin_epoch(self, epoch: int) -> None:
        self.sgd.set_lr(self.schedule(epoch))

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        loss, correct = self.net.backward(*batches[0])
        self.set_score_gradients()
        self.sgd.step()
        self.update_masks()
        return loss, correct

    def columns(self) -> dict[str, float]:
        return {"lr": float(self.sgd.lr)}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "sgd": self.sgd.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.sgd.load_state_dict(state["sgd"])


class Hydra(Method):
    """HYDRA: dense network -> training of scores -> finetuning under the mask."""

    Config = HydraConfig
    mutable = mutable_of("prune")
    config: HydraConfig
    takes_compact = True
    stoppable = ("prune", "finetune")

    def source(self) -> TrialConfig | None:
        return dense_source(self.config)

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        return (self.config.asked_share(model),)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        self.config.require_scored(model, data)

    def check_left(self, layers: Sequence[LeftLayer]) -> None:
        self.config.require_scored_left(layers)

    def stages(self) -> Iterator[Stage]:
        yield TrainScores(self.config, self.config.prune)
        if self.config.finetune is not None:
            yield TrainStage("finetune", self.config.finetune)
