"""The set of recorded vectors: nothing of it is left unread, its files are whole, and what a set lacks is skipped."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import VECTORS
from tests.trials import recorded_set
from tests.trials.recorded_set import COMPLETE, NOTES, Arrays, Entry, cases, inventory, leaves, manifest

REPOSITORY = Path(__file__).resolve().parents[2]

READERS = [
    "compact/test_greg_vectors.py",
    "compact/test_published.py",
    "methods/test_adaptive_formula_vectors.py",
    "methods/test_adaptive_vectors.py",
    "methods/test_bip_vectors.py",
    "methods/test_greg_pick_vectors.py",
    "methods/test_greg_vectors.py",
    "methods/test_released_vectors.py",
    "methods/test_surrogates.py",
    "regrowth/test_allocation_vectors.py",
    "regrowth/test_layer_signals_vectors.py",
    "regrowth/test_selection_vectors.py",
    "regrowth/test_structured_vectors.py",
    "sparsity/test_adaptive_alone_vectors.py",
    "sparsity/test_backward.py",
    "sparsity/test_bidirectional_vectors.py",
    "sparsity/test_dropping.py",
    "sparsity/test_vectors.py",
]
"""The test files that read the set, below tests/trials."""

UNREAD = {
    # where the set comes from, and what people should know of it
    "*/manifest.json /set": "which set it is",
    "*/manifest.json /split": "which set it is",
    "*/manifest.json /generator_seed": "how it was made",
    "*/manifest.json /net/seed": "how it was made",
    "*/manifest.json /dtype": "how it was made",
    "*/manifest.json /torch": "how it was made",
    "*/manifest.json /numpy": "how it was made",
    "*/manifest.json /original": "the repository that was run",
    "*/manifest.json /source*": "the repository that was run",
    "*/manifest.json /loss": "prose: cross entropy, mean over the batch",
    "*/manifest.json /net/loss": "prose: cross entropy, mean over the batch",
    "*/manifest.json *description": "prose",
    "*/manifest.json *note": "prose",
    "*/manifest.json /optimizer/scheduler": "prose: there is none",
    "adaptive_sparsity/manifest.json /files/*": "prose",
    "global_and_gradient/manifest.json /files/*": "prose",
    "greg/manifest.json /files/masked_finetune.npz/order": "prose: batches as stored",
    "greg_speedups/greg_speedups.csv /source": "prose",
    # sizes that the arrays have too
    "adaptive_sparsity/manifest.json /net/input": "a text; the images have this shape",
    # how near the numbers are to where rounding would change a decision
    "*/manifest.json *margin*": "a margin of the recorded numbers",
    "*/manifest.json *gap*": "a margin of the recorded numbers",
    "*/manifest.json *max_abs_diff_f32_vs_f64": "a margin of the recorded numbers",
    "*/manifest.json *max_abs_masked_minus_compact": "a margin of the recorded numbers",
    # what only the released code needs or does
    "greg/manifest.json *arch": "decides on structure there; here the network itself does",
    "greg/manifest.json *dataset": "decides on structure there; here the network itself does",
    "greg/manifest.json */params/n_layers": "sizes a list there",
    "bidirectional/manifest.json */message": "the released code's own words",
    "bidirectional/manifest.json /files/e_allocation_controller.npz/*/reward": "(50 - 49) / 100 by construction",
    "bidirectional/b_ssim.npz e2e__y*": "labels; SSIM uses none",
    "greg_speedups/greg_speedups.csv /readme_*": "accuracies on ImageNet and CIFAR, not of a test",
}
"""What no test reads: a pattern for "file key", and the reason."""


def unread(noted: dict[str, set[str]]) -> list[str]:
    """ "file key" of all that is in the set and neither read nor named in UNREAD."""
    left = [f"{file} {key}" for file, keys in inventory().items() for key in sorted(keys - noted.get(file, set()))]
    return [name for name in left if not any(fnmatch.fnmatchcase(name, pattern) for pattern in UNREAD)]


READ_NOTHING = " or ".join(
    (
        "corrected_variant_differs",
        "torch_counts_the_same",
        "under_ties",
        "every_kind_of_convolution",
        "linear_layers_take_part",
    )
)
"""Tests of those files that read nothing that others do not, to save their time here."""


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What the tests read, by running them."""
    notes = tmp_path_factory.mktemp("notes") / "notes.json"
    files = [*(f"tests/trials/{name}" for name in READERS), "tests/trials/test_recorded_set.py::test_files_are_whole"]
    command = [sys.executable, "-m", "pytest", "-p", "tests.trials.recorded_set", "-k", f"not ({READ_NOTHING})", *files]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, NOTES: str(notes)}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return {file: set(keys) for file, keys in json.loads(notes.read_text()).items()}


@pytest.mark.slow
def test_nothing_of_the_set_is_left_unread(noted: dict[str, set[str]]) -> None:
    left = unread(noted)
    if not COMPLETE and left:
        pytest.skip(f"the set {VECTORS} has {len(left)} values that no test reads: {', '.join(left[:20])}")
    assert left == []


@pytest.mark.slow
def test_what_is_said_to_be_unread_is_there_and_unread(noted: dict[str, set[str]]) -> None:
    everything = [(file, key) for file, keys in inventory().items() for key in keys]
    for pattern in UNREAD:
        named = [(file, key) for file, key in everything if fnmatch.fnmatchcase(f"{file} {key}", pattern)]
        found = [key in noted.get(file, ()) for file, key in named]
        if COMPLETE:
            assert found, f"UNREAD has {pattern!r}, of which the set has nothing"
        assert not all(found) or not found, f"UNREAD has {pattern!r}, but tests read it"


def test_every_reader_is_listed() -> None:
    """A test file that reads the set, directly or through a helper, is one of READERS."""
    helpers = r"recorded_set|vectors|bidirectional|global_and_gradient|greg_nets|methods\.(adaptive_)?recorded"
    reading = re.compile(rf"^from tests\.trials\.({helpers}) import (?!WHAT, tiny)", re.MULTILINE)
    tests = REPOSITORY / "tests" / "trials"
    found = [file for file in tests.rglob("test_*.py") if reading.search(file.read_text())]
    assert {file.relative_to(tests).as_posix() for file in found} - {Path(__file__).name} == set(READERS)


FILES = [(path.parent.name, path.name) for path in sorted(VECTORS.glob("*/*.npz"))]


@pytest.mark.parametrize("file", cases(FILES, "file of arrays", "/".join))
def test_files_are_whole(file: tuple[str, str]) -> None:
    """Digests, numbers of arrays and shapes as the manifest has them, where it has them."""
    source, name = file
    said: Any = manifest(source).get("files", {}).get(name, {})
    arrays = Arrays(source, name)
    assert len(arrays), f"{source}/{name} is empty"
    if not isinstance(said, dict):
        return
    if "sha256" in said:
        assert hashlib.sha256((VECTORS / source / name).read_bytes()).hexdigest() == said["sha256"]
    assert said.get("n_arrays", len(arrays)) == len(arrays)
    if "arrays" in said:
        assert {key: list(arrays.content[key].shape) for key in arrays} == said["arrays"]


def test_a_value_counts_as_read_when_it_is_looked_up_or_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_set, "NOTED", {})
    content = {"a": {"b": 1, "c": [2, 3]}, "d": [{"e": 4}, {"f": 5}], "g": {}, "h": {"i": 6, "j": 7}}
    entry = Entry(content, "m.json")

    def read() -> set[str]:
        return recorded_set.NOTED.get("m.json", set())

    assert "a" in entry
    assert list(entry) == list(content)
    assert entry["a"]["b"] == 1
    assert read() == {"/a/b"}
    assert [record.get("e") for record in entry["d"]] == [4, None]
    assert entry["g"] == {}
    assert read() == {"/a/b", "/d/0/e", "/g"}
    assert entry["h"] == {"i": 6, "j": 7}
    assert read() == {"/a/b", "/d/0/e", "/g", "/h/i", "/h/j"}
    assert {**entry["a"]}["c"] == [2, 3]
    assert set(leaves(content)) - read() == {"/d/1/f"}
    with pytest.raises(LookupError if COMPLETE else pytest.skip.Exception, match="no 'x' in m"):
        entry["a"]["x"]
