"""What a process keeps of the files that it has read: how often it reads them, and whether a trial changes it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.folders import assert_same_outcome
from tests.trials.small_trials import CONFIGS, config_of, source_of
from trials.running.trial import TrialHost, run
from trials.storage import safe_read
from trials.storage.read_once import SOURCES


@contextmanager
def counted_reads() -> Iterator[Counter[Path]]:
    """How often each file is read meanwhile: its content, as bytes or chunk by chunk."""
    opened, found = Path.open, Counter[Path]()

    def read(self: Path) -> bytes:
        found[self] += 1
        with opened(self, "rb") as file:
            return bytes(file.read())

    def opens(self: Path, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        found[self] += mode == "rb"
        return opened(self, mode, *arguments, **keywords)

    def read_checked(path: Path, most: int, digest: str | None) -> bytes:
        found[Path(path)] += 1
        return plain(path, most, digest)

    plain = safe_read._read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safe_read, "_read", read_checked)
        patch.setattr(Path, "read_bytes", read)
        patch.setattr(Path, "open", opens)
        yield found


def digest_of(value: Any) -> str:
    """A hash of nested values, tensors bit for bit."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(f"{value.dtype}{tuple(value.shape)}{value.stride()}".encode())
            found.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                add(key)
                add(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)
        elif hasattr(value, "tensors"):
            add([value.tensors, value.masks, value.kept, repr(value.architecture)])
        else:
            found.update(json.dumps(value).encode())

    add(value)
    return found.hexdigest()


def assert_changes_nothing_kept(name: str, tmp_path: Path) -> None:
    """Run from the files, from what is kept, and from the files again: the same bits; and what is kept stays so."""
    config = config_of(name)

    def ran(folder: str) -> Path:
        assert run(config, tmp_path / folder / config.id, TrialHost(tmp_path / "stages")).status == "complete"
        return tmp_path / folder / config.id

    first = ran("first")
    before = {key: digest_of(value) for key, value in SOURCES.contents().items()}
    assert bool(before) == (source_of(config, tmp_path) is not None or "source_net" in CONFIGS[name])
    with counted_reads() as read:
        second = ran("second")
    files = [Path(file) for _, *files in before for file in files]
    assert not any(read[file] for file in files)
    assert {key: digest_of(value) for key, value in SOURCES.contents().items()} == before
    SOURCES.clear()
    for other in (second, ran("third")):
        assert_same_outcome(other, first)
