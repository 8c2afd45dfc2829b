"""What follows from the measured figures by arithmetic: ratios, the floor of a step, trials an hour; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EPOCHS, TRAINED, BATCH = 160, 45_000, 128
STEPS, TAIL = divmod(TRAINED, BATCH)
"""Full batches of an epoch of CIFAR-10, and images of the one after them."""

STEPS_OF_A_TRIAL = EPOCHS * (STEPS + 1)
STREAMS = {"bip": 2}
"""Batches of a step by kind; one for other kinds."""

MODELS = ("resnet20s", "resnet18", "vgg16")


def at(results: object, *path: str) -> Any:
    """Return the value at a path of nested results; None if there is none."""
    for name in path:
        results = results.get(name) if isinstance(results, Mapping) else None
    return results


def number(results: object, *path: str) -> float | None:
    """Return the number at a path of nested results; None if there is none."""
    value = at(results, *path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def ratio(above: float | None, below: float | None) -> float | None:
    """Return a ratio; None if one of the two is missing or the lower one is 0."""
    return round(above / below, 3) if above is not None and below else None


def on_cpu(results: object) -> bool:
    """Whether steps were not timed on a GPU: on a CPU they have small batches."""
    return at(results, "machine", "device") in (None, "cpu")


def derive(results: dict[str, dict[str, Any]]) -> None:
    """Add the sections ``ratios``, ``roofline`` and ``trials_an_hour`` to the results, as far as they can be told."""
    found = {"ratios": ratios, "roofline": roofline, "trials_an_hour": trials_an_hour}
    results.update({name: told for name, tell in found.items() if (told := tell(results))})


def ratios(results: Mapping[str, Any]) -> dict[str, Any]:
    """Captured to eager and captured to dense captured, by model and kind; product to bare, by way."""
    found: dict[str, Any] = {}
    for model in MODELS:
        section = at(results, f"steps_{model}") or {}
        dense = number(section, "dense", "graph_ms")
        for kind in section:
            captured = number(section, kind, "graph_ms")
            pair = {"graph/eager": ratio(captured, number(section, kind, "eager_ms"))}
            pair["graph/dense graph"] = ratio(captured, dense)
            if captured is not None:
                found.setdefault(model, {})[kind] = pair
    for way in ("eager", "graph"):
        times = [number(results, "epoch", whose, way, "epoch_s") for whose in ("product", "bare")]
        if (of := ratio(*times)) is not None:
            found.setdefault("epoch, product/bare", {})[way] = of
    return found


def roofline(results: Mapping[str, Any]) -> dict[str, Any]:
    """The shortest time of a step by its bytes and its operations, and the share of it that was achieved.

    ``floor_ms``: every operator reads its inputs and writes its outputs once, at the bandwidth of a copy in this run,
    or the operations at the rate of a large bfloat16 matrix product, whichever takes longer. ``fused_floor_ms``: the
    same if only convolutions, matrix products and the optimiser touch the memory, because all else is fused into them.
    """
    bandwidth, rate = number(results, "machine", "copy_TBps"), number(results, "machine", "bf16_TFLOPs")
    found: dict[str, Any] = {}
    for model in MODELS if bandwidth and rate else ():
        for kind, counts in (at(results, "counts", model) or {}).items():
            moved, fused = number(counts, "MB"), number(counts, "fused_MB")
            flops, measured = number(counts, "GFLOP"), number(results, f"steps_{model}", kind, "graph_ms")
            if moved is None or fused is None or flops is None or not bandwidth or not rate:
                continue
            by_rate = flops / rate
            floor = {"floor_ms": max(moved / bandwidth / 1e3, by_rate), "by_operations_ms": by_rate}
            floor["fused_floor_ms"] = max(fused / bandwidth / 1e3, by_rate)
            shares = (
                {}
                if measured is None or on_cpu(results)
                else {"graph_ms": measured, "share": floor["floor_ms"] / measured}
            )
            found.setdefault(model, {})[kind] = {name: round(value, 4) for name, value in (floor | shares).items()}
    return found


def trials_an_hour(results: Mapping[str, Any]) -> dict[str, Any]:
    """Trials an hour: 160 epochs of CIFAR-10 (45,000 images in batches of 128) with resnet20s.

    ``by whole epochs`` is from measured epochs and a measured start and end. ``by parts`` adds up, by kind, 351
    captured steps, an eager one, 352 batches, the start of an epoch and an evaluation, and the same start and end.
    ``steps alone`` counts nothing but steps: of K processes, and of K graphs on K streams of one process.
    """
    ends = number(results, "epoch", "product", "graph", "start_and_end_s") or 0.0
    found: dict[str, Any] = {}
    for whose in ("product", "bare"):
        for way in ("eager", "graph"):
            epoch_s = number(results, "epoch", whose, way, "epoch_s")
            if epoch_s and at(results, "epoch", "training_images") == 50_000:
                seconds = EPOCHS * epoch_s + (ends if whose == "product" else 0.0)
                found.setdefault("by whole epochs", {})[f"{whose}, {way}"] = round(3600 / seconds, 1)
    loop = {name: number(results, "loop", name) for name in ("batch_graph_ms", "evaluate_graph_ms", "epoch_start_ms")}
    for kind in at(results, "steps_resnet20s") or {}:
        steps = [number(results, "steps_resnet20s", kind, name) for name in ("graph_ms", "eager_ms")]
        if None not in (*steps, *loop.values()) and not on_cpu(results):
            batches = (STEPS + 1) * STREAMS.get(kind, 1) * loop["batch_graph_ms"]
            each = STEPS * steps[0] + steps[1] + batches + loop["evaluate_graph_ms"] + loop["epoch_start_ms"]
            found.setdefault("by parts", {})[kind] = round(3600 / (EPOCHS * each / 1e3 + ends), 1)
    for way, steps_ms in _alone(results).items():
        found.setdefault("steps alone", {})[way] = round(3600e3 / (steps_ms * STEPS_OF_A_TRIAL), 1)
    return found


def _alone(results: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds of a step and network, by how many run together; nothing for a CPU's small batches."""
    if on_cpu(results):
        return {}
    found = {"one, captured": number(results, "steps_resnet20s", "dense", "graph_ms")}
    for count in map(str, (1, 2, 4, 8)):
        for section, words in (("processes", ""), ("processes_mps", ", MPS")):
            found[f"{count} processes{words}"] = number(results, section, "graph", count, "ms_per_model_step")
    for count in map(str, (2, 4, 8, 16)):
        found[f"{count} streams"] = number(results, "same_process", "resnet20s", count)
        found[f"{count} streams, compiled"] = number(results, "compiled_resnet20s", "streams", count)
    return {way: step_ms for way, step_ms in found.items() if step_ms}
