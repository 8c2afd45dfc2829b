"""Options, and how the shell changes them on the way through ``ray submit``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.options import parser, read_options
from sweeper.space.load import load_space
from trials.errors import UserError


def test_no_option_is_one_of_ray_submits() -> None:
    taken = "--stop --start --screen --tmux --cluster-name -n --no-config-cache --port-forward -p --args -v --verbose"
    taken += " --disable-usage-stats --extra-screen-args --log-style --log-color"
    options = {option for action in parser()._actions for option in action.option_strings}
    assert options - {"-h", "--help"} == {
        *("--space", "--profile", "--set", "--storage", "--name", "--samples", "--max-concurrent", "--address"),
        *("--serial", "--dry-run", "--list-spaces", "--show", "--list", "--cancel", "--retry-failed", "--verify"),
        *("--max-hours", "--dashboard", "--resume", "--version", "--plugins", "--pack"),
        *("--describe", "--schema", "--init", "--data", "--to", "--estimate", "--runtime-env"),
        "--exit-zero-on-failed-trials",
        *("--watch", "--compare", "--report", "--serve", "--figure", "--with", "--width", "--height", "--font-size"),
    }
    assert not options & set(taken.split())
    assert not parser().allow_abbrev


def through_ray_submit(home: Path, *words: str) -> list[str]:
    """The words that arrive: Ray joins them with blanks, and a shell in the head's home splits them."""
    (home / "door.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    line = " ".join([sys.executable, "door.py", *words])
    done = subprocess.run(["bash", "-c", line], cwd=home, capture_output=True, text=True, env={"HOME": str(home)})
    arrived: list[str] = json.loads(done.stdout)
    return arrived


ARRIVES = [
    ("--set", "grid.density=[0.5,0.1]", "--set", "trial.prune.lr=1e-3"),
    ("--storage", "s3://bucket/a-b_c.d=e/f"),
    ("--storage=/shared/sweeps+1/50%", "--name=a.b-c_d=e"),
    ("--space", "spaces/mine.yaml", "--profile", "demo", "--address", "10.0.0.1:6379"),
    ("--samples", "3", "--serial", "--show", "bip_unstructured"),
]


@pytest.mark.parametrize("words", ARRIVES)
def test_ordinary_values_survive_the_shell(tmp_path: Path, words: tuple[str, ...]) -> None:
    arrived = through_ray_submit(tmp_path, *words)
    assert arrived == list(words)
    assert read_options(arrived, submitted=True) == read_options(words)


MANGLED = {
    "blank": (["--set", "grid.density=[0.5, 0.1]"], ["'0.1]'", "at spaces"]),
    "blank in a path": (["--storage", "/data/my sweeps"], ["'sweeps'", "at spaces"]),
    "mapping": (["--set", "search.prune.lr={uniform: [0, 1]}"], ["--set", "'search.prune.lr={uniform:'", "space file"]),
    "braces": (["--set", "trial.model={a,b}"], ["'trial.model=b'", "expands"]),
    "one in braces": (["--set", "trial.x={a}"], ["--set", "'trial.x={a}'", "letters, digits"]),
    "files": (["--space", "*"], ["'other.yaml'", "expands"]),
    "no such file": (["--space", "none*"], ["--space", "'none*'", "letters, digits"]),
    "question mark": (["--set", "trial.model=resnet?"], ["--set", "'trial.model=resnet?'"]),
    "unset": (["--name", "$NOT_SET"], ["--name", "expected one argument", "not set"]),
    "escaped": (["--name", "a\\$b"], ["--name", "'a$b'"]),
    "quoted": (["--storage", "'/data/my sweeps'"], ["--storage", "'/data/my sweeps'", "letters, digits"]),
    "joined": (["--storage='/data/my sweeps'"], ["--storage", "'/data/my sweeps'"]),
}


@pytest.mark.parametrize("case", MANGLED)
def test_options_that_the_shell_changes_are_refused(tmp_path: Path, case: str) -> None:
    for name in ("mine.yaml", "other.yaml"):
        (tmp_path / name).touch()
    words, parts = MANGLED[case]
    with pytest.raises(UserError) as refused:
        read_options(through_ray_submit(tmp_path, *words), submitted=True)
    message = str(refused.value)
    assert "ray submit passes the line unquoted" in message
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_list_that_the_shell_expanded_to_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "grid.seed=0").touch()
    options = read_options(through_ray_submit(tmp_path, "--set", "grid.seed=[0]"), submitted=True)
    assert options.set == ["grid.seed=0"]
    with pytest.raises(UserError, match=r"grid\.seed is 0, but must be a list"):
        load_space("bip_unstructured", overrides=options.set)


@pytest.mark.parametrize(
    "words",
    [
        ("--storage", "/data/my sweeps (old)"),
        ("--space", "my spaces/größe.yaml"),
        ("--set", "search.prune.lr={uniform: [0, 1]}"),
        ("--set", "about=costs $5; really?"),
    ],
)
def test_on_a_laptop_values_are_as_they_were_typed(words: tuple[str, str]) -> None:
    options = read_options(words)
    assert words[1] in (options.storage, options.space, *options.set)
