"""Parquet files of made-up images, in Hugging Face's form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.trials.layouts import encoded


def pictures(n: int, shape=(6, 6, 3), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def image_column(images, kind: str = "struct") -> pa.Array:
    """Encoded images as ``struct`` (Hugging Face's), ``binary`` or ``large_binary``. ``images``: pixels or bytes."""
    data = [i if isinstance(i, bytes | None) else encoded(i, "PNG") for i in images]
    if kind != "struct":
        return pa.array(data, getattr(pa, kind)())
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": d, "path": None} for d in data], struct)


def hugging_face(names, label="label") -> dict[str, str]:
    """Metadata of a file that names the classes as Hugging Face does."""
    return {"huggingface": json.dumps({"info": {"features": {label: {"names": list(names), "_type": "ClassLabel"}}}})}


def write(path: Path, images, labels, image="image", label="label", metadata=None, kind="struct", **more) -> Path:
    """``labels``: integers, or an Arrow array of anything."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = labels if isinstance(labels, pa.Array) else pa.array(list(labels), pa.int64())
    columns = {image: image_column(images, kind), label: values, **more}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def write_both(folder: Path, train=None, test=None, test_name="test", **options) -> Path:
    train = pictures(6) if train is None else train
    test = pictures(3, seed=1) if test is None else test
    write(folder / "train-00000-of-00001.parquet", train, [i % 3 for i in range(len(train))], **options)
    write(folder / f"{test_name}-00000-of-00001.parquet", test, [i % 3 for i in range(len(test))], **options)
    return folder
