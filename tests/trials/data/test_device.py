"""The data set on the device: its split and batches are the same every time, in every layout."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trials.batches import epoch, labels, made_up, on_device, pixels, same
from trials.data import OnDevice, device
from trials.data.loader import split_indices
from trials.errors import DataError

pytestmark = pytest.mark.usefixtures("nothing_resident")


# --- the split -------------------------------------------------------------------------------------------------


@given(size=st.integers(2, 400), fraction=st.floats(0, 0.99), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_split_is_a_division_and_reproducible(size, fraction, seed):
    held_out = round(fraction * size)
    if held_out == size or (fraction > 0 and held_out == 0):
        with pytest.raises(DataError, match="must leave some"):
            split_indices(size, fraction, seed)
        return
    train, val = split_indices(size, fraction, seed)
    assert len(val) == held_out
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(size))
    assert torch.equal(train, train.sort().values)
    assert torch.equal(val, val.sort().values)
    again = split_indices(size, fraction, seed)
    assert torch.equal(train, again[0])
    assert torch.equal(val, again[1])


def test_split_is_pinned_and_depends_on_the_seed():
    _, val = split_indices(1437, 0.1, 0)
    assert val[:6].tolist() == [1, 3, 18, 43, 58, 61]  # another split would make results incomparable
    assert not torch.equal(val, split_indices(1437, 0.1, 1)[1])


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_val_fraction_out_of_range(fraction):
    with pytest.raises(DataError, match=rf"val_fraction is {fraction}, but must be in \[0, 1\)"):
        on_device(made_up(), val_fraction=fraction)


def test_sizes_and_steps():
    data = on_device(made_up(), val_fraction=0.1)
    assert (data.train_size, data.val_size, data.test_size) == (45, 5, 7)
    assert (data.num_classes, data.in_channels, data.image_size) == (50, 3, (8, 8))
    assert data.train_indices.dtype == data.val_indices.dtype == torch.int64
    assert (data.steps(16), data.steps(16, drop_last=True), data.steps(45), data.steps(100)) == (3, 2, 1, 1)


# --- training batches ------------------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation_of_the_training_images():
    data = on_device(made_up(), val_fraction=0.2)
    batches = epoch(data)
    assert [len(y) for _, y in batches] == [16, 16, 8]
    assert sorted(labels(batches)) == data.train_indices.tolist()
    assert labels(batches) != data.train_indices.tolist()
    assert set(labels(batches)).isdisjoint(data.val_indices.tolist())


def test_drop_last():
    data = on_device(made_up())
    assert same(epoch(data, drop_last=True), epoch(data)[:3])


def test_seed_epoch_and_stream_each_give_another_epoch_and_nothing_else_does():
    data = on_device(made_up())
    runs = [epoch(data), epoch(data, seed=1), epoch(data, epoch=1), epoch(data, stream="score")]
    for left, right in itertools.combinations(runs, 2):
        assert labels(left) != labels(right)
    torch.manual_seed(123)
    assert same(epoch(on_device(made_up())), runs[0])


def test_order_does_not_depend_on_batch_size_or_augmentation():
    data = on_device(made_up())
    assert labels(epoch(data, batch_size=7)) == labels(epoch(data)) == labels(epoch(data, augment=False))
    whole = torch.cat([x for x, _ in epoch(data)])
    assert torch.equal(torch.cat([x for x, _ in epoch(data, batch_size=7)]), whole)


@pytest.mark.parametrize("augment", [True, False])
def test_start_yields_the_tail_of_the_epoch(augment):
    data = on_device(made_up(), val_fraction=0.1)
    whole = epoch(data, augment=augment)
    for start in range(len(whole) + 1):
        assert same(epoch(data, augment=augment, start=start), whole[start:])


def test_two_epochs_can_be_read_side_by_side():
    data = on_device(made_up())
    pairs = list(
        zip(
            data.batches(seed=0, epoch=0, stream="a", batch_size=16),
            data.batches(seed=0, epoch=0, stream="b", batch_size=16),
            strict=True,
        )
    )
    assert same([a for a, _ in pairs], epoch(data, stream="a"))
    assert same([b for _, b in pairs], epoch(data, stream="b"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"start": -1}, "start is -1"), ({"start": 5}, r"must be in \[0, 4\]"), ({"batch_size": 0}, "batch_size is 0")],
)
def test_bad_arguments_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        on_device(made_up()).batches(**{"seed": 0, "epoch": 0, "stream": "train", "batch_size": 16, **options})


# --- normalisation and layout ----------------------------------------------------------------------------------


def test_normalisation():
    raw = made_up()
    x, y = epoch(on_device(raw), augment=False)[0]
    mean, std = torch.tensor(raw.mean).view(1, 3, 1, 1), torch.tensor(raw.std).view(1, 3, 1, 1)
    assert torch.allclose(x, (raw.train_images[y].float() / 255 - mean) / std, atol=1e-6)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_rounded_once(dtype):
    raw = made_up()
    x, _ = epoch(on_device(raw, dtype=dtype))[0]
    exact, _ = epoch(on_device(raw, dtype=torch.float64))[0]
    assert x.dtype == dtype
    assert torch.allclose(x.double(), exact, rtol=float(torch.finfo(dtype).eps), atol=1e-6)


def test_channels_last():
    plain, last = on_device(made_up()), on_device(made_up(), channels_last=True)
    for x, _ in [*epoch(last), *last.eval_batches("test", 3)]:
        assert x.is_contiguous(memory_format=torch.channels_last)
    assert same(epoch(plain), epoch(last))
    assert epoch(plain)[0][0].is_contiguous()


def test_batches_do_not_change_the_stored_images():
    raw = made_up()
    before = raw.train_images.clone(), raw.test_images.clone()
    data = on_device(raw)
    for x, _ in [*epoch(data), *epoch(data, augment=False), *data.eval_batches("test", 4)]:
        x.zero_()
    assert torch.equal(raw.train_images, before[0])
    assert torch.equal(raw.test_images, before[1])


# --- evaluation ------------------------------------------------------------------------------------------------


def test_evaluation_is_in_fixed_order_and_not_augmented():
    raw = made_up()
    data = on_device(raw, val_fraction=0.2)
    wanted = {
        "train": (raw.train_images[data.train_indices], data.train_indices),
        "val": (raw.train_images[data.val_indices], data.val_indices),
        "test": (raw.test_images, raw.test_labels),
    }
    for split, (images, numbers) in wanted.items():
        batches = list(data.eval_batches(split, 6))
        assert labels(batches) == numbers.tolist()
        assert torch.equal(pixels(torch.cat([x for x, _ in batches]), raw), images)
        assert same(batches, list(data.eval_batches(split, 6)))


def test_no_validation_split_gives_no_batches():
    data = on_device(made_up())
    assert data.val_size == 0
    assert list(data.eval_batches("val", 8)) == []
    assert data.train_indices.tolist() == list(range(50))


def test_evaluation_arguments():
    data = on_device(made_up())
    with pytest.raises(ValueError, match="split is 'valid', but must be one of: test, train, val"):
        data.eval_batches("valid", 8)
    with pytest.raises(ValueError, match="batch_size is 0"):
        data.eval_batches("test", 0)


# --- the device ------------------------------------------------------------------------------------------------


def test_following_trials_reuse_what_is_on_the_device():
    first, second = on_device(made_up(), val_fraction=0.1), on_device(made_up(), val_fraction=0.2)
    assert first._images is second._images
    other = on_device(made_up(seed=1))
    assert other._images is not first._images


def test_only_the_last_used_stay_on_the_device():
    a, b, c = (made_up(seed=seed) for seed in range(3))
    for raw in (a, b, a, c):
        on_device(raw)
    assert [key[0] for key in device._resident] == [a.fingerprint, c.fingerprint]


def test_replaced_augmentation_is_used_although_the_images_are_shared():
    raw = made_up()
    on_device(raw)
    still = on_device(dataclasses.replace(raw, pad=0, flip=False))
    assert same(epoch(still), epoch(still, augment=False))


def test_a_gpu_sees_the_same_batches():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    raw = made_up()
    here, there = on_device(raw, val_fraction=0.1), OnDevice(raw, device="cuda", val_fraction=0.1, split_seed=0)
    for (x, y), (u, v) in zip(epoch(here), epoch(there), strict=True):
        assert u.device == there.device
        assert torch.allclose(x, u.cpu(), atol=1e-6)
        assert torch.equal(y, v.cpu())


# --- full batches, cut by the device alone ---------------------------------------------------------------------


@given(
    size=st.integers(1, 40),
    count=st.integers(7, 60),
    pad=st.integers(0, 3),
    flip=st.booleans(),
    colour=st.sampled_from(["black", "mean"]),
    augment=st.booleans(),
    fraction=st.sampled_from([0.0, 0.3]),
    passes=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["upper", "lower"]), st.floats(0, 1)), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_cut_batches_are_those_of_an_epoch(size, count, pad, flip, colour, augment, fraction, passes):
    """Pass after pass, from any batch on, in random order and in that of evaluations."""
    raw = dataclasses.replace(made_up(n=count, pad=pad, flip=flip), pad_colour=colour)
    try:
        data = on_device(raw, val_fraction=fraction, channels_last=True)
    except DataError:
        return
    cutter = data.fixed_batches("train", size, augment=augment)
    assert (cutter.size, cutter.count) == (size, data.steps(size, drop_last=True))
    for number, stream, share in passes:
        start = round(share * cutter.count)
        cutter.begin((5, stream, number), start)
        found = [cutter.cut() for _ in range(start, cutter.count)]
        found += [rest for rest in [cutter.rest()] if rest is not None]
        options = {"seed": 5, "epoch": number, "stream": stream, "start": start, "augment": augment}
        expected = epoch(data, batch_size=size, **options)
        assert same(found, expected)
        assert [x.stride() for x, _ in found] == [x.stride() for x, _ in expected]
    for split in ("train", "val", "test"):
        cutter = data.fixed_batches(split, size)
        for _ in range(2):
            cutter.begin()
            found = [cutter.cut() for _ in range(cutter.count)]
            found += [rest for rest in [cutter.rest()] if rest is not None]
            assert same(found, list(data.eval_batches(split, size)))


def test_cut_batches_must_have_a_size():
    with pytest.raises(ValueError, match="batch_size is 0"):
        on_device(made_up()).fixed_batches("train", 0)
