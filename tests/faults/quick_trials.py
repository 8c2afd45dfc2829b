"""Trials that commit, continue and start from others as real ones do, but compute a number instead of a network.

The number depends on all that a trial has trained, and on what it started from: whoever continues from the wrong
checkpoint has other rows.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

import torch

from trials.config.trial_config import TrialConfig
from trials.errors import DamagedFile, NonFiniteLoss, Preempted
from trials.methods.dense import copied, copies_shared
from trials.methods.registry import METHODS
from trials.running.inherited_checkpoint import inherited
from trials.running.shared_trials import folder_in, obtain, require_same_config, shared_name
from trials.running.trial import TrialHost
from trials.storage.place import Place
from trials.storage.rows import Rows
from trials.storage.trial_folder import Attempt, State, TrialFolder

DATA = "400a5f684b6d3049"
"""Fingerprint of ``few_digits``."""

WHERE = {"device": "cpu", "threads": 1, "precision": "float32"}
FAILS_FROM = 1e20
"""A learning rate from which on the loss is infinite."""


def run_quickly(config: TrialConfig, path: Place, host: TrialHost) -> State:
    """In place of :func:`trials.running.trial.run`."""
    folder = TrialFolder(path)
    lines = folder.verify(checkpoint=True)
    state = folder.state()
    if state is not None and state.finished:
        return state
    attempt, checkpoint = folder.begin(host="here", device="cpu", environment=WHERE)
    for line in (*lines, *attempt.warnings):
        host.warn(line)
    try:
        _go(config, attempt, checkpoint, host)
    except Preempted:
        attempt.end("preempted")
    except Exception as error:  # noqa: BLE001  as real trials do
        record = {"type": type(error).__name__, "message": str(error), "traceback": ""}
        attempt.end("failed", error=record, failures=attempt.state.failures + 1)
    return attempt.state


def _go(config: TrialConfig, attempt: Attempt, checkpoint: dict[str, Any], host: TrialHost) -> None:
    shared = attempt.folder.path.parent == host.stages
    if not checkpoint and (found := inherited(config, attempt.folder.path.parent)):
        attempt.builds_on(found[0])
        checkpoint = found[1]
    if checkpoint:
        rows, number = json.loads(checkpoint["rows"]), float(checkpoint["net"]["number"])
        if checkpoint["data"] != DATA:
            raise ValueError("other data")
    else:
        rows, number = _start(config, attempt, host, shared)
    epochs, own = rows.setdefault("epochs", []), sum(row["stage_id"] is None for row in rows["epochs"])
    lr, last = _rate(config), config.until_epoch or (2 if config.method == "dense" else 3)
    if 0 < own < last and not shared and host.is_over(own, epochs[-1]):  # its state is lost, its decision is not
        _prune(attempt, rows, number)
        return
    for epoch in range(own + 1, last + 1):
        if not math.isfinite(lr) or lr > FAILS_FROM:
            raise NonFiniteLoss(f"the loss of epoch {epoch} is inf")
        number = _next(number, _rate_of(config, epoch), epoch)
        epochs.append(
            {
                "stage": "finetune",
                "level": 0,
                "epoch": epoch,
                "stage_id": None,
                "seconds": 0.1,
                "warnings": [],
                "val_accuracy": number,
                "test_accuracy": number / 2 if epoch == last else None,
                "density": config.model_dump().get("density", 1.0),
            }
        )
        host.report(epochs[-1])
        if host.should_stop() and epoch < last:
            _commit(attempt, rows, number, shared)
            raise Preempted
        if epoch < last and not shared and host.is_over(epoch, epochs[-1]):
            _prune(attempt, rows, number)
            return
        _commit(attempt, rows, number, shared)
    others = [row for row in rows.get("layers", []) if row["stage_id"] is not None]
    own = {"stage": "finetune", "level": 0, "layer": "conv1", "total": 10, "kept": 5, "stage_id": None}
    rows["layers"] = [*others, own]
    if config.method == "regrow":
        rows["allocations"] = [{"step": 0, "episode": 0, "layer": "conv1", "share": number}]
    _commit(attempt, rows, number, shared, status="complete", result=_result(rows))


def _prune(attempt: Attempt, rows: Rows, number: float) -> None:
    result = {**_result(rows), "pruned_at": sum(row["stage_id"] is None for row in rows["epochs"])}
    _commit(attempt, rows, number, False, status="pruned", result=result)


def _result(rows: Rows) -> dict[str, Any]:
    last = rows["epochs"][-1]
    return {**{key: last[key] for key in ("val_accuracy", "test_accuracy", "density", "warnings")}, "data": DATA}


def _commit(attempt: Attempt, rows: Rows, number: float, shared: bool, **fields: Any) -> None:
    content = {"net": {"number": torch.tensor(number, dtype=torch.float64)}, "data": DATA}
    progress = {"epoch": len(rows["epochs"]), "data": DATA}
    attempt.commit(checkpoint=content, rows=rows, progress=progress, seconds=0.1, spare=shared, **fields)


def _start(config: TrialConfig, attempt: Attempt, host: TrialHost, shared: bool) -> tuple[dict[str, Any], float]:
    source = copied(config) if copies_shared(config) and not shared else METHODS[config.method](config).source()
    if source is None:
        return {}, 0.5
    folder = folder_in(host.stages, shared_name(source.id, DATA), source, "float32")
    require_same_config(folder, source)
    quiet = replace(host, report=lambda row: None, should_stop=lambda: False)
    found = obtain(folder, lambda: run_quickly(source, folder.path, quiet), host.should_stop)
    if found.checkpoint["data"] != DATA:
        raise DamagedFile("other data")
    attempt.builds_on(found.state)
    rows = {table: [{**row, "stage_id": folder.path.name} for row in content] for table, content in found.rows.items()}
    return rows, float(found.checkpoint["net"]["number"])


def _rate(config: TrialConfig) -> float:
    """The learning rate that decides how a trial goes."""
    found = config.model_dump().get("finetune") or {}
    return float(found.get("lr") or 0.1)


def _rate_of(config: TrialConfig, epoch: int) -> float:
    """The learning rate of an epoch; earlier segments of a population had others."""
    segment = next((one for one in config.lineage if epoch <= one.until_epoch), None)
    return _rate(config) if segment is None else float(str(segment.values["finetune.lr"]))


def _next(before: float, lr: float, epoch: int) -> float:
    """Higher near a rate of 0.1, and another number for any other start, rate and epoch."""
    noise = int(hashlib.sha256(f"{before!r} {lr!r} {epoch}".encode()).hexdigest()[:8], 16) / 2**32
    return 0.9 - abs(math.log10(lr) + 1) / 10 - 0.1 / epoch + 0.01 * noise + before * 1e-3
