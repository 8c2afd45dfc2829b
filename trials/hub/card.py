"""The model card: front matter that the Hub reads, and what a person should know of the network, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from trials.called import trial_command
from trials.errors import one_line
from trials.hub.known_data import KnownData
from trials.hub.layout import MASKS_FILE, WEIGHTS_FILE, ModelConfig
from trials.hub.markdown import code, fenced, prose, table
from trials.optional import DISTRIBUTION
from trials.storage.rows import WARNINGS, Row

LICENSE_LINE = "# license: yours to choose; write its identifier, such as mit, and remove the number sign"
_SPLITS = {"val": "validation", "test": "test"}
_IMAGES = {"train": "to train on", "val": "for validation", "test": "to test on"}


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from. What is unknown is empty or None, and left out of the card.

    Attributes:
        described: what ``config.json`` holds.
        data: what is known of the data.
        summary, sources: what the method's module says of itself: its first sentence, and the paragraphs with papers.
        asked: what the method was asked to keep, as a sentence.
        layers: rows of the table ``layers`` of the trial's last stage.
        last: the last row of the table ``epochs``.
        reported: which epoch counts, as a sentence.
        recipe: the trial's config without defaults, as YAML.
        plug_ins: modules of users' code that the config names.
        sweep: name of the sweep that ran the trial.
    """

    described: ModelConfig
    data: KnownData
    summary: str
    sources: tuple[str, ...]
    asked: str
    layers: tuple[Row, ...]
    last: Row
    reported: str
    recipe: str
    plug_ins: tuple[str, ...]
    sweep: str


def model_card(facts: CardFacts) -> str:
    """Return ``README.md`` of a model folder."""
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}{LICENSE_LINE}\n---\n\n" + "\n\n".join(_parts(facts)) + "\n"


def _parts(facts: CardFacts) -> Iterator[str]:
    config, result = facts.described.config, facts.described.result
    yield f"# {prose(facts.described.trial)}"
    yield _introduction(facts)
    if warned := result.get("warnings"):
        yield "> **Warnings of the trial**\n" + "".join(f">\n> - `{one}`: {WARNINGS.get(one, '')}\n" for one in warned)
    yield from (*_accuracy(facts), *_sparsity(facts))
    yield "## How to load"
    yield from _loading(facts)
    yield "## Method"
    yield " ".join(part for part in (f"{code(config['method'])}.", prose(facts.summary)) if part)
    yield from map(prose, facts.sources)
    yield "## Training"
    yield table(["", ""], _training(facts))
    yield from _command(facts)


def _introduction(facts: CardFacts) -> str:
    described, result = facts.described, facts.described.result
    what = f"{code(described.architecture.model)} on {code(described.config['dataset'])}"
    density = result.get("density")
    if not result:
        return (
            f"{what}, by the method {code(described.config['method'])}. **The trial has not finished** (it is "
            f"{described.status}): this is the last network that it committed, of which no figures are known."
        )
    ended = "" if described.status == "complete" else f" Its search stopped the trial early ({described.status})."
    kept = f"{result['kept']:,} of its {result['prunable']:,} prunable weights are kept" if "kept" in result else ""
    if density == 1:
        return f"{what}, not pruned: {kept}.{ended}" if kept else f"{what}, not pruned.{ended}"
    return f"{what}, pruned by the method {code(described.config['method'])}: {kept} (density {density:.4g}).{ended}"


def _accuracy(facts: CardFacts) -> Iterator[str]:
    result, images = facts.described.result, facts.data.images or {}
    rows = [
        (name, f"{result[f'{split}_accuracy']:.4f}", _number(result.get(f"{split}_loss")), _count(images.get(split)))
        for split, name in _SPLITS.items()
        if result.get(f"{split}_accuracy") is not None
    ]
    if rows:
        yield "## Accuracy"
        heads = ["split", ">top-1 accuracy", ">loss", *([">images"] if images else [])]
        yield table(heads, (row[: len(heads)] for row in rows))
        yield f"The figures are those of the trial's last row. {facts.reported}"


def _sparsity(facts: CardFacts) -> Iterator[str]:
    result = facts.described.result
    if not result:
        return
    yield "## Sparsity and cost"
    over = f" over {result['prunable']:,} weights" if "prunable" in result else ""
    asked = f"Asked: to keep {facts.asked}. " if facts.asked else ""
    yield f"{asked}Measured: density {result['density']:.6g}{over}, that is sparsity {result['sparsity']:.6g}."
    sizes = [
        (name, _count(result.get(dense)), _count(result.get(masked)), _count(result.get(compact)))
        for name, dense, masked, compact in (
            ("FLOPs per image", "dense_flops", "flops", "compact_flops"),
            ("parameters", "dense_parameters", "parameters", "compact_parameters"),
        )
    ]
    yield table(["", ">dense network", ">as the masks promise", ">compact network"], sizes)
    yield (
        "A multiply-add counts as two FLOPs; only convolutions and linear layers count. The masks promise that "
        "a pruned weight costs nothing, which takes a kernel for sparse weights; the compact network is what is left "
        "when whole filters that change no output are removed."
    )
    if facts.layers:
        yield "<details><summary>Density by layer</summary>"
        rows = [
            (code(row["layer"]), *(f"{row[key]:,}" for key in ("total", "kept")), f"{row['density']:.4f}", _left(row))
            for row in facts.layers
        ]
        yield table(["layer", ">weights", ">kept", ">density", ">FLOPs left"], rows)
        yield "</details>"


def _loading(facts: CardFacts) -> Iterator[str]:
    described, data = facts.described, facts.data
    plug_in = described.model_code if described.model_code and described.model_code.digest else None
    more = ""
    if plug_in is not None:
        more = f', plugins=["{"" if plug_in.installed else "PATH/"}{plug_in.module}"]'
    channels, (height, width) = described.architecture.in_channels, described.architecture.image_size
    shape = f"[N, {channels}, {height}, {width}]"
    lines = ["import trials", "", f'net = trials.load_pretrained("FOLDER"{more})  # or "hf:OWNER/NAME@REVISION"']
    if data.mean is None:
        lines.append(f"logits = net(images)  # {shape} -> [N, {described.architecture.num_classes}]")
    else:
        lines.append(f"x = net.about.preprocess(images)  # uint8 {shape}, or Pillow images of that size")
        lines.append(f"logits = net(x)  # [N, {described.architecture.num_classes}]")
    yield f"With `pip install '{DISTRIBUTION}[hub]'`:"
    yield fenced("\n".join(lines), "python")
    if plug_in is not None:
        yield f"The model's code is the plug-in {code(plug_in.module)}, which is not part of this folder."
    yield _inputs(data)
    yield _files(described)
    if data.classes:
        yield "<details><summary>Classes</summary>"
        yield table([">label", "name"], [(str(number), code(name)) for number, name in enumerate(data.classes)])
        yield "</details>"


def _inputs(data: KnownData) -> str:
    if data.mean is None or data.std is None:
        return "How inputs are normalised is not known: the trial's data were not at hand when this card was written."
    return (
        f"Inputs are pixels scaled to 0..1, minus the mean {_floats(data.mean)}, divided by the standard deviation "
        f"{_floats(data.std)}, by channel."
    )


def _files(described: ModelConfig) -> str:
    form = "in the shapes of the dense model, with zeros where weights are pruned"
    if described.kept:
        form = "physically smaller than the dense model: `kept` in `config.json` says which of its rows are left"
    return (
        f"`{WEIGHTS_FILE}` holds the model's `state_dict`, {form}. `{MASKS_FILE}` holds which weights of the dense "
        "model are kept (bool, by name); a layer without a mask is whole."
    )


def _training(facts: CardFacts) -> Iterator[tuple[str, str]]:
    described, result = facts.described, facts.described.result
    config = described.config
    yield "trial", code(described.trial) + (f", of the sweep {code(facts.sweep)}" if facts.sweep else "")
    yield "data", code(config["dataset"]) + (f", fingerprint {code(result['data'])}" if result.get("data") else "")
    if facts.data.images:
        yield (
            "images",
            ", ".join(f"{count:,} {_IMAGES[split]}" for split, count in facts.data.images.items()),
        )
    yield "seed", f"{config['seed']} (validation split: {config['split_seed']})"
    if config.get("variant") == "original":
        yield "variant", "original: as the released code does it, including its errors"
    if result.get("epochs") is not None:
        yield "epochs", f"{result['epochs']:,}, without those of a dense training that is shared"
    if result.get("cost_flops") is not None:
        yield "cost after the dense training", f"{result['cost_flops']:,} FLOPs"
    for field, digest in config.get("file_hashes", {}).items():
        yield f"file of {code(field)}", f"its SHA-256 begins with {code(digest)}"
    for environment in described.environments:
        known = {key: value for key, value in environment.items() if value is not None and key != "schema"}
        yield (
            "computed with",
            ", ".join(f"{prose(key.replace('_', ' '))} {code(value)}" for key, value in known.items()),
        )
    yield "written by", f"{DISTRIBUTION} {code(described.version)}"


def _command(facts: CardFacts) -> Iterator[str]:
    yield "The command that makes the trial again, and this folder:"
    single = f"results/single/trials/{facts.described.trial}"
    yield fenced(f"{trial_command()} trial.yaml\n{trial_command()} export {single} --to FOLDER --form hub")
    yield "where `trial.yaml` is, with defaults left out:"
    yield fenced(facts.recipe, "yaml")
    if facts.plug_ins:
        yield f"It also takes `plugins: [...]` with the folders or files of {', '.join(map(code, facts.plug_ins))}."
    if facts.described.config.get("file_hashes"):
        yield "Files that it names are given without their folders."


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    config = facts.described.config
    dataset = one_line(str(config["dataset"]))
    hub_dataset = "/".join(dataset[3:].split("/")[:2]) if dataset.startswith("hf:") else ""
    front: dict[str, Any] = {
        "library_name": DISTRIBUTION,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pruning", "sparsity", one_line(str(config["method"]))],
        **({"datasets": [hub_dataset]} if hub_dataset else {}),
        "metrics": ["accuracy"],
    }
    entries = [*_results(facts.described.result, dataset, hub_dataset)]
    if entries:
        front["model-index"] = [{"name": facts.described.trial, "results": entries}]
    return front


def _results(result: Mapping[str, Any], dataset: str, hub_dataset: str) -> Iterator[dict[str, Any]]:
    for split, name in _SPLITS.items():
        accuracy = result.get(f"{split}_accuracy")
        if accuracy is not None:
            yield {
                "task": {"type": "image-classification"},
                "dataset": {"name": dataset, "type": hub_dataset or dataset, "split": name},
                "metrics": [{"type": "accuracy", "value": accuracy, "name": f"top-1 accuracy, {name}"}],
            }


def _left(row: Row) -> str:
    return _count(row["flops"])


def _count(value: Any) -> str:
    return "" if value is None else f"{value:,}"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"


def _floats(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"
