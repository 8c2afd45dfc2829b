"""A cluster of simulated machines, for drivers that are tested without Ray."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import pytest


class FakeCluster:
    """What Ray would say of its machines.

    Attributes:
        machines: resources of each machine, by node id; a number stands for that many cores.
        others: what other jobs hold, likewise.
    """

    def __init__(self, **machines: float | Mapping[str, float]) -> None:
        self.machines: dict[str, float | Mapping[str, float]] = dict(machines)
        self.others: dict[str, Mapping[str, float]] = {}

    def count(self, asked: Collection[Mapping[str, float]] = (), foreign: Collection[str] = ()) -> Any:
        from sweeper.execution.on_ray.capacity import Capacity  # which imports Ray

        total = {
            node: dict(has) if isinstance(has, Mapping) else {"CPU": float(has)} for node, has in self.machines.items()
        }
        share = {
            node: {name: amount - self.others.get(node, {}).get(name, 0.0) for name, amount in has.items()}
            for node, has in total.items()
        }
        return Capacity(total, share, share)


def fake_cluster(monkeypatch: pytest.MonkeyPatch, **machines: float | Mapping[str, float]) -> FakeCluster:
    """A :class:`FakeCluster` in place of Ray's, counted at every question."""
    from sweeper.execution.on_ray import places

    cluster = FakeCluster(**machines)
    monkeypatch.setattr(places, "count_capacity", cluster.count)
    monkeypatch.setattr(places, "COUNT_EVERY_S", -1.0)
    return cluster


class Shown:
    """A display that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let time pass."""
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + seconds)
