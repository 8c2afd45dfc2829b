"""The pruning methods: a folder per published family, a file per method; the registry names them all."""

from __future__ import annotations

from trials.methods.base import Method, Stage, TrainStage

__all__ = ["Method", "Stage", "TrainStage"]
