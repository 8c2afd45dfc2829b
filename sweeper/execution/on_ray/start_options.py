"""How Ray is started on this machine: with what the process may use, and with files where Ray can have them."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._common.utils import get_default_ray_temp_dir, get_system_memory
from ray._private import services
from ray._private.utils import get_num_cpus

from trials.errors import UserError
from trials.system.machine import usable_cores, usable_memory
from trials.system.stop_signals import BATCH_WARNINGS

SOCKET_B = 107
"""Most bytes of a socket's path (AF_UNIX)."""

_SOCKET = f"/session_2026-01-31_23-59-59_123456_{2**22}/sockets/plasma_store.1"
"""The longest one of Ray, below its temporary folder."""

MEMORY_SHARE = 0.7
"""Share of the memory that Ray gives to trials, as it does by itself; the rest is for its object store."""


def options_of_start(note: Callable[[str], None]) -> dict[str, Any]:
    """Options of ``ray.init`` for a Ray that is started here; empty where Ray finds the same by itself.

    ``note`` is told of a temporary folder that Ray cannot use, and which one it gets instead.

    Raises:
        UserError: Ray can have no temporary folder.
    """
    options: dict[str, Any] = {}
    cores, memory = usable_cores(), usable_memory()
    if cores < get_num_cpus(override_docker_cpu_warning=True):
        options["num_cpus"] = cores
    if memory is not None and memory < get_system_memory():
        options["_memory"] = int(MEMORY_SHARE * memory)
    folder = _temporary_folder(note)
    return options if folder is None else {**options, "_temp_dir": folder}


@contextmanager
def survive_warnings() -> Iterator[None]:
    """Make processes of Ray that start in this block ignore SIGHUP and a batch system's warnings, which all of a job
    get: their driver, which acts on them, still needs those processes to end its trials."""
    plain = services.ConsolePopen

    class Surviving(plain):  # type: ignore[misc, valid-type]  # Ray is not typed
        """A process that ignores them; what it starts itself does, too."""

        def __init__(self, *arguments: Any, preexec_fn: Callable[[], object] | None = None, **options: Any) -> None:
            def ignore() -> None:
                for number in (signal.SIGHUP, *BATCH_WARNINGS):
                    signal.signal(number, signal.SIG_IGN)
                if preexec_fn is not None:
                    preexec_fn()

            super().__init__(*arguments, preexec_fn=ignore, **options)

    services.ConsolePopen = Surviving
    try:
        yield
    finally:
        services.ConsolePopen = plain


def _temporary_folder(note: Callable[[str], None]) -> str | None:
    """Where Ray's files may lie; None if that is where Ray puts them by itself."""
    usual = Path(get_default_ray_temp_dir())
    reason = _unfit(usual)
    if reason is None:
        return None
    for folder in _others():
        if _unfit(folder) is None:
            note(f"Ray cannot have its files in {usual} ({reason}): they lie in {folder}")
            return str(folder)
    raise UserError(
        f"Ray cannot have its files in {usual} ({reason}), nor in {', '.join(map(str, _others()))}: set RAY_TMPDIR to "
        f"a folder that can be written and whose path has at most {SOCKET_B - len(_SOCKET) - len('/ray')} bytes"
    )


def _others() -> Iterator[Path]:
    user = os.geteuid()
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        yield from (Path(folder, "ray"), Path(folder, f"ray-{user}"))


def _unfit(folder: Path) -> str | None:
    """Why Ray cannot have its files in a folder; None if it can."""
    if not folder.is_absolute():
        return "its path is relative"
    if len(os.fsencode(folder)) + len(_SOCKET) > SOCKET_B:
        return f"its path has {len(os.fsencode(folder))} bytes, and that of a socket below at most {SOCKET_B}"
    try:
        with tempfile.TemporaryDirectory(dir=folder if folder.exists() else folder.parent) as probe:
            Path(probe, "probe").write_bytes(b"0" * 4096)
    except OSError as error:
        return error.strerror or str(error)
    return None
