"""``python -m trials CONFIG.yaml``: run one trial in this process, without Ray."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from trials.called import trial_command
from trials.commands.arguments import add_threads, command_parser
from trials.errors import Superseded
from trials.preparing import prepare
from trials.running.stop_requests import stop_requests
from trials.running.trial import TrialHost, run
from trials.single import config_of, require_patience, waiting
from trials.storage.outages import STORAGE_PATIENCE_S
from trials.storage.rows import WARNINGS, Row
from trials.storage.sweep_path import STAGES, sweep_path
from trials.version import __version__


def run_config(arguments: list[str], others: Collection[str] = ()) -> int:
    """Run ``CONFIG.yaml [--set a.b=c ...]``; returns the exit code: 0 done, 1 failed, 130 preempted.

    Raises:
        StorageError: the storage has erred for too long.

    ``others`` are the names of the other commands, for the help text.
    """
    epilog = f"or: {trial_command()} {'|'.join(others)} --help"
    parser = command_parser("", description=__doc__, epilog=epilog)
    parser.add_argument("config", type=Path, help="a YAML file with the fields of one trial")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", dest="overrides", help="change a field")
    parser.add_argument("--storage", default="results", help="a path, or s3://BUCKET/PREFIX; default: results")
    parser.add_argument("--name", default="single", help="the sweep folder to put the trial in; default: single")
    parser.add_argument("--storage-patience-s", type=float, default=STORAGE_PATIENCE_S, metavar="S",
                        help="seconds to wait for a storage that errs, then exit with 74; default: 600")  # fmt: skip
    add_threads(parser)
    parser.add_argument("--version", action="version", version=f"sparsity-sweeper {__version__}")
    options = parser.parse_args(arguments)
    sweep = sweep_path(options.storage, options.name)
    config = config_of(options.config, options.overrides, options.plugins)
    require_patience(options.storage_patience_s)
    with waiting(_note, options.storage_patience_s):
        folder = prepare(config, sweep, _note)
    waits: dict[str, Any] = {
        "storage": lambda text, errs: _note(text),
        "storage_patience_s": options.storage_patience_s,
    }
    try:
        with stop_requests() as asked:
            host = TrialHost(sweep.parent / STAGES, _print, lambda: bool(asked), options.threads, **waits)
            state = run(config, folder, host)
    except Superseded as error:
        print(error, file=sys.stderr)
        return 1
    if state.status == "preempted":
        print(f"{config.id} is preempted: run the same command again to continue", file=sys.stderr)
        return 130
    if state.error:
        print(f"{config.id} failed: {state.error['type']}: {state.error['message']}", file=sys.stderr)
        return 1
    for code in state.result.get("warnings") or ():
        print(f"warning: {code}: {WARNINGS[code]}", file=sys.stderr)
    print(f"{config.id} is {state.status}: {json.dumps(state.result)}")
    return 0


def _note(line: str) -> None:
    print(f"note: {line}", file=sys.stderr, flush=True)


def _print(row: Row) -> None:
    shown = ("stage", "level", "epoch", "train_loss", "val_accuracy", "test_accuracy", "density", "seconds")
    print("  ".join(f"{key} {_short(row[key])}" for key in shown if row.get(key) is not None), flush=True)


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
