"""Run one trial in this process without Ray (``python -m trials CONFIG.yaml``), for debugging, profiling or one GPU."""

from __future__ import annotations

import os
import sys

from trials.called import reader_has_gone
from trials.commands.convert_pickle import convert_command
from trials.commands.evaluate import evaluate_trials_command, recovered_command
from trials.commands.evaluate_pretrained import evaluate_command
from trials.commands.export import compare_command, export_command
from trials.commands.inspect import inspect_command
from trials.commands.profile import profile_command
from trials.commands.run import run_config
from trials.commands.saliency import saliency_command
from trials.errors import StorageError, UserError


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return the exit code: 0 done, 1 a trial failed, 2 wrong input, 74 the storage errs."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = COMMANDS.get(arguments[0]) if arguments else None
    try:
        return command(arguments[1:]) if command else run_config(arguments, COMMANDS)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return STORAGE
    except BrokenPipeError:
        if not reader_has_gone():
            raise
        return 1


STORAGE = os.EX_IOERR
"""Exit code, 74, of a command that has waited in vain for its storage."""

COMMANDS = {
    "export": export_command,
    "compare": compare_command,
    "profile": profile_command,
    "inspect": inspect_command,
    "evaluate": evaluate_trials_command,
    "recovered": recovered_command,
    "saliency": saliency_command,
    "evaluate_pretrained": evaluate_command,
    "convert_pickle": convert_command,
}


if __name__ == "__main__":
    sys.exit(main())
