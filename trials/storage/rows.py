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
