"""``python -m trials CONFIG.yaml``: run one trial in this process, without Ray."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from trials.called import sweep_command, trial_command
from trials.commands.arguments import add_threads, command_parser
from trials.config.stored_content import ABSENT, differing_fields
from trials.config.trial_config import TrialConfig
from trials.data import require_data
from trials.dotted_paths import override
from trials.errors import Superseded, UserError, shown
from trials.methods.parsing import parse
from trials.methods.preconditions import require_runnable
from trials.networks.named_files import resolved
from trials.plugins.importing import admit_listed
from trials.running.shared_trials import refuse_other_content, shared_by
from trials.running.trial import TrialHost, run
from trials.storage import files
from trials.storage.data_used import DataUsed, data_used_in, refuse_other_data
from trials.storage.place import Place
from trials.storage.rows import WARNINGS, Row
from trials.storage.sweep_path import STAGES, sweep_path
from trials.training.device import require_known, resolve_device
from trials.version import __version__
from trials.yaml_text import read_yaml


def run_config(arguments: list[str], others: Collection[str] = ()) -> int:
    """Run ``CONFIG.yaml [--set a.b=c ...]``; returns the exit code: 0 done, 1 failed, 130 preempted.

    ``others`` are the names of the other commands, for the help text.
    """
    epilog = f"or: {trial_command()} {'|'.join(others)} --help"
    parser = command_parser("", description=__doc__, epilog=epilog)
    parser.add_argument("config", type=Path, help="a YAML file with the fields of one trial")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", dest="overrides", help="change a field")
    parser.add_argument("--storage", default="results", help="a path, or s3://BUCKET/PREFIX; default: results")
    parser.add_argument("--name", default="single", help="the sweep folder to put the trial in; default: single")
    add_threads(parser)
    parser.add_argument("--version", action="version", version=f"sparsity-sweeper {__version__}")
    options = parser.parse_args(arguments)
    sweep = sweep_path(options.storage, options.name)
    _refuse_sweep(sweep)
    content = override(read_yaml(options.config), options.overrides)
    if isinstance(content, dict):
        content = admit_listed(content, options.config.parent, options.plugins)
    config = resolved(parse(content))
    check_before(config, sweep)
    folder = sweep / "trials" / config.id
    try:
        files.require_writable(folder)
    except OSError as error:
        raise UserError(f"storage is {options.storage!r}, but must be writable ({error}): give --storage") from None
    _write_config(folder, config)
    try:
        with _stop_requests() as asked:
            state = run(config, folder, TrialHost(sweep.parent / STAGES, _print, lambda: bool(asked), options.threads))
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


def check_before(config: TrialConfig, sweep: Place) -> None:
    """Check that the trial can run here, on the data that the trials in the folder ``sweep`` have used.

    Raises:
        UserError: it cannot, or the data are absent or others, or a shared trial that it needs has another content.
    """
    resolve_device(config.device)
    require_known(config.device)
    header = require_data(*config.data_key)
    for note in header.notes:
        print(f"note: {note}", file=sys.stderr)
    require_runnable(config, header)
    now = [DataUsed.of(config.model_dump(mode="json"), str(header.fingerprint))]
    way_out = "set data_dir to the data that it used, or give another --name"
    refuse_other_data(sweep.name, data_used_in(sweep / "trials"), now, way_out)
    refuse_other_content(sweep.parent / STAGES, shared_by(config).values(), str(header.fingerprint))


def _refuse_sweep(folder: Place) -> None:
    """Refuse the folder of a sweep: its trials are what its searches asked for, and its driver writes their configs.

    Raises:
        UserError: it is one.
    """
    if (folder / "sweep.yaml").exists():
        raise UserError(
            f"--name is {folder.name!r}, but that is a sweep of {folder.parent}, which {sweep_command()} runs: "
            "give another --name"
        )


def _write_config(folder: Place, config: TrialConfig) -> None:
    """Write the trial's ``config.json``.

    Raises:
        UserError: there is one of this name that a sweep asked for, or with another content, since a default has
            changed.
    """
    try:
        content = json.loads((folder / "config.json").read_bytes())
        differing, samples = differing_fields(content["config"], config), content.get("samples")
        found = next((field for field in differing if field[0] not in config.file_hashes), None)  # its hash is named
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found, samples = None, None
    if samples:
        raise UserError(
            f"{folder} holds a trial that a sweep asked for, which {sweep_command()} runs: give another --name"
        )
    if found is not None:
        path, before, now = found
        raise UserError(
            f"{path} is {shown(now)}, but {config.id} was made with {'none' if before is ABSENT else shown(before)}: "
            f"the default has changed, or {folder / 'config.json'} was changed by hand: give another --name"
        )
    content = {"schema": 1, "id": config.id, "config": config.model_dump(mode="json"), "samples": []}
    files.write(folder / "config.json", json.dumps({**content, "revisions": config.revisions}, indent=1).encode())


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP in the yielded list instead of ending, so that the trial commits first."""
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
