"""One process of the check: its time limit, its results, and the folder they are written to."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.gpu.measuring import Card
from benchmarks.gpu.results import RUNNING, Result, write_results


def short(error: BaseException) -> str:
    """Return an error as one line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:220] if lines else ''}"


class DeviceDead(RuntimeError):
    """The device answers nothing any more, as after a CUDA error that sticks to its process."""


@dataclass
class Check:
    """One process of the check, passed to every section that runs in it.

    Attributes:
        card: the device that is measured.
        seconds: time limit of all sections of this process; what does not fit is skipped.
        folder: folder to which ``gpu_check.json`` and ``gpu_check.md`` are written.
        trials: names of the trials that the smoke sections run; None runs all.
        data: folder of CIFAR-10 in Parquet files; None measures epochs of noise images.
        results: results by section, including those of earlier processes.
        start: when the process started, by ``time.monotonic``.
        dead: whether the device has died; no further section can run in this process.
    """

    card: Card
    seconds: float
    folder: Path
    trials: tuple[str, ...] | None = None
    data: Path | None = None
    results: dict[str, Result] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)
    dead: bool = False

    @property
    def device(self) -> torch.device:
        """The device of ``card``."""
        return self.card.device

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.seconds - (time.monotonic() - self.start))

    def has(self, seconds: float, into: Result, key: str) -> bool:
        """Whether ``seconds`` are left (a fifth of them on a CPU, which measures little); if not, skip ``key``."""
        seconds = seconds if self.card.is_cuda else seconds / 5
        if self.left() >= seconds:
            return True
        into[key] = {"skipped": f"{self.left():.0f} s left, needs {seconds:.0f} s"}
        return False

    def attempt(self, into: Result, key: str, measure: Callable[[], object]) -> bool:
        """Record what ``measure`` returns or the error it raises; return whether it succeeded.

        Raises:
            DeviceDead: the device answers nothing since that error.
        """
        try:
            into[key] = measure()
        except DeviceDead:
            raise
        except Exception as error:  # noqa: BLE001  an error is a result, and the next figure is measured anyway
            into[key] = {"error": short(error)}
            self.require_device()
            return False
        finally:
            self.save()
        return True

    def require_device(self) -> None:
        """Check that the device still answers.

        Raises:
            DeviceDead: it does not.
        """
        try:
            self.card.wait()
        except RuntimeError as error:
            raise DeviceDead(f"the device is dead ({short(error)})") from error

    def section(self, name: str, needs_s: float, needs_cuda: bool, run: Callable[[Check, Result], None]) -> None:
        """Run a section or record why it is skipped, then write the results."""
        result = self.results[name] = {}
        if self.dead:
            result["skipped"] = "the device is dead"
        elif needs_cuda and not self.card.is_cuda:
            result["skipped"] = "needs CUDA"
        elif self.left() < needs_s:
            result["skipped"] = f"{self.left():.0f} s left, needs {needs_s:.0f} s"
        else:
            self._run(name, result, run)
        self.save()

    def _run(self, name: str, result: Result, run: Callable[[Check, Result], None]) -> None:
        start = time.monotonic()
        result[RUNNING] = True
        self.save()
        try:
            run(self, result)
            self.require_device()
            if self.card.is_cuda:
                torch.cuda.empty_cache()
        except Exception as error:  # noqa: BLE001  the next section runs anyway
            result["error"] = short(error)
            traceback.print_exc()
            self._look(error)
        del result[RUNNING]
        result["seconds"] = round(time.monotonic() - start, 1)
        print(f"{name}: {result['seconds']} s, {self.left():.0f} s left", file=sys.stderr, flush=True)

    def _look(self, error: Exception) -> None:
        """Find out whether the device has died of an error."""
        try:
            self.require_device()
        except DeviceDead:
            self.dead = True
        self.dead |= isinstance(error, DeviceDead)

    def save(self) -> None:
        """Write all results so far."""
        write_results(self.folder, self.results)
