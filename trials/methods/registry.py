"""All methods by name. To add one to this package, add a file to its family's folder and a line here."""

from __future__ import annotations

from typing import Any

from trials.config.trial_config import TrialConfig
from trials.methods.adaptive.adaptive_sparsity import AdaptiveSparsity
from trials.methods.base import Method
from trials.methods.bip.bip import Bip
from trials.methods.bip.finetune import FinetuneMethod
from trials.methods.bip.hydra import Hydra
from trials.methods.dense import Dense
from trials.methods.dwp.dwp import Dwp
from trials.methods.dwp.global_prune import GlobalPrune
from trials.methods.dwp.gradient_prune import GradientPrune
from trials.methods.dwp.layer_prune import LayerPrune
from trials.methods.greg.greg1 import Greg1
from trials.methods.greg.greg2 import Greg2
from trials.methods.greg.l1 import L1
from trials.methods.greg.oracle import Oracle
from trials.methods.magnitude.imp import Imp
from trials.methods.magnitude.one_shot import OneShot
from trials.methods.regrow.prune_iterative import PruneIterative
from trials.methods.regrow.regrow import RegrowMethod
from trials.methods.regrow.regrow_iterative import RegrowIterative
from trials.methods.regrow.single_layer import SingleLayer
from trials.registry import Registry


def _is_method(found: Any) -> type[Method]:
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise TypeError(f"that is {found!r}: it must be a subclass of trials.extend.Method")
    config = getattr(found, "Config", None)
    if not (isinstance(config, type) and issubclass(config, TrialConfig)):
        raise TypeError(f"its Config is {config!r}: it must be a subclass of trials.extend.TrialConfig")
    if (annotation := config.model_fields["method"].annotation) is not str:
        raise TypeError(f"the field method of its Config takes {annotation}: write `method: str` in Config")
    if found.__abstractmethods__:
        raise TypeError(f"it lacks {', '.join(sorted(found.__abstractmethods__))}: define what Method requires")
    return found


_BUILT_IN: dict[str, type[Method]] = {
    "dense": Dense,
    "one_shot": OneShot,
    "imp": Imp,
    "bip": Bip,
    "hydra": Hydra,
    "finetune": FinetuneMethod,
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

METHODS: Registry[type[Method]] = Registry("methods", _BUILT_IN, _is_method)
"""Methods by name; also those of plug-ins (:mod:`trials.registry`)."""
