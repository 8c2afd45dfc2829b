"""CPU time of the checks before anything starts: 18 methods on 3 models, and a dry run of 10,000 cells.

Goals: every method on resnet18, vgg16 and wrn_28_10 for CIFAR-10 < 20 s, the dry run < 10 s. The models are built and
traced on the meta device once; the second time is that of the checks alone.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.overhead import trivial
from sweeper.before_run import check_preconditions, look_here
from sweeper.cli import main as command
from trials.data import published_header
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.preconditions import require_runnable
from trials.methods.registry import METHODS

MODELS = ("resnet18", "vgg16", "wrn_28_10")
REQUIRED = {
    **{method: {"density": 0.2} for method in ("one_shot", "bip", "hydra")},
    **{method: {"stage_pr": 0.5} for method in ("l1", "greg1", "greg2", "oracle")},
    "adaptive_sparsity": {"starget": 0.8},
}


def check_all() -> int:
    """Parse and check every method on every model; return the number of refused pairs."""
    header, refused = published_header("cifar10"), 0
    assert header is not None
    for model in MODELS:
        for method in METHODS:
            try:
                fields = {"method": method, "model": model, "dataset": "cifar10", **REQUIRED.get(method, {})}
                require_runnable(parse(fields), header)
            except UserError:
                refused += 1
    return refused


def seconds(function: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def main(cells: int = 10_000) -> None:
    print(f"{len(METHODS)} methods on {len(MODELS)} models, first: {seconds(check_all):.1f} s CPU; goal < 20 s")
    print(f"the same again: {seconds(check_all):.2f} s CPU; {check_all()} pairs are refused")
    with tempfile.TemporaryDirectory() as temporary:
        space = trivial(cells, Path(temporary))
        arguments = ["--space", str(Path(temporary) / f"{space.name}.yaml"), "--storage", temporary, "--dry-run"]
        with contextlib.redirect_stdout(io.StringIO()):
            spent = seconds(lambda: command(arguments))
        print(f"dry run of {cells} cells: {spent:.1f} s CPU; goal < 10 s")
        headers = look_here(space).headers
        print(f"preconditions of {cells} cells: {seconds(lambda: check_preconditions(space, headers)):.1f} s CPU")
