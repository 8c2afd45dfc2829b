"""Formats the main results as Markdown tables; missing figures are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.gpu.check import found
from benchmarks.gpu.packing import MODELS as PACKED

Results = Mapping[str, Any]

STEPS = {"steps_resnet20s": "resnet20s", "steps_vgg16": "vgg16", "steps_resnet18": "resnet18"}
STEP_FIGURES = ("eager_ms", "graph_ms", "graph_vs_eager")
LOOP_FIGURES = {
    "place_s": "putting the data set on the device, s",
    "batch_only_ms": "cutting and augmenting a batch, ms",
    "step_with_batch_ms": "batch, step and totals, ms",
    "graph_with_batch_ms": "batch, copied into a captured step, ms",
    "epoch_start_ms": "start of an epoch with its first batch, ms",
    "evaluate_val_ms": "evaluation of the validation images, ms",
    "checkpoint_ms": "serialising a checkpoint, ms",
    "checkpoint_bytes": "its size, bytes",
    "eager_cudnn_benchmark_ms": "step with cudnn.benchmark, ms",
    "graph_cudnn_benchmark_ms": "captured step with cudnn.benchmark, ms",
}


def at(results: object, *path: str) -> Any:
    """Return the value at a path of nested results; None if there is none."""
    for name in path:
        results = results.get(name) if isinstance(results, Mapping) else None
    return results


def shown(value: object) -> str:
    """Format a cell of a table; of a result that failed or was skipped, the word ``error`` or ``skipped``."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return next((name for name in ("error", "skipped") if name in value), "")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], labels: int = 1) -> list[str]:
    """Return the lines of a table without empty rows and columns; no lines if nothing is left.

    Args:
        labels: number of leading columns that are labels; they do not count as content.
    """
    cells = [[shown(cell) for cell in row] for row in rows]
    cells = [row for row in cells if any(row[labels:])]
    columns = [i for i in range(len(headers)) if i < labels or any(row[i] for row in cells)]
    if not cells:
        return []
    lines = [[headers[i] for i in columns], ["---"] * len(columns), *([row[i] for i in columns] for row in cells)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def report(results: Results) -> str:
    """Return the whole page."""
    parts = {
        "": [_machine_line(results)],
        "Machine": table(("figure", "value"), _machine(results)),
        "Trials (section smoke)": _smoke(results),
        "A training step, ms": table(("model", "step", *(_words(name) for name in STEP_FIGURES)), _steps(results), 2),
        "Waits and kernels, resnet20s": table(
            ("step", "waits in 5 steps", "reads in 5 steps", "where", "kernels a step", "ms on the device"),
            _waits(results),
        ),
        "Around the step, dense resnet20s": table(
            ("what", "value"), ((words, at(results, "loop", name)) for name, words in LOOP_FIGURES.items())
        ),
        "K networks in one process, ms per step and network": table(
            ("model", "K", "K graphs on K streams", *(f"prototype: {way}" for way in _STACKED)), _packing(results), 2
        ),
        "Processes on one device, dense resnet20s, steps a second in all": table(
            ("processes", "eager", "graph", "eager, MPS", "graph, MPS"), _processes(results)
        ),
        "torch.compile": table(
            ("model", "step", "first step, s", "compiled, ms", "compiled and captured, ms"), _compiled(results), 2
        ),
        "Compiled and captured, K graphs on K streams, ms per step and network": table(
            ("K", "resnet20s"), (at(results, "compile_resnet20s", "streams") or {}).items()
        ),
        "Errors": _grouped(results, "error"),
        "Skipped": _grouped(results, "skipped"),
    }
    return "\n\n".join(
        "\n".join(lines) if not title else f"## {title}\n\n" + "\n".join(lines)
        for title, lines in parts.items()
        if lines
    )


def _grouped(results: Results, key: str) -> list[str]:
    """Return a line per message, with all paths at which it occurs."""
    places: dict[str, list[str]] = {}
    for where, message in found(results, key):
        places.setdefault(str(message), []).append(where)
    return [f"- {', '.join(where)}: {message}" for message, where in places.items()]


def _words(name: str) -> str:
    return name.removesuffix("_ms").replace("_", " ")


def _machine_line(results: Results) -> str:
    known = results.get("machine", {})
    parts = [str(known.get("device", "unknown device"))]
    for name, words in (("driver", "driver"), ("torch", "torch"), ("cudnn", "cuDNN"), ("python", "Python")):
        if isinstance(known.get(name), str | int):
            parts.append(f"{words} {known[name]}")
    return f"Measured on {', '.join(parts)}."


def _machine(results: Results) -> Iterable[Sequence[object]]:
    names = {
        "launch_us": "a view and an operation on it in place, launched in a row, µs",
        "copy_TBps": "copying 1 GiB on the device, TB/s read and written",
        "bf16_TFLOPs": "bfloat16 matrix product, TFLOP/s",
        "float32_conv_rel_error": "relative error of a float32 convolution",
        "cudnn_allow_tf32": "cuDNN may compute float32 in TF32",
        "matmul_allow_tf32": "matrix products may compute float32 in TF32",
    }
    return ((words, at(results, "machine", name)) for name, words in names.items())


def _smoke(results: Results) -> list[str]:
    smoke = results.get("smoke", {})
    trials = {name: trial for name, trial in smoke.items() if at(trial, "status")}
    if not trials:
        return []
    complete = [name for name, trial in trials.items() if trial["status"] == "complete"]
    lines = [f"{len(complete)} of {len(trials)} complete: {', '.join(complete)}."]
    lines += [f"Not complete: {name} ({trial['status']})." for name, trial in trials.items() if name not in complete]
    if "resume" in smoke and "skipped" not in smoke["resume"]:
        first, then = at(smoke, "resume", "first", "status"), at(smoke, "resume", "then", "status")
        lines.append(f"Interrupted and resumed: {first}, then {then}.")
        same = at(smoke, "resume", "as undisturbed")
        lines += [] if same is None else [f"Ends like the uninterrupted trial: {'yes' if same else 'no'}."]
    same = smoke.get("same seed twice is the same")
    lines += [] if same is None else [f"The same seed gives the same result twice: {'yes' if same else 'no'}."]
    return lines + _captured(trials, smoke.get("captured as eager") or {})


def _captured(trials: Results, same: Mapping[str, bool]) -> list[str]:
    """Say whether captured trials end like eager ones, of the pairs of which both have run."""
    both = [name for name in same if name in trials and f"{name} eager" in trials]
    unlike = [name for name in both if not same[name]]
    if unlike:
        return [f"Captured trials that end unlike the eager ones: {', '.join(unlike)}."]
    return [f"Captured trials end like the eager ones: {', '.join(both)}."] if both else []


def _steps(results: Results) -> Iterable[Sequence[object]]:
    for section, model in STEPS.items():
        for kind, figures in results.get(section, {}).items():
            if isinstance(figures, Mapping):
                yield (model, kind, *(figures.get(name) for name in STEP_FIGURES))


def _waits(results: Results) -> Iterable[Sequence[object]]:
    waits = results.get("waits", {})
    for kind in (name for name, figures in waits.items() if isinstance(figures, Mapping)):
        where = at(waits, kind, "where") or {}
        yield (
            kind,
            at(waits, kind, "waits_in_5_steps"),
            at(waits, kind, "reads_in_5_steps"),
            ", ".join(f"{line} ({times})" for line, times in where.items()),
            at(results, "kernels", kind, "kernels"),
            at(results, "kernels", kind, "device_ms"),
        )


_STACKED = ("grouped, eager", "grouped, graph", "vmap, eager", "vmap, graph")


def _packing(results: Results) -> Iterable[Sequence[object]]:
    for model in PACKED:
        for size in map(str, (1, 2, 4, 8, 16)):
            stacked = []
            for way in _STACKED:
                name, _, figure = way.partition(", ")
                pack = at(results, "stacked", model, name, size)
                stacked.append(pack if at(pack, "error") else at(pack, f"{figure}_ms"))
            yield (model, size, at(results, "same_process", model, size), *stacked)


def _processes(results: Results) -> Iterable[Sequence[object]]:
    for count in map(str, (1, 2, 4, 8)):
        ways = [(section, way) for section in ("processes", "processes_mps") for way in ("eager", "graph")]
        yield (count, *(at(results, section, way, count, "steps_per_s") for section, way in ways))


def _compiled(results: Results) -> Iterable[Sequence[object]]:
    found_at = {
        ("resnet20s", "dense"): at(results, "compile_resnet20s", "dense"),
        ("resnet20s", "bip"): at(results, "compile_resnet20s", "bip"),
        ("vgg16", "dense"): at(results, "compile_others", "vgg16"),
        ("resnet18", "dense"): at(results, "compile_others", "resnet18"),
    }
    for (model, kind), figures in found_at.items():
        yield (model, kind, *(at(figures, name) for name in ("first_step_s", "compiled_ms", "compiled_graph_ms")))
