"""The results of a check: one JSON file and one page, written anew after every figure; no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.gpu.derived import derive
from benchmarks.gpu.report import report

Result = dict[str, Any]

JSON, PAGE = "gpu_check.json", "gpu_check.md"
RUNNING = "running"
"""Key of a section that has begun and not ended."""


def write_results(folder: Path, results: dict[str, Result]) -> None:
    """Write the results, with what follows from them, and their page. A kill leaves the files of before."""
    folder.mkdir(parents=True, exist_ok=True)
    derive(results)
    for name, text in ((JSON, json.dumps(results, indent=1)), (PAGE, f"# GPU check\n\n{report(results)}")):
        part = folder / f"{name}.part"
        part.write_text(f"{text}\n")
        os.replace(part, folder / name)  # noqa: PTH105


def read_results(folder: Path) -> dict[str, Result]:
    """Return the results that are written in a folder; empty if there are none."""
    try:
        content: dict[str, Result] = json.loads((folder / JSON).read_text())
    except FileNotFoundError:
        return {}
    return content
