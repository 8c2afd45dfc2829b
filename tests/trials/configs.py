"""The smallest config of every method."""

from __future__ import annotations

from typing import Any

WHAT = {"dataset": "digits", "model": "tiny"}
SMALLEST: dict[str, dict[str, Any]] = {
    "dense": {"method": "dense", **WHAT},
    "one_shot": {"method": "one_shot", "density": 0.2, **WHAT},
    "imp": {"method": "imp", **WHAT},
    "bip": {"method": "bip", "density": 0.2, **WHAT},
    "hydra": {"method": "hydra", "density": 0.2, **WHAT},
    "finetune": {"method": "finetune", "source_net": "pruned.pt", **WHAT},
    "l1": {"method": "l1", "stage_pr": 0.5, **WHAT},
    "greg1": {"method": "greg1", "stage_pr": 0.5, **WHAT},
    "greg2": {"method": "greg2", "stage_pr": 0.5, **WHAT},
    "oracle": {"method": "oracle", "stage_pr": {"0": 0.1}, **WHAT},
    "global_prune": {"method": "global_prune", **WHAT},
    "layer_prune": {"method": "layer_prune", **WHAT},
    "gradient_prune": {"method": "gradient_prune", **WHAT},
    "dwp": {"method": "dwp", **WHAT},
    "adaptive_sparsity": {"method": "adaptive_sparsity", "starget": 0.8, **WHAT},
    "prune_iterative": {"method": "prune_iterative", **WHAT},
    "regrow": {"method": "regrow", **WHAT},
    "regrow_iterative": {"method": "regrow_iterative", **WHAT},
    "single_layer": {"method": "single_layer", **WHAT},
}
