"""Sections ``same_process`` and ``stacked``: several networks on one GPU in one process."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.measuring import Captured, Card
from benchmarks.gpu.sections.prototypes import Pack
from benchmarks.gpu.steps import LEARNING_RATE, batch_size, input_shape, new_net, new_step

MODELS = ("resnet20s", "tiny")


def same_process(check: Check, result: Result) -> None:
    """Measure K captured steps, each on its own stream, in milliseconds per step and network."""
    for model in MODELS:
        result[model] = {}
        on_streams(check, result[model], model, (1, 2, 4, 8, 16))


def on_streams(check: Check, result: Result, model: str, sizes: tuple[int, ...], *, compiled: bool = False) -> None:
    """Measure this for one model; ``result`` is keyed by K."""
    members: list[tuple[Captured, torch.cuda.Stream]] = []
    for size in sizes:
        if not check.has(15.0, result, str(size)):
            break

        def measure(size: int = size) -> float:
            while len(members) < size:
                step = new_step("dense", model, check.device, compiled=compiled)
                members.append((Captured(step), torch.cuda.Stream()))
            return round(check.card.median_ms(_all(members[:size])) / size, 4)

        check.attempt(result, str(size), measure)


def _all(members: list[tuple[Captured, torch.cuda.Stream]]) -> Callable[[], None]:
    def replay() -> None:
        for captured, stream in members:
            with torch.cuda.stream(stream):
                captured()

    return replay


def stacked(check: Check, result: Result) -> None:
    """Measure K networks in one program, by the prototype :class:`Pack`, in milliseconds per step and network."""
    for model in MODELS:
        for way in ("grouped", "vmap"):
            into = result.setdefault(model, {})[way] = {}
            for size in (1, 4, 16) if check.card.is_cuda else (1, 2):
                if not check.has(15.0, into, str(size)):
                    break
                into[str(size)] = {}
                _time_pack(check, into[str(size)], model, way, size)


def _time_pack(check: Check, result: Result, model: str, way: str, size: int) -> None:
    card = check.card

    def eager() -> float:
        return round(card.median_ms(_packed_step(card, model, way, size), 0.4) / size, 4)

    def captured() -> float:
        return round(card.median_ms(Captured(_packed_step(card, model, way, size)), 0.4) / size, 4)

    if check.attempt(result, "eager_ms", eager) and card.is_cuda:
        check.attempt(result, "graph_ms", captured)


def _packed_step(card: Card, model: str, way: str, size: int) -> Callable[[], object]:
    images = torch.randn((size, batch_size(card.device), *input_shape(model)), device=card.device)
    labels = torch.randint(10, images.shape[:2], device=card.device)
    nets = [new_net(model, card.device) for _ in range(size)]
    pack = Pack(nets, [LEARNING_RATE] * size, grouped=way == "grouped", autocast=card.is_cuda)
    return lambda: pack.step(images, labels)
