"""A captured evaluation has the bits of an eager one, and follows the network that it evaluates."""

from __future__ import annotations

import pytest
import torch

from tests.trials.batches import made_up, on_device
from tests.trials.recorded_graph import RecordedGraph, graphs_made
from trials.data import OnDevice
from trials.models import build
from trials.running import evaluating
from trials.running.evaluating import EAGER, Evaluator
from trials.training import graphs
from trials.training.evaluation import evaluate
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("nothing_resident")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """The graphs that were made, which record on the CPU; batches have 8 images."""
    found: list[RecordedGraph] = graphs_made(monkeypatch)
    monkeypatch.setattr(evaluating, "EVAL_BATCH", 8)
    monkeypatch.setattr(evaluating, "evaluate", lambda net, data, split: evaluate(net, data, split, 8))
    return found


def network(autocast: bool = False) -> Net:
    return Net(build("tiny", num_classes=50, in_channels=3, seed=1), autocast=autocast)


def change(net: Net, seed: int) -> None:
    """New weights and statistics, in the same tensors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*net.model.parameters(), *net.model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator))


def data() -> OnDevice:
    return on_device(made_up(), val_fraction=0.4)  # 20 images of 50: two batches, and 4 images


@pytest.mark.parametrize("autocast", [False, True])
def test_replays_have_the_bits_of_eager_evaluations(made: list[RecordedGraph], autocast: bool) -> None:
    net, images = network(autocast), data()
    evaluator = Evaluator(net, images)
    for number in range(EAGER + 3):
        change(net, number)
        for split in ("train", "val", "test"):
            net.model.train()
            assert evaluator(split) == evaluate(net, images, split, 8)
            assert not net.model.training
    assert {(graph.warmed_up, graph.captures) for graph in made if graph.captures} == {(1, 1)}
    (val,) = (graph for graph in made if graph.replays == 3 * 2 - 1)  # the first batch of all was run eagerly
    assert val.captures == 1


def test_a_network_that_moved_is_captured_anew(made: list[RecordedGraph]) -> None:
    net, images = network(), data()
    evaluator = Evaluator(net, images)
    for _ in range(EAGER + 1):
        evaluator("val")
    assert [graph.captures for graph in made] == [1]
    first = next(iter(net.masks), None) or next(name for name, p in net.model.named_parameters() if p.dim() == 4)
    net.shrink({first: torch.tensor([0, 3])}, "filter")
    for _ in range(EAGER + 2):
        assert evaluator("val") == evaluate(net, images, "val", 8)
    assert [graph.captures for graph in made] == [1, 1]
    assert [graph.resets for graph in made] == [1, 0]  # the memory of the first one is free


def test_nothing_is_captured_where_that_is_turned_off_or_not_possible(
    made: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, images = network(), data()
    off = Evaluator(net, images, capture=False)
    for _ in range(EAGER + 2):
        off("val")
    assert not made
    monkeypatch.setattr(graphs, "graph_for", lambda device, generators=(): None)
    for _ in range(EAGER + 2):
        assert Evaluator(net, images)("val") == evaluate(net, images, "val", 8)


def test_a_split_without_a_full_batch_or_without_images(made: list[RecordedGraph]) -> None:
    net, images = network(), on_device(made_up(), val_fraction=0.1)  # 5 and 7 images
    evaluator = Evaluator(net, images)
    for _ in range(EAGER + 2):
        assert evaluator("val") == evaluate(net, images, "val", 8)
        assert evaluator("test") == evaluate(net, images, "test", 8)
    assert not any(graph.captures for graph in made)


def test_without_memory_for_a_graph_it_evaluates_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    class Crowded(RecordedGraph):
        def capture(self, function: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(graphs, "graph_for", lambda device, generators=(): Crowded())
    monkeypatch.setattr(evaluating, "EVAL_BATCH", 8)
    warnings: list[str] = []
    net, images = network(), data()
    evaluator = Evaluator(net, images, warn=warnings.append)
    results = {evaluator("val") for _ in range(EAGER + 3)}
    assert results == {evaluate(net, images, "val"), evaluate(net, images, "val", 8)}
    assert warnings == ["no memory to capture the evaluation on val as a CUDA graph: it runs operator by operator"]
