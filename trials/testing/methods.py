"""The contract of methods."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from pydantic import BaseModel

from trials.config.figure_names import require_reports
from trials.config.recipes import OpenRecipe
from trials.config.trial_config import TrialConfig
from trials.data import header_of, load_data
from trials.methods import Method
from trials.methods.parsing import parse
from trials.methods.preconditions import model_of, require_runnable
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.networks.stored import network
from trials.plugins.importing import admit_listed
from trials.sparsity import prunable
from trials.testing.exports import require_exports
from trials.testing.mutability import other_values, require_mutable
from trials.testing.odd_networks import ODD_NETWORKS
from trials.testing.recorded_graph import RecordedGraph
from trials.testing.requiring import demand, refusal_of, undisturbed
from trials.testing.small_runs import Storage, TrialOutcome, known, with_images
from trials.testing.watched import watched
from trials.training import graphs, launches
from trials.training.device import resolve_device

STEPS_OF_CHECKS = 6
"""Steps of an epoch, if the check makes the images: five full batches, and a half one."""


def check_method(
    method: type[Method] | str,
    fields: Mapping[str, Any],
    *,
    values: Mapping[str, Any] | None = None,
    image_shape: tuple[int, int, int] = (1, 8, 8),
) -> None:
    """Check that a method keeps its contract, by small trials.

    - its config reads back as itself and refuses unknown fields and densities outside (0, 1];
    - its stages are the same at every call, and do in each call what :class:`trials.methods.Stage` says;
    - what it ``reports`` has the name of no config field and of no column that every trial has;
    - its ``check`` decides by shapes alone; networks of odd kinds are refused by it, or train;
    - a trial completes; another process, with other global random states, gives the same bits;
    - so does one that is stopped after every step, one that is killed after every epoch, and (of stages with
      ``captures``) one whose steps are replayed as a CUDA graph's are;
    - the network keeps exactly what ``asked`` says, ``asked`` what the field ``density`` says; masked weights are 0;
    - a new value of each hyperparameter in ``mutable`` is used in the next step;
    - it trains in both memory formats and in float64;
    - its network can be exported, and is the same network when it is made smaller.

    Args:
        method: the class, or its name as in a config.
        fields: of a small config: what has no default, and recipes of a few epochs, two for a stage that a population
            may divide. ``dataset`` is random images of four classes and ``model`` the network ``tiny`` if not given;
            ``plugins`` as in a file, relative to the working folder.
        values: for paths in ``mutable``, another value; needed where none can be derived from the field's type.
        image_shape: [C, H, W] of the random images.

    Raises:
        AssertionError: it does not; the message says what it must do.
    """
    with ExitStack() as stack:
        stack.enter_context(undisturbed())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        content = stack.enter_context(_content(method, fields, image_shape))
        _check(content, Path(folder), values or {})


def _check(content: Mapping[str, Any], folder: Path, values: Mapping[str, Any]) -> None:
    """Make all checks of the method of a config; what it names is known."""
    config = parse(content)
    kind = METHODS[config.method]
    _require_config(kind, config, content)
    _require_stages(kind, config)
    said = refusal_of(lambda: require_reports(kind.reports, config), "reports")
    demand(said is None, f"{kind.__name__}.reports must name columns that nothing else writes: {said}")
    _require_check(kind, config)
    others = other_values(kind, config, values)
    first = Storage(folder / "first")
    with known(METHODS, config.method, watched(kind)):
        reference = first.outcome(config, f"a trial of {kind.__name__}")
    _require_budget(kind, config, reference, first.folder(config))
    require_exports(first.folder(config), f"the network of {kind.__name__}")
    _require_other_formats(kind, config, folder)
    _require_refused_or_trained(kind, content, folder)
    _require_equal_bits(kind, config, reference, first, folder)
    require_mutable(kind, config, reference, first, folder, others)


@contextmanager
def _content(
    method: type[Method] | str, fields: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> Iterator[dict[str, Any]]:
    """The content of a config with all that it names known."""
    content = admit_listed({"model": "tiny", "seed": 3, **fields}, Path.cwd())
    with ExitStack() as stack:
        if isinstance(method, str):
            content["method"] = method
        else:
            default = method.Config.model_fields["method"].default
            name = content["method"] = default if isinstance(default, str) else method.__name__
            stack.enter_context(known(METHODS, name, method))
        if "dataset" not in content:
            config = parse({**content, "dataset": "digits"})
            batch = max((recipe.batch_size for recipe in _recipes(config)), default=64)
            count = round((STEPS_OF_CHECKS - 0.5) * batch / (1 - config.val_fraction))
            content["dataset"] = stack.enter_context(with_images(image_shape, max(count, 40)))
        yield content


def _recipes(config: BaseModel) -> Iterator[OpenRecipe]:
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, OpenRecipe):
            yield value
        elif isinstance(value, BaseModel):
            yield from _recipes(value)


def _require_config(kind: type[Method], config: TrialConfig, content: Mapping[str, Any]) -> None:
    name = kind.Config.__name__
    stored = json.loads(json.dumps(config.model_dump(mode="json")))
    again = parse(stored)
    demand(again == config and again.id == config.id, f"{name} must read back as itself from what it writes as JSON")
    said = refusal_of(lambda: parse({**content, "no_such_field": 1}), "an unknown field")
    demand(said is not None, f"{name} must refuse unknown fields: do not change model_config")
    for density in (0, -0.1, 1.5) if "density" in type(config).model_fields else ():
        said = refusal_of(lambda density=density: parse({**content, "density": float(density)}), "density")  # type: ignore[misc]
        demand(said is not None, f"{name} must refuse density {density}: declare Field(gt=0, le=1)")


def _require_stages(kind: type[Method], config: TrialConfig) -> None:
    keys = [[stage.key for stage in kind(config).stages()] for _ in range(2)]
    demand(keys[0] == keys[1], f"{kind.__name__}.stages must yield the same stages at every call, not {keys}")
    demand(
        len(set(keys[0])) == len(keys[0]),
        f"{kind.__name__}.stages must give stages of one name different levels, because name and level seed their "
        f"random numbers: it yields {', '.join(keys[0])}",
    )


def _require_check(kind: type[Method], config: TrialConfig) -> None:
    said = refusal_of(
        lambda: require_runnable(config, header_of(load_data(*config.data_key))),
        f"what {kind.__name__}.check cannot take (it gets a model on the meta device, which has shapes and no values)",
    )
    demand(said is None, f"{kind.__name__}.check must let the given fields run, but says: {said}")


def _require_budget(kind: type[Method], config: TrialConfig, reference: TrialOutcome, folder: Path) -> None:
    """What the network keeps is what was asked, and that is what the config's density says."""
    _require_reached(reference, kind.__name__)
    density = getattr(config, "density", None)
    if not isinstance(density, float) or density == 1:
        return
    data = load_data(*config.data_key)
    last = list(kind(config).stages())[-1]
    asked = kind(config).asked(model_of(config.model, data.num_classes, data.in_channels), last)
    demand(bool(asked), f"{kind.__name__} has a field density, so its asked() must say how much that keeps: share_of")
    keep, units = sum(share.keep for share in asked), sum(share.units for share in asked)
    demand(
        abs(keep - density * units) <= sum(share.slack for share in asked),
        f"{kind.__name__}.asked must ask for density {density} of {units} units, {density * units:.6g}, but asks for "
        f"{keep:.6g}",
    )
    _require_masks(kind, folder)


def _require_reached(outcome: TrialOutcome, what: str) -> None:
    """All rows of the trial's own keep what was asked of them."""
    for row in outcome.rows["epochs"]:
        missed = {"density_missed", "nothing_pruned"} & set(row["warnings"] or ()) if row["stage_id"] is None else ()
        demand(
            not missed,
            f"{what} must keep exactly what asked() says, but keeps the share {row['density']:.6g} in stage "
            f"{row['stage']}, epoch {row['epoch']}",
        )


def _require_masks(kind: type[Method], folder: Path) -> None:
    _, net = network(folder)
    weights = prunable(net.model)
    demand(bool(net.masks or net.kept), f"{kind.__name__} must set the masks of what it prunes: net.set_masks(masks)")
    for name, mask in net.masks.items():
        kept = weights[name].detach()[~mask] if name in weights else None
        demand(kept is not None, f"{kind.__name__} has a mask of {name}, but must have masks of prunable weights only")
        demand(kept is None or not bool(kept.any()), f"{kind.__name__} must keep masked weights of {name} at zero")


def _require_equal_bits(
    kind: type[Method], config: TrialConfig, reference: TrialOutcome, first: Storage, folder: Path
) -> None:
    name = kind.__name__
    again = Storage(folder / "again").outcome(config, f"a second trial of {name}")
    demand(
        not (differs := again.differs_from(reference)),
        f"{name} must compute the same bits in every process, but {differs} differs in a second trial: draw from "
        "generator_for(config, PURPOSE), and keep no state in modules or classes",
    )
    stopped = Storage(folder / "stopped", first).preempted(config, f"a trial of {name} that is stopped and resumed")
    demand(
        not (differs := stopped.differs_from(reference)),
        f"{name} must go on after a commit as if nothing had happened, but {differs} differs: state_dict and "
        "load_state_dict of its stages must hold all that the next step depends on",
    )
    killed = Storage(folder / "killed", first).killed(config, f"a trial of {name} that is killed and resumed")
    demand(
        not (differs := killed.differs_from(reference)),
        f"{name} must give the same bits if its process is killed, but {differs} differs: what is done before a commit "
        "is done again, so it must not have lasting effects",
    )
    if any(stage.captures and stage.streams for stage in kind(config).stages()) and config.capture:
        _require_replayable(config, reference, first, folder, name)


def _require_replayable(config: TrialConfig, reference: TrialOutcome, first: Storage, folder: Path, name: str) -> None:
    """Steps of stages that capture give the bits of eager ones when they are replayed, as on a GPU."""
    if resolve_device(config.device).type == "cuda":
        eager = config.model_copy(update={"capture": False})
        replayed = Storage(folder / "eager", first).outcome(eager, f"a trial of {name} without captured steps")
    else:
        what = f"a trial of {name} whose steps are captured (set captures = False for steps that cannot be)"
        with (
            mock.patch.object(graphs, "graph_for", lambda device, generators=(): RecordedGraph(tuple(generators))),
            mock.patch.object(launches, "few_launches", return_value=True),
        ):
            replayed = Storage(folder / "captured", first).outcome(config, what)
        if replayed.differs_from(reference):  # a GPU's operators may round otherwise, so eager steps must use them too
            with mock.patch.object(launches, "few_launches", return_value=True):
                reference = Storage(folder / "eager", first).outcome(
                    config, f"a trial of {name} with a GPU's operators"
                )
    demand(
        not (differs := replayed.differs_from(reference)),
        f"{name} has a stage that captures, but {differs} differs when its steps are replayed: a step must run the "
        "same operations on the same tensors, count in prepare(), and write into existing tensors; or set captures "
        "= False",
    )


def _require_other_formats(kind: type[Method], config: TrialConfig, folder: Path) -> None:
    for field, value in (("memory_format", "channels_last"), ("precision", "float64")):
        other = parse({**config.model_dump(mode="json"), field: value})
        Storage(folder / value).attempt(other, f"a trial of {kind.__name__} with {field} {value}")


def _require_refused_or_trained(kind: type[Method], content: Mapping[str, Any], folder: Path) -> None:
    """The network's kind is refused by ``check``, or a trial on it completes."""
    for number, (what, builder) in enumerate(ODD_NETWORKS.items()):
        with known(MODELS, f"odd_{number}", builder) as name, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*linear layers stay whole.*")
            _refused_or_trained(kind, {**content, "model": name}, f"a network with {what}", folder)
    if "density" in content:
        _refused_or_trained(kind, {**content, "density": 1e-7}, "density 1e-7", folder)


def _refused_or_trained(kind: type[Method], content: Mapping[str, Any], what: str, folder: Path) -> None:
    config: list[TrialConfig] = []

    def checked() -> None:
        config.append(parse(content))
        require_runnable(config[0], header_of(load_data(*config[0].data_key)))

    if refusal_of(checked, f"{what}, if {kind.__name__} cannot take it,") is None:
        storage, said = Storage(folder / "odd"), f"{kind.__name__}.check accepts {what}, so a trial"
        _require_reached(storage.outcome(config[0], said), said)
