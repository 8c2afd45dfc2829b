"""Write a trial's network as a model folder for the Hub: ``python -m trials export TRIAL --to FOLDER --form hub``."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from trials.compact import Architecture
from trials.config.named_objects import modules_of
from trials.config.trial_config import WHERE, TrialConfig
from trials.errors import UserError
from trials.hub.card import CardFacts, model_card
from trials.hub.folders import require_ours, write_folder
from trials.hub.known_data import KnownData, known_data
from trials.hub.layout import (
    CARD_FILE,
    CONFIG_FILE,
    MASKS_FILE,
    WEIGHTS_FILE,
    BuiltModel,
    ModelCode,
    ModelConfig,
    Normalisation,
    StoredFile,
)
from trials.hub.pretrained import read_network
from trials.hub.sample import logits_of_sample
from trials.methods.registry import METHODS
from trials.models import MODELS, without_values
from trials.networks.stored import checkpoint, network, whole_masks
from trials.optional import require
from trials.plugins.importing import admitted, sent
from trials.plugins.source import is_path, lies_under, module_of
from trials.single import Trial
from trials.version import __version__
from trials.yaml_text import parse_yaml

_MARKUP = re.compile(r":\w+:`[~.]?([^`]*)`|``")


def export_folder(trial: Trial, to: Path, data_dir: str | None = None) -> KnownData:
    """Write a trial's last committed network as a model folder, for :func:`trials.load_pretrained` and the Hub.

    The folder is read again and compared with the trial's network before it appears. It holds no path of this machine.

    Args:
        data_dir: where the trial's data lie now; None for the folder that its config names. If they are not here, the
            card says what is unknown without them.

    Returns:
        What was known of the data.

    Raises:
        UserError: the trial has no network, ``to`` holds other files or cannot be written, ``data_dir`` holds other
            data, or safetensors is not installed.
    """
    require("safetensors", "hub", "--form hub")
    require_ours(to)
    content = checkpoint(trial.folder)
    architecture, net = network(trial.folder)
    model = net.model.eval()
    masks = {name: mask.bool() for name, mask in whole_masks(trial.folder, content).items()}
    data = known_data(trial.config, str(content["data"]), architecture, data_dir)
    tensors = {WEIGHTS_FILE: dict(model.state_dict()), MASKS_FILE: masks}
    contents = {name: _safetensors(found) for name, found in tensors.items()}
    described = _described(trial, architecture, net.kept, model, data, contents)
    contents[CARD_FILE] = model_card(_facts(trial, described, data, net.start_density)).encode()
    named = {name: StoredFile.of(each) for name, each in contents.items()}
    contents[CONFIG_FILE] = described.model_copy(update={"files": named}).content()
    try:
        write_folder(to, contents, lambda staged: _require_same(staged, tensors))
    except OSError as error:
        raise UserError(f"--to is {str(to)!r}, but must be a folder that can be written ({error})") from None
    return data


def _safetensors(tensors: Mapping[str, Any]) -> bytes:
    """The tensors as a file. Ones that share memory, such as tied weights, are written once for each name."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            raise UserError(f"the network has {name} in its state_dict, but --form hub writes dense tensors only")
    module = require("safetensors.torch", "hub", "--form hub")
    form = torch.contiguous_format
    whole = {name: tensor.detach().cpu().clone(memory_format=form) for name, tensor in tensors.items()}
    content: bytes = module.save(whole, {"format": "pt"})
    return content


def _require_same(staged: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Check that the folder gives the trial's network and masks back, bit for bit."""
    read, about = read_network(staged, str(staged), "this is a fault of the export: report it")
    pairs = ((tensors[WEIGHTS_FILE], read.state_dict()), (tensors[MASKS_FILE], about.masks))
    for expected, found in pairs:
        same = expected.keys() == found.keys() and all(_equal(expected[name], found[name]) for name in expected)
        if not same:
            raise AssertionError("the model folder does not give back what was written")


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and bool(((one == other) | ((one != one) & (other != other))).all())


def _described(
    trial: Trial,
    architecture: Architecture,
    kept: Mapping[str, Tensor],
    model: nn.Module,
    data: KnownData,
    contents: Mapping[str, bytes],
) -> ModelConfig:
    finished = trial.status in ("complete", "pruned")
    given = None
    if data.mean is not None and data.std is not None:
        given = Normalisation(mean=data.mean, std=data.std)
    return ModelConfig(
        version=__version__,
        architecture=BuiltModel(**architecture.record()),
        model_code=_model_code(architecture.model),
        kept={name: rows.tolist() for name, rows in kept.items()},
        normalisation=given,
        classes=data.classes,
        trial=trial.id,
        method=trial.config.method,
        status=trial.status,
        config=_without_paths(trial.config),
        result=_plain(trial.result) if finished else {},
        environments=_plain(trial.state.computed_in),
        sample_logits=logits_of_sample(model, architecture.shape),
        files={name: StoredFile.of(content) for name, content in contents.items()},
    )


def _model_code(name: str) -> ModelCode | None:
    """Where the code of a model from outside this package comes from."""
    if MODELS.built_in(name):
        return None
    prefix = name.partition(":")[0]
    if prefix in MODELS.prefixes and ":" in name:
        return ModelCode(module=prefix, installed=True, version=metadata.version(prefix))
    package = MODELS.package_of(name) or prefix
    listed = next((one.listed for one in admitted() if lies_under(one.listed, package)), package)
    installed = not is_path(listed)
    return ModelCode(module=module_of(listed), installed=installed, digest=sent([listed])[0]["digest"])


def _without_paths(config: TrialConfig) -> dict[str, Any]:
    """A config without what belongs to this machine: files are given by name, plug-ins by module."""
    content = config.model_dump(mode="json")
    content |= {field: PurePath(path).name for field, path in config.files_given().items()}
    return {**content, "plugins": [module_of(listed) for listed in config.plugins], "data_dir": None}


def _plain(value: Any) -> Any:
    """JSON values; numbers that JSON lacks become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _facts(trial: Trial, described: ModelConfig, data: KnownData, start_density: float) -> CardFacts:
    summary, *others = _paragraphs(trial.config.method)
    epochs, finished = trial.rows["epochs"], bool(described.result)
    last = epochs[-1] if epochs and finished else {}
    layers = [
        row for row in trial.rows["layers"] if (row["stage"], row["level"]) == (last.get("stage"), last.get("level"))
    ]
    return CardFacts(
        described=described,
        data=data,
        summary=summary,
        sources=tuple(one for one in others if "http" in one or "released code" in one),
        asked=_asked(trial.config, last, described, start_density) if finished else "",
        layers=tuple(layers),
        last=last,
        reported=_reported(last),
        recipe=_recipe(trial.config, described.config),
        plug_ins=tuple(sorted({module.partition(".")[0] for module in modules_of(trial.config)})),
        sweep=_sweep_of(trial),
    )


def _paragraphs(method: str) -> list[str]:
    """What a method's module says of it: prose as one line each, without formulas; at least one text."""
    text = inspect.getdoc(inspect.getmodule(METHODS[method])) or ""
    found = [one for one in text.split("\n\n") if "\n  " not in f"\n{one}"]
    return [_MARKUP.sub(r"\1", " ".join(one.split())) for one in found] or [""]


def _asked(config: TrialConfig, last: Mapping[str, Any], described: ModelConfig, start_density: float) -> str:
    """What the method was asked to keep in the stage that the network is of; empty if nothing, or not by a share."""
    method, shape = METHODS[config.method](config), described.architecture
    stages = [stage for stage in method.stages() if (stage.name, stage.level) == (last.get("stage"), last.get("level"))]
    if not stages:
        return ""
    model = without_values(shape.model, num_classes=shape.num_classes, in_channels=shape.in_channels)
    shares = [share.from_start(start_density) for share in method.asked(model, stages[-1])]
    if not shares or len({share.pattern for share in shares}) > 1:
        return ""
    units, keep = sum(share.units for share in shares), sum(share.keep for share in shares)
    at_most = "at most " if all(share.fewer_is_fine for share in shares) else ""
    kind = {"weight": "weights", "nm": "weights", "kernel": "kernels", "filter": "filters", "channel": "channels"}.get(
        shares[0].pattern
    )
    counted = kind or f"units of pattern {shares[0].pattern}"
    return f"{at_most}{keep / units:.6g} of {units:,} {counted}"


def _reported(last: Mapping[str, Any]) -> str:
    """Which epoch of the last stage the network is of."""
    if not last or last.get("report") not in ("last", "best_val"):
        return ""
    if last["report"] == "last":
        return f"The network is that of the last epoch of stage {last['stage']} (epoch {last['epoch']})."
    epoch = last.get("best_epoch")
    which = f"epoch {epoch} of stage" if epoch is not None else "the epoch of stage"
    return f"The network is that of {which} {last['stage']} with the best validation accuracy."


def _recipe(config: TrialConfig, content: Mapping[str, Any]) -> str:
    """The config as YAML, without defaults and what belongs to this machine."""
    short = config.model_dump(mode="json", exclude_defaults=True, exclude={*WHERE, "file_hashes"})
    short = {**{field: content[field] for field in ("method", "dataset", "model")}, **short}
    short |= {field: content[field] for field in config.files_given()}
    text = yaml.safe_dump(short, sort_keys=False, allow_unicode=False, width=1000)
    return text if parse_yaml(text, "trial.yaml") == short else json.dumps(short, indent=1)


def _sweep_of(trial: Trial) -> str:
    sweep = trial.folder.parent.parent
    return sweep.name if (sweep / "sweep.yaml").exists() else ""
