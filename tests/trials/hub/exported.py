"""Trials of every family, run once, and their model folders."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import trials
from tests.trials.small_trials import CONFIGS
from trials.hub.export import export_folder
from trials.hub.layout import StoredFile
from trials.single import Trial

FAMILIES = {
    "dense": {},
    "one_shot": {},
    "one_shot-coupled": {},
    "bip": {},
    "bip-nm": {},
    "greg1": {},
    "regrow-rule": {},
    "adaptive_sparsity": {},
}
"""Names in CONFIGS, with fields that differ from there."""


def fields_of(name: str, **fields: Any) -> dict[str, Any]:
    return {"dataset": "few_digits", "model": "tiny", "seed": 3, **CONFIGS[name], **fields}


class Exported:
    """Trials that a module's tests share, each run and exported once."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.trial = lru_cache(maxsize=None)(self._trial)
        self.folder = lru_cache(maxsize=None)(self._folder)

    def _trial(self, name: str) -> Trial:
        return trials.run(fields_of(name), self.storage / "single", threads=1)

    def _folder(self, name: str) -> Path:
        to = self.storage / f"hub-{name}"
        export_folder(self.trial(name), to)
        return to

    def copy(self, name: str, to: Path) -> Path:
        """A copy of an exported folder, for a test to damage."""
        shutil.copytree(self.folder(name), to)
        return to


def rewrite(folder: Path, file: str, content: bytes) -> None:
    """Replace a file of a model folder and what its config.json says of it, as a publisher could."""
    (folder / file).write_bytes(content)
    edit(folder, lambda described: described["files"].update({file: StoredFile.of(content).model_dump()}))


def edit(folder: Path, change: Any) -> None:
    """Change the content of a model folder's config.json."""
    described = json.loads((folder / "config.json").read_text())
    change(described)
    (folder / "config.json").write_text(json.dumps(described))
