"""What a run's ``--runtime-env`` may hold: read from YAML, JSON or Python, refused in one line otherwise."""

from __future__ import annotations

import functools
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeper.cli import COMPLETE, WRONG_INPUT, main
from sweeper.run_options import RunOptions
from sweeper.runtime_env import read_runtime_env, require_startable
from trials.errors import UserError

WHOLE: dict[str, Any] = {
    "env_vars": {"A": "1", "B": ""},
    "pip": ["a==1", "b"],
    "config": {"setup_timeout_seconds": 30, "eager_install": False},
    "py_executable": "/usr/bin/python3",
    "worker_process_setup_hook": "mylab.setup",
    "nsight": {"t": "cuda"},
}


@pytest.mark.parametrize("suffix", ["yaml", "json", "anything"])
def test_a_file_and_its_content_are_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"env.{suffix}"
    path.write_text(json.dumps(WHOLE))
    expected = {**WHOLE, "pip": {"packages": ["a==1", "b"]}}
    assert read_runtime_env(path) == read_runtime_env(str(path)) == read_runtime_env(WHOLE) == expected
    assert RunOptions(space="x", runtime_env=path).runtime_env == expected
    assert RunOptions.of_keywords("x", {"runtime_env": WHOLE}).runtime_env == expected
    assert read_runtime_env(None) == read_runtime_env({}) == read_runtime_env({"pip": None}) == {}


def test_files_that_it_names_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a==1\n\nb\n")
    (tmp_path / "conda.yml").write_text("dependencies: [c]")
    (tmp_path / "env.yaml").write_text("pip: requirements.txt")
    assert read_runtime_env(tmp_path / "env.yaml") == {"pip": {"packages": ["a==1", "b"]}}
    (tmp_path / "env.yaml").write_text("uv: {packages: requirements.txt, uv_check: true}")
    assert read_runtime_env(tmp_path / "env.yaml") == {"uv": {"packages": ["a==1", "b"], "uv_check": True}}
    (tmp_path / "env.yaml").write_text("conda: conda.yml")
    assert read_runtime_env(tmp_path / "env.yaml") == {"conda": {"dependencies": ["c"]}}
    assert read_runtime_env({"conda": "a_name"}) == {"conda": "a_name"}


REFUSED = {
    "[1]": r"is \[1\], but must be a mapping",
    "": r"env.yaml is empty, but must be a mapping, such as env_vars: \{NAME: text\}: or leave it out",
    "{a: [": r"is not YAML: ",
    "env_var: {A: b}": r"a field of .* is 'env_var', but must be one of: .*\(did you mean 'env_vars'\?\)",
    "1: x": r"a field of .* is 1, but must be one of: ",
    "env_vars: [A]": r"env_vars is \['A'\], but must be a mapping of names to texts",
    "env_vars: {A: 1}": r"env_vars: A is 1, but must be text: write A: '1'",
    "env_vars: {A: null}": r"env_vars: A is None, but must be text: write A: '', or remove it",
    "env_vars: {A: true}": r"env_vars: A is True, but must be text: write A: 'true'",
    "env_vars: {A: [b]}": r"env_vars: A is \[.b.\], but must be text: put it into quotation marks",
    "env_vars: {1: a}": r"env_vars has the name 1, but must be names",
    "env_vars: {'A=B': a}": r"env_vars has the name 'A=B', but must be names",
    "env_vars: {'A B': x}": r"env_vars has the name 'A B', but must be names of .*: texts without =, spaces and null",
    "env_vars: {'': x}": r"env_vars has the name '', but must be names",
    'env_vars: {"A\\0B": x}': r"env_vars has the name 'A.*B', but must be names",
    'env_vars: {"A\\n": x}': r"env_vars has the name 'A.*', but must be names",
    "env_vars: {PYTHONPATH: /x}": r"env_vars sets PYTHONPATH, which is refused: .*list your own under plugins",
    "env_vars: {CUDA_VISIBLE_DEVICES: '0'}": r"sets CUDA_VISIBLE_DEVICES, which is refused: Ray sets it",
    "env_vars: {RAY_ADDRESS: x}": r"sets RAY_ADDRESS, which is refused: it belongs to Ray",
    "working_dir: .": r"has working_dir, which is refused: the sweep sends its own; list your code under plugins",
    "py_modules: [x]": r"has py_modules, which is refused",
    "excludes: [x]": r"has excludes, which is refused",
    "image_uri: x": r"has image_uri, which is refused: .*start Ray itself in the image",
    "container: {image: x}": r"has container, which is refused",
    "pip: 3": r"pip is 3, but must be a list of packages, or a requirements file",
    "pip: [3]": r"pip is \[3\], but must be a list of packages",
    "pip: [a, '']": r"pip is \['a', ''\], but must be a list of packages",
    "pip: none.txt": r"pip is 'none\.txt', which cannot be read as a file",
    "pip: {package: [a]}": r"a field of .*pip is 'package', but must be one of: .*\(did you mean 'packages'\?\)",
    "pip: {packages: [a], pip_check: 1}": r"pip\.pip_check is 1, but must be true or false",
    "pip: {packages: [a], pip_version: 24}": r"pip\.pip_version is 24, but must be text",
    "uv: {packages: [a], uv_pip_install_options: x}": r"uv_pip_install_options is 'x', but must be a list of texts",
    "{pip: [a], uv: [b]}": r"has pip and uv, but Ray takes one of them",
    "pip: einops": r"pip is 'einops', but must be a list, or a requirements file: write \[einops\]",
    "uv: 'torch>=2'": r"uv is 'torch>=2', but must be a list, .*: write \['torch>=2'\]",
    "conda: {}": r"conda is empty, but must have dependencies: a list",
    "conda: {dependencies: [a], 1: b}": r"a field of .*conda is 1, but must be one of: ",
    "conda: /nope/env": r"conda is '/nope/env', but must be the folder of an environment: there is none",
    "conda: /etc/hosts": r"conda is '/etc/hosts', but must be the folder of an environment: there is none",
    "_nsight: foo": r"nsight is 'foo', but must be default",
    "_ray: foo": r"a field of .* is '_ray', but must be one of: ",
    "conda: {dependencies: 5}": r"conda dependencies is 5, but must have a list of texts and of \{pip: ",
    "conda: {dependencies: [{pip: 3}]}": r"conda dependencies is \[.*\], but must have a list",
    "conda: {dependencis: [a]}": r"is 'dependencis', but must be one of: .*did you mean 'dependencies'",
    "nsight: foo": r"nsight is 'foo', but must be default, or a mapping of the profiler's options",
    "worker_process_setup_hook: setup": r"setup_hook is 'setup', but must be module\.function, such as",
    "conda: [x]": r"conda is \['x'\], but must be the name of an environment",
    "config: {setup_timeout: 3}": r"config is 'setup_timeout', .*\(did you mean 'setup_timeout_seconds'\?\)",
    "config: {setup_timeout_seconds: true}": r"setup_timeout_seconds is True, but must be a whole number",
    "config: {setup_timeout_seconds: 0}": r"setup_timeout_seconds is 0, but must be from 1 to 2147483647, or -1",
    "config: {setup_timeout_seconds: 99999999999999999999999}": r"_seconds is 9{23}, but must be from 1 to 2147483647",
    "config: {log_files: [1]}": r"log_files is \[1\], but must be a list of texts",
    "py_executable: 3": r"py_executable is 3, but must be text",
    "worker_process_setup_hook: {a: b}": r"worker_process_setup_hook is .*, but must be text",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_ray_or_the_sweep_does_not_take_is_refused_before_anything_starts(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (here / "env.yaml").write_text(text)
    assert main(["--space", "small.yaml", "--runtime-env", "env.yaml"]) == WRONG_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(("error: --runtime-env env.yaml", "error: a field of --runtime-env env.yaml"))
    assert re.search(REFUSED[text], line), line
    assert ran == []
    assert not (here / "results").exists()


def test_a_file_that_is_not_there_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "small.yaml", "--runtime-env", "none.yaml"]) == WRONG_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --runtime-env is 'none.yaml', but must be a file that can be read (No such file")
    with pytest.raises(UserError, match=r"--runtime-env is 3, but must be a YAML or JSON file, or its content"):
        RunOptions(space="x", runtime_env=3)  # type: ignore[arg-type]


def test_it_is_no_part_of_the_sweep(here: Path, ran: list[str]) -> None:
    assert main(["--space", "small.yaml"]) == COMPLETE
    before = (here / "results" / "small" / "sweep.yaml").read_bytes()
    (here / "env.yaml").write_text("env_vars: {A: b}")
    count = len(ran)
    assert main(["--space", "small.yaml", "--runtime-env", "env.yaml"]) == COMPLETE
    assert (here / "results" / "small" / "sweep.yaml").read_bytes() == before
    assert len(ran) == count


ABSENT = {
    "py_executable: /nope/python": r"py_executable is '/nope/python', but must be a program of this machine that may",
    "py_executable: /etc": r"py_executable is '/etc', but must be a program of this machine that may be run",
    "worker_process_setup_hook: nope.mod": r"setup_hook is 'nope\.mod', but no module nope is found: install it, or",
    "worker_process_setup_hook: json.nope.f": r"setup_hook is 'json\.nope\.f', but no module json\.nope is found",
}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("text", ABSENT)
def test_what_a_ray_that_is_started_here_lacks_is_refused_before_it_starts(
    here: Path, ran: list[str], capsys: pytest.CaptureFixture[str], text: str, dry_run: bool
) -> None:
    (here / "env.yaml").write_text(text)
    words = ["--space", "small.yaml", "--address", "local", "--runtime-env", "env.yaml"]
    assert main([*words, *(["--dry-run"] if dry_run else [])]) == WRONG_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(ABSENT[text], line), line
    assert ran == []


def test_what_is_here_or_is_made_is_not_refused(here: Path) -> None:
    require_startable({"py_executable": sys.executable})
    require_startable({"py_executable": "uv run --with x"})
    require_startable({"worker_process_setup_hook": "json.decoder.JSONDecoder"})
    require_startable({"worker_process_setup_hook": "sweeper.runtime_env.f"})
    require_startable({"worker_process_setup_hook": "nope.f", "pip": {"packages": ["nope"]}})


ACCEPTED: dict[str, dict[str, Any]] = {
    "env_vars: {a.b: x, a-b: y, 1A: z}": {"env_vars": {"a.b": "x", "a-b": "y", "1A": "z"}},
    "conda: {dependencies: [a], platforms: [linux-64]}": {"conda": {"dependencies": ["a"], "platforms": ["linux-64"]}},
    "conda: {dependencies: null, channels: [x]}": {"conda": {"dependencies": None, "channels": ["x"]}},
    "conda: {name: x}": {"conda": {"name": "x"}},
    "conda: {dependencies: []}": {"conda": {"dependencies": []}},
    "conda: /etc": {"conda": "/etc"},
    "config: {log_files: null, eager_install: true}": {"config": {"eager_install": True}},
    "{working_dir: null, env_vars: {A: b}}": {"env_vars": {"A": "b"}},
    "{_nsight: default, _rocprof_sys: {args: {}}, _ray_commit: x, _ray_release: y, _inject_current_ray: true}": {
        "nsight": "default",
        "rocprof_sys": {"args": {}},
    },
}


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_ray_takes_is_taken(tmp_path: Path, text: str) -> None:
    (tmp_path / "env.yaml").write_text(text)
    assert read_runtime_env(tmp_path / "env.yaml") == ACCEPTED[text]


def prepare() -> None:
    """Set a worker up."""


def test_rays_own_objects_and_functions_are_taken_from_python() -> None:
    runtime_env = pytest.importorskip("ray.runtime_env")
    config = runtime_env.RuntimeEnvConfig(setup_timeout_seconds=30)
    for fields in (
        {"pip": ["a"], "env_vars": {"A": "b"}},
        {"uv": {"packages": ["a"], "uv_pip_install_options": ["--quiet"]}},
        {"conda": {"dependencies": ["a"]}, "config": config},
        {"nsight": "default"},
        {"nsight": {"t": "cuda"}, "rocprof_sys": {"args": {}}, "worker_process_setup_hook": prepare},
    ):
        given = runtime_env.RuntimeEnv(**fields)
        found = RunOptions.of_keywords("x", {"runtime_env": given}).runtime_env
        assert isinstance(found, dict)
        assert found.keys() == fields.keys()
        assert runtime_env.RuntimeEnv(**found) == given, "Ray makes the same of it"
        require_startable(found)
    with pytest.raises(UserError, match="has working_dir, which is refused"):
        read_runtime_env(runtime_env.RuntimeEnv(working_dir="s3://bucket/code.zip"))


def test_a_hook_without_a_name_is_refused() -> None:
    hook = functools.partial(prepare)
    with pytest.raises(UserError, match=r"worker_process_setup_hook is .*, but must be a function, or the text"):
        read_runtime_env({"worker_process_setup_hook": hook})
