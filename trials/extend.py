"""What plug-ins may import: the names that stay, by which users write methods, networks, data sets and their parts.

Other modules of this package may change from one version to the next; these names stay, with what they take and return
(docs/extending.md). :mod:`trials.testing` checks what a plug-in must do.
"""

from __future__ import annotations

from trials.config.recipes import OpenRecipe, PretrainRecipe, Recipe, one_of
from trials.config.source_config import StartsDense
from trials.config.trial_config import TrialConfig
from trials.data import EncodedData, RawData
from trials.data.encoded import Encoded, FolderImages, encoded_data
from trials.data.raw import Arrays, channel_statistics, raw_data
from trials.data.sets.torch_datasets import from_torch
from trials.data_header import DataHeader
from trials.errors import AbsentData, DataError, UserError
from trials.methods.asked import AskedShare, share_of
from trials.methods.base import Method, Stage, TrainStage, generator_for, mutable_of
from trials.methods.budgets import require_prunable
from trials.methods.dense import dense_source
from trials.methods.magnitude.one_shot import FinetuneRecipe, PruningConfig
from trials.methods.planned import PlannedDensity
from trials.seeding import derive_seed, generator
from trials.sparsity.counts import Density, nearest_count
from trials.sparsity.distributions import DISTRIBUTIONS, Count, Distribution, Layer, Pool, apportioned
from trials.sparsity.gradients import mean_gradients
from trials.sparsity.masks import Masks, build_masks, density_of, masks_by_score, prunable, prunable_by
from trials.sparsity.patterns import PATTERNS, Pattern, n_of_m
from trials.sparsity.scores import SCORES, Score
from trials.sparsity.select import select
from trials.training.net import Batch, Net
from trials.training.optimizers import AdamW, Sgd
from trials.training.stage_context import StageContext
from trials.training.strides import beside

__all__ = [
    "DISTRIBUTIONS",
    "PATTERNS",
    "SCORES",
    "AbsentData",
    "AdamW",
    "Arrays",
    "AskedShare",
    "Batch",
    "Count",
    "DataError",
    "DataHeader",
    "Density",
    "Distribution",
    "Encoded",
    "EncodedData",
    "FinetuneRecipe",
    "FolderImages",
    "Layer",
    "Masks",
    "Method",
    "Net",
    "OpenRecipe",
    "Pattern",
    "PlannedDensity",
    "Pool",
    "PretrainRecipe",
    "PruningConfig",
    "RawData",
    "Recipe",
    "Score",
    "Sgd",
    "Stage",
    "StageContext",
    "StartsDense",
    "TrainStage",
    "TrialConfig",
    "UserError",
    "apportioned",
    "beside",
    "build_masks",
    "channel_statistics",
    "dense_source",
    "density_of",
    "derive_seed",
    "encoded_data",
    "from_torch",
    "generator",
    "generator_for",
    "masks_by_score",
    "mean_gradients",
    "mutable_of",
    "n_of_m",
    "nearest_count",
    "one_of",
    "prunable",
    "prunable_by",
    "raw_data",
    "require_prunable",
    "select",
    "share_of",
]
