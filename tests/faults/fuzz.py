"""Repeat cases of ``test_fuzzed_files.py``: ``python -m tests.faults.fuzz SEED [HOW_MANY] [KIND]``.

From seed 3000 on, the tests run real trials (``REAL_FROM``), before them quick stand-ins.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from tests.faults.damage import case_of, files_of, folders_of
from tests.faults.fuzz_outcomes import Fuzz, Whole, Wrong
from tests.faults.fuzzed_sweeps import make_storage
from tests.faults.quick_trials import run_quickly
from tests.trials.conftest import put_few_digits
from trials.running.trial import run as run_trial

REAL_FROM = 3000


def main(seed: int, how_many: int = 1, kind: str = "") -> int:
    """Make the storage, run a case for each seed with every command, and print how each ends; exit code 1 if any does
    so wrongly."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    torch.set_num_threads(1)
    real = seed >= REAL_FROM
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        put_few_digits(patch)
        storage = Path(folder) / "storage"
        run = run_trial if real else run_quickly
        make_storage(storage, run)
        files, folders, bad = files_of(storage), folders_of(storage), 0
        fuzz = Fuzz(Whole.of(storage, Path(folder), run), Path(folder), commands=not real)
        for one in range(seed, seed + how_many):
            case = case_of(one, files, folders, kind)
            began = time.process_time()
            try:
                ended = fuzz.run(case)
            except Wrong as wrong:
                ended, bad = f"WRONG: {wrong}", bad + 1
            print(f"{one}: {case}: {ended} ({time.process_time() - began:.2f} s)", flush=True)
    print(f"{bad} of {how_many} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *map(int, sys.argv[2:3]), *sys.argv[3:4]))
