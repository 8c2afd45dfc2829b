"""A storage that errs while finished trials are packed, looked up, repaired or lose checkpoints: nothing is lost."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing import automatic
from sweeper.packing.automatic import drop_and_pack
from sweeper.packing.kept_checkpoints import kept_checkpoints
from sweeper.packing.repairing import repaired
from sweeper.results.tables import compact_tables
from tests.faults.erring_storage import KINDS, erring
from tests.sweeper.packing.packed_sweeps import assert_equal, content_of, networks_of, sweep_of, tables_of
from tests.sweeper.sweeps import make_space
from trials.errors import StorageError
from trials.storage.outages import StoragePatience, errs, impatient
from trials.storage.packed.reading import forget_packs, packs_of

KEEPING: dict[str, Any] = {
    "search": {"finetune.lr": {"loguniform": [1e-3, 1.0]}}, "sampler": "random", "samples": 3,
    "keep_checkpoints": "best",
}  # fmt: skip

Act = Callable[[SweepFolder], object]


def end_of_run(folder: SweepFolder) -> None:
    """What a driver does with a complete sweep, without waiting."""
    with StoragePatience(lambda text, errs: None).active(), impatient():
        drop_and_pack(folder, over=True)
        compact_tables(folder)


def start_of_run(folder: SweepFolder) -> None:
    """What a driver does before it assigns trials; an error that a person must mend is raised at once."""
    with StoragePatience(lambda text, errs: None, limit_s=0.0, starting=True).active():
        assert repaired(folder, checkpoints=True) == []


def read_whole(folder: SweepFolder) -> None:
    content_of(folder)


ACTS: dict[str, Act] = {"end": end_of_run, "start": start_of_run, "records": read_whole}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A complete sweep before its end, for ``end``, and the same one packed, for the others; by act."""
    path = tmp_path_factory.mktemp("packs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(automatic, "PACK_ABOVE", 2)
        own = sweep_of(path / "end" / "sweep", 0, make_space(**KEEPING)).path
        shutil.copytree(str(own), path / "start" / "sweep")
        end_of_run(SweepFolder(path / "start" / "sweep"))
        assert packs_of(SweepFolder(path / "start" / "sweep").path) is not None
    return {"end": path / "end", "start": path / "start", "records": path / "start"}


def suffer(calm: Path, path: Path, act: Act, code: int, at: int | None, times: int = 10**9) -> list[str]:
    """Let some calls of an act fail, then do it again; return the calls."""
    shutil.copytree(calm, path)
    folder = SweepFolder(path / "sweep")
    with erring(path) as storage:
        if at is not None:
            storage.fail(code, at=at, times=times)
        try:
            act(folder)
        except StorageError:
            pass
        except OSError as error:
            if not errs(error):
                raise
        calls = storage.calls
    act(folder)
    assert not [found for found in path.rglob("*") if ".damaged" in found.name]
    return calls


@pytest.mark.slow_faults
@pytest.mark.fault("storage-errs")
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("act", ACTS)
def test_packing_loses_nothing_at_every_seventh_call(
    sweeps: dict[str, Path], tmp_path: Path, act: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "PACK_ABOVE", 2)
    calm = sweeps[act]
    calls = suffer(calm, tmp_path / "calm", ACTS[act], code, None)
    wanted = networks_of(SweepFolder(tmp_path / "calm" / "sweep"))
    before = tables_of(calm / "sweep")
    for at in [number for number, call in enumerate(calls, start=1) if call in KINDS[code]][
        list(KINDS).index(code) % 7 :: 7
    ]:
        path = tmp_path / str(at)
        suffer(calm, path, ACTS[act], code, at, (1, 10**9)[at % 2])
        assert networks_of(SweepFolder(path / "sweep")) == wanted
        assert_equal(tables_of(path / "sweep"), before)
        shutil.rmtree(path)


@contextmanager
def stale_indexes(folder: SweepFolder, times: int) -> Iterator[None]:
    """Let so many openings of a part's index, or of its copy, fail; each look-up is a new one."""
    forget_packs(folder.path)
    left = times
    with erring(Path(str(folder.path))) as storage, pytest.MonkeyPatch.context() as patch:

        def meet(call: str, path: Any) -> None:
            nonlocal left
            if call == "open" and Path(str(path)).name.startswith(("trials-", "copy-")) and left:
                left -= 1
                raise OSError(errno.ESTALE, "Stale", str(path))

        patch.setattr(storage, "meet", meet)
        yield
    assert left < times


@pytest.mark.fault("storage-errs")
@pytest.mark.parametrize("patient", [True, False])
def test_an_index_that_cannot_be_read_is_not_damaged(sweeps: dict[str, Path], tmp_path: Path, patient: bool) -> None:
    shutil.copytree(sweeps["records"], tmp_path / "s")
    folder = SweepFolder(tmp_path / "s" / "sweep")
    wanted = content_of(folder)
    said: list[str] = []
    with stale_indexes(folder, 2):
        if patient:
            with StoragePatience(lambda text, errs: said.append(text)).active():
                assert content_of(folder) == wanted
            assert len(said) == 2
        else:
            with pytest.raises(OSError, match="Stale"):
                folder.records()
            with pytest.raises(OSError, match="Stale"):
                end_of_run(folder)
    assert content_of(folder) == wanted


@pytest.mark.fault("storage-errs")
def test_a_checkpoint_that_another_sweep_names_is_kept_while_that_ones_file_cannot_be_read(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "sweep", 0, make_space(**{**KEEPING, "keep_checkpoints": "none"}))
    name = next(iter(networks_of(folder)))
    other = tmp_path / "other"
    other.mkdir()
    (other / "sweep.yaml").write_text(f"space: {{reference: {folder.trials / name}}}\n")
    with erring(other) as storage:
        storage.fail(errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            kept_checkpoints(folder, over=True)
        with pytest.raises(OSError, match="Input/output"):
            drop_and_pack(folder, over=True)
    drop_and_pack(folder, over=True)
    assert networks_of(folder).keys() == {name}


@pytest.mark.fault("storage-errs")
def test_the_best_trial_keeps_its_checkpoint_though_it_cannot_be_read_now(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "sweep", 0, make_space(**KEEPING))
    wanted = kept_checkpoints(folder, over=True)
    best = [name for name in networks_of(folder) if wanted(name)]
    for name in best:
        with erring(folder.trials / name) as storage:  # type: ignore[arg-type]
            storage.fail(errno.EIO)
            with pytest.raises(OSError, match="Input/output"):
                kept_checkpoints(folder, over=True)
            with pytest.raises(OSError, match="Input/output"):
                end_of_run(folder)
    end_of_run(folder)
    assert sorted(networks_of(folder)) == sorted(best)


@pytest.mark.fault("storage-errs")
def test_a_manifest_is_not_made_anew_from_indexes_that_cannot_be_read(sweeps: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(sweeps["records"], tmp_path / "s")
    folder = SweepFolder(tmp_path / "s" / "sweep")
    wanted = content_of(folder)
    (tmp_path / "s" / "sweep" / "packed" / "manifest.json").unlink()
    with stale_indexes(folder, 2), pytest.raises(OSError, match="Stale"):
        repaired(folder)
    assert len(repaired(folder)) == 1
    assert content_of(folder) == wanted
