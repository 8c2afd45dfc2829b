"""The columns of a sweep's tables: type, unit and meaning of each, and the column names of config fields.

A column's name has one type in every sweep (:mod:`sweeper.results.column_types`). To add a column, add a line here,
then run ``python -m sweeper.describe.tables_page``, which writes it into docs/tables.md.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

TEXT, WHOLE, REAL, FLAG, TEXTS = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.list_(pa.string())

TYPE_NAMES = {TEXT: "text", WHOLE: "whole", REAL: "real", FLAG: "flag", TEXTS: "texts"}
"""The types as docs/tables.md and the file of config fields name them."""


@dataclass(frozen=True)
class Column:
    """What is known of a column.

    Attributes:
        name: in the table.
        type: of its values, in every sweep.
        meaning: one line of text.
        unit: of its values; empty where they have none.
    """

    name: str
    type: Any
    meaning: str
    unit: str = ""


def _of_splits(figure: str, meaning: str, unit: str) -> list[Column]:
    splits = {"train": "training images", "val": "validation images", "test": "test images"}
    return [Column(f"{split}_{figure}", REAL, f"{meaning} on the {of}", unit) for split, of in splits.items()]


_FIGURES = [
    *_of_splits("loss", "mean loss", "nats"),
    *_of_splits("accuracy", "share of right answers, 0 to 1,", ""),
    Column("density", REAL, "kept / prunable, as measured from the masks"),
    Column("sparsity", REAL, "1 - density"),
    Column("kept", WHOLE, "remaining weights, of those that are prunable", "weights"),
    Column("prunable", WHOLE, "weights that can be pruned: those that have masks, or all without masks", "weights"),
    Column("empty_layers", WHOLE, "layers without any remaining weight", "layers"),
    Column("warnings", TEXTS, "codes of what has degenerated; an empty list if nothing has"),
]

_SIZES = [
    Column("macs", WHOLE, "multiply-adds per image with the remaining weights", "multiply-adds"),
    Column("flops", WHOLE, "2 macs", "FLOPs"),
]
_PARAMETERS = Column("parameters", WHOLE, "remaining parameters, biases and norms included", "parameters")

_COST = [
    Column("gradient_evaluations", WHOLE, "images times forward-backward passes after the dense start, up to here"),
    Column("cost", REAL, "gradient evaluations per training image: 1 is an epoch of ordinary training", "epochs"),
    Column("cost_flops", WHOLE, "FLOPs of these passes, of the network as it is executed", "FLOPs"),
]

_COMPACT = [
    Column("compact_macs", WHOLE, "macs of the network that `export --form compact` writes", "multiply-adds"),
    Column("compact_flops", WHOLE, "flops of that network", "FLOPs"),
    Column("compact_parameters", WHOLE, "parameters of that network", "parameters"),
]

_REPORT = Column("report", TEXT, "which epoch counts: last or best_val")
_TRIAL = Column("trial", TEXT, "the trial's id: method and hash of its config")
_STAGE = [
    Column("stage", TEXT, "name of the stage: pretrain, prune, regrow, finetune, train"),
    Column("level", WHOLE, "round of an iterative method, from 0"),
]
_STAGE_ID = Column("stage_id", TEXT, "the shared trial that the row was copied from; null for the trial's own rows")

_ALWAYS = {
    "trials": [
        _TRIAL,
        Column("cell", TEXT, "the cell that the trial was first scheduled for"),
        Column("number", WHOLE, "its sample's number in that cell"),
        Column("samples", WHOLE, "samples that it serves"),
        Column("confirms", TEXT, "the trial that this one confirms with another seed; null for trials of the search"),
        Column("status", TEXT, "scheduled (not started), running, complete, pruned, failed or preempted"),
        Column("attempts", WHOLE, "starts"),
        Column("failures", WHOLE, "attempts that ended in an error"),
        Column("error_type", TEXT, "class of the last error"),
        Column("error_message", TEXT, "text of the last error"),
        *_FIGURES,
        Column("compression", REAL, "prunable / kept"),
        *_SIZES,
        Column("dense_flops", WHOLE, "flops of the dense network", "FLOPs"),
        Column("speedup", REAL, "dense_flops / flops"),
        _PARAMETERS,
        Column("dense_parameters", WHOLE, "parameters of the dense network", "parameters"),
        *_COMPACT,
        Column("compact_speedup", REAL, "dense_flops / compact_flops"),
        Column("latency_ms_1", REAL, "median time of a forward pass of 1 image on the trial's device", "ms"),
        Column("latency_ms_128", REAL, "median time of a forward pass of 128 images on the trial's device", "ms"),
        Column("epochs", WHOLE, "epochs that the trial trained itself, without shared trials", "epochs"),
        Column("pruned_at", WHOLE, "the epoch at which the search stopped the trial", "epochs"),
        _REPORT,
        *_COST,
        Column("dense_cost", REAL, "cost of the dense trials that it starts from or reads; null if unknown", "epochs"),
        Column("data", TEXT, "fingerprint of the data set"),
        Column("data_source", TEXT, "where the data set came from"),
        Column("seconds", REAL, "time of all attempts", "s"),
        Column("host", TEXT, "machine of the last attempt"),
        Column("device", TEXT, "device of the last attempt"),
        Column("started", TEXT, "when the first attempt began, as 2026-11-27T08:30:00Z", "UTC"),
        Column("ended", TEXT, "when the last attempt ended", "UTC"),
        Column("threads", WHOLE, "CPU threads of the last attempt", "threads"),
        Column("torch", TEXT, "version of torch"),
        Column("cuda", TEXT, "version of CUDA; null on a CPU"),
        Column("precision", TEXT, "precision that was used; all of them if attempts differ"),
        Column("memory_format", TEXT, "memory format that was used"),
        Column("commit", TEXT, "commit of the code that ran the last attempt; null outside a checkout"),
        Column("schema", WHOLE, "version of the trial folder's format"),
        Column("environments", WHOLE, "different environments in which the network was computed; null if unknown"),
    ],
    "epochs": [
        _TRIAL,
        *_STAGE,
        Column("epoch", WHOLE, "from 1; 0 is the network after the stage's entry, before training", "epochs"),
        *_FIGURES,
        *_SIZES,
        _PARAMETERS,
        *_COMPACT,
        _REPORT,
        *_COST,
        Column("variant", TEXT, "corrected (as in the paper) or original (as in the released code)"),
        Column("seconds", REAL, "time of the epoch", "s"),
        _STAGE_ID,
    ],
    "layers": [
        _TRIAL,
        *_STAGE,
        Column("layer", TEXT, "name of the module"),
        Column("total", WHOLE, "weights of the dense layer", "weights"),
        Column("kept", WHOLE, "remaining weights", "weights"),
        Column("density", REAL, "kept / total"),
        Column("flops", WHOLE, "FLOPs per image with the remaining weights", "FLOPs"),
        _STAGE_ID,
    ],
    "allocations": [
        _TRIAL,
        Column("step", WHOLE, "round of regrowth, from 0"),
        Column("episode", WHOLE, "number of the try; in single_layer, 0 is the control"),
        Column("layer", TEXT, "name of the module"),
        Column("capacity", WHOLE, "weights that could be regrown; filters with `unit: filter`"),
        Column("count", WHOLE, "weights (filters) that were regrown"),
        Column("reward", REAL, "reward of the episode; null for a rule"),
    ],
    "lineage": [
        _TRIAL,
        Column("cell", TEXT, "the population's cell"),
        Column("generation", WHOLE, "from 0"),
        Column("member", WHOLE, "from 0"),
        Column("parent", WHOLE, "the member of the previous generation that it continues; null in the first"),
        Column("parent_trial", TEXT, "that member's trial"),
        Column("from_epoch", WHOLE, "start of the segment, in epochs of the method's first stage", "epochs"),
        Column("until_epoch", WHOLE, "end of the segment", "epochs"),
        Column("changes", TEXT, "JSON: by value that differs from the parent's, drawn, perturbed or resampled"),
    ],
}

_DENSITIES = [
    Column("analytic_density", REAL, "density that the thresholds would give if weights were Gaussian"),
    Column("density_of_weights", REAL, "density over all weights of convolutions and linear layers"),
    Column("analytic_density_of_weights", REAL, "the analytic density over all weights"),
    Column("density_of_parameters", REAL, "density over all parameters, biases and norms included"),
    Column("analytic_density_of_parameters", REAL, "the analytic density over all parameters"),
]

_SHARES = [
    Column("nominal_ratio", REAL, "p_prune times p_bern, the share that was asked for"),
    Column("unit_sparsity", REAL, "share of the units that are off"),
    Column("weight_sparsity", REAL, "share of the convolutions' weights that are zero"),
    Column("parameter_sparsity", REAL, "share of all parameters that are zero"),
]

_RATES = [
    Column(f"{split}_{rate}_rate{dense}", REAL, f"share of right {split} images that {meaning}{at}")
    for split in ("val", "test")
    for rate, meaning in (
        ("transfer", "the victim gets wrong after the attack"),
        ("white_box", "the attacked network itself gets wrong"),
    )
    for dense, at in (("", ""), ("_dense", "; the attack uses no pruned surrogates"))
]

_CORRELATIONS = [
    Column(f"{figure}_{gain}", REAL, f"{meaning} of the layers' SSIM and {of}")
    for gain, of in (("gain", "accuracy gain"), ("immediate_gain", "accuracy gain before finetuning"))
    for figure, meaning in (
        ("pearson", "Pearson's r"),
        ("pearson_p", "p-value of Pearson's r"),
        ("spearman", "Spearman's rho"),
        ("spearman_p", "p-value of Spearman's rho"),
        ("pairs", "number of pairs"),
    )
]

_SOME = {
    "trials": [
        *_DENSITIES,
        *_SHARES,
        *_RATES,
        Column("plugin_sources", TEXT, "plug-ins of the last attempt, each with the digest of its source"),
        Column("tf32", FLAG, "whether float32 was computed in TF32, on CUDA"),
        Column("deterministic", FLAG, "whether only deterministic algorithms were used, on CUDA"),
    ],
    "epochs": [
        Column("best_epoch", WHOLE, "with report best_val, the best epoch so far", "epochs"),
        Column("lr", REAL, "learning rate of the weights"),
        Column("mask_lr", REAL, "bip: learning rate of the scores"),
        Column("implicit_step", REAL, "bip: step size of the implicit gradient"),
        Column("threshold_lr", REAL, "adaptive_sparsity: learning rate of the thresholds"),
        Column("sparsity_loss", REAL, "adaptive_sparsity: the loss that steers the density"),
        Column("thresholds_outside", WHOLE, "adaptive_sparsity: layers whose threshold has left (0, 5)", "layers"),
        *_DENSITIES,
        *_SHARES,
        Column("units", REAL, "units that compete to be dropped", "units"),
        Column("candidate_units", REAL, "units that are candidates", "units"),
        *_RATES,
        Column("backward_nominal_ratio", REAL, "backward pruning: p_prune times p_bern"),
        Column("backward_candidate_units", REAL, "backward pruning: share of the units that are candidates"),
        Column("backward_candidate_weights", REAL, "backward pruning: share of the weights that are candidates"),
        Column("iteration", WHOLE, "greg1, greg2: finished steps of the growing penalty", "steps"),
        Column("reg", REAL, "greg1, greg2: largest penalty"),
        Column("growing_layers", WHOLE, "greg1, greg2: layers whose penalty still grows", "layers"),
        Column("mag_ratio", REAL, "greg2: smallest ratio of kept to pruned magnitudes over the layers"),
        Column("candidates", WHOLE, "oracle: candidates that were tried"),
        Column("candidate_loss", REAL, "oracle: loss of the best candidate", "nats"),
        Column("filter_sparsity", REAL, "regrowth with `unit: filter`: share of the filters that are pruned"),
        Column("budget", WHOLE, "regrowth: weights (filters) that may return"),
        Column("regrown", WHOLE, "regrowth: weights (filters) that have returned"),
        Column("reward", REAL, "regrowth: reward of the best episode"),
        Column("best_episode", WHOLE, "regrowth: number of the best episode"),
        Column("episodes", WHOLE, "regrowth: episodes so far"),
        Column("seconds_per_episode", REAL, "regrowth: mean time of an episode", "s"),
        Column("control_accuracy", REAL, "single_layer: validation accuracy without regrowth, 0 to 1"),
        *_CORRELATIONS,
    ],
    "layers": [
        Column("threshold", REAL, "adaptive_sparsity: the layer's threshold", "standard deviations"),
        _DENSITIES[0],
    ],
    "allocations": [
        Column("budget", WHOLE, "weights (filters) that may return in the step"),
        Column("ssim", REAL, "structural similarity of the layer's features, dense and sparse; null if undefined"),
        Column("accuracy", REAL, "validation accuracy after the episode's finetuning, 0 to 1"),
        Column("immediate", REAL, "validation accuracy before finetuning, 0 to 1"),
        Column("seconds", REAL, "time of the episode", "s"),
    ],
    "lineage": [],
}

ALWAYS: dict[str, dict[str, Column]] = {table: {one.name: one for one in found} for table, found in _ALWAYS.items()}
"""By table, the columns that are always present, in order."""

SOME: dict[str, dict[str, Column]] = {table: {one.name: one for one in found} for table, found in _SOME.items()}
"""By table, the columns that methods and environments add."""

COLUMNS: dict[str, dict[str, Any]] = {
    table: {name: one.type for name, one in found.items()} for table, found in ALWAYS.items()
}
"""By table, the types of the columns that are always present, in order; others follow by name."""

CONFIG_COLUMNS_FILE = Path(__file__).parent / "config_columns.json"
"""Types, units and meanings of config fields. ``python -m sweeper.describe.config_columns`` writes it."""


def config_column(path: str) -> str:
    """The column of ``trials`` that holds a config field: its dotted path, prefixed by ``config.`` if that is taken.

    ``density`` is the measured density, ``config.density`` the requested one; ``precision`` the one that ``auto`` was
    resolved to.
    """
    return f"config.{path}" if path in COLUMNS["trials"] else path


@functools.cache
def config_columns() -> dict[str, Column]:
    """The columns of the config fields of all methods of this package, by dotted path.

    A path that ends in ``.*`` stands for the entries of a mapping, whatever their keys are.
    """
    types = {name: kind for kind, name in TYPE_NAMES.items()}
    stored: dict[str, dict[str, str]] = json.loads(CONFIG_COLUMNS_FILE.read_bytes())
    return {path: Column(path, types[one["type"]], one["meaning"], one.get("unit", "")) for path, one in stored.items()}
