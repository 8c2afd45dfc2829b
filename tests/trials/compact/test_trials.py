"""Trials that end with a compact network: resumed, exported, loaded, profiled, timed."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.trials.folders import assert_same_outcome, checkpoint_of, rows_of
from tests.trials.small_trials import BASE, RECIPE, config_of, folder_of, run_in
from trials import compact, models
from trials.__main__ import main
from trials.analysis import sparsity_accuracy
from trials.config.trial_config import TrialConfig
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.networks.export import FORMS, export
from trials.networks.onnx import export_onnx
from trials.networks.stored import network
from trials.sparsity.accounting import torch_flops
from trials.training.latency import measure
from trials.training.net import Net

SHORT = {**RECIPE, "epochs": 1}


def shrinking(**fields: Any) -> TrialConfig:
    """A trial that removes half of each layer's filters before it finetunes."""
    content = {"method": "l1", "stage_pr": {"1-2": 0.5}, "pretrain": SHORT, "finetune": RECIPE}
    return parse({**BASE, **content, **fields})


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, few_digits: None) -> Path:
    folder = tmp_path_factory.mktemp("compact")
    for config in (shrinking(measure_latency=True), config_of("bip-channel"), config_of("hydra-filter-original")):
        state = run_in(folder, config)
        assert state.status == "complete", state.error
    return folder


def digits(batch: int = 4) -> torch.Tensor:
    return torch.rand(batch, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(digits())
    return out


def test_rows_report_the_remaining_network(storage: Path) -> None:
    config = shrinking()
    rows, net = rows_of(folder_of(config, storage)), checkpoint_of(folder_of(config, storage))["net"]
    shapes = {name: weight.shape for name, weight in net["model"].items() if weight.dim() > 1}
    assert [len(shape) and shape[0] for shape in shapes.values()] == [16, 16, 24, 10]
    last = rows["epochs"][-1]
    assert last["kept"] == sum(shape.numel() for shape in shapes.values())
    assert last["parameters"] == last["kept"] + 10 + 2 * (16 + 16 + 24)
    final = [row for row in rows["layers"] if row["stage"] == last["stage"]]
    assert [row["kept"] for row in final] == [shape.numel() for shape in shapes.values()]
    assert last["flops"] == sum(row["flops"] for row in final) == 2 * last["macs"]


def test_the_result_has_its_latency_if_asked(storage: Path, tmp_path: Path, few_digits: None) -> None:
    state = json.loads((folder_of(shrinking(), storage) / "state.json").read_text())
    assert state["result"]["latency_ms_1"] > 0
    assert state["result"]["latency_ms_128"] > state["result"]["latency_ms_1"]
    assert state["result"]["dense_parameters"] > state["result"]["parameters"]
    for stage in (storage / "stages").iterdir():  # shared trials are not timed
        assert "latency_ms_1" not in json.loads((stage / "state.json").read_text())["result"]
    plain = run_in(tmp_path, shrinking(finetune=None))
    assert "latency_ms_1" not in plain.result


@pytest.mark.parametrize("after", [2, 4, 6])
def test_a_smaller_network_resumes_to_the_same_results(after: int, storage: Path, tmp_path: Path) -> None:
    config = shrinking(checkpoint_every_s=0.0)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == after

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trials.running.progress.STOP_POLL_S", 0.0)
        assert run_in(tmp_path, config, should_stop=stop).status == "preempted"
    run_in(tmp_path, config)
    undisturbed = tmp_path / "undisturbed"
    run_in(undisturbed, config)
    assert_same_outcome(folder_of(config, tmp_path), folder_of(config, undisturbed))


def test_compact_export_is_loaded_as_it_was(storage: Path, tmp_path: Path) -> None:
    trial = folder_of(shrinking(), storage)
    export(trial, tmp_path / "net.pt", "compact")
    model = compact.load(tmp_path / "net.pt")
    assert not model.training
    assert model.get_submodule("conv2").out_channels == 16
    assert torch.equal(outputs(model), outputs(network(trial)[1].model))
    content = torch.load(tmp_path / "net.pt", weights_only=True)
    assert {name: len(rows) for name, rows in content["kept"].items()} == {"conv2.weight": 16, "conv3.weight": 24}


def test_masked_channels_are_exported_as_a_smaller_network(storage: Path, tmp_path: Path) -> None:
    trial = folder_of(config_of("bip-channel"), storage)
    export(trial, tmp_path / "net.pt", "compact")
    model = compact.load(tmp_path / "net.pt")
    assert model.get_submodule("conv1").out_channels == model.get_submodule("conv2").in_channels == 8
    torch.testing.assert_close(outputs(model), outputs(network(trial)[1].model), rtol=1e-5, atol=1e-5)


def test_masked_filters_with_a_nonzero_bn_leave_their_constants(storage: Path, tmp_path: Path) -> None:
    """Batch norm makes constants of filters of zeros: one filter stays for those that a padded convolution reads."""
    trial = folder_of(config_of("hydra-filter-original"), storage)
    export(trial, tmp_path / "net.pt", "compact")
    model = compact.load(tmp_path / "net.pt")
    assert model.get_submodule("conv1").out_channels in (8, 9)
    assert model.get_submodule("conv3").out_channels == 24  # the linear layer's bias takes over the others' constants
    torch.testing.assert_close(outputs(model), outputs(network(trial)[1].model), rtol=1e-5, atol=1e-5)
    assert len(masks := compact.load_masks(tmp_path / "net.pt")) <= 2
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())


@pytest.mark.parametrize("name", ["shrinking", "bip-channel", "hydra-filter-original"])
def test_rows_and_result_count_the_exported_network(name: str, storage: Path, tmp_path: Path) -> None:
    trial = folder_of(shrinking() if name == "shrinking" else config_of(name), storage)
    export(trial, tmp_path / "net.pt", "compact")
    model = compact.load(tmp_path / "net.pt")
    flops, parameters = torch_flops(model, (1, 8, 8)), sum(p.numel() for p in model.parameters())
    *before, last = rows_of(trial)["epochs"]
    result = json.loads((trial / "state.json").read_text())["result"]
    for row in (last, result):
        assert [row[f"compact_{figure}"] for figure in ("macs", "flops", "parameters")] == [
            *(flops // 2, flops, parameters)
        ]
    assert flops < result["dense_flops"]
    for row in before:
        assert (row["compact_flops"] is None) == (row["test_loss"] is None)


def test_onnx_export_computes_the_same(storage: Path, tmp_path: Path) -> None:
    import onnxruntime

    trial = folder_of(shrinking(), storage)
    assert main(["export", str(trial), "--to", str(tmp_path / "net.onnx"), "--form", "onnx"]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (logits,) = session.run(None, {"images": digits().numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), outputs(network(trial)[1].model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["shrinking", "bip-channel", "hydra-filter-original"])
def test_sparsity_is_that_of_the_rows(name: str, storage: Path, tmp_path: Path) -> None:
    config = shrinking(measure_latency=True) if name == "shrinking" else config_of(name)
    folder = folder_of(config, storage)
    copy_of = shutil.copytree(folder, tmp_path / folder.name)
    (copy_of / "config.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    row = rows_of(folder)["epochs"][-1]
    (measured,) = sparsity_accuracy([copy_of])
    assert row["sparsity"] > 0.1
    assert measured["sparsity"] == pytest.approx(row["sparsity"])
    assert measured["accuracy"] == pytest.approx(row["test_accuracy"])


@pytest.mark.parametrize("form", FORMS)
def test_an_unreadable_trial_is_not_blamed_on_the_file_to_write(form: str, tmp_path: Path) -> None:
    (tmp_path / "trial" / "state.json").mkdir(parents=True)  # a folder in a file's place
    (tmp_path / "file").write_text("{}")
    said = {name: rf"{name}' must be the folder of a trial" for name in ("file", "absent")}
    for name, line in {"trial": r"trial/state.json is not a committed state \(a folder\)", **said}.items():
        with pytest.raises(UserError, match=line):
            export(tmp_path / name, tmp_path / "net.pt", form)
    assert not (tmp_path / "net.pt").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_cannot_be_written_is_named(form: str, storage: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"--to is '.*folder', but must be a file that can be written"):
        export(folder_of(shrinking(), storage), tmp_path / "folder", form)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_files_without_a_compact_network_are_refused(tmp_path: Path) -> None:
    torch.save({"architecture": {"model": "tiny"}}, tmp_path / "half")
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "state")
    (tmp_path / "text").write_text("weights")
    for name in ("half", "state", "text", "absent"):
        with pytest.raises(UserError, match=name):
            compact.load(tmp_path / name)


def test_masks_and_snapshots_follow() -> None:
    net = Net(models.build("tiny", num_classes=10, in_channels=1, seed=0))
    net.snapshot("start")
    mask = torch.rand(32, 16, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    net.set_masks({"conv2.weight": mask})
    dense = copy.deepcopy(net.state_dict())
    net.shrink({"conv1.weight": torch.tensor([0, 5]), "conv2.weight": torch.tensor([3])}, "filter")
    net.shrink({"conv1.weight": torch.tensor([0])}, "filter")  # a second time: originally filter 1
    rows, columns = [i for i in range(32) if i != 3], [i for i in range(16) if i not in (0, 1, 5)]
    assert torch.equal(net.masks["conv2.weight"], mask[rows][:, columns])
    assert net.kept["conv1.weight"].tolist() == columns
    assert torch.equal(
        net.snapshots["start"]["conv2.weight"], dense["snapshots"]["start"]["conv2.weight"][rows][:, columns]
    )
    assert not net.model.get_parameter("conv2.weight")[~net.masks["conv2.weight"]].any()
    net.restore("start")
    assert not net.model.get_parameter("conv2.weight")[~net.masks["conv2.weight"]].any()
    again = Net(models.build("tiny", num_classes=10, in_channels=1, seed=1))
    again.load_state_dict(net.state_dict())
    assert torch.equal(outputs(again.model), outputs(net.model))
    assert torch.equal(again.masks["conv2.weight"], net.masks["conv2.weight"])


def test_channels_last_stays() -> None:
    net = Net(models.build("tiny", num_classes=10, in_channels=1, seed=0).to(memory_format=torch.channels_last))
    net.shrink({"conv2.weight": torch.tensor([3])}, "filter")
    for name in ("conv2.weight", "conv3.weight"):
        assert net.model.get_parameter(name).is_contiguous(memory_format=torch.channels_last)


def test_profile_counts_and_times_every_form(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [
        folder_of(c, storage) for c in (shrinking(), config_of("bip-channel"), config_of("hydra-filter-original"))
    ]
    assert main(["profile", "--json", "--threads", "1", *map(str, trials)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["trial"], row["form"]) for row in rows] == [
        *((trials[0].name, form) for form in ("dense", "compact")),
        *((trial.name, form) for trial in trials[1:] for form in ("dense", "sparse", "compact")),
    ]
    for row in rows:
        assert row["flops"] == 2 * row["macs"]
        assert 0 < row["latency_ms_1"] < row["latency_ms_128"]
        assert (row["speedup"] == row["compression"] == row["density"] == 1) == (row["form"] == "dense")
    for trial in trials:
        dense, *others = [row for row in rows if row["trial"] == trial.name]
        last = rows_of(trial)["epochs"][-1]
        for row in others:
            assert row["speedup"] == dense["flops"] / row["flops"] > 1
            assert row["compression"] == dense["layer_parameters"] / row["layer_parameters"] > 1
            assert row["parameters"] < dense["parameters"]
        assert (others[0]["flops"], others[0]["parameters"]) == (last["flops"], last["parameters"])
        realised = (others[-1]["macs"], others[-1]["flops"], others[-1]["parameters"])
        assert realised == (last["compact_macs"], last["compact_flops"], last["compact_parameters"])
    assert main(["profile", "--threads", "1", str(trials[0])]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == list(rows[0])
    assert len(lines) == 2


def test_profile_of_a_folder_without_a_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(tmp_path)]) == 2
    assert "must be the folder of a trial" in capsys.readouterr().err


def test_measuring_changes_nothing() -> None:
    net = Net(models.build("tiny", num_classes=10, in_channels=1, seed=0))
    before = copy.deepcopy(net.model.state_dict())
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found = measure(net, (1, 8, 8), batch_sizes=(1, 2))
    assert found.keys() == {"latency_ms_1", "latency_ms_2"}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in net.model.state_dict().items())


def test_imagenet_statistics(few_digits: None) -> None:
    import dataclasses

    from trials.data import RawData, load_data, normalised
    from trials.errors import DataError

    digits = load_data("digits")
    assert isinstance(digits, RawData)
    with pytest.raises(DataError, match="normalise is 'imagenet', but digits has 1 channels"):
        normalised(digits, "imagenet")
    rgb = dataclasses.replace(digits, train_images=digits.train_images.repeat(1, 3, 1, 1), mean=(0.5,) * 3)
    assert normalised(rgb, "imagenet").mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("model", ["tiny", "lenet5", "mlp_7_relu"])
def test_onnx_of_a_precision_that_onnxruntime_lacks_is_refused_in_one_line(model: str, tmp_path: Path) -> None:
    net = models.build(model, num_classes=4, in_channels=1, seed=0).double()
    with pytest.raises(UserError, match=r"^--form is onnx, but .* in float64 \(.*\): export it with --form compact.*$"):
        export_onnx(net, (1, 8, 8), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()
