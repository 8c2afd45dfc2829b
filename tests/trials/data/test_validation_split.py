"""stratify_split: the same share of every class is held out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trials.batches import made_up, on_device
from tests.trials.layouts import load_large, write_imagenet, write_imagenet_parquet
from trials.config.trial_config import TrialConfig
from trials.data import load_data, to_loader
from trials.data.validation_split import split_indices, stratified_indices
from trials.errors import DataError
from trials.methods.parsing import parse
from trials.training.build import build_loader, build_net
from trials.training.network_copy import NetworkCopy, forget

pytestmark = pytest.mark.usefixtures("few_digits")

counts = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda many: sum(many) > 1)


def labels_of(many, seed=0) -> torch.Tensor:
    """Labels of a data set with ``many`` images of each class, in random order."""
    labels = torch.arange(len(many)).repeat_interleave(torch.tensor(many))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


@given(counts, st.integers(1, 99), st.integers(0, 20))
def test_every_class_leaves_its_share(many, percent, seed):
    labels, fraction = labels_of(many, seed), percent / 100
    size = len(labels)
    total = round(fraction * size)
    if total in (0, size):
        with pytest.raises(DataError, match="must leave some"):
            stratified_indices(labels, fraction, seed)
        return
    train, val = stratified_indices(labels, fraction, seed)
    assert len(val) == total
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(size))
    assert all(torch.equal(part, part.sort().values) and part.dtype == torch.int64 for part in (train, val))
    assert [part.tolist() for part in stratified_indices(labels, fraction, seed)] == [train.tolist(), val.tolist()]

    held = Counter(labels[val].tolist())
    pairs = sum(count > 1 for count in many)
    if pairs <= total and sum(max(count - 1, 0) for count in many) >= total:
        for label, count in enumerate(many):
            assert held[label] == 0 if count < 2 else 1 <= held[label] < count
    exact = [Fraction(percent, 100) * count for count in many]
    if all(1 <= part <= count - 1 for part, count in zip(exact, many, strict=True)):
        assert all(abs(held[label] - part) < 1 for label, part in enumerate(exact))  # largest remainders
        floors = {label: part - int(part) for label, part in enumerate(exact)}
        up = [floors[label] for label in floors if held[label] > exact[label] - floors[label]]
        down = [floors[label] for label in floors if held[label] == int(exact[label])]
        assert min(up, default=1) >= max(down, default=0)


@pytest.mark.parametrize(
    ("many", "fraction", "held"),
    [
        ([100, 100, 100], 0.1, [10, 10, 10]),
        ([15] * 4, 0.1, [2, 2, 1, 1]),  # 1.5 each: of equal remainders the lower class first
        ([297, 3], 0.1, [29, 1]),  # 29.7 and 0.3, but one of the rare class
        ([197, 2, 1], 0.1, [19, 1, 0]),
        ([5, 5, 0, 5], 0.2, [1, 1, 0, 1]),
        ([2, 2, 2], 0.5, [1, 1, 1]),
        ([30, 2], 0.9, [28, 1]),  # 27 and 1.8, but one of two stays in training
        ([10] * 5, 0.04, [1, 1, 0, 0, 0]),  # two images cannot be of five classes
        ([1, 1, 1, 1], 0.5, [1, 1, 0, 0]),  # nothing else is possible
        ([100, 200], 0.29, [29, 58]),  # 0.29 * 100 is 28.999999999999996 in binary
    ],
)
def test_numbers_held_out(many, fraction, held):
    labels = labels_of(many)
    found = Counter(labels[stratified_indices(labels, fraction, 0)[1]].tolist())
    assert [found[label] for label in range(len(many))] == held


def test_no_split_lacks_a_rare_class():
    labels = labels_of([150, 147, 3])
    lacking = [2 not in labels[split_indices(300, 0.1, seed)[1]] for seed in range(50)]
    assert any(lacking)  # the reason for the option
    assert all(2 in labels[stratified_indices(labels, 0.1, seed)[1]] for seed in range(50))


def test_the_split_depends_on_seed_and_labels_only():
    labels = labels_of([50, 30, 20])
    first = stratified_indices(labels, 0.2, 0)[1].tolist()
    torch.manual_seed(5)
    assert stratified_indices(labels.clone(), 0.2, 0)[1].tolist() == first
    assert stratified_indices(labels, 0.2, 1)[1].tolist() != first
    assert stratified_indices(labels.flip(0), 0.2, 0)[1].tolist() != first
    renamed = stratified_indices(torch.tensor([7, 3, 5])[labels], 0.2, 0)[1].tolist()
    assert renamed == first  # quotas of 10, 6 and 4: nothing to round


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, 0.001, 0.999])
def test_fractions_that_leave_a_part_empty(fraction):
    with pytest.raises(DataError, match="val_fraction"):
        stratified_indices(labels_of([5, 5]), fraction, 0)


def test_nothing_is_held_out_of_a_fraction_of_zero():
    train, val = stratified_indices(labels_of([5, 5]), 0, 0)
    assert (len(train), len(val)) == (10, 0)


# --- loaders ---------------------------------------------------------------------------------------------------


def test_a_loader_on_the_device_holds_out_every_class():
    raw = replace(made_up(60), train_labels=labels_of([40, 17, 3]), fingerprint="three classes")
    data = on_device(raw, val_fraction=0.1, stratify_split=True)
    assert data.val_indices.tolist() == stratified_indices(raw.train_labels, 0.1, 0)[1].tolist()
    assert sorted(torch.cat([y for _, y in data.eval_batches("val", 4)]).tolist()) == [0] * 4 + [1, 2]
    assert data.train_size == 54


@pytest.mark.parametrize("write", [write_imagenet, write_imagenet_parquet])
@pytest.mark.usefixtures("small_crops")
def test_a_streaming_loader_holds_out_every_class(tmp_path, write):
    source = load_large(write(tmp_path))
    data = to_loader(source, device="cpu", val_fraction=0.25, split_seed=3, stratify_split=True)
    assert source.train_labels[data.val_indices].tolist() == [0, 1, 2]


def config(**fields) -> TrialConfig:
    recipe = {"epochs": 1, "batch_size": 16, "lr": 0.1}
    trial = {"method": "dense", "model": "tiny", "dataset": "few_digits", "train": recipe, "device": "cpu"}
    return parse({**trial, **fields})


@pytest.mark.parametrize("stratify", [True, False])
def test_a_trial_and_a_copy_of_its_network_have_the_split_of_its_config(stratify):
    given_config = config(stratify_split=stratify, split_seed=4)
    raw = load_data("few_digits")
    size = len(raw.train_labels)
    wanted = stratified_indices(raw.train_labels, 0.1, 4) if stratify else split_indices(size, 0.1, 4)
    assert not torch.equal(stratified_indices(raw.train_labels, 0.1, 4)[1], split_indices(size, 0.1, 4)[1])
    net = build_net(given_config, raw, torch.device("cpu"))
    copied = NetworkCopy.of(given_config, net).restore()
    forget()
    for data in (build_loader(given_config, raw, torch.device("cpu")), copied.data):
        assert torch.equal(data.train_indices, wanted[0])
        assert torch.equal(data.val_indices, wanted[1])


def test_the_option_is_part_of_a_trials_name_only_where_it_is_on():
    assert config(stratify_split=True).id != config().id == config(stratify_split=False).id
