"""Pruning methods: one folder per published family, one file per method. registry.py maps names to classes."""

from __future__ import annotations

from trials.methods.base import Method, Stage, TrainStage

__all__ = ["Method", "Stage", "TrainStage"]
