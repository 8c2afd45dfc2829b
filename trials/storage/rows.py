"""Names that describe a trial's rows: its tables, the columns of its result, and the final statuses."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


Rows = dict[str, list[Row]]


TABLES = ("epochs", "layers", "allocations")


RESULT = (
    *(f"{split}_{figure}" for split in ("train", "val", "test") for figure in ("loss", "accuracy")),
    *("density", "sparsity", "kept", "prunable", "empty_layers", "macs", "flops", "parameters"),
)
"""Columns of a trial's last row that form its result. An objective may use these and ``dense_flops``."""


COMPACT = ("compact_macs", "compact_flops", "compact_parameters")
"""Columns of the network that ``export --form compact`` writes: in the result, and in a stage's last row."""


TAKEN_COLUMNS: dict[str, frozenset[str]] = {
    "trials": frozenset({
        *("trial", "cell", "number", "samples", "confirms", "dropped", "status", "attempts", "failures"),
        *("error_type", "error_message", "warnings", "compression", "dense_flops", "speedup", "dense_parameters"),
        *COMPACT,
        *("compact_speedup", "latency_ms_1", "latency_ms_128", "epochs", "pruned_at", "report"),
        *("gradient_evaluations", "cost", "cost_flops", "dense_cost", "data", "data_source", "seconds"),
        *("host", "device", "started", "ended", "threads", "torch", "cuda", "precision", "memory_format"),
        *("commit", "schema", "environments", "plugin_sources", "tf32", "deterministic"),
    }),
    "epochs": frozenset({
        *("trial", "stage", "level", "epoch", "warnings", *COMPACT, "report", "best_epoch"),
        *("gradient_evaluations", "cost", "cost_flops", "variant", "seconds", "stage_id"),
    }),
    "layers": frozenset({"trial", "stage", "level", "layer", "total", "stage_id"}),
    "allocations": frozenset({"trial"}),
}  # fmt: skip
"""By table, the columns that the trial and the sweep write, so that a method cannot. Measured figures, such as
``density`` of ``RESULT``, are not among them."""

BESIDE_ENDS = (":number", ":text", ":json")
"""Ends of the names of columns that hold another column's values of other types (docs/tables.md)."""

OF_CONFIG = "config."
"""Begins the columns of ``trials`` that hold a config field whose name another column has."""


WARNINGS = {
    "density_missed": "the density differs from the one asked for by more than rounding to whole units explains",
    "layers_empty": "a layer has no weights left",
    "chance_level": "the validation accuracy is no better than guessing",
    "nothing_pruned": "the method was asked to prune, but removed nothing",
    "one_class": "the training images are all of one class",
    "class_missing_in_val": "a class of the training images has no image in the validation split",
    "class_missing_in_train": "a class of the validation or test images has no image in the training split",
}
"""Codes of the column ``warnings``, each with what it says of a trial. trials/running/degenerate.py has the rules."""

OF_DATA = frozenset({"one_class", "class_missing_in_val", "class_missing_in_train"})
"""Codes that describe the data, and so all networks trained on them. They stand in results, not in rows."""


BATCH_SIZES = (1, 128)


LATENCY = tuple(f"latency_ms_{size}" for size in BATCH_SIZES)
"""Result columns of trials that measure latency (see trials/training/latency.py), in milliseconds per batch size."""


FINISHED = frozenset({"complete", "pruned"})
