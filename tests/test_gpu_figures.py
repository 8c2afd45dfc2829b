"""The GPU check's arithmetic: bytes and operations of a step, kinds of kernels, floors, trials an hour, bare loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.gpu.check import Check
from benchmarks.gpu.derived import derive
from benchmarks.gpu.images import few, noise
from benchmarks.gpu.kinds import kind_of_kernel, kind_of_operator
from benchmarks.gpu.measuring import WARM_UP, Card
from benchmarks.gpu.sections.bare import PAD, BareLoop
from benchmarks.gpu.sections.counting import CPU, Operators, counted, step_counts
from benchmarks.gpu.sections.smoke import WAYS, names, small_configs, smoke, trials
from benchmarks.gpu.sections.switches import WAYS as SWITCHES
from benchmarks.gpu.sections.switches import switched
from benchmarks.gpu.steps import KINDS, Shape, new_step, replayed
from trials.methods.registry import METHODS
from trials.training import launches


@pytest.mark.parametrize(
    ("call", "bytes_moved"),
    [
        (lambda x, y: x + y, 3 * 16),
        (lambda x, y: x.add_(y), 3 * 16),  # x is read and written
        (lambda x, y: x.view(2, 2), 0),
        (lambda x, y: torch.empty(4), 0),
        (lambda x, y: x[:1].expand(4) + y, 4 + 16 + 16),
        (lambda x, y: torch._foreach_add_([x, y], [y, x]), 4 * 16 - 2 * 16 + 2 * 16),  # two tensors, read and written
        (lambda x, y: x.to(torch.bfloat16), 16 + 8),
    ],
)
def test_bytes_of_an_operator(call: Callable[[Tensor, Tensor], object], bytes_moved: int) -> None:
    x, y = torch.ones(4), torch.ones(4)
    with Operators() as operators:
        call(x, y)
    assert sum(operators.moved.values()) == bytes_moved


def test_reads_of_values_are_counted() -> None:
    with Operators() as operators:
        float(torch.ones(()))
        torch.ones(3).nonzero()
    assert operators.reads == 2


@pytest.mark.parametrize("kind", ["dense", "bip", "backward"])
def test_two_small_batches_tell_those_of_a_larger_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = step_counts(kind, "tiny", batch=16)
    monkeypatch.setattr(launches, "few_launches", lambda device: True)
    step = new_step(kind, "tiny", CPU, shape=Shape(16, autocast=True, channels_last=True))
    step()
    operators, flops = counted(step)
    assert found["operators"] == sum(operators.calls.values())
    assert found["GFLOP"] == pytest.approx(flops / 1e9, abs=5e-4)
    assert found["MB"] == pytest.approx(sum(operators.moved.values()) / 1e6, abs=5e-3)
    assert 0 < found["fused_MB"] < found["MB"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_every_kind_trains_as_it_is_replayed(kind: str) -> None:
    step, twin = (new_step(kind, "tiny", CPU) for _ in range(2))
    replay = replayed(twin)
    for _ in range(2):
        step()
        replay()
    before = new_step(kind, "tiny", CPU).net.model.state_dict()
    after, other = step.net.model.state_dict(), twin.net.model.state_dict()
    assert all(torch.equal(after[name], other[name]) for name in after)
    assert any(not torch.equal(after[name], before[name]) for name in after)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm80_xmma_wgrad_implicit_gemm_indexed_bf16bf16_bf16f32_f32_n", "convolution, gradient of weights"),
        ("sm80_xmma_dgrad_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_", "convolution, gradient of inputs"),
        ("sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x64x32", "convolution"),
        ("void at::native::batch_norm_collect_statistics_channels_last_kernel<...>", "batch norm"),
        ("void at::native::batch_norm_backward_reduce_channels_last_kernel<...>", "batch norm"),
        ("void at::native::elementwise_kernel<128, 4, ...direct_copy_kernel_cuda...>", "cast or copy"),
        ("void at::native::vectorized_elementwise_kernel<4, ...bfloat16_copy_kernel_cuda...>", "cast or copy"),
        ("void at::native::vectorized_elementwise_kernel<4, ...FillFunctor<float>...>", "fill"),
        ("void at::native::vectorized_elementwise_kernel<4, ...CUDAFunctor_add<float>...>", "elementwise"),
        ("void at::native::multi_tensor_apply_kernel<...FusedSgdMathFunctor...>", "optimiser"),
        ("void at::native::multi_tensor_apply_kernel<...BinaryOpListAlphaFunctor...>", "many tensors at once"),
        ("Memcpy DtoD (Device -> Device)", "memory copy or fill"),
        ("nvjet_hsh_64x8_64x16_4x1_v_bz_TNT", "matrix product"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x2_nn>", "matrix product"),
        ("triton_poi_fused__native_batch_norm_legit_functional_relu_3", "fused by the compiler"),
        ("a kernel of tomorrow", "other"),
    ],
)
def test_kinds_of_kernels(name: str, kind: str) -> None:
    assert kind_of_kernel(name) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("convolution_backward", "convolution, gradients"),
        ("convolution", "convolution"),
        ("aten::mkldnn_convolution", "convolution"),
        ("native_batch_norm_backward", "batch norm"),
        ("_fused_sgd_", "optimiser"),
        ("_foreach_mul_", "many tensors at once"),
        ("_to_copy", "cast"),
        ("copy_", "copy"),
        ("add_", "elementwise"),
        ("mul", "elementwise"),
        ("threshold_backward", "elementwise"),
        ("nll_loss_backward", "loss and sums"),
        ("zeros_like", "new tensor"),
        ("searchsorted", "selection"),
    ],
)
def test_kinds_of_operators(name: str, kind: str) -> None:
    assert kind_of_operator(name) == kind


def measured() -> dict[str, Any]:
    """Figures of a made-up card with round numbers."""
    steps = {"dense": {"eager_ms": 8.0, "graph_ms": 2.0}, "bip": {"eager_ms": 20.0, "graph_ms": 4.0}}
    return {
        "machine": {"device": "a card", "copy_TBps": 4.0, "bf16_TFLOPs": 500.0},
        "steps_resnet20s": {**steps, "seconds": 1.0},
        "counts": {"resnet20s": {"dense": {"MB": 800.0, "fused_MB": 200.0, "GFLOP": 10.0}}},
        "loop": {"batch_graph_ms": 0.5, "evaluate_graph_ms": 40.0, "epoch_start_ms": 3.0},
        "epoch": {
            "training_images": 50_000,
            "product": {"graph": {"epoch_s": 0.9, "start_and_end_s": 6.0}},
            "bare": {"graph": {"epoch_s": 0.6}},
        },
        "same_process": {"resnet20s": {"8": 1.0}},
        "processes_mps": {"graph": {"8": {"ms_per_model_step": 1.25}}},
    }


def test_ratios_floors_and_trials_an_hour() -> None:
    results = measured()
    derive(results)
    assert results["ratios"]["resnet20s"]["bip"] == {"graph/eager": 0.2, "graph/dense graph": 2.0}
    assert results["ratios"]["epoch, product/bare"] == {"graph": 1.5}
    floor = results["roofline"]["resnet20s"]["dense"]
    assert floor == {
        "floor_ms": 0.2, "fused_floor_ms": 0.05, "by_operations_ms": 0.02, "graph_ms": 2.0, "share": 0.1
    }  # fmt: skip
    hours = results["trials_an_hour"]
    assert hours["by whole epochs"] == {"product, graph": 24.0, "bare, graph": 37.5}  # 150 and 96 s
    dense_s = 160 * (351 * 2 + 8 + 352 * 0.5 + 40 + 3) / 1e3 + 6
    bip_s = 160 * (351 * 4 + 20 + 352 * 2 * 0.5 + 40 + 3) / 1e3 + 6
    assert hours["by parts"] == {"dense": round(3600 / dense_s, 1), "bip": round(3600 / bip_s, 1)}
    assert hours["steps alone"]["8 streams"] == round(3600 / 56.32, 1)
    assert hours["steps alone"]["8 processes, MPS"] == round(3600 / 56.32 / 1.25, 1)


def test_small_batches_of_a_cpu_are_no_trials_an_hour() -> None:
    results = measured()
    results["machine"]["device"] = "cpu"
    results["epoch"]["training_images"] = 160
    derive(results)
    assert "trials_an_hour" not in results
    assert "share" not in results["roofline"]["resnet20s"]["dense"]


def test_the_smoke_section_has_every_method_of_the_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert all(base for base in small_configs().values()), "tests/trials/small_trials.py lacks a method"
    assert all(f"{method} {way}" in trials(cuda=True) for method in METHODS for way in WAYS)
    monkeypatch.setitem(METHODS, "another", METHODS["dense"])
    assert {"another bf16", "another eager", "another resumed"} < set(names(cuda=True))
    check = Check(Card(CPU), 60.0, tmp_path, tuple(name for name in names(cuda=False) if name.startswith("another")))
    assert check.trials
    result: dict[str, Any] = {}
    smoke(check, result)
    assert result[check.trials[0]] == {"error": "tests/trials/small_trials.py has no config of method another"}


def bare(images: Tensor, labels: Tensor, batch: int = 3) -> BareLoop:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return BareLoop(nn.Sequential(model, nn.Linear(4, 10)), images, labels, batch=batch, captured=False)


def test_the_bare_loop_crops_and_mirrors() -> None:
    raw = noise(10)
    loop = bare(raw.train_images, raw.train_labels)
    loop.mean, loop.std = torch.zeros(()), torch.ones(())
    cut = loop.cut(torch.arange(3))
    for image, found in zip(raw.train_images, cut, strict=False):
        padded = nn.functional.pad(image, (PAD,) * 4).float()
        crops = [padded[:, r : r + 32, c : c + 32] for r in range(2 * PAD + 1) for c in range(2 * PAD + 1)]
        assert any(torch.equal(found, way) for crop in crops for way in (crop, crop.flip(2)))


def test_an_epoch_of_the_bare_loop_trains_on_every_image_once_and_evaluates_the_others() -> None:
    raw = few(noise(25), 20)
    loop = bare(raw.train_images, raw.train_labels)
    seen: list[int] = []
    cut = loop.cut
    loop.cut = lambda index: seen.extend(index.tolist()) or cut(index)  # type: ignore[method-assign, func-returns-value]
    before = [parameter.clone() for parameter in loop.model.parameters()]
    accuracy = loop.epoch()
    assert sorted(seen) == list(range(2, 20))  # the first tenth is held out
    assert accuracy in (0, 0.5, 1)
    assert float(loop.loss) / 18 < 10
    assert any(not torch.equal(a, b) for a, b in zip(before, loop.model.parameters(), strict=True))


class Replays:
    """Stands for a CUDA graph: warms up as often, and repeats the call."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        for _ in range(WARM_UP):
            call()

    def __call__(self) -> None:
        self.call()


def test_a_captured_epoch_of_the_bare_loop_sees_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.sections.bare.Captured", Replays)
    monkeypatch.setattr("benchmarks.gpu.sections.bare.EVALUATED", 1)
    raw = noise(40)
    loop = bare(raw.train_images, raw.train_labels, batch=5)
    loop.captured = True
    loop.epoch()
    seen: list[int] = []
    cut = loop.cut
    loop.cut = lambda index: seen.extend(index.tolist()) or cut(index)  # type: ignore[method-assign, func-returns-value]
    assert loop.epoch() in (0, 0.25, 0.5, 0.75, 1)
    assert sorted(seen) == list(range(4, 40))
    assert isinstance(loop.step_graph, Replays)
    assert isinstance(loop.val_graph, Replays)


@pytest.mark.parametrize("way", SWITCHES)
def test_switches_are_restored(way: str) -> None:
    def state() -> tuple[bool, ...]:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        switches = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
        return (*switches, torch.are_deterministic_algorithms_enabled())

    before, asked = state(), SWITCHES[way]
    with switched(torch.device("cuda"), asked):
        tf32, deterministic = asked.get("tf32", False), asked.get("deterministic", False)
        benchmark = asked.get("benchmark", not deterministic)
        assert state() == (deterministic, benchmark, tf32, tf32, deterministic)
    assert state() == before
