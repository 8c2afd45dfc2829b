"""Parquet files of made-up images, in Hugging Face's form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.trials.layouts import encoded


def pictures(n: int, shape=(6, 6, 3), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def write(path: Path, images, labels, image="image", label="label", metadata=None, **more) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [i if isinstance(i, bytes | None) else encoded(i, "PNG") for i in images]
    column = pa.array(
        [{"bytes": d, "path": None} for d in data], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    columns = {image: column, label: pa.array(list(labels), pa.int64()), **more}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def write_both(folder: Path, train=None, test=None, test_name="test", **options) -> Path:
    train = pictures(6) if train is None else train
    test = pictures(3, seed=1) if test is None else test
    write(folder / "train-00000-of-00001.parquet", train, [i % 3 for i in range(len(train))], **options)
    write(folder / f"{test_name}-00000-of-00001.parquet", test, [i % 3 for i in range(len(test))], **options)
    return folder
