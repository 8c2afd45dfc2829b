"""Networks built from a manifest's description, a list of layers.

A layer is a mapping (``{"name": "conv1", "type": "conv2d", "in_channels": 3, ...}``) or a text
(``conv1: Conv2d(3,8,k3x5,pad(1,2),stride2,no bias)``). tests/vectors/README.md has the whole grammar.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

WORDS = {
    "k": "kernel_size", "kernel": "kernel_size", "kernel_size": "kernel_size", "pad": "padding", "p": "padding",
    "padding": "padding", "stride": "stride", "s": "stride", "dilation": "dilation", "dil": "dilation", "d": "dilation",
    "groups": "groups", "g": "groups", "bias": "bias", "padding_mode": "padding_mode", "eps": "eps",
    "momentum": "momentum", "affine": "affine", "negative_slope": "negative_slope",
    "in_channels": "in", "in_features": "in", "out_channels": "out", "out_features": "out",
    "num_features": "in", "output_size": "kernel_size", "size": "kernel_size",
}  # fmt: skip
ACTIVATIONS = {
    name.lower(): getattr(nn, name)
    for name in ("ReLU", "ReLU6", "Tanh", "Sigmoid", "GELU", "SiLU", "ELU", "LeakyReLU", "Softplus", "Hardtanh",
                 "Hardswish", "Identity")
}  # fmt: skip
POOLS = {"adaptiveavgpool2d": nn.AdaptiveAvgPool2d, "adaptivemaxpool2d": nn.AdaptiveMaxPool2d}
POOLS |= {"avgpool2d": nn.AvgPool2d, "maxpool2d": nn.MaxPool2d}


def sequential(layers: Iterable[Any], given: Collection[str] = (), *, batchnorm: bool = True) -> nn.Sequential:
    """The described net, with the described names.

    Args:
        layers: descriptions in order.
        given: names of the recorded parameters. They decide on biases that the description does not mention.
        batchnorm: keep batch norms that are described with "only if batchnorm".
    """
    model = nn.Sequential()
    width = 0
    for position, described in enumerate(layers):
        for part, (name, kind, options) in enumerate(_read(described)):
            if kind.startswith("batchnorm") and "only if" in str(described) and not batchnorm:
                continue
            name = name or f"{kind}_{position}_{part}"
            module = _module(name, kind, options, given, width)
            width = getattr(module, "out_channels", getattr(module, "out_features", width))
            model.add_module(name, module)
    return model


def module_of(description: str, given: Collection[str] = ()) -> nn.Module:
    """The one layer that a text describes somewhere, as in "a single Conv2d(3,4,k3,pad1)"."""
    match = re.search(r"(Conv2d|Linear)\s*\(", description, re.IGNORECASE)
    if match is None:
        raise ValueError(f"no layer is described in {description!r}")
    return sequential([description[match.start() :]], given)[0]


def _read(described: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, kind, options) of every module that a description names."""
    if isinstance(described, Mapping):
        kind = _kind(str(described["type"]))
        options = {WORDS[key]: _plain(value) for key, value in described.items() if key in WORDS}
        return [(str(described.get("name", "")), kind, options)]
    return _read_text(str(described))


def _read_text(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    name, _, rest = text.partition(":") if re.match(r"\s*[\w.]+\s*:", text) else ("", "", text)
    rest = rest.strip()
    if match := re.match(r"(adaptive_?(?:avg|max)_?pool2d)\s*(?:to\s*)?", rest, re.IGNORECASE):
        size = re.match(r"[\[(]?\s*(\d+)\s*(?:[x,]\s*(\d+)\s*)?[\])]?", rest[match.end() :])
        assert size is not None, text
        found = [(name, _kind(match[1]), {"kernel_size": (int(size[1]), int(size[2] or size[1]))})]
        return [*found, ("", "flatten", {})] if "flatten" in rest else found
    if re.match(r"mean over|global (average|avg)", rest, re.IGNORECASE):
        return [(name, "adaptiveavgpool2d", {"kernel_size": (1, 1)}), ("", "flatten", {})]
    word = re.match(r"[\w.]+", rest)
    assert word is not None, f"no layer is described in {text!r}"
    if re.search(r"batch_?norm", rest, re.IGNORECASE):
        own = "" if "batch" in word[0].lower() else word[0]  # "bn1 (only if batchnorm)"
        return [(name or own, "batchnorm2d", {})]
    return [(name, _kind(word[0]), _arguments(rest[word.end() :]))]


def _kind(text: str) -> str:
    """``masked conv2d`` and ``Conv2d`` -> ``conv2d``; ``linear (masked only in unstructured)`` -> ``linear``."""
    plain = text.lower().replace("_", "")
    known = ["conv2d", "linear", "batchnorm2d", "batchnorm", "flatten", *POOLS, *sorted(ACTIVATIONS, key=len)[::-1]]
    for word in re.findall(r"\w+", plain):
        if word in known:
            return word
    raise ValueError(f"no layer is described by {text!r}: tests know {', '.join(sorted(known))}")


def _arguments(text: str) -> dict[str, Any]:
    """Options of ``(3,8,k3x5,pad(1,2),no bias) ...``."""
    if not text.lstrip().startswith("("):
        return {}
    depth, inside, items = 1, "", []
    for sign in text.lstrip()[1:]:
        depth += (sign in "([") - (sign in ")]")
        if depth == 0 or (depth == 1 and sign == ","):
            items.append(inside.strip())
            inside = ""
            if depth == 0:
                break
        else:
            inside += sign
    options: dict[str, Any] = {}
    positions = iter(("in", "out", "kernel_size", "stride", "padding"))
    for item in filter(None, items):
        if re.fullmatch(r"no[ _]bias|without bias", item, re.IGNORECASE):
            options["bias"] = False
        elif item.lower() in ("bias", "with bias"):
            options["bias"] = True
        elif re.match(r"[-\d(\[]", item):
            options[next(positions)] = _value(item)
        else:
            match = re.fullmatch(
                r"([a-z_]+?)\s*[=: ]?\s*([-\d(\[].*|same|valid|circular|reflect|true|false)", item.lower()
            )
            assert match is not None, f"{item!r} of {text!r} is unknown"
            options[WORDS[match[1]]] = _value(match[2])
    return options


def _value(text: str) -> Any:
    """``3`` -> 3, ``3x5`` and ``(3, 5)`` -> (3, 5), ``same`` -> "same"."""
    try:
        return _plain(ast.literal_eval(text.capitalize() if text in ("true", "false") else text))
    except (ValueError, SyntaxError):
        return _plain(text)


def _plain(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)x(\d+)", value)):
        return int(match[1]), int(match[2])
    return tuple(value) if isinstance(value, list) else value


def _module(name: str, kind: str, options: dict[str, Any], given: Collection[str], width: int) -> nn.Module:
    if kind in ("conv2d", "linear"):
        options.setdefault("bias", f"{name}.bias" in given if f"{name}.weight" in given else True)
        sizes = options.pop("in"), options.pop("out")
        if kind == "linear":
            return nn.Linear(*sizes, bias=bool(options["bias"]))
        return nn.Conv2d(*sizes, **{key: value for key, value in options.items() if value is not None})
    if kind.startswith("batchnorm"):
        return nn.BatchNorm2d(options.pop("in", width), **options)
    if kind in POOLS:
        size = options.pop("kernel_size", options.pop("in", None))
        if "out" in options:  # adaptive_avg_pool2d(2,3)
            size = (size, options.pop("out"))
        return POOLS[kind](size, **options)  # type: ignore[no-any-return]
    if kind == "flatten":
        return nn.Flatten()
    return ACTIVATIONS[kind](*[options[key] for key in ("in", "negative_slope") if key in options])  # type: ignore[no-any-return]
