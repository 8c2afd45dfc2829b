"""The commands ``python -m trials export`` (write a trial's network) and ``compare`` (two trials' masks)."""

from __future__ import annotations

import sys
from pathlib import Path

from trials import single
from trials.commands.arguments import add_data_dir, command_parser, note_unfinished
from trials.errors import UserError
from trials.hub.export import export_folder
from trials.networks.export import FORMS, compare, export
from trials.networks.stored import inputs_of
from trials.storage.place import Place
from trials.storage.sweep_path import trial_place
from trials.system.user_path import path_argument

HUB = "hub"
"""The form that is a folder for the Hugging Face Hub (docs/hub.md)."""


def export_command(arguments: list[str]) -> int:
    """Run ``export TRIAL --to FILE``; returns the exit code."""
    parser = command_parser("export", description="Write a trial's network.")
    parser.add_argument("trial", type=trial_place, help="the trial's folder")
    parser.add_argument(
        "--to", type=path_argument("--to"), required=True, metavar="FILE", help="the file, or with hub the folder"
    )
    parser.add_argument(
        "--form",
        choices=(*FORMS, HUB),
        default="dense",
        help="zeros in place; weight_orig and weight_mask; physically smaller; physically smaller, as ONNX; a folder "
        "for the Hugging Face Hub, with a model card",
    )
    add_data_dir(parser)
    options = parser.parse_args(arguments)
    code = note_unfinished([options.trial])
    if options.form == HUB:
        _export_folder(options.trial, options.to, options.data_dir)
        return code
    if options.data_dir is not None:
        raise UserError(f"--data-dir is {options.data_dir!r}, but only --form hub reads data: leave it out")
    export(options.trial, options.to, options.form)
    inputs = inputs_of(options.trial)
    print(f"{options.to} holds {options.trial.name} ({options.form}){inputs and f'; its inputs are {inputs}'}")
    return code


def _export_folder(trial: Place, to: Path, data_dir: str | None) -> None:
    data = export_folder(single.load(trial), to, data_dir)
    if data.why_not:
        lacks = "the numbers of images" if data.mean else "the numbers of images and the inputs' normalisation"
        print(f"note: {lacks} and classes' names are left out, without the data: {data.why_not}", file=sys.stderr)
    print(f"{to} holds {trial.name} ({HUB}); choose its license in README.md, then upload it (docs/hub.md)")


def compare_command(arguments: list[str]) -> int:
    """Run ``compare TRIAL TRIAL``; returns the exit code."""
    parser = command_parser("compare", description="Compare two trials' masks.")
    parser.add_argument("one", type=trial_place, help="a trial's folder")
    parser.add_argument("other", type=trial_place, help="another trial's folder")
    options = parser.parse_args(arguments)
    code = note_unfinished([options.one, options.other])
    for row in compare(options.one, options.other):
        print(f"{row['layer']}  both {row['both']}  either {row['either']}  IoU {row['iou']:.4f}")
    return code
