"""What the commands are called in usage lines and messages."""

from __future__ import annotations

import sys

import pytest

from trials.called import sweep_command, trial_command


@pytest.mark.parametrize(
    ("script", "sweeps", "trials"),
    [
        ("/home/ada/env/bin/sparsity-sweep", "sparsity-sweep", "sparsity-trial"),
        ("/home/ada/env/bin/sparsity-trial", "sparsity-sweep", "sparsity-trial"),
        ("sweep.py", "sweep.py", "python -m trials"),
        ("/home/ada/project/sweep.py", "sweep.py", "python -m trials"),
        ("/home/ada/project/sweeper/__main__.py", "python -m sweeper", "python -m trials"),
        ("/home/ada/env/lib/ipykernel_launcher.py", "python -m sweeper", "python -m trials"),
        ("", "python -m sweeper", "python -m trials"),
    ],
)
def test_commands_are_named_as_the_running_one_was_called(
    script: str, sweeps: str, trials: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [script])
    assert (sweep_command(), trial_command()) == (sweeps, trials)
