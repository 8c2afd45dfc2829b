"""The names that plug-ins may import stay; a name is added here on purpose, and never removed."""

from __future__ import annotations

from typing import get_origin

import trials.extend

METHODS = [
    "AskedShare",
    "PlannedDensity",
    "Batch",
    "DataHeader",
    "FinetuneRecipe",
    "Method",
    "Net",
    "OpenRecipe",
    "PretrainRecipe",
    "PruningConfig",
    "Recipe",
    "Stage",
    "StageContext",
    "StartsDense",
    "TrainStage",
    "TrialConfig",
    "dense_source",
    "generator_for",
    "mutable_of",
    "one_of",
    "require_prunable",
    "share_of",
]
SPARSITY = [
    "Count",
    "DISTRIBUTIONS",
    "Density",
    "Distribution",
    "Layer",
    "Masks",
    "PATTERNS",
    "Pattern",
    "Pool",
    "SCORES",
    "Score",
    "apportioned",
    "build_masks",
    "density_of",
    "masks_by_score",
    "mean_gradients",
    "n_of_m",
    "nearest_count",
    "prunable",
    "prunable_by",
    "select",
]
TRAINING = ["AdamW", "Sgd", "beside", "derive_seed", "generator"]
DATA = [
    "Arrays",
    "Encoded",
    "EncodedData",
    "FolderImages",
    "RawData",
    "channel_statistics",
    "encoded_data",
    "from_torch",
    "raw_data",
]
ERRORS = ["AbsentData", "DataError", "UserError"]


def test_the_names_for_plug_ins_stay() -> None:
    assert sorted(trials.extend.__all__) == sorted([*METHODS, *SPARSITY, *TRAINING, *DATA, *ERRORS])


def test_each_is_there_and_says_what_it_is() -> None:
    for name in trials.extend.__all__:
        found = getattr(trials.extend, name)
        if isinstance(found, type) and get_origin(found) is None:  # Python 3.10 takes Callable[...] for a type
            assert found.__doc__, name
