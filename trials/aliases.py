"""Names that other libraries and papers use, and what is called so here: suggested where such a name is not known."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

ALIASES: dict[str, tuple[str, ...]] = {
    # pruners of a search
    "asha": ("halving",),
    "sha": ("halving",),
    "async_hyperband": ("halving", "hyperband"),
    "successive_halving": ("halving",),
    "bohb": ("hyperband",),
    "median_stopping": ("median",),
    "median_stopping_rule": ("median",),
    "early_stopping": ("patient", "median"),
    "plateau": ("patient",),
    "patience": ("patient",),
    # samplers
    "bayes": ("tpe", "gp"),
    "bayesian": ("tpe", "gp"),
    "bayesopt": ("gp", "tpe"),
    "bo": ("tpe", "gp"),
    "gaussian_process": ("gp",),
    "botorch": ("gp",),
    "hyperopt": ("tpe",),
    "optuna": ("tpe",),
    "random_search": ("random",),
    "randomsearch": ("random",),
    "grid_search": ("grid",),
    "brute_force": ("grid",),
    "sobol": ("qmc",),
    "halton": ("qmc",),
    "quasi_random": ("qmc",),
    "cma_es": ("cmaes",),
    "cma": ("cmaes",),
    "evolution": ("nsga2", "cmaes"),
    "genetic": ("nsga2",),
    "nsga": ("nsga2",),
    "nsga_ii": ("nsga2",),
    "nsga_iii": ("nsga3",),
    # distributions of a search
    "log_uniform": ("loguniform",),
    "log": ("loguniform",),
    "reciprocal": ("loguniform",),
    "float": ("uniform",),
    "range": ("uniform", "int", "between"),
    "randint": ("int",),
    "integer": ("int",),
    "quniform": ("uniform", "int"),
    "discrete_uniform": ("uniform",),
    "qrandint": ("int",),
    "categorical": ("choice",),
    "values": ("choice",),
    "options": ("choice",),
    # conditions
    "gt": ("above",),
    "greater_than": ("above",),
    "ge": ("at_least",),
    "gte": ("at_least",),
    "lt": ("below",),
    "less_than": ("below",),
    "le": ("at_most",),
    "lte": ("at_most",),
    "ne": ("not",),
    "not_in": ("not",),
    "except": ("not",),
    # schedules
    "cosine_annealing": ("cosine",),
    "cosineannealing": ("cosine",),
    "cosineannealinglr": ("cosine",),
    "cos": ("cosine",),
    "warm_restarts": ("cosine_restart",),
    "cosine_annealing_warm_restarts": ("cosine_restart",),
    "sgdr": ("cosine_restart",),
    "multistep": ("step",),
    "multisteplr": ("step",),
    "steplr": ("step",),
    "fixed": ("constant",),
    # data sets and models
    "cifar": ("cifar10", "cifar100"),
    "cifar_10": ("cifar10",),
    "cifar_100": ("cifar100",),
    "tiny_imagenet": ("tinyimagenet",),
    "imagenet1k": ("imagenet",),
    "ilsvrc2012": ("imagenet",),
    "imagefolder": ("folder",),
    "image_folder": ("folder",),
    "images": ("folder",),
    "huggingface": ("parquet",),
    "resnet_20": ("resnet20s",),
    "resnet32": ("resnet32s",),
    "resnet44": ("resnet44s",),
    "resnet56": ("resnet56s",),
    "vgg": ("vgg16",),
    "vgg19": ("greg_vgg19",),
    "lenet": ("lenet5",),
    "lenet300": ("mlp_7_relu",),
    "mlp": ("mlp_7_relu",),
    "wideresnet": ("wrn_28_10",),
    "wide_resnet": ("wrn_28_10",),
    "wrn": ("wrn_28_10",),
    "densenet": ("densenet121",),
    "shufflenet": ("shufflenetv2",),
    "efficientnet": ("efficientnet_b0",),
    # methods
    "magnitude": ("one_shot", "imp"),
    "magnitude_pruning": ("one_shot", "imp"),
    "oneshot": ("one_shot",),
    "lottery": ("imp",),
    "lottery_ticket": ("imp",),
    "lth": ("imp",),
    "gmp": ("prune_iterative", "imp"),
    "gradual": ("prune_iterative", "imp"),
    "iterative": ("imp", "prune_iterative"),
    "rewinding": ("imp",),
    "bilevel": ("bip",),
    "bi_level": ("bip",),
    "edge_popup": ("hydra",),
    "popup": ("hydra",),
    "regrowth": ("regrow",),
    "greg": ("greg1", "greg2"),
    "l1_filter": ("l1",),
    "filter_pruning": ("l1", "greg1"),
    "taylor_pruning": ("layer_prune",),
    "adaptive": ("adaptive_sparsity",),
    "baseline": ("dense",),
    "train": ("dense",),
    "fine_tune": ("finetune",),
    # scores, distributions over layers, patterns
    "abs": ("magnitude",),
    "l1_norm": ("magnitude",),
    "weight_magnitude": ("magnitude",),
    "rand": ("random",),
    "globally": ("global",),
    "layerwise": ("uniform",),
    "layer_wise": ("uniform",),
    "local": ("uniform",),
    "per_layer": ("uniform",),
    "erdos_renyi_kernel": ("erk",),
    "unstructured": ("weight",),
    "element": ("weight",),
    "structured": ("filter", "channel"),
    "output_channel": ("filter",),
    "input_channel": ("channel",),
    "2:4": ("nm",),
    "n:m": ("nm",),
    "semi_structured": ("nm",),
    # columns of results
    "accuracy": ("val_accuracy",),
    "acc": ("val_accuracy",),
    "val_acc": ("val_accuracy",),
    "validation_accuracy": ("val_accuracy",),
    "loss": ("val_loss",),
    "val_error": ("val_loss",),
    "params": ("parameters",),
    "latency": ("latency_ms_1", "latency_ms_128"),
    "time": ("seconds",),
    "max": ("maximize", "at_most"),
    "min": ("minimize", "at_least"),
    # sections of a space
    "trials": ("samples",),
    "num_samples": ("samples",),
    "n_trials": ("samples",),
    "metric": ("objective",),
    "mode": ("direction",),
    "search_alg": ("sampler",),
    "algorithm": ("sampler",),
    "scheduler": ("pruner", "schedule"),
    "search_space": ("search",),
    "param_space": ("search",),
    "hyperparameter_space": ("search",),
    "hyperparameters": ("search",),
    "space": ("search",),
    "fixed_parameters": ("trial",),
    "config": ("trial",),
    "replicate": ("replicates",),
    "repeats": ("replicates",),
    "seeds": ("seed", "replicates"),
    "concurrency": ("max_concurrent",),
    "num_workers": ("max_concurrent",),
    "timeout": ("max_hours",),
    "time_budget": ("max_hours",),
    "max_failures": ("retries",),
    "population": ("pbt",),
    "description": ("about",),
    "cpus": ("cpu",),
    "gpus": ("gpu",),
    "num_gpus": ("gpu",),
    "num_cpus": ("cpu",),
    # fields of a trial
    "sparsity": ("density",),
    "target_sparsity": ("density", "starget"),
    "pruning_ratio": ("stage_pr", "p_prune", "prune_fraction", "density"),
    "prune_ratio": ("stage_pr", "p_prune", "prune_fraction", "density"),
    "pruning_rate": ("prune_fraction", "p_prune", "density"),
    "amount": ("p_prune", "prune_fraction", "density"),
    "keep_ratio": ("density",),
    "k": ("density",),
    "lambda": ("implicit_step", "reg_upper_limit"),
    "gamma": ("implicit_step",),
    "rounds": ("levels",),
    "iterations": ("levels",),
    "criterion": ("score",),
    "importance": ("score",),
    "granularity": ("pattern", "unit"),
    "structure": ("pattern", "unit"),
    "arch": ("model",),
    "architecture": ("model",),
    "net": ("model",),
    "network": ("model",),
    "data": ("dataset",),
    "data_path": ("data_dir",),
    "root": ("data_dir",),
    "learning_rate": ("lr",),
    "wd": ("weight_decay",),
    "l2": ("weight_decay",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "n_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "max_epoch": ("epochs",),
    "lr_schedule": ("schedule", "lr_steps"),
    "lr_scheduler": ("schedule", "lr_steps"),
    "warmup": ("warmup_epochs", "warmup_share"),
    "milestones": ("lr_steps",),
    "checkpoint": ("source_net",),
    "weights_file": ("source_net",),
    "pretrained": ("source_net",),
    "dense": ("pretrain",),
    "training": ("pretrain", "train"),
    "fine_tuning": ("finetune",),
    "retrain": ("finetune",),
    "amp": ("precision",),
    "dtype": ("precision",),
    "fp16": ("precision",),
    "half": ("precision",),
    "augmentation": ("augment",),
    "normalize": ("normalise",),
    "val_split": ("val_fraction",),
    "validation_split": ("val_fraction",),
    "random_seed": ("seed",),
}
"""By what people write (lower case, ``_`` between words), the names here, the most likely first."""

EXPLAINED: dict[tuple[str, str], str] = {
    ("sparsity", "density"): "sparsity 0.9 is density 0.1",
    ("target_sparsity", "density"): "sparsity 0.9 is density 0.1",
    ("pruning_ratio", "density"): "a ratio of 0.9 to prune is density 0.1",
    ("prune_ratio", "density"): "a ratio of 0.9 to prune is density 0.1",
    ("pruning_rate", "density"): "a rate of 0.9 is density 0.1",
    ("amount", "density"): "an amount of 0.9 is density 0.1",
    ("seeds", "seed"): "one number; several in replicates",
    ("repeats", "replicates"): "replicates: {values: {seed: [0, 1, 2]}}",
    ("timeout", "max_hours"): "in hours",
    ("time_budget", "max_hours"): "in hours",
    ("gamma", "implicit_step"): "1/gamma",
    ("fp16", "precision"): "bf16 is its half precision",
    ("half", "precision"): "bf16 is its half precision",
}
"""What else has to be known of some of them: their values differ, too."""

ONLY_NEAR = frozenset(
    {
        *("bohb", "early_stopping", "plateau", "optuna", "evolution", "quniform", "range", "huggingface"),
        *("gmp", "gradual", "edge_popup", "popup", "greg", "lenet300", "vgg", "wrn", "lenet"),
        *("replicate", "repeats", "fp16", "half", "lambda", "pretrained", "images", "num_workers"),
    }
)
"""Names of :data:`ALIASES` that stand for something else than what is suggested, or for more than that."""

NOT_HERE: dict[str, str] = {
    "adam": "training is SGD with momentum; AdamW trains what prune_iterative and regrow finetune",
    "adamw": "training is SGD with momentum; AdamW trains what prune_iterative and regrow finetune",
    "optimizer": "training is SGD with momentum; AdamW trains what prune_iterative and regrow finetune",
    "optimiser": "training is SGD with momentum; AdamW trains what prune_iterative and regrow finetune",
    "mnist": "digits, scikit-learn's 8x8 images, is the nearest; MNIST itself reads as folder or parquet",
    "snip": "SNIP is not built in, but docs/extending.md has it as a plug-in; the nearest here is one_shot",
    "grasp": "GraSP is not one of the methods; the nearest are one_shot and layer_prune (score: gradient)",
    "synflow": "SynFlow is not one of the methods; the nearest is one_shot",
    "rigl": "RigL is not built in, but docs/extending.md has it as a plug-in; regrow and regrow_iterative are related",
    "set": "SET is not one of the methods; regrow and regrow_iterative regrow pruned weights",
    "movement": "movement pruning is not one of the methods; the nearest is hydra, which trains scores",
    "taylor": "scores by gradients are those of method layer_prune (score: taylor or gradient)",
    "resnet110": "the deepest of this family is resnet56s",
}
"""Of what exists under no name here: what comes next to it."""


def named_here(name: object, known: Collection[str]) -> str:
    """Return what ``name``, as other libraries use it, is called here, as a clause; empty if nothing is known of it.

    Only names in ``known`` are suggested.

    >>> named_here("ASHA", ["halving", "median"])
    'asha is called halving here'
    >>> named_here("sparsity", ["density"])
    'sparsity is called density here: sparsity 0.9 is density 0.1'
    """
    word = _words(name)
    key = next((key for key in (word, word.replace("_", "")) if key in ALIASES or key in NOT_HERE), word)
    found = [alias for alias in ALIASES.get(key, ()) if alias in known]
    if not found:
        return NOT_HERE.get(key, "")
    said = f"the nearest to {key} is {_or(found)}" if key in ONLY_NEAR else f"{key} is called {_or(found)} here"
    more = next((EXPLAINED[key, alias] for alias in found if (key, alias) in EXPLAINED), "")
    return f"{said}: {more}" if more else said


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)


def _words(name: object) -> str:
    """The name in lower case with ``_`` between its words: of ``RandomSearch``, ``random-search`` and the like."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name).strip())
    return re.sub(r"[\s.\-]+", "_", text).lower()
