"""CIFAR from Parquet files, from torchvision's pickles and by download; and the real CIFAR-10 where it is present."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import time
import urllib.error
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import trials.data
from tests.trials.processes import CONTEXT
from trials.data import OnDevice, load_data
from trials.data.raw import Arrays
from trials.data.sets import cifar
from trials.errors import DataError

datasets = pytest.importorskip("torchvision.datasets")

REAL = Path(os.environ.get("SWEEPER_CIFAR10", Path(__file__).parents[3] / "../shared/data/cifar10"))


@pytest.fixture(autouse=True)
def download_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trials.data, "_loaded", {})
    return tmp_path / "cache/sparsity-sweeper/data"


def pictures(n: int, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(folder: Path, images: np.ndarray, metadata=None, **labels) -> Path:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": png(image), "path": None} for image in images], struct)
    table = pa.table({"img": column, **labels}).replace_schema_metadata(metadata)
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def write_pickles(root: Path, name: str, monkeypatch) -> Path:
    """torchvision's layout with four images per file; its md5s are patched to match."""
    dataset = getattr(datasets, name)
    folder = root / dataset.base_folder
    folder.mkdir(parents=True, exist_ok=True)
    key = "labels" if name == "CIFAR10" else "fine_labels"

    def dump(file: str, content) -> str:
        data = pickle.dumps(content)
        (folder / file).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batches(entries):
        return [
            [file, dump(file, {"data": pictures(4, seed).reshape(4, -1), key: [0, 1, 2, seed]})]
            for seed, (file, _) in enumerate(entries)
        ]

    names = dump(dataset.meta["filename"], {dataset.meta["key"]: list("abc")})
    monkeypatch.setattr(dataset, "train_list", batches(dataset.train_list))
    monkeypatch.setattr(dataset, "test_list", batches(dataset.test_list))
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": names})
    return root


def test_cifar10_from_parquet(tmp_path):
    raw = load_data("cifar10", str(write_parquet(tmp_path, pictures(3), label=[0, 9, 4])))
    assert torch.equal(raw.train_images, torch.from_numpy(pictures(3)))
    assert raw.train_labels.tolist() == [0, 9, 4]
    assert (raw.name, raw.num_classes, raw.pad, raw.flip, raw.source) == ("cifar10", 10, 4, True, "parquet")
    assert (raw.mean, raw.std) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def test_cifar100_takes_the_fine_labels(tmp_path):
    raw = load_data(
        "cifar100", str(write_parquet(tmp_path, pictures(3), coarse_label=[1, 2, 3], fine_label=[0, 99, 7]))
    )
    assert raw.train_labels.tolist() == [0, 99, 7]
    assert raw.num_classes == 100
    assert (raw.mean, raw.std) == ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))


def test_data_of_another_name_are_refused(tmp_path):
    for folder in ("size", "label", "names"):
        (tmp_path / folder).mkdir()
    write_parquet(tmp_path / "size", pictures(2)[:, :, :28, :28], label=[0, 1])
    with pytest.raises(DataError, match=r"\(3, 28, 28\), but must have \(3, 32, 32\)"):
        load_data("cifar10", str(tmp_path / "size"))
    write_parquet(tmp_path / "label", pictures(2), label=[0, 10])
    with pytest.raises(DataError, match=r"labels run from 0 to 10, but must be in 0\.\.9"):
        load_data("cifar10", str(tmp_path / "label"))
    write_parquet(tmp_path / "names", pictures(2), label=[0, 1], metadata={"class_names": '["a", "b"]'})
    with pytest.raises(DataError, match="names 2 classes, but cifar100 has 100"):
        load_data("cifar100", str(tmp_path / "names"))


@pytest.mark.parametrize(("name", "classes", "files"), [("CIFAR10", 10, 5), ("CIFAR100", 100, 1)])
def test_pickles_are_read_in_order(tmp_path, monkeypatch, name, classes, files):
    raw = load_data(name.lower(), str(write_pickles(tmp_path, name, monkeypatch)))
    expected = np.concatenate([pictures(4, seed) for seed in range(files)])
    assert torch.equal(raw.train_images, torch.from_numpy(expected))
    assert torch.equal(raw.test_images, torch.from_numpy(pictures(4)))
    assert raw.train_labels.tolist() == [label for seed in range(files) for label in (0, 1, 2, seed)]
    assert (raw.num_classes, raw.source) == (classes, "torchvision")


def test_both_sources_have_the_same_fingerprint(tmp_path, monkeypatch):
    raw = load_data("cifar100", str(write_pickles(tmp_path / "a", "CIFAR100", monkeypatch)))
    (tmp_path / "b").mkdir()
    other = write_parquet(tmp_path / "b", pictures(4), fine_label=[0, 1, 2, 0])
    assert load_data("cifar100", str(other)).fingerprint == raw.fingerprint


@pytest.mark.parametrize("file", ["data_batch_3", "batches.meta"])
def test_damaged_pickle_is_named_and_not_unpickled(tmp_path, monkeypatch, file):
    write_pickles(tmp_path, "CIFAR10", monkeypatch)
    with (tmp_path / "cifar-10-batches-py" / file).open("ab") as stream:
        stream.write(b"x")
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(DataError, match=f"{file} is missing or damaged"):
        load_data("cifar10", str(tmp_path))


def test_missing_pickle_is_named(tmp_path, monkeypatch):
    write_pickles(tmp_path, "CIFAR10", monkeypatch)
    (tmp_path / "cifar-10-batches-py/test_batch").unlink()
    with pytest.raises(DataError, match="lacks test_batch"):
        load_data("cifar10", str(tmp_path))


def test_without_data_and_network_there_is_one_clear_line(download_folder, monkeypatch):
    def no_network(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(DataError, match=r"cannot be downloaded: .*data_dir .*Name or service not known") as caught:
        load_data("cifar10")
    assert str(download_folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_download_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_data("cifar10")


def test_download_once_and_repair_truncated_files(download_folder, monkeypatch):
    downloads = []

    def fake(_, root):
        downloads.append(root)
        write_pickles(root, "CIFAR10", monkeypatch)

    monkeypatch.setattr(cifar, "_download", fake)
    first = load_data("cifar10")
    monkeypatch.setattr(trials.data, "_loaded", {})
    assert load_data("cifar10").fingerprint == first.fingerprint
    assert downloads == [download_folder]
    (download_folder / "cifar-10-batches-py/data_batch_2").write_bytes(b"cut sh")
    monkeypatch.setattr(trials.data, "_loaded", {})
    assert load_data("cifar10").fingerprint == first.fingerprint
    assert len(downloads) == 2


def download_slowly(cache_home: str, log: str, barrier, results) -> None:
    """Runs in another process: a fake download that adds a line to ``log``; its files are incomplete for a while."""

    def fake_download(data, root):
        with Path(log).open("a") as stream:
            stream.write("downloaded\n")
        (root / data.folder).mkdir()
        for content in (b"half", b"whole"):
            for name in data.files:
                (root / data.folder / name).write_bytes(content)
            time.sleep(0.3)

    def fake_unpickle(data, root):
        if any((root / data.folder / name).read_bytes() != b"whole" for name in data.files):
            raise DataError("damaged")
        labels = np.zeros(2, dtype=np.int64)
        return Arrays(pictures(2), labels, pictures(2), labels)

    cifar._download, cifar._unpickle = fake_download, fake_unpickle
    os.environ["XDG_CACHE_HOME"] = cache_home
    barrier.wait()
    results.put(load_data("cifar10").fingerprint)


def test_two_processes_at_once_download_once(tmp_path):
    barrier, results = CONTEXT.Barrier(2, timeout=60), CONTEXT.Queue()
    arguments = (os.environ["XDG_CACHE_HOME"], str(tmp_path / "log"), barrier, results)
    processes = [CONTEXT.Process(target=download_slowly, args=arguments, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    assert len({results.get(timeout=60) for _ in processes}) == 1
    for process in processes:
        process.join(timeout=30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text() == "downloaded\n"


def test_the_real_cifar10():
    if not REAL.is_dir():
        pytest.skip(f"CIFAR-10 is not at {REAL}; set SWEEPER_CIFAR10 to the folder with its Parquet files")
    raw = load_data("cifar10", str(REAL))
    assert raw.train_images.shape == (50_000, 3, 32, 32)
    assert raw.test_images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(raw.train_labels).tolist() == [5000] * 10
    pixels = raw.train_images.float() / 255
    assert pixels.mean(dim=(0, 2, 3)).tolist() == pytest.approx(raw.mean, abs=0.002)
    assert pixels.std(dim=(0, 2, 3)).tolist() == pytest.approx(raw.std, abs=0.005)
    data = OnDevice(raw, device="cpu", val_fraction=0.2, split_seed=0)
    assert (data.train_size, data.val_size, data.steps(128)) == (40_000, 10_000, 313)
