"""Run one stage of a trial: enter or resume it, then train until the stage, or the trial's segment, ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from trials.errors import Preempted, Pruned
from trials.methods import Stage, segments
from trials.running.captured import Epoch, stepper
from trials.running.figures import stage_columns
from trials.running.progress import Progress
from trials.seeding import derive_seed, generator
from trials.sparsity.accounting import summary
from trials.sparsity.backward import BackwardPruner
from trials.training.best_epoch import BestEpoch
from trials.training.evaluation import Totals
from trials.training.stage_context import StageContext


class StageRun:
    """One attempt at the stage with index ``position`` of a trial.

    Attributes:
        checkpoint: the checkpoint that the trial continues from. Cleared once the stage has loaded it, to free memory.
        epoch: number of finished epochs.
        step: number of finished steps of the current epoch.
        best: of a stage that ends with its best epoch; None for one that ends with its last.
        totals: the sums over the finished steps of the current epoch.
        stepper: runs the stage's steps, eagerly or as a CUDA graph.
        end: the epoch at which the stage ends: its last one, or the end of the segment in a population.
    """

    def __init__(
        self, progress: Progress, stage: Stage, position: int, checkpoint: dict[str, Any], selects: bool
    ) -> None:
        self.progress, self.net, self.position, self.checkpoint = progress, progress.net, position, checkpoint
        resumed = checkpoint.get("position", {})
        self.inside = resumed.get("stage") == position and "epoch" in resumed
        self.epoch: int = resumed["epoch"] if self.inside else stage.first_epoch
        self.step: int = resumed["step"] if self.inside else 0
        config = progress.config
        self.totals = Totals.zero(progress.device)
        self.best = BestEpoch() if selects else None
        self.divided = position == 0 and config.until_epoch is not None
        self.stage = segments.first_stage(segments.config_at(config, self.epoch)) if self.divided else stage
        self.end = config.until_epoch if self.divided and config.until_epoch is not None else stage.epochs

    def run(self, context: StageContext, last: bool) -> None:
        """Run the rest of the stage and commit its end. ``last``: the trial ends with this stage.

        Raises:
            Preempted: the trial was asked to stop; everything is committed.
            Pruned: the search stopped the trial early; everything is committed.
        """
        self._take_up(context)
        while self.epoch < self.end:
            began = time.monotonic()
            self.train_epoch()
            self.stage.end_epoch(self.net, self.epoch)
            self.epoch, self.step = self.epoch + 1, 0
            over = self._report(self.epoch, self.totals, began, self.stage.finished or self.epoch == self.end)
            if not over or not last:
                self._end_if_pruned(over)
            if over:
                break
            if self.divided:
                self._change_hyperparameters()
            self._commit_if_due()
        self.stepper.close()
        self.backward.remove()
        self.progress.report_layers(self.stage, self.best)
        self._commit_end(last)

    def _change_hyperparameters(self) -> None:
        """Switch to the next segment's hyperparameters if a segment begins at this epoch."""
        before, config = self.stage, self.progress.config
        self.stage = segments.changed(before, config, self.net, self.epoch)
        if self.stage is not before:
            self.stepper.close()
            self._make_stepper()

    def _make_stepper(self) -> None:
        self.stepper = stepper(
            self.stage, self.net, self.progress.config, self.progress.trial_host.warn, self.totals, self.backward
        )

    def _take_up(self, context: StageContext) -> None:
        """Enter the stage, or resume within it."""
        began = time.monotonic()
        self.stage.arrive(context)
        if not self.inside:
            self.stage.observe(self.net)
            self.stage.enter(self.net)
        self.stage.attach(self.net)
        self.progress.cost.resize()
        self.backward = BackwardPruner(self.net.model, self.stage.recipe.backward, self._backward_generator)
        if self.inside:
            self.stage.load_state_dict(self.checkpoint["method"])
            self.backward.load_state_dict(self.checkpoint["backward"])
            if self.best is not None:
                kept = summary(self.net, self.progress.sizes)["kept"]
                self.best.load_state_dict(_best_in(self.checkpoint, kept), self.progress.device)
            if self.step:
                self._resume_epoch()
        elif self.stage.changes_network or self.stage.epochs == self.epoch:
            self.stage.begin_epoch(self.epoch)
            self._report(0, None, began, end=self.stage.epochs == self.epoch)
        self.checkpoint.clear()
        self._make_stepper()

    def _backward_generator(self, layer: str) -> torch.Generator:
        return generator(self.progress.config.seed, self.stage.key, "backward", layer, device=self.progress.device)

    def _resume_epoch(self) -> None:
        device = self.progress.device
        torch.set_rng_state(self.checkpoint["rng"])
        if device.type == "cuda" and "rng_cuda" in self.checkpoint:
            torch.cuda.set_rng_state(self.checkpoint["rng_cuda"], device)
        loss, correct, count = self.checkpoint["totals"]
        self.totals = Totals(loss.to(device), correct.to(device), count)

    def train_epoch(self) -> None:
        """Run the remaining steps of the current epoch."""
        stage, config, epoch = self.stage, self.progress.config, self.epoch
        stage.begin_epoch(epoch)
        if not self.step:
            self.totals.reset()
            torch.manual_seed(derive_seed(config.seed, stage.key, epoch))  # for dropout and other random layers
        self.net.model.train()
        steps = Epoch(
            self.progress.data,
            seed=derive_seed(config.seed, stage.key),
            number=epoch,
            streams=stage.streams,
            batch_size=stage.recipe.batch_size,
            augment=config.augment and stage.augment,
            start=self.step,
        )
        for _ in self.stepper.epoch(steps):
            self.step += 1
            if stage.finished:
                break
            self._commit_if_due(self.totals)

    def _report(self, epoch: int, totals: Totals | None, began: float, end: bool) -> bool:
        return self.progress.report(self.stage, epoch, totals, self._columns, began, end, self.best)

    def _columns(self) -> dict[str, Any]:
        backward = self.backward.columns()
        return {**stage_columns(self.stage, backward), **backward}

    def _place(self) -> dict[str, int]:
        return {"stage": self.position, "epoch": self.epoch, "step": self.step}

    def _state(self) -> dict[str, Any]:
        best = {} if self.best is None else {"best": self.best.state_dict()}
        return {"method": self.stage.state_dict(), "backward": self.backward.state_dict(), **best}

    def _commit_if_due(self, totals: Totals | None = None) -> None:
        commit, stop = self.progress.due()
        if not commit:
            return
        extra: dict[str, Any] = {**self._state(), "rng": torch.get_rng_state()}
        if totals is not None:
            extra["totals"] = [totals.loss, totals.correct, totals.count]
        if self.progress.device.type == "cuda":
            extra["rng_cuda"] = torch.cuda.get_rng_state(self.progress.device)
        self.progress.commit(self._place(), extra)
        if stop:
            raise Preempted

    def _end_if_pruned(self, over: bool) -> None:
        """Commit and raise Pruned if the search stops the trial, in a stage that the method allows to be pruned.

        ``over``: the stage has ended, if need be with its best epoch; otherwise the network is that of this epoch.
        """
        progress, stoppable = self.progress, self.progress.method.stoppable
        if self.stage.name not in stoppable or progress.is_shared:
            return
        step = progress.own_epochs(stoppable)
        if progress.trial_host.is_over(step, progress.rows["epochs"][-1]):
            ends_with_best = over and self.best is not None
            progress.report_layers(self.stage, self.best if ends_with_best else None)
            own = {"report": "best_val" if ends_with_best else "last", "pruned_at": step}
            progress.commit(self._place(), status="pruned", result={**progress.result(), **own})
            raise Pruned

    def _commit_end(self, last: bool) -> None:
        """Commit the position after the stage: the next stage, or within this one if a segment ended it early."""
        goes_on = self.epoch < self.stage.epochs and not self.stage.finished
        place, state = (self._place(), self._state()) if goes_on else ({"stage": self.position + 1}, None)
        (self.progress.complete if last else self.progress.commit)(place, state)


def _best_in(checkpoint: Mapping[str, Any], kept: int) -> Mapping[str, Any]:
    """The best epoch so far. Earlier versions kept it with the state of the stages that selected, without masks.

    ``kept``: of the network, how many weights its row counts; in those stages no epoch had another number.
    """
    if "best" in checkpoint:
        found: Mapping[str, Any] = checkpoint["best"]
        return found
    stored = checkpoint["method"]["best"]
    own = {"columns": {}, "layers": {}, "model": stored["state"], "masks": checkpoint["net"]["masks"]}
    return {"epoch": stored["epoch"], "accuracy": stored["accuracy"], "kept": kept, **own}
