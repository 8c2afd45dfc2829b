"""One run of the check: its time limit, its results, and the folder they are written to."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.measuring import Card

Result = dict[str, Any]


def short(error: BaseException) -> str:
    """Return an error as one line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:220] if lines else ''}"


def found(results: object, key: str, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Yield the path and value of every ``key`` in nested results: ``("smoke / bip", "RuntimeError: …")``."""
    if isinstance(results, dict):
        for name, value in results.items():
            if name == key:
                yield " / ".join(path), value
            else:
                yield from found(value, key, (*path, name))


@dataclass
class Check:
    """One run of the check, passed to every section.

    Attributes:
        card: the device that is measured.
        seconds: time limit of all sections together; what does not fit is skipped.
        folder: folder to which ``gpu_check.json`` is written after each section.
        trials: names of the trials that the section ``smoke`` runs; None runs all.
        results: results by section.
        start: when the run started, by ``time.monotonic``.
    """

    card: Card
    seconds: float
    folder: Path
    trials: tuple[str, ...] | None = None
    results: dict[str, Result] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> torch.device:
        """The device of ``card``."""
        return self.card.device

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.seconds - (time.monotonic() - self.start))

    def has(self, seconds: float, into: Result, key: str) -> bool:
        """Whether ``seconds`` are left; if not, record ``key`` as skipped."""
        if self.left() >= seconds:
            return True
        into[key] = {"skipped": f"{self.left():.0f} s left, needs {seconds:.0f} s"}
        return False

    def attempt(self, into: Result, key: str, measure: Callable[[], object]) -> bool:
        """Record what ``measure`` returns or the error it raises; return whether it succeeded."""
        try:
            into[key] = measure()
        except Exception as error:  # noqa: BLE001  an error is a result, and the next figure is measured anyway
            into[key] = {"error": short(error)}
            with suppress(RuntimeError):
                self.card.wait()
            return False
        return True

    def section(self, name: str, needs_s: float, needs_cuda: bool, run: Callable[[Check, Result], None]) -> None:
        """Run a section or record why it is skipped, then write the results."""
        result = self.results[name] = {}
        if needs_cuda and not self.card.is_cuda:
            result["skipped"] = "needs CUDA"
        elif self.left() < needs_s:
            result["skipped"] = f"{self.left():.0f} s left, needs {needs_s:.0f} s"
        else:
            self._run(name, result, run)
        self.save()

    def _run(self, name: str, result: Result, run: Callable[[Check, Result], None]) -> None:
        start = time.monotonic()
        try:
            run(self, result)
            if self.card.is_cuda:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
        except Exception as error:  # noqa: BLE001  the next section runs anyway
            result["error"] = short(error)
            traceback.print_exc()
        result["seconds"] = round(time.monotonic() - start, 1)
        print(f"[{time.monotonic() - self.start:5.0f} s] {name}: {result['seconds']} s", file=sys.stderr, flush=True)

    def save(self) -> None:
        """Write all results so far to ``gpu_check.json``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "gpu_check.json").write_text(json.dumps(self.results, indent=1) + "\n")
