"""The contract of networks."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trials.data import header_of, load_data
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.preconditions import model_of, require_runnable
from trials.models import MODELS, build
from trials.seeding import generator
from trials.sparsity import PATTERNS, build_masks, prunable
from trials.sparsity.distributions import uniform
from trials.testing.exports import near, outputs_of
from trials.testing.requiring import demand, disturb, equal_bits, object_named, refusal_of, undisturbed
from trials.testing.small_runs import CLASSES, Storage, known, with_images
from trials.training.compact_form import compact_form
from trials.training.net import Net
from trials.training.optimizers import Sgd

Builder = Callable[..., nn.Module]


def check_model(
    model: Builder | str,
    *,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    batch_size: int = 8,
    compacts: bool = True,
    plugins: Sequence[str] = (),
) -> None:
    """Check that a network keeps its contract.

    - it is called with ``num_classes`` and ``in_channels``, also on the meta device, and makes one output per class;
    - its initial values depend on the seed alone;
    - every layer is used, and every parameter gets a gradient;
    - in evaluation mode an image's outputs depend on nothing but the image, in both memory formats;
    - a step trains it in both memory formats;
    - without half of its filters it can be made smaller, and computes the same;
    - a trial of two epochs gives the same bits in every process, also stopped after every step and resumed.

    Args:
        model: the class or function, or its name as in a config.
        image_shape: [C, H, W] of the images.
        batch_size: of the training steps.
        plugins: as in a file, relative to the working folder, if a name needs them.
        compacts: False for a network that branches on its input, and so cannot be made smaller.

    Raises:
        AssertionError: it does not; the message says what it must do.
    """
    with ExitStack() as stack:
        stack.enter_context(undisturbed())
        name = model if isinstance(model, str) else "the_network"
        stack.enter_context(
            known(MODELS, name, object_named(MODELS, model, plugins) if isinstance(model, str) else model)
        )
        data = stack.enter_context(with_images(image_shape, max(5 * batch_size, 40)))
        what = name if isinstance(model, str) else getattr(model, "__name__", "the network")
        _require_built(name, what, image_shape[0], data)
        built = build(name, num_classes=CLASSES, in_channels=image_shape[0], seed=0)
        _require_evaluates(built, what, image_shape)
        _require_trains(built, what, image_shape, batch_size)
        if compacts:
            _require_compacts(built, what, image_shape)
        _require_repeatable(name, what, data, batch_size)


def _require_built(name: str, what: str, channels: int, data: str) -> None:
    networks = []
    try:
        for seed in (0, 0, 1):
            disturb()
            networks.append(build(name, num_classes=CLASSES, in_channels=channels, seed=seed))
    except Exception as error:
        raise AssertionError(
            f"{what} must be called with num_classes and in_channels by keyword and return an nn.Module, but raised "
            f"{type(error).__name__}: {error}"
        ) from error
    one, other, changed = networks
    demand(
        equal_bits(dict(one.state_dict()), dict(other.state_dict())),
        f"{what} must draw its initial values from torch's random state, which the trial's seed decides, and from "
        "nothing else: two networks of one seed differ",
    )
    demand(
        not equal_bits(dict(one.state_dict()), dict(changed.state_dict())),
        f"{what} must draw its initial values from torch's random state: two networks of different seeds are equal",
    )
    on_meta = model_of(name, CLASSES, channels)
    demand(
        all(parameter.is_meta for parameter in on_meta.parameters()),
        f"{what} must be built on the meta device too (with torch.device('meta')): let its constructor neither read "
        "values nor name a device",
    )
    config = parse({"method": "dense", "model": name, "dataset": data, "val_fraction": 0.2, "train": {"epochs": 1}})
    said = refusal_of(lambda: require_runnable(config, header_of(load_data(data))), what)
    demand(said is None, f"{what} must run on images of {channels} channels, but: {said}")


def _images(image_shape: tuple[int, int, int], count: int) -> tuple[Tensor, Tensor]:
    drawn = generator("images of a network")
    return torch.randn(count, *image_shape, generator=drawn), torch.arange(count) % CLASSES


def _require_evaluates(built: nn.Module, what: str, image_shape: tuple[int, int, int]) -> None:
    images, _ = _images(image_shape, 4)
    before = copy.deepcopy(built.state_dict())
    disturb()
    outputs = outputs_of(built, images)
    disturb()
    demand(
        torch.equal(outputs, outputs_of(built, images)),
        f"{what} must compute the same twice in evaluation mode: nothing random, and no state that a pass changes",
    )
    alone = torch.cat([outputs_of(built, image[None]) for image in images])
    demand(
        near(alone, outputs),
        f"{what} must compute an image's outputs from that image alone in evaluation mode, not from its batch",
    )
    demand(
        equal_bits(dict(before), dict(built.state_dict())),
        f"{what} must not change parameters or buffers in evaluation mode",
    )
    turned = copy.deepcopy(built).to(memory_format=torch.channels_last)
    said = f"{what} must compute the same in the memory format channels_last: use reshape or flatten, not view"
    try:
        demand(near(outputs_of(turned, images.to(memory_format=torch.channels_last)), outputs), said)
    except RuntimeError as error:
        raise AssertionError(f"{said} ({error})") from error


def _require_trains(built: nn.Module, what: str, image_shape: tuple[int, int, int], batch_size: int) -> None:
    images, labels = _images(image_shape, batch_size)
    for layout in (torch.contiguous_format, torch.channels_last):
        model = copy.deepcopy(built).train().to(memory_format=layout)
        torch.autograd.backward(F.cross_entropy(model(images.to(memory_format=layout)), labels))
        idle = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
        demand(
            not idle,
            f"{what} has parameters that no output depends on in training: {', '.join(idle)}. Remove what is not used, "
            "or set requires_grad = False",
        )
        try:
            Sgd(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0).step()
        except RuntimeError as error:
            raise AssertionError(f"{what} must train in the memory format {layout}, but: {error}") from error


def _require_compacts(built: nn.Module, what: str, image_shape: tuple[int, int, int]) -> None:
    """Without half of its filters, where it has some, it is the same network when it is made smaller."""
    net = Net(copy.deepcopy(built).eval())
    scores = {name: weight.detach().abs() for name, weight in prunable(net.model, linear=False).items()}
    if scores:
        net.set_masks(build_masks(scores, density=0.5, pattern=PATTERNS["filter"], distribution=uniform))
    try:
        smaller = compact_form(net)
    except UserError as error:
        raise AssertionError(
            f"{what} must have a forward pass that can be traced, so that it can be made smaller, but: {error}. Give "
            "compacts=False if it shall branch on its input"
        ) from error
    images, _ = _images(image_shape, 4)
    demand(
        near(outputs_of(smaller.model, images), outputs_of(net.model, images)),
        f"{what} must compute the same when it is made smaller without half of its filters, but does not: an operation "
        "treats channels otherwise than its graph shows",
    )


def _require_repeatable(name: str, what: str, data: str, batch_size: int) -> None:
    recipe = {"epochs": 2, "batch_size": batch_size, "lr": 0.01}
    config = parse({"method": "dense", "model": name, "dataset": data, "val_fraction": 0.2, "train": recipe})
    with tempfile.TemporaryDirectory() as folder:
        # folders of shared trials: a sweep's dense trial would only copy one
        one = Storage(Path(folder) / "one", dense=True).outcome(config, f"a dense trial of {what}")
        other = Storage(Path(folder) / "other", dense=True).outcome(config, f"a second trial of {what}")
        demand(
            not (differs := other.differs_from(one)),
            f"{what} must train to the same bits in every process, but {differs} differs: draw from torch's random "
            "state alone, and keep no state in modules or classes",
        )
        stopped = Storage(Path(folder) / "stopped", dense=True).preempted(config, f"a trial of {what} that is resumed")
        demand(
            not (differs := stopped.differs_from(one)),
            f"{what} must go on after a commit as if nothing had happened, but {differs} differs: keep all state in "
            "parameters and buffers",
        )
