"""One trial: config -> the network it starts from -> stages -> rows. Commits as it goes, and continues where it was."""

from __future__ import annotations

import json
import math
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trials.config import TrialConfig
from trials.data import Loader, Source, load
from trials.errors import NonFiniteLoss, Preempted, Superseded
from trials.ledger import Attempt, Row, Rows, State, TrialFolder
from trials.methods import METHODS, Method, Stage
from trials.seeding import derive_seed
from trials.sources import obtain
from trials.sparsity.accounting import LayerSizes, layer_rows, summary
from trials.training import Net, Totals, build_net, evaluate, place_data, resolve_device
from trials.weights import load_into

POLL_S = 0.5
"""How often, at most, a running trial looks whether it should stop."""


RESULT = (
    *(f"{split}_{figure}" for split in ("train", "val", "test") for figure in ("loss", "accuracy")),
    *("density", "sparsity", "kept", "prunable", "empty_layers", "flops"),
)
"""Columns of a trial's last row that are its result: what an objective may name, with dense_flops and parameters."""


@dataclass(frozen=True)
class Surroundings:
    """What a trial is told by whoever runs it.

    Attributes:
        stages: folder of the shared stages.
        report: called with every row of the table ``epochs`` as it comes, before it is committed.
        should_stop: asked about twice a second; True commits what there is and ends the attempt as preempted.
        threads: threads of the CPU. Results are the same bits for the same number.
    """

    stages: Path
    report: Callable[[Row], None] = lambda row: None
    should_stop: Callable[[], bool] = lambda: False
    threads: int = 1


def run(config: TrialConfig, folder: Path, around: Surroundings) -> State:
    """Run a trial in its folder, from wherever it is, and return how it stands.

    A finished trial is not run again: its state is returned at once. A failure is committed (type, message, traceback)
    and returned, not raised.

    Raises:
        Superseded: a later attempt took the trial over meanwhile.
    """
    ledger = TrialFolder(folder)
    device = resolve_device(config.device)
    ledger.verify(checkpoint=True)
    state = ledger.state()
    if state is not None and state.finished:
        return state
    torch.set_num_threads(around.threads)
    attempt, checkpoint = ledger.begin(host=socket.gethostname(), device=_describe(device))
    try:
        _Run(config, attempt, checkpoint, around, device).go()
    except Preempted:
        attempt.end("preempted")
    except KeyboardInterrupt:
        attempt.end("preempted")
        raise
    except Superseded:
        raise
    except Exception as error:  # noqa: BLE001  any failure of a trial is a result: committed, and told to the driver
        failure = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        attempt.end("failed", error=failure, failures=attempt.state.failures + 1)
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return attempt.state


def _describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class _Run:
    """One attempt at a trial."""

    def __init__(
        self,
        config: TrialConfig,
        attempt: Attempt,
        checkpoint: dict[str, Any],
        around: Surroundings,
        device: torch.device,
    ) -> None:
        self.config, self.attempt, self.around, self.device = config, attempt, around, device
        self.is_source = attempt.folder.path.parent == around.stages
        self.method: Method = METHODS[config.method](config)
        self.checkpoint = checkpoint
        self.rows: Rows = {table: [] for table in ("epochs", "layers")}
        self.start = self.last_commit = self.last_poll = time.monotonic()
        self.seconds_before = attempt.state.seconds
        self.raw: Source = load(config.dataset, config.data_dir)
        self.data: Loader = place_data(config, self.raw, device)
        self.net: Net = build_net(config, self.raw, device)
        self.sizes = LayerSizes.of(self.net, self.raw)

    def go(self) -> None:
        """Everything that is left to do."""
        self.method.initialised(self.net)
        stages = [] if self._is_shared() else list(self.method.stages())
        first = 0
        if self.checkpoint:
            first = self._continue()
        else:
            self._load_source()
        for position in range(first, len(stages)):
            self._run_stage(stages[position], position, last=position == len(stages) - 1)
        if not stages or first == len(stages):
            self._commit({"stage": len(stages)}, status="complete", result=self._result(self.rows["epochs"][-1]))

    def _is_shared(self) -> bool:
        """A dense trial of a sweep is the shared stage of the same config, and nothing more."""
        return self.config.method == "dense" and not self.is_source

    def _continue(self) -> int:
        self.rows.update(json.loads(self.checkpoint["rows"]))
        if self.checkpoint["data"] != self.raw.fingerprint:
            raise ValueError(
                f"{self.config.dataset} has fingerprint {self.raw.fingerprint}, but the trial began on "
                f"{self.checkpoint['data']}: give it the data it began on, or another storage"
            )
        self.net.load_state_dict(self.checkpoint["net"])
        return int(self.checkpoint["position"]["stage"])

    def _load_source(self) -> None:
        source = self.config if self._is_shared() else self.method.source()
        if source is None:
            given = getattr(self.config, "source_net", None)
            if given is not None:
                load_into(self.net.model, Path(given).expanduser())
            return
        folder = TrialFolder(self.around.stages / source_name(source, self.raw))
        checkpoint, rows = obtain(folder, lambda: run(source, folder.path, self.around), self.around.should_stop)
        self.net.load_state_dict(checkpoint["net"])
        for table, content in rows.items():
            self.rows[table] = [{**row, "stage_id": folder.path.name} for row in content]

    def _run_stage(self, stage: Stage, position: int, last: bool) -> None:
        resumed = self.checkpoint.get("position", {}) if self.checkpoint else {}
        inside = resumed.get("stage") == position and "epoch" in resumed
        began = time.monotonic()
        if not inside:
            stage.enter(self.net)
        stage.attach(self.net)
        epoch, step, totals = stage.first_epoch, 0, None
        if inside:
            stage.load_state_dict(self.checkpoint["method"])
            epoch, step = resumed["epoch"], resumed["step"]
            totals = self._resume_epoch() if step else None
        elif stage.changes_network or stage.epochs == epoch:
            stage.begin_epoch(epoch)
            self._report(stage, 0, None, began, end=stage.epochs == epoch)
        self.checkpoint = {}
        while epoch < stage.epochs:
            began = time.monotonic()
            totals = self._train_epoch(stage, position, epoch, step, totals)
            stage.end_epoch(self.net, epoch)
            epoch, step = epoch + 1, 0
            self._report(stage, epoch, totals, began, end=epoch == stage.epochs)
            totals = None
            if epoch < stage.epochs:
                self._commit_if_due(stage, position, epoch)
        self.rows["layers"] += layer_rows(self.net, self.sizes, stage=stage.name, level=stage.level)
        if last:
            self._commit({"stage": position + 1}, status="complete", result=self._result(self.rows["epochs"][-1]))
        else:
            self._commit({"stage": position + 1})

    def _train_epoch(self, stage: Stage, position: int, epoch: int, step: int, totals: Totals | None) -> Totals:
        stage.begin_epoch(epoch)
        if totals is None:
            totals = Totals.zero(self.device)
            torch.manual_seed(derive_seed(self.config.seed, stage.key, epoch))  # for layers that draw, e.g. dropout
        self.net.model.train()
        streams = [
            self.data.batches(
                seed=derive_seed(self.config.seed, stage.key),
                epoch=epoch,
                stream=stream,
                batch_size=stage.recipe.batch_size,
                start=step,
                augment=self.config.augment,
            )
            for stream in stage.streams
        ]
        for batches in zip(*streams, strict=True):
            loss, correct = stage.step(*batches)
            totals.add(loss, correct, len(batches[0][1]))
            step += 1
            self._commit_if_due(stage, position, epoch, step, totals)
        return totals

    def _report(self, stage: Stage, epoch: int, totals: Totals | None, began: float, end: bool) -> None:
        """Evaluate and add the row of an epoch (1-based; 0 is the network as the stage found or made it)."""
        loss, accuracy = totals.means() if totals is not None else (None, None)
        val_loss, val_accuracy = evaluate(self.net, self.data, "val")
        test_loss, test_accuracy = evaluate(self.net, self.data, "test") if end else (None, None)
        for value in (loss, val_loss, test_loss):
            if value is not None and not math.isfinite(value):
                raise NonFiniteLoss(f"the loss of stage {stage.name}, level {stage.level}, epoch {epoch} is {value}")
        row: Row = {
            "stage": stage.name,
            "level": stage.level,
            "epoch": epoch,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            **summary(self.net, self.sizes),
            **stage.columns(),
            "variant": self.config.variant,
            "seconds": time.monotonic() - began,
            "stage_id": None,
        }
        self.rows["epochs"].append(row)
        self.around.report(row)

    def _commit_if_due(
        self, stage: Stage, position: int, epoch: int, step: int = 0, totals: Totals | None = None
    ) -> None:
        now = time.monotonic()
        stop = False
        if now - self.last_poll >= POLL_S:
            self.last_poll = now
            stop = self.around.should_stop()
        if not stop and now - self.last_commit < self.config.checkpoint_every_s:
            return
        extra: dict[str, Any] = {"method": stage.state_dict(), "rng": torch.get_rng_state()}
        if totals is not None:
            extra["totals"] = [totals.loss, totals.correct, totals.count]
        if self.device.type == "cuda":
            extra["rng_cuda"] = torch.cuda.get_rng_state(self.device)
        self._commit({"stage": position, "epoch": epoch, "step": step}, extra)
        if stop:
            raise Preempted

    def _resume_epoch(self) -> Totals:
        torch.set_rng_state(self.checkpoint["rng"])
        if self.device.type == "cuda" and "rng_cuda" in self.checkpoint:
            torch.cuda.set_rng_state(self.checkpoint["rng_cuda"], self.device)
        loss, correct, count = self.checkpoint["totals"]
        return Totals(loss.to(self.device), correct.to(self.device), count)

    def _commit(self, position: dict[str, int], extra: dict[str, Any] | None = None, **fields: Any) -> None:
        content = {"position": position, "data": self.raw.fingerprint, "net": self.net.state_dict(), **(extra or {})}
        seconds = self.seconds_before + time.monotonic() - self.start
        last = self.rows["epochs"][-1] if self.rows["epochs"] else {}
        progress = {**position, **{key: last.get(key) for key in ("level", "val_accuracy", "density")}}
        self.attempt.commit(checkpoint=content, rows=self.rows, progress=progress, seconds=seconds, **fields)
        self.last_commit = time.monotonic()

    def _result(self, row: Row) -> dict[str, Any]:
        """What the trial came to: its last row's figures, and the size of the network it started from."""
        return {
            **{key: row[key] for key in RESULT},
            "dense_flops": self.sizes.dense_flops,
            "parameters": self.sizes.parameters,
            "data": self.raw.fingerprint,
            "data_source": self.raw.source,
        }


def source_name(source: TrialConfig, raw: Source) -> str:
    """The folder of a shared stage: its trial's name and the fingerprint of the data it saw."""
    return f"{source.id}-{raw.fingerprint[:6]}"
