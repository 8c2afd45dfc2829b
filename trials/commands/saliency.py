"""``python -m trials saliency``: for which classes a trial's weights matter, as tables and figures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from trials.analysis import LayerSaliency, saliency_by_class
from trials.commands.arguments import (
    add_data_dir,
    at_least_1,
    command_parser,
    note_unfinished,
    real_number,
    require_folder,
    writing,
)
from trials.commands.profile import profile_text
from trials.commands.saliency_figures import FIGURES
from trials.errors import UserError, exact
from trials.optional import require
from trials.regrowth.saliency import biased_entries, class_statistics
from trials.storage.rows import Row
from trials.storage.sweep_path import trial_place
from trials.system.user_path import path_argument

SALIENCY_COLUMNS = {
    "classes": ("layer", "class", "images", "kept", "mean", "std"),
    "layers": ("layer", "total", "kept", "mean_range", "unfairness", "biased"),
    "biased": ("layer", "index", "range", "class"),
}
"""Columns of the tables, by the name of their file."""

_COUNTS = ("class", "images", "kept", "total", "biased", "index")


def class_saliency_table(found: Mapping[str, LayerSaliency], images: Sequence[int]) -> list[Row]:
    """Return a row per layer and class: images seen, kept weights, and mean and std of their saliency.

    Mean and std are None for a class of which no image was seen, and in a layer without kept weights.
    """
    rows = []
    for layer, saliency in found.items():
        known = class_statistics(saliency.values) if len(saliency.indices) else None
        for number, count in enumerate(images):
            mean, std = (float(known.mean[number]), float(known.std[number])) if known and count else (None, None)
            kept = len(saliency.indices)
            rows.append({"layer": layer, "class": number, "images": count, "kept": kept, "mean": mean, "std": std})
    return rows


def layer_saliency_table(found: Mapping[str, LayerSaliency], images: Sequence[int], biased: list[Row]) -> list[Row]:
    """Return a row per layer: its weights, the range of their saliency over the classes, how uneven the classes are.

    Columns: ``total``, ``kept``; ``mean_range``, largest minus smallest saliency over the classes, averaged over the
    weights; ``unfairness``, the standard deviation of the class means divided by their mean; ``biased``, the number of
    biased weights. Classes of which no image was seen do not count.
    """
    seen = [number for number, count in enumerate(images) if count]
    counts: dict[str, int] = {}
    for row in biased:
        counts[row["layer"]] = counts.get(row["layer"], 0) + 1
    rows = []
    for layer, saliency in found.items():
        row = {"layer": layer, "total": saliency.total, "kept": len(saliency.indices)}
        known = class_statistics(saliency.values[seen]) if len(saliency.indices) else None
        row |= {"mean_range": float(known.mean_range) if known else None}
        row |= {"unfairness": float(known.unfairness) if known else None}
        rows.append({**row, "biased": counts.get(layer, 0)})
    return rows


def biased_weights_table(found: Mapping[str, LayerSaliency], images: Sequence[int], percentile: float) -> list[Row]:
    """Return a row per biased weight: layer, flat index, range over the classes, and the class it matters most for.

    Biased weights of a layer are those whose range is at or above this percentile of all ranges there, widest first. A
    weight that matters alike for all classes (range 0) is not biased.
    """
    seen = [number for number, count in enumerate(images) if count]
    rows = []
    for layer, saliency in found.items():
        if not len(saliency.indices):
            continue
        order, ranges, classes = biased_entries(saliency.values[seen], percentile)
        weights = saliency.indices[order].tolist()
        for index, spread, number in zip(weights, ranges.tolist(), classes.tolist(), strict=True):
            if spread > 0:
                rows.append({"layer": layer, "index": index, "range": spread, "class": seen[number]})
    return rows


def write_table(path: Path, rows: list[Row], columns: Sequence[str]) -> None:
    """Write rows as Parquet: ``layer`` as text, counts as int64, the rest as float64, also where all are None."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"layer": pa.string(), **dict.fromkeys(_COUNTS, pa.int64())}
    schema = pa.schema([(name, types.get(name, pa.float64())) for name in columns])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def saliency_command(arguments: list[str]) -> int:
    """Run ``saliency TRIAL --to DIR``; returns the exit code."""
    options = _parser().parse_args(arguments)
    if not 0 <= options.percentile <= 100:
        raise UserError(f"--percentile is {exact(options.percentile)}, but must be between 0 and 100")
    if not options.no_figures:
        require("matplotlib", "plots", "saliency without --no-figures")
    require_folder(options.to)
    code = note_unfinished([options.trial])
    found, images = saliency_by_class(
        options.trial,
        split=options.split,
        batches=options.batches,
        batch_size=options.batch_size,
        order=options.order,
        layers=options.layers,
        data_dir=options.data_dir,
    )
    biased = biased_weights_table(found, images, options.percentile)
    tables = {
        "classes": class_saliency_table(found, images),
        "layers": layer_saliency_table(found, images, biased),
        "biased": biased,
    }
    with writing(options.to, "folder"):
        options.to.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            write_table(options.to / f"{name}.parquet", rows, SALIENCY_COLUMNS[name])
        for name, draw in FIGURES.items() if not options.no_figures else ():
            draw(found, images).savefig(options.to / f"{name}.png", dpi=110)
    print(profile_text(tables["layers"]))
    figures = "" if options.no_figures else f", and {', '.join(f'{name}.png' for name in FIGURES)}"
    print(f"{options.to} holds {', '.join(f'{name}.parquet' for name in tables)}{figures}")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "saliency",
        description="Saliency (dL/dw)^2 w^2 of a trial's kept weights for every class, as tables and figures.",
    )
    parser.add_argument("trial", type=trial_place, help="the trial's folder")
    parser.add_argument(
        "--to", type=path_argument("--to"), required=True, metavar="DIR", help="where the tables and figures go"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), default="train", help="default: %(default)s")
    parser.add_argument("--batches", type=at_least_1, default=50, help="read so many at most; default: %(default)s")
    parser.add_argument("--batch-size", type=at_least_1, default=128, help="default: %(default)s")
    parser.add_argument("--order", choices=("second", "first"), default="second",
                        help="second: (dL/dw)^2 w^2; first: |dL/dw|; default: %(default)s")  # fmt: skip
    parser.add_argument("--layers", nargs="+", default=(), metavar="NAME", help="only these; default: all")
    parser.add_argument("--percentile", type=real_number, default=90.0,
                        help="of the ranges over the classes, from which a weight is biased; default: 90")  # fmt: skip
    add_data_dir(parser)
    parser.add_argument("--no-figures", action="store_true", help="write the tables alone; needs no matplotlib")
    return parser
