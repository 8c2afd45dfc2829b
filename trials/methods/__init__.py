"""The methods, by name. A new one is a file beside these and a line here."""

from __future__ import annotations

from trials.methods.base import Method, Stage, TrainStage
from trials.methods.bip import Bip
from trials.methods.dense import Dense
from trials.methods.hydra import Hydra
from trials.methods.imp import Imp
from trials.methods.one_shot import OneShot

METHODS: dict[str, type[Method]] = {"dense": Dense, "one_shot": OneShot, "imp": Imp, "bip": Bip, "hydra": Hydra}

__all__ = ["METHODS", "Method", "Stage", "TrainStage"]
