"""Section ``smoke``: one small trial per method, then BiP in other precisions and formats, compiled, and resumed."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import Check, Result, short
from benchmarks.gpu.product import TrialHost, parse, progress, run
from tests.trials.small_trials import CONFIGS

METHODS = (
    "dense", "one_shot", "imp-weights", "bip", "bip-channel", "bip-original", "bip-backward", "hydra", "l1", "greg1",
    "greg2-channel", "oracle", "global_prune", "layer_prune", "gradient_prune", "dwp", "adaptive_sparsity",
    "prune_iterative", "regrow", "regrow_iterative", "single_layer",
)  # fmt: skip
"""Names of configs in tests/trials/small_trials.py."""

RANDOM = {"score_init": "random"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense again": ("dense", {}),
    "bip float32": ("bip", {"precision": "float32"}),
    "bip float64": ("bip", {"precision": "float64"}),
    "bip contiguous": ("bip", {"memory_format": "contiguous"}),
    "bip channels_last": ("bip", {"memory_format": "channels_last"}),
    "bip random scores contiguous": ("bip", {**RANDOM, "memory_format": "contiguous"}),
    "bip random scores channels_last": ("bip", {**RANDOM, "memory_format": "channels_last"}),
    "bip compiled": ("bip", {"compile": True}),
}
CAPTURED = ("dense", "one_shot", "imp-weights", "bip", "bip-channel", "hydra", "adaptive_sparsity", "prune_iterative")
"""Trials whose stages are captured on a GPU; they run a second time without capture."""
VARIANTS |= {f"{name} eager": (name, {"capture": False}) for name in CAPTURED}
NEEDS_S = {"bip compiled": 45.0}
ONLY_ON_CUDA = ("bip compiled",)  # on a CPU, inductor compiles C++ for minutes
WITH_SSIM = ("regrow", "regrow_iterative", "single_layer")
RESUME = "resume"

NAMES = (*METHODS, *VARIANTS, RESUME)


def smoke(check: Check, result: Result) -> None:
    """Run the chosen trials, and compare those that must end alike."""
    wanted = check.trials or NAMES
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=fast) as folder:
        runner = Runner(check, Path(folder))
        for name in (name for name in (*METHODS, *VARIANTS) if name in wanted):
            base, fields = VARIANTS.get(name, (name, {}))
            missing = _missing(name, check)
            if missing:
                result[name] = {"skipped": f"needs {missing}"}
            elif check.has(NEEDS_S.get(name, 15.0), result, name):
                result[name] = runner.run(name, {**CONFIGS[base], **fields})
        if RESUME in wanted and check.has(15.0, result, RESUME):
            result[RESUME] = resumed(runner, result.get("bip"))
    if {"dense", "dense again"} <= result.keys():
        result["same seed twice is the same"] = _outcome(result["dense"]) == _outcome(result["dense again"])
    both = [name for name in CAPTURED if {name, f"{name} eager"} <= result.keys()]
    result["captured as eager"] = {name: _outcome(result[name]) == _outcome(result[f"{name} eager"]) for name in both}


def _missing(name: str, check: Check) -> str | None:
    """Return the name of something that a trial needs and that is missing; None if nothing is."""
    if name in ONLY_ON_CUDA and not check.card.is_cuda:
        return "CUDA"
    if name in WITH_SSIM and importlib.util.find_spec("pytorch_msssim") is None:
        return "pytorch_msssim"
    return None


class Runner:
    """Runs trials on the digits. Each name has its own trial folder; all use one folder of shared trials."""

    def __init__(self, check: Check, folder: Path) -> None:
        self.folder, self.device = folder, str(check.device)

    def run(self, name: str, fields: dict[str, Any], **around: Any) -> Result:
        """Run a trial and return its status, result and seconds. A second call with the same name resumes the trial."""
        start = time.monotonic()
        try:
            outcome = self._run(name, fields, **around)
        except Exception as error:  # noqa: BLE001  the next trial runs anyway
            outcome = {"status": "raised", "error": short(error)}
        return {**outcome, "seconds": round(time.monotonic() - start, 2)}

    def _run(self, name: str, fields: dict[str, Any], **around: Any) -> Result:
        config = parse({"dataset": "digits", "model": "tiny", "seed": 3, "device": self.device, **fields})
        parent = "stages" if config.method == "dense" else "trials"  # elsewhere it would only fetch the shared trial
        folder = self.folder / parent / f"{config.id}-{name.replace(' ', '-')}"
        state = run(config, folder, TrialHost(self.folder / "stages", alone=True, **around))
        if state.error:
            return {"status": state.status, "error": f"{state.error['type']}: {state.error['message'][:220]}"}
        return {
            "status": state.status,
            "val_accuracy": state.result.get("val_accuracy"),
            "val_loss": state.result.get("val_loss"),
            "kept": state.result.get("kept"),
        }


def resumed(runner: Runner, undisturbed: Result | None) -> Result:
    """Run BiP, preempt it the second time that it checks whether to stop, and resume it to its end.

    Also compare the result with that of an uninterrupted trial; on a CPU the two are bit-identical.
    """
    looks = count(1)
    with looking_always():
        first = runner.run("bip resumed", CONFIGS["bip"], should_stop=lambda: next(looks) == 2)
        then = runner.run("bip resumed", CONFIGS["bip"])
    result = {"first": first, "then": then}
    if undisturbed is not None:
        result["as undisturbed"] = _outcome(then) == _outcome(undisturbed)
    return result


@contextmanager
def looking_always() -> Iterator[None]:
    """Let trials check after every step whether to stop; at the usual interval they would finish first."""
    before, progress.STOP_POLL_S = progress.STOP_POLL_S, 0.0
    try:
        yield
    finally:
        progress.STOP_POLL_S = before


def _outcome(trial: Result) -> tuple[object, ...]:
    return tuple(trial.get(key) for key in ("status", "val_accuracy", "val_loss", "kept"))
