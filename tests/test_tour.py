"""docs/tour.ipynb runs from its first cell to its last in a kernel of its own, and is stored without outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
TOUR = ROOT / "docs" / "tour.ipynb"


def test_it_is_stored_without_outputs() -> None:
    for cell in nbformat.read(TOUR, as_version=4).cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


EXECUTE = """
import sys
import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

tour, out = sys.argv[1:]
AsyncKernelManager.kernel_spec = KernelSpec(
    argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python"
)
notebook = nbformat.read(tour, as_version=4)
NotebookClient(notebook, km=AsyncKernelManager(), timeout=180).execute()
nbformat.write(notebook, out)
"""
"""In a process of its own: nbclient leaves sockets open."""


@pytest.fixture
def executed(tmp_path: Path) -> list[Any]:
    """The code cells of the notebook after a run in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    out = tmp_path / "executed.ipynb"
    command = [sys.executable, "-c", EXECUTE, str(TOUR), str(out)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [cell for cell in nbformat.read(out, as_version=4).cells if cell.cell_type == "code"]


def texts(cell: Any) -> str:
    """All that a cell has printed, displayed and returned, as text."""
    return "\n".join(
        output.get("text") or output.get("data", {}).get("text/html") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )


@pytest.mark.slow
def test_it_runs_and_the_sweep_is_one_display(executed: list[Any]) -> None:
    by_start = {cell.source.splitlines()[0]: cell for cell in executed}
    assert "did you mean 'model'" in texts(by_start["from trials.errors import UserError"])
    run = by_start['sweep = sweeper.run(space, name="tour")']
    kinds = [output.output_type for output in run.outputs]
    assert kinds.count("display_data") == 1
    assert kinds.index("display_data") == 1  # after the estimate
    assert len(run.outputs) < 8  # the estimate, the panel, what is printed at the end, the sweep
    assert run.outputs[0]["text"].startswith("estimate: ")
    assert "trials 6/6, 0 running, 0 failed" in run.outputs[1]["data"]["text/html"]
    assert "6 trials, 6 done" in texts(run)
    errors = [output["text"] for cell in executed for output in cell.outputs if output.get("name") == "stderr"]
    assert [text for text in errors if "TqdmWarning: IProgress not found" not in text] == []  # without ipywidgets
    assert texts(by_start['again = sweeper.run(space, name="tour", quiet=True)']).startswith("(True, ")
    assert texts(executed[-1]) == "True"
