"""Evaluate a running trial, collect its rows, commit them with the network. Also TrialHost, its link to its runner."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trials.config.trial_config import TrialConfig
from trials.data import Loader, Source
from trials.errors import NonFiniteLoss
from trials.methods import Method, Stage
from trials.running.cost import Cost
from trials.running.degenerate import Judge
from trials.running.evaluating import Evaluator
from trials.running.figures import layer_columns, plain_rows, reported
from trials.running.own_time import OWN_SECONDS, OwnTime
from trials.sparsity.accounting import LayerSizes, layer_rows, realised, summary
from trials.storage.outages import STORAGE_PATIENCE_S, StoragePatience
from trials.storage.place import Place
from trials.storage.rows import COMPACT, RESULT, TABLES, Row, Rows
from trials.storage.trial_folder import Attempt
from trials.training.best_epoch import BestEpoch
from trials.training.build import architecture_of
from trials.training.evaluation import Totals
from trials.training.latency import measure
from trials.training.net import Net
from trials.training.stage_context import Map

STOP_POLL_S = 0.5
"""Minimum seconds between two checks whether a running trial should stop."""


@dataclass(frozen=True)
class TrialHost:
    """The object through which a trial talks to whatever runs it: callbacks and settings.

    Attributes:
        stages: folder of the shared trials.
        report: called with every new row of the table ``epochs``, before it is committed.
        follow: called likewise, with all rows so far, those of a shared trial that it starts from included.
        should_stop: called about twice a second; if True, the trial commits and the attempt ends as preempted.
        threads: number of CPU threads. Results are bitwise reproducible for equal numbers.
        is_over: called after every epoch but the trial's last, in stages that the method allows to be pruned, with the
            number of such epochs so far and the row; if True, the trial commits and ends as pruned.
        warn: called with one line about problems outside the trial: damaged files.
        alone: True if no other trial shares the device. Running out of memory on a shared device is not counted as a
            failure.
        map: runs a stage's independent work items (see trials/training/stage_context.py); None: in this process, in
            order.
        data: fingerprint that the trial's data must have; None accepts any.
        commit: the commit of the code, where whatever runs the trial knows it; None: the trial looks for it.
        limit_s: seconds that the trial itself may take over all attempts; after them it fails. None: any number.
        storage: called with a line when the storage errs and when it works again, and with whether it errs; by default
            such lines go to ``warn``.
        storage_patience_s: seconds for which the trial waits for a storage that errs.
    """

    stages: Place
    report: Callable[[Row], None] = lambda row: None
    should_stop: Callable[[], bool] = lambda: False
    threads: int = 1
    is_over: Callable[[int, Row], bool] = lambda step, row: False
    follow: Callable[[Sequence[Row]], None] = lambda rows: None
    warn: Callable[[str], None] = lambda text: None
    alone: bool = True
    map: Map | None = None
    data: str | None = None
    commit: str | None = None
    limit_s: float | None = None
    storage: Callable[[str, bool], None] | None = None
    storage_patience_s: float = STORAGE_PATIENCE_S

    def patience(self) -> StoragePatience:
        """How the trial waits for a storage that errs."""
        tell = self.storage or (lambda text, errs: self.warn(text))
        return StoragePatience(tell, self.should_stop, self.storage_patience_s)

    def mapping(self) -> Map:
        return self.map or (lambda function, shared, items: [function(shared, i, self.should_stop) for i in items])


class Progress:
    """State of one attempt at a trial: evaluates the network, collects rows and commits both.

    Attributes:
        is_shared: True if this is a shared trial, which lies in the folder of stages.
    """

    def __init__(
        self,
        config: TrialConfig,
        attempt: Attempt,
        trial_host: TrialHost,
        method: Method,
        raw: Source,
        data: Loader,
        net: Net,
        own_time: OwnTime,
    ) -> None:
        self.own_time = own_time
        self.config, self.attempt, self.trial_host, self.method = config, attempt, trial_host, method
        self.raw, self.data, self.net, self.device = raw, data, net, net.device
        self.is_shared = attempt.folder.path.parent == trial_host.stages
        self.rows: Rows = {table: [] for table in TABLES}
        self.sizes = LayerSizes.of(net, raw)
        self.cost = Cost(net, self.sizes, data.train_size)
        self._evaluate = Evaluator(net, data, capture=config.capture, warn=trial_host.warn)
        self.judge = Judge(method, net, data, raw)
        self.architecture = architecture_of(config, raw, net.device)
        self._start = self._last_commit = self._last_poll = time.monotonic()
        self._seconds_before = attempt.state.seconds

    def report(
        self,
        stage: Stage,
        epoch: int,
        totals: Totals | None,
        own: Callable[[], dict[str, Any]],
        began: float,
        end: bool,
        best: BestEpoch | None = None,
    ) -> bool:
        """Evaluate the network, add and report the row of an epoch, and return whether the stage ends here.

        ``epoch`` is 1-based; 0 is the network before any training in the stage. ``own`` returns the stage's columns.
        ``began`` is ``time.monotonic()`` at the epoch's start. If not ``end``, the stage may still end by itself.
        ``best``: of a stage that ends with its best epoch. The network is then that of this epoch, and the last row
        describes it. Raises NonFiniteLoss if a loss is NaN or infinite.
        """
        loss, accuracy = totals.means() if totals is not None and totals.count else (None, None)
        figures = {**self._evaluated("val"), "train_loss": loss, "train_accuracy": accuracy}
        columns, sizes = own(), summary(self.net, self.sizes)
        _require_finite((loss, figures["val_loss"]), stage, epoch)
        if epoch:
            stage.assess(self.net, epoch, figures["val_accuracy"])
            end = end or stage.finished
        if epoch and best is not None:
            if best.is_better(figures["val_accuracy"], sizes["kept"]):
                best.keep(self.net, epoch, {**figures, **columns}, sizes["kept"], layer_columns(stage))
            if end and best.epoch != epoch:
                best.restore(self.net)
                figures |= self._evaluated("val")
                columns, sizes = {**columns, **best.columns}, summary(self.net, self.sizes)
            columns = {**columns, "best_epoch": best.epoch}
        figures |= self._evaluated("test") if end else {"test_loss": None, "test_accuracy": None}
        _require_finite((figures["test_loss"],), stage, epoch)
        compact = realised(self.net, self.sizes) if end else dict.fromkeys(COMPACT)
        columns["report"] = self.config.reported if best is None else "best_val"
        row = self._row(stage, epoch, {**figures, **sizes, **compact, **columns}, began)
        row["warnings"] = self.judge.of_row(row, stage, stage.finished or epoch == stage.epochs)
        self.rows["epochs"].append(row)
        self.trial_host.report(row)
        self.trial_host.follow(self.rows["epochs"])
        return end

    def _row(self, stage: Stage, epoch: int, figures: Row, began: float) -> Row:
        return {
            "stage": stage.name,
            "level": stage.level,
            "epoch": epoch,
            **figures,
            **self.cost.columns(),
            "variant": self.config.variant,
            "seconds": time.monotonic() - began,
            "stage_id": None,
        }

    def _evaluated(self, split: str) -> dict[str, Any]:
        loss, accuracy = self._evaluate(split)
        return {f"{split}_loss": loss, f"{split}_accuracy": accuracy}

    def report_layers(self, stage: Stage, best: BestEpoch | None = None) -> None:
        """Add the rows of the table ``layers`` at the end of a stage; ``best``: as in :meth:`report`."""
        own = layer_columns(stage) if best is None or not best.epoch else best.layers
        self.rows["layers"] += layer_rows(self.net, self.sizes, stage=stage.name, level=stage.level, own=own)

    def due(self) -> tuple[bool, bool]:
        """Return whether to commit now, and whether to stop afterwards."""
        now = time.monotonic()
        stop = False
        if now - self._last_poll >= STOP_POLL_S:
            self._last_poll = now
            stop = self.trial_host.should_stop()
        return stop or now - self._last_commit >= self.config.checkpoint_every_s, stop

    def commit(self, position: dict[str, int], extra: dict[str, Any] | None = None, **fields: Any) -> None:
        """Commit the network, the rows, the trial's position and ``extra`` state that the next step needs.

        ``fields`` set further fields of the trial's state (status, result).
        """
        content = {"position": position, "data": self.raw.fingerprint, "net": self.net.state_dict(), **(extra or {})}
        content |= {"architecture": self.architecture.record(), "cost": self.cost.state_dict()}
        seconds = self._seconds_before + time.monotonic() - self._start
        last = self.rows["epochs"][-1] if self.rows["epochs"] else {}
        progress = {**position, **{key: last.get(key) for key in ("level", "val_accuracy", "density")}}
        progress |= {"data": self.raw.fingerprint, OWN_SECONDS: self.own_time.seconds}
        self.rows["allocations"][:] = plain_rows(self.rows["allocations"], "allocations")  # stages write them
        self.attempt.commit(
            checkpoint=content, rows=self.rows, progress=progress, seconds=seconds, spare=self.is_shared, **fields
        )
        self._last_commit = time.monotonic()

    def complete(self, position: dict[str, int], extra: dict[str, Any] | None = None) -> None:
        """Make the trial's last commit, with status complete and the result."""
        self.commit(position, extra, status="complete", result=self.result())

    def own_epochs(self, stages: Container[str] | None = None) -> int:
        """Number of epochs trained in ``stages`` (None: all) by this trial and by ancestors it continues."""
        own = (row for row in self.rows["epochs"] if row["epoch"] > 0 and row["stage_id"] is None)
        return sum(stages is None or row["stage"] in stages for row in own)

    def result(self) -> dict[str, Any]:
        """Return the trial's result: metrics of its last row, latency if measured, sizes of the dense network."""
        row = self.rows["epochs"][-1]
        known = row.get(COMPACT[0]) is not None  # not if it was stopped within a stage
        measured = self.config.measure_latency and not self.is_shared
        return {
            **reported((*RESULT, *self.method.reports), row, self.config.method),
            **({key: row[key] for key in COMPACT} if known else realised(self.net, self.sizes)),
            "report": row.get("report", self.config.reported),
            **self.cost.result(),
            "epochs": self.own_epochs(),
            "dense_flops": self.sizes.dense_flops,
            "dense_parameters": self.sizes.parameters,
            **(measure(self.net, self.architecture.shape) if measured else {}),
            "data": self.raw.fingerprint,
            "data_source": self.raw.source,
            "warnings": self.judge.of_result(row),
        }


def _require_finite(losses: Iterable[float | None], stage: Stage, epoch: int) -> None:
    for value in losses:
        if value is not None and not math.isfinite(value):
            raise NonFiniteLoss(f"the loss of stage {stage.name}, level {stage.level}, epoch {epoch} is {value}")
