"""Sections ``smoke`` and ``smoke_compiled``: small trials of every method on the digits.

The methods are those of the registry, so that a new one is among them. Each runs in bfloat16 and float64 with channels
last and in float32 contiguous, and without capture, and is once interrupted and resumed. On a CPU, where nothing is
captured, each runs in one of these ways, in turn, and those in bfloat16 are interrupted.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import Check, Result, short
from benchmarks.gpu.images import few, standing_for
from benchmarks.gpu.product import METHODS, TrialHost, UserError, load_data, parse, progress, run
from tests.trials.small_trials import CONFIGS

DEFAULT = {"precision": "bf16", "memory_format": "channels_last"}
WAYS: dict[str, dict[str, Any]] = {
    "bf16": DEFAULT,
    "float32": {"precision": "float32", "memory_format": "contiguous"},
    "float64": {"precision": "float64", "memory_format": "channels_last"},
    "eager": {**DEFAULT, "capture": False},
}
"""By name, how every method runs. ``bf16`` is what a trial does on a GPU by default."""

SMALL = {"dataset": "digits", "model": "tiny", "seed": 3}
RESUMED = "resumed"
COMPILED: dict[str, Any] = {**DEFAULT, "compile": True}
EXTRA: dict[str, tuple[str, dict[str, Any]]] = {
    "bip random contiguous": ("bip", {"score_init": "random", "memory_format": "contiguous"}),
    "bip random channels_last": ("bip", {"score_init": "random", "memory_format": "channels_last"}),
    "dense once": ("dense", DEFAULT),
    "dense again": ("dense", DEFAULT),
}
WITH_SSIM = ("regrow", "regrow_iterative", "single_layer")
FEW_DIGITS = 300
"""Training images of a trial on a CPU."""


def small_configs() -> dict[str, str]:
    """The small config of every method, by the method: the first of tests/trials/small_trials.py; "" if it has none."""
    first = dict.fromkeys(METHODS, "")
    for name, fields in CONFIGS.items():
        first[fields["method"]] = first.get(fields["method"]) or name
    return first


def plain_way(method: str, cuda: bool) -> str:
    """The way in which a method is interrupted; on a CPU it also runs in no other."""
    return "bf16" if cuda else list(WAYS)[list(METHODS).index(method) % 3]


def trials(cuda: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    """All trials of the section by name: the name of their small config, and their fields beside it."""
    methods = small_configs()
    every = {
        f"{method} {way}": (base, fields)
        for method, base in methods.items()
        for way, fields in WAYS.items()
        if cuda or way == plain_way(method, cuda)
    }
    others = {name: (name, DEFAULT) for name in CONFIGS if cuda and name not in methods.values()}
    return {**every, **others, **EXTRA}


def names(cuda: bool) -> tuple[str, ...]:
    """Names of all that the section runs."""
    interrupted = [method for method in METHODS if cuda or plain_way(method, cuda) == "bf16"]
    return (*trials(cuda), *(f"{method} {RESUMED}" for method in interrupted))


def smoke(check: Check, result: Result) -> None:
    """Run the chosen trials, and compare those that must end alike; ``result`` is keyed by their names."""
    cuda = check.card.is_cuda
    wanted = check.trials or names(cuda)
    with _runner(check) as runner:
        for name, (base, fields) in trials(cuda).items():
            if name in wanted:
                _one(check, result, name, base, partial(runner.run, name, base, fields))
        for method, base in small_configs().items():
            name, way = f"{method} {RESUMED}", plain_way(method, cuda)
            if name in wanted:
                undisturbed = result.get(f"{method} {way}")
                _one(check, result, name, base, partial(resumed, runner, name, base, WAYS[way], undisturbed))
    if {"dense once", "dense again"} <= result.keys():
        result["same seed twice is the same"] = _outcome(result["dense once"]) == _outcome(result["dense again"])
    both = [name for name in METHODS if {f"{name} bf16", f"{name} eager"} <= _complete(result)]
    alike = {name: _outcome(result[f"{name} bf16"]) == _outcome(result[f"{name} eager"]) for name in both}
    result["captured as eager"] = alike


def smoke_compiled(check: Check, result: Result) -> None:
    """Run a compiled trial of every method."""
    with _runner(check) as runner:
        for method, base in small_configs().items():
            name = f"{method} compiled"
            if base and (why := _refusal({**CONFIGS[base], **COMPILED})):
                result[name] = {"skipped": why}
            else:
                _one(check, result, name, base, partial(runner.run, method, base, COMPILED))


def _refusal(fields: dict[str, Any]) -> str | None:
    """Return why a config is refused, such as compiled steps whose backward passes are pruned; None if it is not."""
    try:
        parse({**SMALL, **fields})
    except (UserError, ValueError) as error:
        return short(error)
    return None


def _one(check: Check, result: Result, name: str, base: str, run_it: Callable[[], object]) -> None:
    """Run one trial, or record why it is skipped."""
    if not base:
        result[name] = {"error": f"tests/trials/small_trials.py has no config of method {name.partition(' ')[0]}"}
    elif missing := _missing(name):
        result[name] = {"skipped": f"needs {missing}"}
    elif check.has(10.0, result, name):
        check.attempt(result, name, run_it)
        if result[name].get("error"):
            check.require_device()


def _missing(name: str) -> str | None:
    """Return the name of something that a trial needs and that is missing; None if nothing is."""
    if name.replace("-", " ").partition(" ")[0] in WITH_SSIM and importlib.util.find_spec("pytorch_msssim") is None:
        return "pytorch_msssim"
    return None


@contextmanager
def _runner(check: Check) -> Iterator[Runner]:
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    digits = nullcontext() if check.card.is_cuda else standing_for("digits", few(load_data("digits"), FEW_DIGITS))
    with tempfile.TemporaryDirectory(dir=fast) as folder, digits:
        yield Runner(check, Path(folder))


class Runner:
    """Runs trials on the digits. Each name has its own trial folder; all use one folder of shared trials."""

    def __init__(self, check: Check, folder: Path) -> None:
        self.folder, self.device = folder, str(check.device)

    def run(self, name: str, base: str, fields: dict[str, Any], **around: Any) -> Result:
        """Run a trial and return its status, result and seconds. A second call with the same name resumes the trial."""
        start = time.monotonic()
        try:
            outcome = self._run(name, {**CONFIGS[base], **fields}, **around)
        except Exception as error:  # noqa: BLE001  the next trial runs anyway
            outcome = {"status": "raised", "error": short(error)}
        return {**outcome, "seconds": round(time.monotonic() - start, 2)}

    def _run(self, name: str, fields: dict[str, Any], **around: Any) -> Result:
        config = parse({**SMALL, "device": self.device, **fields})
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


def resumed(runner: Runner, name: str, base: str, fields: dict[str, Any], undisturbed: Result | None) -> Result:
    """Run a trial, preempt it the second time that it asks whether to stop (or the first), and resume it to its end.

    Also compare the result with that of an uninterrupted trial; on a CPU the two are bit-identical.
    """
    for stop_at in (2, 1):
        asked = count(1)
        attempt = f"{name} {stop_at}"
        with asking_always():
            first = runner.run(attempt, base, fields, should_stop=lambda asked=asked, at=stop_at: next(asked) == at)
        if first["status"] == "preempted":
            break
    then = runner.run(attempt, base, fields)
    result = {"first": first["status"], **then}
    if undisturbed is not None and undisturbed.get("status") == "complete":
        result["as undisturbed"] = _outcome(then) == _outcome(undisturbed)
    return result


@contextmanager
def asking_always() -> Iterator[None]:
    """Let trials ask after every step whether to stop; at the usual interval they would finish first."""
    before, progress.STOP_POLL_S = progress.STOP_POLL_S, 0.0
    try:
        yield
    finally:
        progress.STOP_POLL_S = before


def _complete(result: Result) -> set[str]:
    return {name for name, trial in result.items() if isinstance(trial, dict) and trial.get("status") == "complete"}


def _outcome(trial: Result) -> tuple[object, ...]:
    return tuple(trial.get(key) for key in ("status", "val_accuracy", "val_loss", "kept"))
