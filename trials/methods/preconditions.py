"""Check that a trial can run, on the built model and the data's header, before anything is trained.

A method says its own preconditions in its ``check``; what every trial needs stands here.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from trials.config.recipes import OpenRecipe
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError, exact, listed
from trials.methods import segments
from trials.methods.base import Method
from trials.methods.batches import require_company, training_size
from trials.methods.budgets import Budget, LeftLayer
from trials.methods.model_facts import ModelFacts, facts_of
from trials.methods.registry import METHODS
from trials.methods.starting import require_fitting, starting_network
from trials.models import without_values
from trials.sparsity import PATTERNS
from trials.sparsity.dropping import drop_count


def require_runnable(config: TrialConfig, data: DataHeader) -> None:
    """Check a trial, and the trials that it starts from, against its model and its data.

    Raises:
        UserError: the trial can run nowhere on such data; the message names the cause and the way out.
    """
    left = require_fitting(config, data)
    method = METHODS[config.method](config)
    model = model_of(config.model, data.num_classes, data.in_channels)
    _check_data(config, data)
    facts = facts_of(model, data)
    _check_model(config, facts, data)
    _check_backward(config, facts)
    method.check(model, data)
    if left:
        _check_left(method, facts, left, data)
    _check_batches(method, facts, data)
    for other in (method.source(), *method.references().values()):
        if other is not None:
            require_runnable(other, data)


def model_of(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """The model ``name`` on the meta device: shapes without values. Callers must not change it.

    Raises:
        UserError: it cannot be built for so many classes and channels.
    """
    try:
        return without_values(name, num_classes=num_classes, in_channels=in_channels)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  whatever the model's own code raises
        raise UserError(
            f"model is {name!r}, but cannot be built for {num_classes} classes and {in_channels} channels "
            f"({' '.join(str(error).split())}): give another model or data set"
        ) from None


def _check_data(config: TrialConfig, data: DataHeader) -> None:
    if config.normalise == "imagenet" and data.in_channels != 3:
        raise UserError(
            f"normalise is 'imagenet', but {data.name} has {data.in_channels} channels: leave normalise out"
        )
    training_size(config, data)


def _check_model(config: TrialConfig, facts: ModelFacts, data: DataHeader) -> None:
    if not facts.layers:
        raise UserError(f"model is {config.model!r}, but has no convolution or linear layer: give another")
    if facts.outputs != (2, data.num_classes):
        raise UserError(
            f"model is {config.model!r}, but makes outputs of shape {list(facts.outputs)} of 2 images, and "
            f"{data.name} has {data.num_classes} classes: it must make [2, {data.num_classes}]"
        )
    unused = [layer.name for layer in facts.layers if not layer.applied]
    if unused:
        raise UserError(
            f"model is {config.model!r}, but its forward pass never calls {listed(unused)}: remove what is not used"
        )


def _check_left(method: Method, facts: ModelFacts, left: Sequence[LeftLayer], data: DataHeader) -> None:
    """Check the budgets of a method on the network that a file gives."""
    try:
        method.check_left(left)
        method.check_network(starting_network(method.config, data))
    except UserError as error:
        kept, whole = sum(layer.kept for layer in left), sum(layer.weights for layer in facts.layers)
        if kept == whole:
            raise
        config = method.config
        raise UserError(
            f"source_net is {config.source_net!r}, whose network has {kept} of {config.model}'s {whole} weights, and "
            f"{error}"
        ) from None


def _check_backward(config: TrialConfig, facts: ModelFacts) -> None:
    """Refuse backward-only pruning that would prune nothing: the model has no such layer, or too few units."""
    for name in type(config).model_fields:
        recipe = getattr(config, name)
        backward = recipe.backward if isinstance(recipe, OpenRecipe) else None
        if backward is None or not (backward.p_prune and backward.p_bern):
            continue
        layers = facts.prunable(linear=backward.linear)
        if not layers:
            raise UserError(
                f"{name}.backward prunes convolutions, but {config.model} has none: set {name}.backward.linear to "
                "true, or give another model"
            )
        units = sum(Budget.dense(layers, PATTERNS[backward.pattern]).units)
        if not drop_count(backward.p_prune, units):
            raise UserError(
                f"{name}.backward.p_prune is {exact(backward.p_prune)}, but of {units} units ({backward.pattern}) none "
                "would be pruned: raise it"
            )


def _check_batches(method: Method, facts: ModelFacts, data: DataHeader) -> None:
    """Refuse stages that would train on a batch of one image if the model cannot."""
    if not facts.alone:
        return
    for stage in segments.reached(method.config, list(method.stages())):
        if stage.streams and stage.training_mode and stage.epochs > stage.first_epoch:
            require_company(method.config, facts, data, f"stage {stage.name}", stage.recipe.batch_size)
