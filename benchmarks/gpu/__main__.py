"""The GPU check: ``python -m benchmarks gpu [--device cuda|cpu] [--seconds 350] [--out DIR] [--data DIR] [--only …]``.

Writes DIR/gpu_check.json and DIR/gpu_check.md after every figure, and prints the latter at the end. Sections are
independent (benchmarks/gpu/plan.py lists them, the most important first): an error is recorded and the next section
runs, in a new process if the device or the process has died. A section with too little time left is recorded as
skipped. Required packages: torch, numpy, pyarrow, pillow, scikit-learn and pydantic. It needs no network and
no Ray, and changes no setting of the GPU. On a CPU it runs in a tiny size, to test the check itself.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.plan import SECTIONS, Section, chosen, matching
from benchmarks.gpu.results import PAGE, read_results
from benchmarks.gpu.supervise import LOST, supervise


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; ``sections`` are resolved from their patterns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description="What the project does on a GPU.")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that the check itself works")
    parser.add_argument("--seconds", type=float, default=350.0, help="how long all sections together may take")
    parser.add_argument("--out", type=Path, default=Path(), help=f"folder of gpu_check.json and {PAGE}")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 in Parquet files; without, epochs are of noise")
    parser.add_argument("--only", default="*", help="names of sections, patterns too: machine,steps_*")
    parser.add_argument("--trials", default="*", help="names of trials of the section smoke, patterns too: dense*,bip*")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # run the sections in this process
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        given.sections = chosen(given.only)
        if given.data is not None and not any(given.data.glob("*.parquet")) and not any(given.data.glob("data/*")):
            raise ValueError(f"--data is '{given.data}', but must be a folder of Parquet files")
        if given.here or given.worker:
            _resolve(given)
    except (ValueError, RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        parser.error(str(error).partition("\n")[0])
    return given


def _resolve(given: argparse.Namespace) -> None:
    """Resolve the device and the names of trials, for which torch is needed."""
    import torch

    given.device = torch.empty(0, device=given.device).device
    if given.worker:
        return
    from benchmarks.gpu.sections.smoke import names

    given.names = matching(names(given.device.type == "cuda"), given.trials)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check, some sections in this process, or a worker of a section; return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that workers and MPS are ended too
    given = options(arguments)
    if given.here or given.worker:
        return _here(given)
    if given.device.startswith("cpu"):  # which measures nothing that processes could disturb
        given.sections = tuple(replace(section, process="all") for section in given.sections)
    own = [*(["--data", str(given.data.absolute())] if given.data else []), "--device", given.device]
    own += ["--trials", given.trials, "--out", str(given.out.absolute())]

    def command(sections: Sequence[Section], seconds: float) -> list[str]:
        names = ",".join(section.name for section in sections)
        base = [sys.executable, "-m", "benchmarks.gpu", "--here", "--only", names]
        return [*base, "--seconds", str(seconds), *own]

    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        code = supervise(given.sections, command, given.out, given.seconds)
    if code == 0:
        print((given.out / PAGE).read_text(), end="")
    return code


def _here(given: argparse.Namespace) -> int:
    """Run some sections, or a worker of one, in this process, with torch's switches as trials set them."""
    import torch

    from benchmarks.gpu.product import arithmetic

    torch.set_num_threads(1)
    with arithmetic(given.device):
        return _work(given) if given.worker else _run(given)


def _work(given: argparse.Namespace) -> int:
    from benchmarks.gpu.sections.processes import work

    work(given.worker, given.device)
    return 0


def _run(given: argparse.Namespace) -> int:
    from benchmarks.gpu.check import Check
    from benchmarks.gpu.measuring import Card

    before = read_results(given.out)
    check = Check(Card(given.device), given.seconds, given.out, given.names, given.data, before)
    for section in given.sections:
        check.section(section.name, section.needs_s if check.card.is_cuda else 1.0, section.needs_cuda, section.load())
        if check.dead:
            return LOST
    return 0


__all__ = ["SECTIONS", "main", "options"]

if __name__ == "__main__":
    sys.exit(main())
