"""A damaged or foreign folder is refused in one line that names the file, the rule and the way out."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trials
from tests.trials.hub.exported import Exported, edit, rewrite
from trials.errors import UserError
from trials.hub.export import export_folder

WEIGHTS, MASKS = "model.safetensors", "masks.safetensors"


def refused(folder: Path | str) -> str:
    with pytest.raises(UserError) as said:
        trials.load_pretrained(folder)
    text = str(said.value)
    assert "\n" not in text
    assert len(text) < 800
    return text


def tensors_of(folder: Path, file: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / file)


def changed(folder: Path, file: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors of a file, with a config.json that agrees."""
    from safetensors.torch import save

    tensors = tensors_of(folder, file)
    change(tensors)
    rewrite(folder, file, save({name: tensor.clone() for name, tensor in tensors.items()}))


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    return exported.copy("one_shot", tmp_path / "model")


@pytest.fixture
def smaller(exported: Exported, tmp_path: Path) -> Path:
    return exported.copy("greg1", tmp_path / "model")


@pytest.mark.parametrize("file", ["config.json", WEIGHTS, MASKS])
def test_each_file_must_be_there(file: str, folder: Path) -> None:
    (folder / file).unlink()
    assert f"model/{file} is missing, but a model folder has" in refused(folder)


def test_the_card_need_not_be_there(folder: Path) -> None:
    (folder / "README.md").write_text("edited")
    trials.load_pretrained(folder)
    (folder / "README.md").unlink()
    assert not trials.load_pretrained(folder).training


@pytest.mark.parametrize("file", [WEIGHTS, MASKS])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_changed_bit_is_seen(file: str, part: float, folder: Path) -> None:
    content = bytearray((folder / file).read_bytes())
    content[int(part * (len(content) - 1))] ^= 1
    (folder / file).write_bytes(bytes(content))
    assert f"{file} has the SHA-256" in refused(folder)


@pytest.mark.parametrize("file", [WEIGHTS, MASKS])
def test_a_file_that_is_cut_off(file: str, folder: Path) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-7])
    assert f"{file} has {len(content) - 7} bytes, but config.json says {len(content)}: export the trial" in refused(
        folder
    )


@pytest.mark.parametrize("file", ["config.json", WEIGHTS, MASKS])
def test_a_pointer_of_git_lfs(file: str, folder: Path) -> None:
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    assert refused(folder).endswith(f"{file} is a pointer of Git LFS, not the file: run git lfs pull in its folder")


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize("file", ["config.json", WEIGHTS, MASKS])
def test_pickles_are_not_loaded(file: str, folder: Path) -> None:
    content = pickle.dumps(_Runs())
    if file == "config.json":
        (folder / file).write_bytes(content)
    else:
        rewrite(folder, file, content)
    assert f"{file} must be" in refused(folder)
    torch.save(tensors_of(folder, WEIGHTS) if file == MASKS else {}, folder / "pytorch_model.bin")
    assert f"{file} must be" in refused(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "must be JSON, but cannot be read"),
        ("[" * 100_000, "must be JSON, but cannot be read"),
        ("[]", "has library None, but must have 'sparsity-sweeper'"),
        ('{"model_type": "bert"}', "the folder holds the model of another library"),
        ('{"library": "sparsity-sweeper", "format": 2}', "has format 2, but this version"),
        ('{"library": "sparsity-sweeper", "format": 1}', "config.json is damaged: version is missing"),
    ],
)
def test_config_json_of_something_else(content: str, says: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    assert says in refused(folder)


def _set(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(described: dict[str, Any]) -> None:
        for key in path[:-1]:
            described = described[key]
        described[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("architecture", "model", to="resnet20"), r"no weight of this name|must have exactly the names"),
        (_set("architecture", "model", to="no\nsuch|model"), r"must be one of"),
        (_set("architecture", "model", to="os:system"), r"names the model os:system, which is of the plug-in"),
        (_set("architecture", "num_classes", to=11), r"classes has 10 names, but the network has 11 classes"),
        (_set("architecture", "in_channels", to=2), r"mean and a std for each of 2 channels"),
        (_set("architecture", "num_classes", to=10**12), r"num_classes is 1000000000000, but must be less"),
        (_set("architecture", "num_classes", to="10"), r"num_classes is '10', but must be"),
        (_set("architecture", "image_size", to=[0, 8]), r"image_size is \[0, 8\]"),
        (_set("architecture", "precision", to="float64"), r"as float32 .*, but the model has float64"),
        (_set("architecture", "more", to=1), r"architecture: key is 'more'"),
        (_set("classes", to=["a"]), r"classes has 1 names, but the network has 10 classes"),
        (_set("normalisation", to={"mean": [0.5, 0.5], "std": [1.0, 1.0]}), r"mean and a std for each of 1 channels"),
        (_set("normalisation", to={"mean": [0.5], "std": [0.0]}), r"all must be above 0"),
        (_set("kept", to={"conv2.weight": [0, 1]}), r"has conv2.weight as float32 \[32, 16, 3, 3\], but the model has"),
        (_set("kept", to={"conv2.weight": [1, 0]}), r"rows of conv2.weight that are not ascending"),
        (_set("kept", to={"conv2.weight": []}), r"int64 indices in one dimension, at least one"),
        (_set("kept", to={"a|\n": [0]}), r"must name weights"),
        (_set("kept", to={"linear.weight": [0, 1]}), r"must keep all its rows"),
        (_set("files", to={}), r"says nothing of model.safetensors"),
        (_set("sample_logits", to=[0.0] * 10), r"the code of the model computes something else now"),
        (_set("sample_logits", to=[0.0] * 9), r"outputs are of another kind"),
    ],
)
def test_config_json_that_contradicts_the_rest(change: Callable[..., None], says: str, folder: Path) -> None:
    import re

    edit(folder, change)
    assert re.search(says, refused(folder))


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        (WEIGHTS, lambda t: t.pop("conv1.weight"), "lacks conv1.weight, but must have exactly the names"),
        (WEIGHTS, lambda t: t.update({"x|\ny": torch.ones(1)}), "has 'x|\\ny', but must have exactly the names"),
        (
            WEIGHTS,
            lambda t: t.update({"conv1.weight": torch.ones(3)}),
            "has conv1.weight as float32 [3], but the model",
        ),
        (WEIGHTS, lambda t: t.update({"conv1.weight": t["conv1.weight"].half()}), "as float16 [16, 1, 3, 3], but"),
        (WEIGHTS, lambda t: t["conv2.weight"].fill_(1), "masks.safetensors disagrees with model.safetensors: "),
        (MASKS, lambda t: t["conv2.weight"].fill_(False), "weights of conv2.weight are masked, but not zero"),
        (MASKS, lambda t: t.update({"conv2.weight": t["conv2.weight"].float()}), "as float32 [32, 16, 3, 3], but must"),
        (MASKS, lambda t: t.update({"conv2.weight": t["conv1.weight"]}), "as bool [16, 1, 3, 3], but must have bool"),
        (MASKS, lambda t: t.update({"conv9.weight": t["conv1.weight"]}), "no weight of this name"),
    ],
)
def test_tensors_that_do_not_fit(
    file: str, change: Callable[[dict[str, torch.Tensor]], Any], says: str, folder: Path
) -> None:
    changed(folder, file, change)
    assert says in refused(folder)


def test_a_smaller_network_has_no_masks_of_what_it_lacks(smaller: Path) -> None:
    assert trials.load_pretrained(smaller).about.masks["conv2.weight"].any()
    changed(smaller, MASKS, lambda tensors: tensors["conv2.weight"].fill_(True))
    assert "keeps weights of conv2.weight that the network does not have" in refused(smaller)


def test_other_rows_of_a_smaller_network(smaller: Path) -> None:
    edit(smaller, lambda described: described["kept"]["conv2.weight"].pop())
    assert "has conv2.weight as float32" in refused(smaller)


def test_no_folder(tmp_path: Path) -> None:
    assert "does not exist, but must be a folder" in refused(tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "is a file, but must be a folder" in refused(tmp_path / "file")
    assert "config.json is missing" in refused(tmp_path)


def test_the_export_keeps_off_other_peoples_folders(exported: Exported, tmp_path: Path) -> None:
    trial, to = exported.trial("one_shot"), tmp_path / "hub"

    def must_not(says: str) -> None:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(UserError, match=says):
            export_folder(trial, to)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    to.mkdir()
    export_folder(trial, to)  # empty
    first = (to / "config.json").read_bytes()
    export_folder(trial, to)  # ours, unchanged
    assert (to / "config.json").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub"]
    (to / "README.md").write_text((to / "README.md").read_text().replace("# license: yours", "license: mit"))
    must_not("README.md was edited since it was written")
    (to / "README.md").unlink()
    (to / "notes.txt").write_text("mine")
    must_not("and it has notes.txt")
    (to / "notes.txt").unlink()
    (to / "config.json").write_text(json.dumps({"model_type": "bert"}))
    must_not("library None")
    (to / "config.json").unlink()
    must_not("without a config.json of ours")


def test_what_others_write_meanwhile_is_kept(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trials.hub import export

    export_folder(exported.trial("one_shot"), tmp_path / "hub")
    same = export._require_same

    def meanwhile(*given: Any) -> None:
        (tmp_path / "hub" / "notes.txt").write_text("mine")
        same(*given)

    monkeypatch.setattr(export, "_require_same", meanwhile)
    with pytest.raises(UserError, match=r"and it has notes\.txt"):
        export_folder(exported.trial("one_shot"), tmp_path / "hub")
    assert (tmp_path / "hub" / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub"]


@pytest.mark.parametrize("to", ["hf:me/net", "s3://bucket/net"])
def test_the_export_uploads_nothing(
    to: str, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="on this machine: write it, then upload it"):
        export_folder(exported.trial("one_shot"), Path(to))
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"^--to is .*, but must be a folder that can be written \(.*No space left"):
        export_folder(exported.trial("one_shot"), tmp_path / "hub")
    assert list(tmp_path.iterdir()) == []
