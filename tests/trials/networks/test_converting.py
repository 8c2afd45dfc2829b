"""Files with pickled objects are taken apart without running anything of them, and what comes out is a source_net."""

from __future__ import annotations

import os
import pickle
import sys
import tarfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from tests.trials.networks.sources import one_line, started_from, tiny
from trials.__main__ import main
from trials.errors import UserError
from trials.networks import converting, unpickling
from trials.networks.converting import Taken, as_it_stands, for_model
from trials.training.net import Net

pytestmark = [
    pytest.mark.usefixtures("few_digits"),
    pytest.mark.filterwarnings("ignore:Couldn't retrieve source code"),  # of a class that no file holds
    pytest.mark.filterwarnings("ignore:.torch.jit"),  # deprecated; such archives are refused
]


@pytest.fixture
def authors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[nn.Module], nn.Module]]:
    """Makes a module one of a class ``model.resnet.ResNet`` that is importable while it is written only."""
    package, file = types.ModuleType("model"), types.ModuleType("model.resnet")

    def of(net: nn.Module) -> nn.Module:
        net.__class__ = file.ResNet = type("ResNet", (type(net),), {"__module__": "model.resnet"})  # type: ignore[attr-defined]
        return net

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "model", package)
        patch.setitem(sys.modules, "model.resnet", file)
        yield of


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Taken]:
    """Runs the program in this process, without its memory limit; a process of its own takes two seconds."""

    def run(content: object, **options: Any) -> Taken:
        path = tmp_path / "pickled.pth"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path, **options)
        with monkeypatch.context() as patch:
            patch.setattr(unpickling, "limit_memory", lambda _: None)
            patch.setattr(unpickling.Unpickler, "named", {})
            for name in [name for name in sys.modules if name.partition(".")[0] == "model"]:
                patch.delitem(sys.modules, name)
            capsys.readouterr()

            def here(command: list[str], **_: Any) -> Any:
                code = unpickling.main(*command[-2:])
                return types.SimpleNamespace(returncode=code, stdout=capsys.readouterr().out.encode())

            patch.setattr(converting.subprocess, "run", here)
            return converting.take_out(path, 10)

    return run


def written(content: object, folder: Path) -> Path:
    torch.save(content, folder / "net.pt")
    return folder / "net.pt"


OLD: dict[str, Any] = {"_use_new_zipfile_serialization": False}


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", ["module", "model", "both", "parallel", "state only"])
def test_a_module_of_an_unknown_class(
    form: str, options: dict[str, Any], authors: Any, taken: Callable[..., Taken], tmp_path: Path
) -> None:
    net, state = authors(tiny(4)), tiny(4).state_dict()
    beside = {"epoch": 3, "acc1": np.float64(0.5), "optimizer": torch.optim.SGD(net.parameters(), 0.1).state_dict()}
    contents: dict[str, Any] = {
        "module": net,
        "model": {"model": net, "arch": "tiny", **beside},
        "both": {"model": net, "state_dict": net.state_dict(), **beside},
        "parallel": {"model": nn.DataParallel(net), **beside},
        "state only": {"state_dict": net.state_dict(), "args": types.SimpleNamespace(lr=0.1) if options else 3},
    }
    if form == "state only" and options:
        with pytest.raises(UserError, match=r"names types\.SimpleNamespace, which no network needs"):
            taken(contents[form], **options)
        return
    found = taken(contents[form], **options)
    if form != "state only":
        assert "model.resnet.ResNet" in found.objects
    path = written(as_it_stands(found), tmp_path)
    torch.load(path, weights_only=True)
    started = started_from(path).model.state_dict()
    assert started.keys() == state.keys()
    assert all(torch.equal(started[name], state[name]) for name in state)


def test_buffers_that_are_not_saved_are_left_out(taken: Callable[..., Taken]) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    net.register_buffer("cache", torch.ones(3), persistent=False)
    assert list(taken(net).tensors) == list(net.state_dict())


def compact_net(pattern: str) -> tuple[Net, dict[str, list[int]], dict[str, list[int]]]:
    """A compact network, and the indices that GReg's code keeps and removes, by layer, in its mode."""
    net = Net(tiny(4))
    layers = ("conv1", "conv2", "conv3")
    whole = {name: net.model.get_submodule(name).weight.shape for name in layers}
    removed = {"conv2.weight": torch.tensor([1, 5, 6])} | (
        {"conv1.weight": torch.tensor([0, 3])} if pattern == "filter" else {}
    )
    net.shrink(removed, pattern)  # type: ignore[arg-type]
    dim = 0 if pattern == "filter" else 1
    gone = {n: removed[f"{n}.weight"].tolist() if f"{n}.weight" in removed else [] for n in layers}
    kept = {n: [i for i in range(whole[n][dim]) if i not in gone[n]] for n in layers}
    return net, kept, gone


@pytest.mark.parametrize("pattern", ["filter", "channel"])
@pytest.mark.parametrize("told", [True, False])
def test_a_compact_module_is_a_compact_source(
    pattern: str, told: bool, authors: Any, taken: Callable[..., Taken], tmp_path: Path
) -> None:
    net, kept, gone = compact_net(pattern)
    content: dict[str, Any] = {"arch": "tiny", "model": nn.DataParallel(authors(net.model)), "epoch": 90}
    if told:
        content |= {"kept_wg": {f"module.{n}": rows for n, rows in kept.items()}}
        content |= {"pruned_wg": {f"module.{n}": torch.tensor(rows) for n, rows in gone.items()}}
    result, said = for_model(taken(content), "tiny", None)
    assert said == told
    started = started_from(written(result, tmp_path), "finetune")
    assert {n: len(rows) for n, rows in started.kept.items()} == {n: len(rows) for n, rows in net.kept.items()}
    if told:
        assert {n: rows.tolist() for n, rows in started.kept.items()} == {n: r.tolist() for n, r in net.kept.items()}
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(started.model.eval()(x), net.model.eval()(x))


def test_masks_of_layers_are_masks_of_their_weights(authors: Any, taken: Callable[..., Taken], tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(1)
    net = authors(tiny(4))
    masks = {
        n: (torch.rand(m.weight.shape, generator=draw) < 0.5).float()
        for n, m in net.named_modules()
        if hasattr(m, "weight") and m.weight.dim() > 1
    }
    content = {"model": net, "mask": {n: mask.flatten() if n == "conv2" else mask for n, mask in masks.items()}}
    for result in (as_it_stands(taken(content)), for_model(taken(content), "tiny", None)[0]):
        started = started_from(written(result, tmp_path), "finetune")
        assert all(torch.equal(started.masks[f"{name}.weight"], mask.bool()) for name, mask in masks.items())
    with pytest.raises(UserError, match="holds a mask of conv9, which fits no weight"):
        as_it_stands(taken({"model": net, "mask": {"conv9": torch.ones(3)}}))


@pytest.mark.parametrize("named", [False, True])
def test_a_module_under_pruning_of_torch_is_a_masked_source(
    named: bool, authors: Any, taken: Callable[..., Taken], tmp_path: Path
) -> None:
    """The weights of such a module are called weight_orig, and its masks are buffers."""
    net = authors(tiny(4))
    for layer in (net.conv1, net.conv2, net.linear):
        prune.random_unstructured(layer, "weight", 0.5)
    found = taken(net)
    content = for_model(found, "tiny", None)[0] if named else as_it_stands(found)
    started = started_from(written(content, tmp_path), "finetune")
    for name in ("conv1", "conv2", "linear"):
        assert torch.equal(started.masks[f"{name}.weight"], net.get_submodule(name).weight_mask.bool())
        assert torch.equal(started.model.get_parameter(f"{name}.weight"), net.get_submodule(name).weight)


@pytest.mark.parametrize("form", ["beside", "pairs"])
def test_a_compact_module_keeps_its_mask(form: str, authors: Any, taken: Callable[..., Taken], tmp_path: Path) -> None:
    """What the mask drops is told from what is 0 by chance."""
    net, _, _ = compact_net("filter")
    mask = torch.ones_like(net.model.conv3.weight)
    mask[3, 1:4] = 0
    net.model.conv3.weight.data[5] = 0
    beside = {"mask": {"conv3": mask}} if form == "beside" else {}
    if form == "pairs":
        prune.custom_from_mask(net.model.conv3, "weight", mask)
    result, _ = for_model(taken({"model": authors(net.model), **beside}), "tiny", None)
    started = started_from(written(result, tmp_path), "finetune")
    assert torch.equal(started.masks["conv3.weight"], mask.bool())
    assert len(started.model.conv1.weight) < len(tiny(4).conv1.weight)


def test_another_model_is_refused(authors: Any, taken: Callable[..., Taken]) -> None:
    found = taken(authors(tiny(4)))
    for model in ("lenet5", "resnet20s"):
        with pytest.raises(UserError, match=f"--model is '{model}'") as refused:
            for_model(found, model, None)
        one_line(str(refused.value))
    with pytest.raises(UserError, match="holds no weight of a layer"):
        for_model(Taken({"x": torch.ones(2)}, {}, {}, {}, ()), "tiny", None)


class Call:
    """Its pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


HOSTILE: dict[str, Callable[[str], Call]] = {
    "os.system": lambda command: Call(os.system, command),
    "eval": lambda command: Call(eval, f"__import__('os').system({command!r})"),
    "getattr": lambda command: Call(getattr, Call(__import__, "os"), "system"),
    "subprocess": lambda command: Call(converting.subprocess.check_call, command),
    "pickle.loads": lambda command: Call(pickle.loads, pickle.dumps(Call(os.system, command))),
}


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_is_refused_and_executes_nothing(
    kind: str, options: dict[str, Any], taken: Callable[..., Taken], tmp_path: Path
) -> None:
    hostile = HOSTILE[kind](f"touch {tmp_path / 'executed'}")
    with pytest.raises(UserError, match="which no network needs and which could be used to run code") as refused:
        taken({"state_dict": tiny().state_dict(), "more": hostile}, **options)
    one_line(str(refused.value))
    assert not (tmp_path / "executed").exists()


def test_functions_of_other_packages_are_not_called(
    taken: Callable[..., Taken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own that would unpickle again, and numpy's, get stand-ins."""
    inner = pickle.dumps(Call(os.system, f"touch {tmp_path / 'executed'}"))
    content = {
        "state_dict": tiny().state_dict(),
        "again": Call(torch.storage._load_from_bytes, inner),
        "numpy": np.float32(1.5),
    }
    found = taken(content)
    assert "torch.storage._load_from_bytes" in found.objects
    assert not (tmp_path / "executed").exists()
    assert found.tensors.keys() == tiny().state_dict().keys()


def legacy(body: bytes) -> bytes:
    """A file of torch before 1.6 whose pickle is ``body``."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [torch.serialization.MAGIC_NUMBER, 1001, system, []]
    head, tail = (b"".join(pickle.dumps(part, 2) for part in some) for some in (parts[:3], parts[3:]))
    return head + body + tail


FUNCTION = b"ctorch._utils\n_rebuild_tensor\n"


def text(value: str) -> bytes:
    return pickle.BINUNICODE + len(value.encode()).to_bytes(4, "little") + value.encode()


def test_a_source_in_a_file_writes_no_patch(taken: Callable[..., Taken], tmp_path: Path) -> None:
    """torch writes a class's source to the class's name + .patch, if the file says so of something with a source."""
    settings = b"}" + text("dump_patches") + b"\x88s}" + text("__name__") + text(str(tmp_path / "written")) + b"s\x86b"
    brought = b"(" + text("module") + FUNCTION + text("a.py") + text("source") + b"tQ"
    with pytest.raises(UserError, match="changes a function, which no network needs"):
        taken(legacy(b"\x80\x02" + FUNCTION + settings + b"0" + brought + b"."))
    with pytest.raises(UserError, match="holds no state dict"):
        taken(legacy(b"\x80\x02" + brought + b"."))
    assert not list(tmp_path.glob("*.patch"))


def test_a_tar_archive_is_not_unpacked(taken: Callable[..., Taken], tmp_path: Path) -> None:
    """An entry that links to a file here would give that file its own mode, times and owner."""
    victim, archive = tmp_path / "victim", tmp_path / "net.tar"
    victim.touch(mode=0o600)
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT, encoding="latin1") as tar:
        tar.addfile(tarfile.TarInfo("\x80"))
        link = tarfile.TarInfo("storages")
        link.type, link.linkname, link.mode = tarfile.LNKTYPE, str(victim), 0o777
        tar.addfile(link)
    with pytest.raises(UserError, match="is a tar archive"):
        taken(archive.read_bytes())
    assert victim.stat().st_mode & 0o777 == 0o600


def test_a_script_that_only_torch_sees_is_not_run(
    taken: Callable[..., Taken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    monkeypatch.setattr(unpickling.zipfile.ZipFile, "namelist", lambda _: [])
    with pytest.raises(UserError, match="is a TorchScript archive, whose code is not run"):
        taken((tmp_path / "script.pt").read_bytes())


def test_damaged_files_are_refused_in_one_line(authors: Any, taken: Callable[..., Taken], tmp_path: Path) -> None:
    for options in ({}, OLD):
        torch.save({"model": authors(tiny(4))}, tmp_path / "whole.pth", **options)
        whole = (tmp_path / "whole.pth").read_bytes()
        for end in (0, 1, 3, 10, 200, len(whole) // 2, len(whole) - 100):
            with pytest.raises(UserError, match="nothing was written") as refused:
                taken(whole[:end])
            one_line(str(refused.value).replace(str(tmp_path), ""))
    for content in (b"text", pickle.dumps([1, 2]), {"a": 3}, [tiny().state_dict()]):
        with pytest.raises(UserError, match="nothing was written"):
            taken(content)
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(UserError, match="is a TorchScript archive, whose code is not run"):
        taken((tmp_path / "script.pt").read_bytes())


def test_the_command(
    authors: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own process, which gets no keys; off unless the risk is taken."""
    file, to = tmp_path / "checkpoint_best.pth", tmp_path / "net.pt"
    torch.save({"model": authors(compact_net("filter")[0].model)}, file)
    command = ["convert_pickle", str(file), "--to", str(to), "--model", "tiny"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "a pickle is a program of whoever made it" in said
    assert "give --i-trust-this-file" in said
    assert not to.exists()
    monkeypatch.delitem(sys.modules, "model.resnet")
    assert main([*command[:-1], "tyni", "--i-trust-this-file"]) == 2
    assert "--model is 'tyni'" in capsys.readouterr().err
    assert main([*command, "--i-trust-this-file", "--seconds", "0"]) == 2
    assert "--seconds is 0, but must be positive" in capsys.readouterr().err
    assert main([*command, "--i-trust-this-file"]) == 0
    out = capsys.readouterr()
    assert f"{to} holds a compact network of" in out.out
    assert "does not say which rows are left, so they are numbered from 0" in out.err
    started_from(to, "finetune")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    program = tmp_path / "other.py"
    program.write_text("import json, os; print(json.dumps({'error': 'saw ' + ' '.join(sorted(os.environ))}))")
    monkeypatch.setattr(converting, "PROGRAM", program)
    with pytest.raises(UserError, match="but saw ") as seen:
        converting.take_out(file, 30)
    assert "AWS" not in str(seen.value)
    program.write_text("import time; time.sleep(60)")
    with pytest.raises(UserError, match=r"was not read within 0\.5 s: give more --seconds"):
        converting.take_out(file, 0.5)
    program.write_text("import os; os.abort()")
    with pytest.raises(UserError, match=r"ended the process that read it \(exit code -6\): nothing was written"):
        converting.take_out(file, 30)
    with pytest.raises(UserError, match="must be a file that can be read"):
        converting.take_out(tmp_path / "absent", 30)
