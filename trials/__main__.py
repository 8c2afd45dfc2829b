"""Run one trial in this process: ``python -m trials CONFIG.yaml``. No Ray; for debugging, profiling, a lone GPU."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trials.commands.evaluate_pretrained import evaluate_command
from trials.commands.profile import profile, text
from trials.data import check
from trials.errors import Superseded, UserError
from trials.methods.parsing import parse
from trials.networks.stored import FORMS, compare, export
from trials.running.trial import Surroundings, run
from trials.storage import files
from trials.storage.place import place
from trials.storage.trial_folder import Row
from trials.training.net import resolve_device
from trials.yaml_text import override, read_yaml


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 1 the trial failed, 2 wrong input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = COMMANDS.get(arguments[0]) if arguments else None
    try:
        return command(arguments[1:]) if command else run_config(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def export_command(arguments: list[str]) -> int:
    """``export TRIAL --to FILE``"""
    parser = argparse.ArgumentParser(prog="python -m trials export", description="Write a trial's network.")
    parser.add_argument("trial", type=place, help="the trial's folder")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the state dict to write")
    parser.add_argument(
        "--form",
        choices=FORMS,
        default="dense",
        help="zeros in place; weight_orig and weight_mask; physically smaller; physically smaller, as ONNX",
    )
    options = parser.parse_args(arguments)
    export(options.trial, options.to, options.form)
    print(f"{options.to} holds {options.trial.name} ({options.form})")
    return 0


def compare_command(arguments: list[str]) -> int:
    """``compare TRIAL TRIAL``"""
    parser = argparse.ArgumentParser(prog="python -m trials compare", description="How alike two trials' masks are.")
    parser.add_argument("one", type=place, help="a trial's folder")
    parser.add_argument("other", type=place, help="another's")
    options = parser.parse_args(arguments)
    for row in compare(options.one, options.other):
        print(f"{row['layer']}  both {row['both']}  either {row['either']}  IoU {row['iou']:.4f}")
    return 0


def profile_command(arguments: list[str]) -> int:
    """``profile TRIAL [TRIAL...]``"""
    parser = argparse.ArgumentParser(
        prog="python -m trials profile", description="MACs, FLOPs, parameters and measured latency of trials' networks."
    )
    parser.add_argument("trials", type=place, nargs="+", metavar="TRIAL", help="a trial's folder")
    parser.add_argument("--device", default="auto", help="where latency is measured; default: auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the CPU")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    rows = [row for trial in options.trials for row in profile(trial, device)]
    print(json.dumps(rows, indent=1) if options.json else text(rows))
    return 0


COMMANDS = {
    "export": export_command,
    "compare": compare_command,
    "profile": profile_command,
    "evaluate_pretrained": evaluate_command,
}


def run_config(arguments: list[str]) -> int:
    """``CONFIG.yaml``"""
    epilog = f"or: python -m trials {'|'.join(COMMANDS)} --help"
    parser = argparse.ArgumentParser(prog="python -m trials", description=__doc__, epilog=epilog)
    parser.add_argument("config", type=Path, help="a YAML file with the fields of one trial")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", dest="overrides", help="change a field")
    parser.add_argument("--storage", default="results", help="a path, or s3://BUCKET/PREFIX; default: results")
    parser.add_argument("--name", default="single", help="the sweep that the trial's folder lies in; default: single")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the CPU")
    options = parser.parse_args(arguments)
    config = parse(override(read_yaml(options.config), options.overrides))
    check(config.dataset, config.data_dir)
    storage = place(options.storage)
    folder = storage / options.name / "trials" / config.id
    try:
        files.require_writable(folder)
    except OSError as error:
        raise UserError(f"storage is {options.storage!r}, but must be writable ({error}): give --storage") from None
    content = {"schema": 1, "id": config.id, "config": config.model_dump(mode="json"), "samples": []}
    files.write(folder / "config.json", json.dumps(content, indent=1).encode())
    try:
        with _stop_requests() as asked:
            state = run(config, folder, Surroundings(storage / "stages", _print, lambda: bool(asked), options.threads))
    except Superseded as error:
        print(error, file=sys.stderr)
        return 1
    if state.status == "preempted":
        print(f"{config.id} is preempted: the same command again goes on", file=sys.stderr)
        return 130
    if state.error:
        print(f"{config.id} failed: {state.error['type']}: {state.error['message']}", file=sys.stderr)
        return 1
    if state.result and state.result["empty_layers"]:
        print(f"warning: {state.result['empty_layers']} layers have no weights left", file=sys.stderr)
    print(f"{config.id} is {state.status}: {json.dumps(state.result)}")
    return 0


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """The signals that have asked for an end: the trial commits what it has first."""
    asked: list[int] = []
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in watched}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(row: Row) -> None:
    shown = ("stage", "level", "epoch", "train_loss", "val_accuracy", "test_accuracy", "density", "seconds")
    print("  ".join(f"{key} {_short(row[key])}" for key in shown if row.get(key) is not None), flush=True)


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
