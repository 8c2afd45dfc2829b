"""What may go wrong between the command and the first trial is one line."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sweeper import driver
from sweeper.before_run import refuse_ray_client
from sweeper.cli import main
from sweeper.execution.on_ray.shipping import MOST_CODE_B, code_copies, packages
from sweeper.folder.driving import _require_lockable, driving
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.options import WRONG_INPUT
from sweeper.results.tables import compact_tables
from sweeper.sweep import load
from tests.sweeper.sweeps import begun, fail, run_out, searching
from trials.errors import UserError
from trials.plugins.source import PlugIn
from trials.storage import files
from trials.storage.leases.lease import Lease

SMALL = """
about: small
trial: {method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 1}, finetune: null}
grid: {density: [0.5]}
"""


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o775, 0o2775])
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_a_group_may_do_with_a_sweep_what_it_may_with_the_folder(tmp_path: Path, mode: int, umask: int) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    storage.chmod(mode)
    before = os.umask(umask)
    try:
        space = searching("random", 1)
        folder = SweepFolder(storage / "s")
        folder.append({"space": space.document()})
        lease = Lease(folder.path / "lock")
        assert lease.acquire()
        with lease:
            run_out(begun(space, folder.path))
        compact_tables(folder)
    finally:
        os.umask(before)
    shared = mode & 0o070
    found = [path for path in folder.path.rglob("*") if not path.is_symlink()]
    assert {"lease.guard", "sweep.yaml", "state.json", "trials.parquet"} <= {path.name for path in found}
    for path in (folder.path, *found):
        wanted = shared if path.is_dir() else shared & 0o060
        assert path.stat().st_mode & wanted == wanted, path


def test_a_sweep_of_another_user_that_cannot_be_locked_is_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    from rich.console import Console

    folder = SweepFolder(tmp_path / "s")
    (folder.path / "lock").mkdir(parents=True)
    files.create_shared(folder.path / "lock" / "lease.guard")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("lease.guard"))
    said = r"lease.guard cannot be written by this user.*chmod"
    with pytest.raises(UserError, match=said), driving(folder, Console()):
        pass


@pytest.mark.parametrize("step", ["append", "repair", "schedule"])
def test_a_full_disk_at_the_start_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "schedule":  # of what a new driver brings up to date
        monkeypatch.setattr(driver, "commit_warm_start", full)
    else:
        monkeypatch.setattr(SweepFolder, step, full)
    assert main(["--space", "small.yaml", "--address", "local"]) == WRONG_INPUT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no room to write" in said
    assert "run the same command again" in said


def test_ray_client_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    assert main(["--space", "small.yaml", "--address", "ray://head:10001"]) == WRONG_INPUT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--address is 'ray://head:10001'" in said
    assert "6379" in said
    assert not (tmp_path / "results").exists()
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UserError, match="RAY_ADDRESS is"):
        refuse_ray_client(None)
    with pytest.raises(UserError, match="RAY_ADDRESS is"):
        refuse_ray_client("auto")
    refuse_ray_client("head:6379")


def test_what_is_sent_to_a_cluster_is_small() -> None:
    sizes = [file.stat().st_size for folder in packages() for file in Path(folder).rglob("*") if file.is_file()]
    own = [size for size in sizes if size]
    assert sum(own) < 20e6  # with __pycache__, which is left out
    without = sum(
        file.stat().st_size
        for folder in packages()
        for file in Path(folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )
    assert without < 5e6


def test_a_large_folder_of_code_is_refused_with_its_largest_file(tmp_path: Path) -> None:
    mine = tmp_path / "mynets"
    (mine / ".git").mkdir(parents=True)
    (mine / "__init__.py").write_text("")
    with (mine / ".git" / "objects").open("wb") as file:
        file.truncate(MOST_CODE_B * 2)  # left out
    plug_in = PlugIn(str(mine), "mynets", mine, "0" * 12)
    assert code_copies([plug_in], tmp_path / "copies")
    with (mine / "weights.pt").open("wb") as file:
        file.truncate(MOST_CODE_B + 1)
    with pytest.raises(UserError, match=r"100 MB \(weights.pt is the largest file\).*move data"):
        code_copies([plug_in], tmp_path / "more")


def test_a_trial_that_will_run_again_is_not_counted_as_failed(tmp_path: Path) -> None:
    space = searching("random", 2, retries=1)
    folder = SweepFolder(tmp_path / "s")
    folder.append({"space": space.document()})
    plan = begun(space, folder.path)
    first = plan.next()
    assert first is not None
    fail(plan, first.trial_id)
    standing = load(folder.path).standing()
    assert (standing.failed, standing.left, standing.total) == (0, 4, 4)
    assert load(folder.path).summary()["failed"].sum() == 0
    assert "to retry" in " ".join(load(folder.path).summary()["waiting"])
    fail(plan, first.trial_id)
    standing = load(folder.path).standing()
    assert (standing.failed, standing.left) == (1, 3)
    assert load(folder.path).summary()["failed"].sum() == 1


def test_a_job_uploads_the_packages_and_spaces_alone(tmp_path: Path) -> None:
    """What `ray job submit --working-dir .` packs of a checkout, whatever lies beside the code."""
    from ray._private.runtime_env.packaging import create_package

    checkout = tmp_path / "checkout"
    for name in ("sweeper", "trials"):
        (checkout / name / "__pycache__").mkdir(parents=True)
        (checkout / name / "__init__.py").write_text("")
        (checkout / name / "__pycache__" / "x.pyc").write_text("")
    for name in ("out/net.pt", ".git/objects", "results/s/sweep.yaml", "tests/test.py", "data.bin"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("large")
    for name in ("sweep.py", "mine.yaml"):
        (checkout / name).write_text("")
    (checkout / ".rayignore").write_bytes((Path(__file__).parents[2] / ".rayignore").read_bytes())
    package = tmp_path / "package.zip"
    create_package(str(checkout), package, include_gitignore=True)
    with zipfile.ZipFile(package) as found:
        files = {name for name in found.namelist() if not name.endswith("/")}
    assert files == {"sweep.py", "mine.yaml", "sweeper/__init__.py", "trials/__init__.py"}


def test_an_owner_without_a_name_is_named_by_number(tmp_path: Path, monkeypatch: Any) -> None:
    def unknown(_: Path) -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(Path, "owner", unknown)
    guard = tmp_path / "s" / "lock" / "lease.guard"
    guard.parent.mkdir(parents=True)
    files.create_shared(guard)
    monkeypatch.setattr(os, "access", lambda path, mode: path != guard)
    with pytest.raises(UserError, match=rf"its owner \(user {os.getuid()}\) must allow it"):
        _require_lockable(guard.parent)
