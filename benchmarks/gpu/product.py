"""All names of ``trials`` that the GPU check uses; no other module of the check imports from ``trials``."""

from __future__ import annotations

from trials import models
from trials.config.recipes import BackwardConfig, Recipe
from trials.data import DATASETS, load_data, to_loader
from trials.data.augment import crop_and_flip
from trials.data.loader import Batch, Loader
from trials.data.raw import Arrays, RawData, raw_data
from trials.errors import UserError
from trials.methods.adaptive.adaptive_sparsity import AdaptiveSparsityConfig, TrainWithThresholds
from trials.methods.base import Stage, TrainStage
from trials.methods.bip.bip import Bilevel, BipConfig
from trials.methods.bip.hydra import HydraConfig, TrainScores
from trials.methods.greg.greg1 import Greg1Config, Greg1Stage
from trials.methods.greg.greg2 import Greg2Config, Greg2Stage
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.methods.regrow.finetuning import AdamWRecipe, Finetune
from trials.models.resnet_s import SubsampleAndPad
from trials.running import progress
from trials.running.captured import Epoch, stepper
from trials.running.evaluating import Evaluator
from trials.running.trial import TrialHost, run
from trials.seeding import generator
from trials.sparsity.backward import BackwardPruner
from trials.sparsity.distributions import DISTRIBUTIONS
from trials.sparsity.masks import build_masks, prunable
from trials.sparsity.patterns import PATTERNS
from trials.storage import files
from trials.training import launches
from trials.training.arithmetic import arithmetic
from trials.training.evaluation import Totals, evaluate
from trials.training.net import Net

__all__ = [
    "DATASETS",
    "DISTRIBUTIONS",
    "METHODS",
    "PATTERNS",
    "AdamWRecipe",
    "AdaptiveSparsityConfig",
    "Arrays",
    "BackwardConfig",
    "BackwardPruner",
    "Batch",
    "Bilevel",
    "BipConfig",
    "Epoch",
    "Evaluator",
    "Finetune",
    "Greg1Config",
    "Greg1Stage",
    "Greg2Config",
    "Greg2Stage",
    "HydraConfig",
    "Loader",
    "Net",
    "RawData",
    "Recipe",
    "Stage",
    "SubsampleAndPad",
    "Totals",
    "TrainScores",
    "TrainStage",
    "TrainWithThresholds",
    "TrialHost",
    "UserError",
    "arithmetic",
    "build_masks",
    "crop_and_flip",
    "evaluate",
    "files",
    "generator",
    "launches",
    "load_data",
    "models",
    "parse",
    "progress",
    "prunable",
    "raw_data",
    "run",
    "stepper",
    "to_loader",
]
