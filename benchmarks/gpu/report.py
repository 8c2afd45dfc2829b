"""Formats the results as Markdown tables; missing figures are left out; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.gpu.derived import MODELS, at

Results = Mapping[str, Any]

STEP_FIGURES = ("eager_ms", "graph_ms", "graph_vs_eager")
COMPILED_FIGURES = ("first_step_s", "compiled_ms", "compiled_graph_ms")
LOOP_FIGURES = {
    "place_s": "putting the data set on the device, s",
    "batch_ms": "cutting and augmenting a batch, ms",
    "batch_graph_ms": "the same within a graph, ms",
    "step_with_batch_ms": "batch, step and totals, eager, ms",
    "graph_with_batch_ms": "batch, step and totals within a graph, ms",
    "epoch_start_ms": "start of an epoch with its first batch, ms",
    "evaluate_ms": "evaluation of the validation images, ms",
    "evaluate_graph_ms": "the same, full batches within a graph, ms",
    "evaluate_by_hand_ms": "the same by hand, ms",
    "checkpoint_bytes": "a checkpoint, bytes",
    "checkpoint_copy_ms": "its copy to the host, ms",
    "checkpoint_serialise_ms": "serialising it, ms",
    "checkpoint_write_ms": "writing it, ms",
}
MACHINE_FIGURES = {
    "launch_us": "a view and an operation on it in place, launched in a row, µs",
    "copy_TBps": "copying on the device, TB/s read and written",
    "bf16_TFLOPs": "bfloat16 matrix product, TFLOP/s",
    "float32_conv_rel_error": "relative error of a float32 convolution",
    "cudnn_allow_tf32": "cuDNN may compute float32 in TF32",
    "matmul_allow_tf32": "matrix products may compute float32 in TF32",
}
WAYS = (("product", "eager"), ("product", "graph"), ("bare", "eager"), ("bare", "graph"))
STACKED = ("grouped, eager", "grouped, graph", "vmap, eager", "vmap, graph")


def found(results: object, key: str, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Yield the path and value of every ``key`` in nested results: ``("smoke / bip", "RuntimeError: …")``."""
    if isinstance(results, Mapping):
        for name, value in results.items():
            if name == key:
                yield " / ".join(path), value
            else:
                yield from found(value, key, (*path, name))


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
    cells = [[shown(cell).replace("|", "\\|") for cell in row] for row in rows]
    cells = [row for row in cells if any(row[labels:])]
    columns = [i for i in range(len(headers)) if i < labels or any(row[i] for row in cells)]
    if not cells:
        return []
    lines = [[headers[i] for i in columns], ["---"] * len(columns), *([row[i] for i in columns] for row in cells)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def report(results: Results) -> str:
    """Return the whole page."""
    parts = {"": [_machine_line(results)], **_training(results), **_details(results), **_together(results)}
    parts |= {"Errors": _grouped(results, "error"), "Skipped": _grouped(results, "skipped")}
    return "\n\n".join(
        "\n".join(lines) if not title else f"## {title}\n\n" + "\n".join(lines)
        for title, lines in parts.items()
        if lines
    )


def _training(results: Results) -> dict[str, list[str]]:
    """Tables of speeds, of steps, epochs and trials."""
    steps = ("model", "step", "eager", "graph", "graph vs eager", "compiled", "compiled graph", "graph ÷ eager",
             "graph ÷ dense graph")  # fmt: skip
    floors = ("model", "step", "floor", "fused floor", "by operations", "graph", "floor ÷ graph")
    return {
        "Machine": table(
            ("figure", "value"), ((words, at(results, "machine", n)) for n, words in MACHINE_FIGURES.items())
        ),
        "Trials an hour: 160 epochs of CIFAR-10, resnet20s": table(
            ("counted", "of", "trials an hour"),
            ((how, of, n) for how, each in (results.get("trials_an_hour") or {}).items() for of, n in each.items()),
            2,
        ),
        "A training step, ms": table(steps, _steps(results), 2),
        "The floor of a captured step, ms": table(floors, _floors(results), 2),
        "An epoch of CIFAR-10 with its evaluation, dense resnet20s": table(
            ("whose", "way", "epoch, s", "first epoch, s", "start and end, s", "validation accuracy", "product ÷ bare"),
            _epochs(results),
            2,
        ),
        "Around the step, dense resnet20s": table(
            ("what", "value"), ((words, at(results, "loop", name)) for name, words in LOOP_FIGURES.items())
        ),
        "Switches, a dense step of resnet20s, ms": table(
            ("switches", "eager", "graph"),
            ((n, at(way, "eager_ms"), at(way, "graph_ms")) for n, way in (results.get("switches") or {}).items()),
        ),
    }


def _details(results: Results) -> dict[str, list[str]]:
    """Tables of trials, waits, operators and kernels."""
    return {
        "Trials (section smoke)": _smoke(results),
        "Waits, operators and kernels of a step, resnet20s": table(
            ("step", "waits in 5 steps", "reads in 5 steps", "where", "operators", "÷ dense", "GFLOP", "MB",
             "kernels", "ms on the device"),
            _waits(results),
        ),
        "What the device's time goes to, a dense step": table(
            ("model", "kernels", "calls", "µs", "share"), _kinds(results), 2
        ),
        "The longest kernels, a dense step of resnet20s": table(
            ("kernel", "calls", "µs", "share"),
            (
                (f"`{kernel['name']}`", kernel["calls"], kernel["us"], kernel["share"])
                for kernel in at(results, "kernels", "dense", "longest") or ()
            ),
        ),
        "Operators of a dense step of resnet20s, counted on the CPU": table(
            ("operators", "calls", "MB, batch 128"),
            (
                (kind, calls, at(results, "counts", "resnet20s", "dense", "MB_by_kind", kind))
                for kind, calls in (at(results, "counts", "resnet20s", "dense", "operators_by_kind") or {}).items()
            ),
        ),
    }  # fmt: skip


def _together(results: Results) -> dict[str, list[str]]:
    """Tables of several networks on one device."""
    return {
        "K networks in one process, ms per step and network": table(
            ("model", "K", "K graphs on K streams", "compiled", *(f"prototype: {way}" for way in STACKED)),
            _packing(results),
            2,
        ),
        "Processes on one device, dense resnet20s, steps a second in all": table(
            ("processes", "eager", "graph", "eager, MPS", "graph, MPS"), _processes(results)
        ),
        "torch.compile: seconds of the first step": table(
            ("model", "step", "s"),
            (
                (model, kind, at(figures, "first_step_s"))
                for model in MODELS
                for kind, figures in (results.get(f"compiled_{model}") or {}).items()
            ),
            2,
        ),
    }


def _grouped(results: Results, key: str) -> list[str]:
    """Return a line per message, with all paths at which it occurs."""
    places: dict[str, list[str]] = {}
    for where, message in found(results, key):
        places.setdefault(str(message), []).append(where)
    return [f"- {', '.join(where)}: {message}" for message, where in places.items()]


def _machine_line(results: Results) -> str:
    known = results.get("machine", {})
    parts = [str(known.get("device", "unknown device"))]
    for name, words in (("driver", "driver"), ("torch", "torch"), ("cudnn", "cuDNN"), ("python", "Python")):
        if isinstance(known.get(name), str | int):
            parts.append(f"{words} {known[name]}")
    return f"Measured on {', '.join(parts)}."


def _smoke(results: Results) -> list[str]:
    both = {**results.get("smoke", {}), **results.get("smoke_compiled", {})}
    trials = {name: trial for name, trial in both.items() if at(trial, "status")}
    if not trials:
        return []
    complete = [name for name, trial in trials.items() if trial["status"] == "complete"]
    lines = [f"{len(complete)} of {len(trials)} complete: {', '.join(complete)}."]
    lines += [f"Not complete: {name} ({trial['status']})." for name, trial in trials.items() if name not in complete]
    after = {name: trial["as undisturbed"] for name, trial in trials.items() if "as undisturbed" in trial}
    lines += _alike("Interrupted and resumed trials", "uninterrupted", after)
    same = at(results, "smoke", "same seed twice is the same")
    lines += [] if same is None else [f"The same seed gives the same result twice: {'yes' if same else 'no'}."]
    return lines + _alike("Captured trials", "eager", at(results, "smoke", "captured as eager") or {})


def _alike(these: str, those: str, same: Mapping[str, bool]) -> list[str]:
    """Say whether some trials end like others."""
    unlike = [name for name, alike in same.items() if not alike]
    if unlike:
        return [f"{these} that end unlike the {those} ones: {', '.join(unlike)}."]
    return [f"{these} end like the {those} ones: {', '.join(same)}."] if same else []


def _steps(results: Results) -> Iterable[Sequence[object]]:
    for model in MODELS:
        timed, compiled = results.get(f"steps_{model}", {}), results.get(f"compiled_{model}", {})
        for kind in {**timed, **compiled}:
            figures = [at(timed, kind, name) for name in STEP_FIGURES]
            figures += [at(compiled, kind, name) for name in COMPILED_FIGURES[1:]]
            pair = at(results, "ratios", model, kind)
            yield (model, kind, *figures, at(pair, "graph/eager"), at(pair, "graph/dense graph"))


def _floors(results: Results) -> Iterable[Sequence[object]]:
    names = ("floor_ms", "fused_floor_ms", "by_operations_ms", "graph_ms", "share")
    for model, kinds in (results.get("roofline") or {}).items():
        for kind, figures in kinds.items():
            yield (model, kind, *(figures.get(name) for name in names))


def _epochs(results: Results) -> Iterable[Sequence[object]]:
    names = ("epoch_s", "first_epoch_s", "start_and_end_s", "val_accuracy")
    for whose, way in WAYS:
        of = at(results, "ratios", "epoch, product/bare", way) if whose == "product" else None
        yield (whose, way, *(at(results, "epoch", whose, way, name) for name in names), of)


def _waits(results: Results) -> Iterable[Sequence[object]]:
    dense = at(results, "counts", "resnet20s", "dense", "operators")
    for kind in {**results.get("waits", {}), **(at(results, "counts", "resnet20s") or {})}:
        where = at(results, "waits", kind, "where") or {}
        counts = at(results, "counts", "resnet20s", kind)
        calls = at(counts, "operators")
        yield (
            kind,
            at(results, "waits", kind, "waits_in_5_steps"),
            at(results, "waits", kind, "reads_in_5_steps"),
            ", ".join(f"{line} ({times})" for line, times in where.items()),
            calls,
            round(calls / dense, 2) if calls and dense else None,
            at(counts, "GFLOP"),
            at(counts, "MB"),
            at(results, "kernels", kind, "kernels"),
            at(results, "kernels", kind, "device_ms") if at(results, "kernels", kind, "kernels") else None,
        )


def _kinds(results: Results) -> Iterable[Sequence[object]]:
    for model, section in (("resnet20s", "dense"), ("resnet18", "resnet18"), ("vgg16", "vgg16")):
        for kind, figures in (at(results, "kernels", section, "kinds") or {}).items():
            yield (model, kind, figures["calls"], figures["us"], figures["share"])


def _packing(results: Results) -> Iterable[Sequence[object]]:
    for model in ("resnet20s", "tiny"):
        for size in map(str, (1, 2, 4, 8, 16)):
            stacked = []
            for way in STACKED:
                name, _, figure = way.partition(", ")
                pack = at(results, "stacked", model, name, size)
                stacked.append(pack if at(pack, "error") else at(pack, f"{figure}_ms"))
            compiled = at(results, "compiled_resnet20s", "streams", size) if model == "resnet20s" else None
            yield (model, size, at(results, "same_process", model, size), compiled, *stacked)


def _processes(results: Results) -> Iterable[Sequence[object]]:
    for count in map(str, (1, 2, 4, 8)):
        ways = [(section, way) for section in ("processes", "processes_mps") for way in ("eager", "graph")]
        yield (count, *(at(results, section, way, count, "steps_per_s") for section, way in ways))
