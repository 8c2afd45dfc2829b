"""The commands ``python -m trials export`` (write a trial's network) and ``compare`` (two trials' masks)."""

from __future__ import annotations

from pathlib import Path

from trials.commands.arguments import command_parser, note_unfinished
from trials.networks.export import FORMS, compare, export
from trials.networks.stored import inputs_of
from trials.storage.place import place


def export_command(arguments: list[str]) -> int:
    """Run ``export TRIAL --to FILE``; returns the exit code."""
    parser = command_parser("export", description="Write a trial's network.")
    parser.add_argument("trial", type=place, help="the trial's folder")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the state dict to write")
    parser.add_argument(
        "--form",
        choices=FORMS,
        default="dense",
        help="zeros in place; weight_orig and weight_mask; physically smaller; physically smaller, as ONNX",
    )
    options = parser.parse_args(arguments)
    code = note_unfinished([options.trial])
    export(options.trial, options.to, options.form)
    inputs = inputs_of(options.trial)
    print(f"{options.to} holds {options.trial.name} ({options.form}){inputs and f'; its inputs are {inputs}'}")
    return code


def compare_command(arguments: list[str]) -> int:
    """Run ``compare TRIAL TRIAL``; returns the exit code."""
    parser = command_parser("compare", description="Compare two trials' masks.")
    parser.add_argument("one", type=place, help="a trial's folder")
    parser.add_argument("other", type=place, help="another trial's folder")
    options = parser.parse_args(arguments)
    code = note_unfinished([options.one, options.other])
    for row in compare(options.one, options.other):
        print(f"{row['layer']}  both {row['both']}  either {row['either']}  IoU {row['iou']:.4f}")
    return code
