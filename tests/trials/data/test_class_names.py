"""Data sets say the names of their classes, in order of the labels, where the data have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from trials.data import load_data
from trials.data.sets.cifar import CIFAR10, CIFAR100
from trials.data.sets.torch_datasets import from_torch


def png(value: int) -> bytes:
    import io

    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_class_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat|s", "a dog", "ünicode"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "1.png").write_bytes(png(len(name)))
    raw = load_data("folder", str(tmp_path))
    assert raw.class_names == ("a dog", "cat|s", "ünicode")
    assert raw.num_classes == 3


@pytest.mark.parametrize(
    ("labels", "metadata", "names"),
    [
        ([0, 1], {b"class_names": b'["b", "a"]'}, ("b", "a")),
        (["b", "a"], None, ("a", "b")),
        ([0, 1], None, ()),
    ],
)
def test_parquet(
    labels: list[object], metadata: dict[bytes, bytes] | None, names: tuple[str, ...], tmp_path: Path
) -> None:
    table = pa.table({"image": [png(0), png(9)], "label": labels}).replace_schema_metadata(metadata)
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    assert load_data("parquet", str(tmp_path)).class_names == names


def test_published_sets() -> None:
    assert load_data("digits").class_names == tuple("0123456789")
    for cifar in (CIFAR10, CIFAR100):
        assert len(set(cifar.class_names)) == cifar.num_classes
        assert list(cifar.class_names) == sorted(cifar.class_names)  # both are numbered in alphabetical order
    assert CIFAR10.class_names[3] == "cat"
    assert CIFAR100.class_names[99] == "worm"


def test_torch_data_sets() -> None:
    class Named(list):
        classes = ("one", "two")

    pairs = [(torch.zeros(1, 8, 8, dtype=torch.uint8), label) for label in (0, 1)]
    assert from_torch("named", Named(pairs), pairs).class_names == ("one", "two")
    assert from_torch("unnamed", pairs, pairs).class_names == ()
