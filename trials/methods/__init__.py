"""The methods, by name. A new one is a file beside these and a line here."""

from __future__ import annotations

from trials.methods.adaptive_sparsity import AdaptiveSparsity
from trials.methods.base import Method, Stage, TrainStage
from trials.methods.bip import Bip
from trials.methods.dense import Dense
from trials.methods.dwp import Dwp
from trials.methods.global_prune import GlobalPrune
from trials.methods.gradient_prune import GradientPrune
from trials.methods.greg1 import Greg1
from trials.methods.greg2 import Greg2
from trials.methods.hydra import Hydra
from trials.methods.imp import Imp
from trials.methods.l1 import L1
from trials.methods.layer_prune import LayerPrune
from trials.methods.one_shot import OneShot
from trials.methods.oracle import Oracle
from trials.methods.prune_iterative import PruneIterative
from trials.methods.regrow import RegrowMethod
from trials.methods.regrow_iterative import RegrowIterative
from trials.methods.single_layer import SingleLayer

METHODS: dict[str, type[Method]] = {
    "dense": Dense,
    "one_shot": OneShot,
    "imp": Imp,
    "bip": Bip,
    "hydra": Hydra,
    "l1": L1,
    "greg1": Greg1,
    "greg2": Greg2,
    "oracle": Oracle,
    "global_prune": GlobalPrune,
    "layer_prune": LayerPrune,
    "gradient_prune": GradientPrune,
    "dwp": Dwp,
    "adaptive_sparsity": AdaptiveSparsity,
    "prune_iterative": PruneIterative,
    "regrow": RegrowMethod,
    "regrow_iterative": RegrowIterative,
    "single_layer": SingleLayer,
}

__all__ = ["METHODS", "Method", "Stage", "TrainStage"]
