"""Small made-up data sets in the layouts of the real ones."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import trials.data
from trials.data import EncodedData, load_data

CLASSES = ("n01443537", "n01629819", "n01641577")
CROP, RESIZE = 16, 18
"""Image sizes of the small ImageNet, instead of 224 and 256."""

Pixels = npt.NDArray[np.uint8]  # [H, W, 3] or [H, W]


def picture(seed: int, height: int = 64, width: int = 64) -> Pixels:
    """Enlarged noise of few pixels, which stays recognisable through JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def encoded(pixels: Pixels, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def decoded(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_parquet(path: Path, images: Sequence[bytes | None], labels: Sequence[int], names: Sequence[str] = ()) -> Path:
    """A file as Hugging Face writes it, with class names if given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": data, "path": None} for data in images], struct)
    features = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    metadata: dict[Any, Any] | None = {"huggingface": json.dumps(features)} if names else None
    table = pa.table({"image": column, "label": pa.array(labels, pa.int64())})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def tiny_images(per_class: int = 4, test_per_class: int = 2) -> tuple[dict[str, bytes], dict[str, tuple[str, bytes]]]:
    """Training images by name, and test images by name with their class; test numbers cycle through the classes."""
    train = {
        f"{name}_{i}.JPEG": encoded(picture(100 * label + i))
        for label, name in enumerate(CLASSES)
        for i in range(per_class)
    }
    count = test_per_class * len(CLASSES)
    test = {f"val_{i}.JPEG": (CLASSES[-i % len(CLASSES)], encoded(picture(1000 + i))) for i in range(count)}
    return train, test


def write_tinyimagenet(root: Path, layout: str = "official") -> Path:
    """``layout``: official, classes (val/<class>/), images (val/<class>/images/), moved (half of each in test/)."""
    train, test = tiny_images()
    put(root / "wnids.txt", "\n".join(reversed(CLASSES)).encode())
    for name, data in train.items():
        wnid = name.partition("_")[0]
        put(root / "train" / wnid / "images" / name, data)
        put(root / "train" / wnid / f"{wnid}_boxes.txt", b"n01443537_0.JPEG\t0\t10\t63\t58\n")
    if layout == "official":
        table = "".join(f"{name}\t{wnid}\t0\t0\t63\t63\n" for name, (wnid, _) in test.items())
        put(root / "val/val_annotations.txt", table.encode())
        put(root / "test/images/test_0.JPEG", encoded(picture(5)))
    seen: set[str] = set()
    for name, (wnid, data) in test.items():
        moved = layout == "moved" and wnid in seen
        seen.add(wnid)
        below = {"official": "val/images", "classes": f"val/{wnid}", "images": f"val/{wnid}/images"}
        put(root / below.get(layout, f"{'test' if moved else 'val'}/{wnid}/images") / name, data)
    return root


def write_tinyimagenet_parquet(root: Path) -> Path:
    train, test = tiny_images()
    labels = [CLASSES.index(name.partition("_")[0]) for name in train]
    write_parquet(root / "data/train-00000-of-00001.parquet", list(train.values()), labels, CLASSES)
    images, labels = [data for _, data in test.values()], [CLASSES.index(wnid) for wnid, _ in test.values()]
    write_parquet(root / "data/valid-00000-of-00001.parquet", images, labels, CLASSES)
    return root


def large_images() -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """(label, image) of training, sorted by class, and of test; images of several sizes, one of them gray."""
    sizes = [(40, 20), (24, 33), (30, 30), (21, 50)]
    train = [(i // 4, encoded(picture(i, *sizes[i % 4]))) for i in range(12)]
    train[5] = (1, encoded(picture(5, 30, 40)[:, :, 0]))
    return train, [(i // 2, encoded(picture(50 + i, *sizes[i % 4]))) for i in range(6)]


def write_imagenet(root: Path) -> Path:
    for split, images in zip(("train", "val"), large_images(), strict=True):
        for i, (label, data) in enumerate(images):
            put(root / split / CLASSES[label] / f"{CLASSES[label]}_{i:03}.JPEG", data)
    return root


def write_folders(root: Path, splits: Sequence[str] = ("train", "test"), kind: str = "PNG", size: int = 16) -> Path:
    """Four images of each class in each split, all of one size."""
    for number, split in enumerate(splits):
        for label, name in enumerate(CLASSES):
            for i in range(4):
                data = encoded(picture(1000 * number + 100 * label + i, size, size), kind)
                put(root / split / name / f"{i}.{kind.lower()}", data)
    return root


def write_imagenet_parquet(root: Path) -> Path:
    """With two training files, and the official test split, whose labels are all -1."""
    train, test = large_images()
    for shard, part in enumerate((train[:5], train[5:])):
        labels, images = zip(*part, strict=True)
        write_parquet(root / f"data/train-{shard:05}-of-00002.parquet", images, labels, CLASSES)
    labels, images = zip(*test, strict=True)
    write_parquet(root / "data/validation-00000-of-00001.parquet", images, labels, CLASSES)
    write_parquet(root / "data/test-00000-of-00001.parquet", images[:2], [-1, -1], CLASSES)
    return root


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clear the loaded data sets, as in a new process."""
    monkeypatch.setattr(trials.data, "_loaded", {})


def load_large(root: Path) -> EncodedData:
    data = load_data("imagenet", str(root))
    assert isinstance(data, EncodedData)
    return data
