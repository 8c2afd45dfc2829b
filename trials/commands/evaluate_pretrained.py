"""``python -m trials evaluate_pretrained``: prune torchvision's networks and write a CSV table of their accuracies."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from trials.called import trial_command
from trials.commands.arguments import at_least_1, real_number, writing
from trials.commands.pretrained_accuracy import (
    PATTERN_NAMES,
    PRUNE_TYPES,
    Asked,
    Ratio,
    check_ratio,
    evaluate_networks,
    read_reference,
)
from trials.data import to_loader
from trials.data.sets.imagenet import load_validation
from trials.errors import UserError
from trials.networks.named_files import place_named
from trials.networks.torchvision_weights import pretrained
from trials.storage import files
from trials.storage.place import Place
from trials.system.user_path import path_argument
from trials.training.arithmetic import arithmetic
from trials.training.device import resolve_device

REFERENCE = Path(str(resources.files("trials"))) / "reference" / "global_pruning_imagenet.csv"
PRETRAINED_COLUMNS = (
    *("table", "network", "prune_type", "pattern", "p_prune", "p_bern"),
    *("nominal_ratio", "unit_sparsity", "weight_sparsity", "parameter_sparsity"),
    *("backward_candidate_units", "backward_candidate_weights"),
    *("acc1_percent", "acc5_percent", "loss", "images"),
    *("published_acc1_percent", "published_acc5_percent", "published_loss"),
)


def evaluate_command(arguments: list[str]) -> int:
    """Run ``evaluate_pretrained --data-dir FOLDER``; returns the exit code."""
    options = _parser().parse_args(arguments)
    asked = _asked(options)
    given = dict(_weights(text) for text in options.weights)
    names = list(dict.fromkeys(row.network for row in asked))
    if unused := sorted(given.keys() - set(names)):
        raise UserError(f"weights names {unused[0]!r}, but must name a network of the table: {', '.join(names)}")
    device = resolve_device(options.device)
    folder = options.data_dir
    if not _is_dir(folder):
        raise UserError(f"data-dir is '{folder}', but must be a folder with the validation images of ImageNet")
    data = load_validation(folder, crop_size=options.crop_size, resize=options.resize)
    for note in data.notes:
        print(f"note: {note}", file=sys.stderr)
    models = {n: pretrained(n, num_classes=data.num_classes, weights=given.get(n)).to(device) for n in names}
    loader = to_loader(data, device=device, val_fraction=0, split_seed=0)
    with arithmetic(device):
        rows = list(evaluate_networks(models, asked, loader.eval_batches("test", options.batch_size), options.seed))
    text = _csv(rows)
    if options.to is None:
        sys.stdout.write(text)
    else:
        with writing(options.to):
            files.write(options.to, text.encode())
        print(f"{options.to} holds {len(rows)} rows over {rows[0]['images']} images")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{trial_command()} evaluate_pretrained",
        description="Prune torchvision's networks as DWP's unofficial code does and test them on ImageNet. Without "
        "--network, every row of the published tables is reproduced.",
    )
    parser.add_argument(
        "--data-dir",
        type=path_argument("--data-dir"),
        required=True,
        help="the validation images: folders or Parquet files",
    )
    parser.add_argument(
        "--reference", type=path_argument("--reference"), default=REFERENCE, help="the table to reproduce"
    )
    parser.add_argument(
        "--network", action="append", default=[], help="a torchvision network to test instead; repeatable"
    )
    parser.add_argument(
        "--prune-type",
        "--prune_type",
        choices=PRUNE_TYPES,
        default="global",
        help="with --network; gradient prunes backward passes only, so the accuracies are the unpruned network's",
    )
    parser.add_argument(
        "--p-prune", "--p_prune", type=_numbers, help="with --network: 0,0.1,...; default: 0,0.1,0.2,0.3"
    )
    parser.add_argument("--p-bern", "--p_bern", type=_numbers, help="with --network: 1,0.5,...; default: 1")
    parser.add_argument(
        "--pattern",
        choices=PATTERN_NAMES,
        help="with --network; default, as released: kernel, and weight for --prune-type gradient",
    )
    parser.add_argument(
        "--weights", action="append", default=[], metavar="NETWORK=FILE", help="weights to use instead of torchvision's"
    )
    parser.add_argument("--batch-size", type=at_least_1, default=256)
    parser.add_argument("--resize", type=at_least_1, default=256, help="smaller side before the crop")
    parser.add_argument("--crop-size", type=at_least_1, default=224)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choice by p_bern")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--to", type=path_argument("--to"), metavar="FILE.csv", help="default: printed")
    return parser


def _asked(options: argparse.Namespace) -> list[Asked]:
    if not options.network:
        if options.prune_type != "global":
            raise UserError(
                f"prune-type is {options.prune_type!r}, but the published tables are of global pruning: name networks "
                "(--network), of which it is to be shown"
            )
        for name in ("p_prune", "p_bern", "pattern"):
            if getattr(options, name) is not None:
                raise UserError(
                    f"{name.replace('_', '-')} is given, but the published tables have their own: name networks "
                    "(--network) to prune them so"
                )
        return read_reference(options.reference)
    if options.reference != REFERENCE:
        raise UserError("reference is given, but --network names networks to test instead: leave one of them out")
    pattern = options.pattern or ("kernel" if options.prune_type == "global" else "weight")
    pairs = product(options.p_prune or [0.0, 0.1, 0.2, 0.3], options.p_bern or [1.0])
    ratios = [check_ratio(Ratio(p, b, pattern, options.prune_type)) for p, b in pairs]
    return [Asked(network, ratio, {}) for network, ratio in product(options.network, ratios)]


def _is_dir(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError as error:
        raise UserError(f"data-dir is '{folder}', but cannot be read ({error}): name another folder") from None


def _numbers(text: str) -> list[float]:
    return [real_number(part) for part in text.split(",")]


def _weights(text: str) -> tuple[str, Place]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise UserError(f"weights is {text!r}, but must be NETWORK=FILE")
    return name, place_named(f"weights of {name}", path)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, PRETRAINED_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return stream.getvalue()
