"""The stored sweeps: their paths, the expected results, and the facts to compare.

``python -m tests.upgrade.stored`` writes expected.json anew, by reading and continuing the storage with the present
code. Run it only with the code that wrote the storage: the code under test must never write its own expectations.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import sweeper
from sweeper.cli import main
from trials.__main__ import main as trials_main
from trials.compact import cut_tensors, slices
from trials.networks.stored import network, network_of

HERE = Path(__file__).resolve().parent
STORAGE = HERE / "storage_6d359b9"
EXPECTED = HERE / "expected.json"

EXIT_CODES = {"methods": 1, "stopped": 0, "population": 0}
"""Exit code of each sweep when run to its end; a trial of the first has failed."""

LARGER = {
    "methods": ["--samples", "2"],
    "stopped": ["--samples", "3"],
    "population": ["--set", "pbt.generations=3"],
}
"""Arguments that extend each sweep."""

PARENT = "bip-13dacc0bfeb9"
"""The best trial of the population's last generation, from which both members of the next continue."""

PARENT_CHECKPOINT = f"population/trials/{PARENT}/checkpoint/000001-a1-2af13b611806.pt"

EXPORTS = {
    "methods/trials/greg1-2ca709646b4a": ("dense", "compact"),
    "stopped/trials/one_shot-f9770c7c8a46": ("dense", "prune"),
    f"population/trials/{PARENT}": ("dense",),
    "stages/dense-d180e7f1b06f-dcca5f": ("dense",),
}
"""Trials whose checkpoints are stored, and the forms in which their networks are exported."""

TABLES = ("epochs", "layers", "allocations", "lineage")


def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXPECTED.read_text())
    return found


def command(storage: Path, name: str, *more: str) -> list[str]:
    """The command line that made a stored sweep, or extends it."""
    return ["--space", str(HERE / f"{name}.yaml"), "--storage", str(storage), "--serial", *more]


def facts(path: Path) -> dict[str, Any]:
    """The tables' facts of every trial of a sweep, and its lineage."""
    tables = sweeper.load(path)
    rows = {name: getattr(tables, name)["trial"].value_counts() for name in TABLES}
    trials = {
        str(trial["trial"]): {
            **{column: plain(trial[column]) for column in ("status", "cell", "number", "attempts", "failures")},
            **{column: plain(trial[column]) for column in ("val_accuracy", "test_accuracy", "density", "pruned_at")},
            **{column: plain(trial[column]) for column in ("flops", "parameters", "error_type")},
            "rows": {name: int(counts.get(trial["trial"], 0)) for name, counts in rows.items()},
            "val_accuracies": curve(tables.epochs, str(trial["trial"])),
        }
        for trial in tables.trials.to_dict("records")
    }
    places = tables.lineage[["cell", "generation", "member", "parent", "trial", "parent_trial"]]
    lineage = [[plain(value) for value in row] for row in places.itertuples(index=False)]
    return {"trials": trials, "lineage": sorted(lineage, key=str)}


def curve(epochs: pd.DataFrame, trial: str) -> list[Any]:
    return [plain(value) for value in epochs[epochs["trial"] == trial]["val_accuracy"]]


def plain(value: Any) -> Any:
    """The value as JSON has it."""
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value


def columns(path: Path) -> dict[str, list[str]]:
    tables = sweeper.load(path)
    return {name: list(getattr(tables, name).columns) for name in ("trials", *TABLES)}


def shown(storage: Path, said: str) -> list[str]:
    """The lines of --show, without this machine's paths."""
    return said.replace(str(storage), "STORAGE").splitlines()


def trials_of(storage: Path, name: str) -> set[str]:
    return {path.name for path in (storage / name / "trials").iterdir()}


def committed(storage: Path) -> dict[str, bytes]:
    """Every file that trials and shared trials have committed, by its path in the storage."""
    paths = [*storage.glob("*/trials/**/*"), *storage.glob("stages/**/*")]
    return {
        str(path.relative_to(storage)): path.read_bytes()
        for path in paths
        if path.is_file() and not path.name.startswith("lease.")
    }


def exported(trial: Path, form: str, to: Path) -> dict[str, str]:
    """Type, shape and hash of the values of every tensor that ``python -m trials export`` writes."""
    assert trials_main(["export", str(trial), "--to", str(to), "--form", form]) == 0
    content = torch.load(to, map_location="cpu", weights_only=True)
    if form == "dense":
        content = as_small_as_stored(trial, content)
    return {name: described(tensor) for name, tensor in tensors(content)}


def as_small_as_stored(trial: Path, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a trial's own network has of a dense export. The storage's version wrote only that, in its own shapes."""
    kept = network_of(trial).get("kept")
    if not kept:
        return state
    model = network(trial)[0].build()
    model.load_state_dict(state)
    return cut_tensors(state, slices(model, kept))


def tensors(content: Any, prefix: str = "") -> list[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        return [(prefix, content)]
    if not isinstance(content, dict):
        return []
    return [found for key, value in content.items() for found in tensors(value, f"{prefix}/{key}".lstrip("/"))]


def described(tensor: torch.Tensor) -> str:
    values = hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]
    return f"{tensor.dtype} {list(tensor.shape)} {values}"


def record() -> dict[str, Any]:
    """The results of the present code on the storage."""
    found: dict[str, Any] = {"sweeps": {}, "exports": {}}
    with tempfile.TemporaryDirectory() as folder:
        storage = shutil.copytree(STORAGE, Path(folder) / "storage")
        for name in EXIT_CODES:
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                assert main(["--show", name, "--storage", str(storage)]) == 0
            sweep = {
                "show": shown(storage, said.getvalue()),
                **facts(storage / name),
                "columns": columns(storage / name),
            }
            before = trials_of(storage, name)
            with contextlib.redirect_stdout(io.StringIO()):
                assert main(command(storage, name, "--address", "local", *LARGER[name])) == EXIT_CODES[name]
            found["sweeps"][name] = {**sweep, "added": sorted(trials_of(storage, name) - before)}
        for trial, forms in EXPORTS.items():
            for form in forms:
                found["exports"][f"{trial} {form}"] = exported(STORAGE / trial, form, Path(folder) / "network.pt")
    return found


if __name__ == "__main__":
    EXPECTED.write_text(json.dumps(record(), indent=1) + "\n")
