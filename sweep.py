#!/usr/bin/env python3
"""Command-line entry point: ``python sweep.py --space NAME``, or ``ray submit cluster.yaml sweep.py --space NAME``.

`ray submit` copies only this file, into the head's home folder. The packages are then imported from ``$SWEEP_HOME``, by
default ``~/sweep``, where cluster.yaml mounts them.
"""

import gc
import os
import sys
from pathlib import Path

gc.disable()  # modules that load leave next to no garbage, and looking for it takes a tenth of the time of --show
_here = Path(__file__).resolve().parent
_submitted = not (_here / "sweeper").is_dir()
if _submitted:
    _here = Path(os.environ.get("SWEEP_HOME", "~/sweep")).expanduser()
sys.path.insert(0, str(_here))

from sweeper.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(submitted=_submitted))
