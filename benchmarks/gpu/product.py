"""Every name of ``trials`` that the GPU check uses, imported in this one place and nowhere else in the check."""

from __future__ import annotations

from trials import models, progress
from trials.config import Recipe, parse
from trials.data import Loader, place
from trials.data.raw import Arrays, RawData, raw_data
from trials.methods.adaptive_sparsity import AdaptiveSparsityConfig, TrainWithThresholds
from trials.methods.base import Stage, TrainStage
from trials.methods.bip import Bilevel, BipConfig
from trials.methods.finetuning import AdamWRecipe, Finetune
from trials.methods.greg1 import Greg1Config, Greg1Stage
from trials.methods.hydra import HydraConfig, TrainScores
from trials.models.resnet_s import SubsampleAndPad
from trials.sparsity import DISTRIBUTIONS, PATTERNS, build_masks, masks, prunable
from trials.training import Batch, Net, Totals, evaluate
from trials.trial import Surroundings, run

__all__ = [
    "DISTRIBUTIONS",
    "PATTERNS",
    "AdamWRecipe",
    "AdaptiveSparsityConfig",
    "Arrays",
    "Batch",
    "Bilevel",
    "BipConfig",
    "Finetune",
    "Greg1Config",
    "Greg1Stage",
    "HydraConfig",
    "Loader",
    "Net",
    "RawData",
    "Recipe",
    "Stage",
    "SubsampleAndPad",
    "Surroundings",
    "Totals",
    "TrainScores",
    "TrainStage",
    "TrainWithThresholds",
    "build_masks",
    "evaluate",
    "masks",
    "models",
    "parse",
    "place",
    "progress",
    "prunable",
    "raw_data",
    "run",
]
