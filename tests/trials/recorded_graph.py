"""Steps and evaluations captured on the CPU, by graphs that record operators (:mod:`trials.testing.recorded_graph`)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trials.testing.recorded_graph import WAITS, RecordedGraph, Recorder, refuse_waiting
from trials.training import graphs

__all__ = ["WAITS", "RecordedGraph", "Recorder", "graphs_made", "refuse_waiting"]


def graphs_made(monkeypatch: pytest.MonkeyPatch, kind: type[Any] = RecordedGraph) -> list[Any]:
    """Let steps and evaluations be captured on the CPU, by graphs of a ``kind``; return the list of those made."""
    made: list[Any] = []

    def graph(device: torch.device, generators: tuple[torch.Generator, ...] = ()) -> Any:
        made.append(kind(generators))
        return made[-1]

    monkeypatch.setattr(graphs, "graph_for", graph)
    return made
