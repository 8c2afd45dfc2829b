"""Run one trial in this process without Ray (``python -m trials CONFIG.yaml``), for debugging, profiling or one GPU."""

from __future__ import annotations

import os
import sys

from trials.commands.convert_pickle import convert_command
from trials.commands.evaluate import evaluate_trials_command, recovered_command
from trials.commands.evaluate_pretrained import evaluate_command
from trials.commands.export import compare_command, export_command
from trials.commands.inspect import inspect_command
from trials.commands.profile import profile_command
from trials.commands.run import run_config
from trials.commands.saliency import saliency_command
from trials.errors import StorageError, UserError
from trials.storage.outages import errs, is_by_hand, line_of
from trials.system.streams import as_command, last_to_the_end


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return the exit code: 0 done, 1 a trial failed or has not ended, 2 wrong input, 74 the
    storage errs, 130 stopped.
    """
    if arguments is None:
        return as_command(lambda: main(sys.argv[1:]))
    command = COMMANDS.get(arguments[0]) if arguments else None
    try:
        if command:
            return command(arguments[1:])
        last_to_the_end()
        return run_config(arguments, COMMANDS)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return STORAGE_ERRS
    except KeyboardInterrupt:
        print("stopped" if command else "stopped: run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of standard output may have gone
        raise
    except OSError as error:
        if not errs(error):
            raise
        by_hand = is_by_hand(error)
        print(f"error: {line_of(error, by_hand=by_hand)}", file=sys.stderr)
        return 2 if by_hand else STORAGE_ERRS


STORAGE_ERRS = os.EX_IOERR
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
