"""A small space, for whole sweeps on Ray."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

SPACE = """
about: a small one
trial: {method: bip, dataset: digits, model: tiny, pretrain: {epochs: 3}, prune: {epochs: 4, lr: 0.05}}
grid: {density: [0.5, 0.2], seed: [0, 1]}
search: {mask_lr: {loguniform: [0.01, 0.1]}}
samples: 2
"""
