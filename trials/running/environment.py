"""What besides its config decides a trial's bits: where it runs and with which code. Recorded, never compared."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from trials.config.named_objects import code_of, modules_of
from trials.config.trial_config import TrialConfig
from trials.frozen import SCHEMA
from trials.plugins.importing import sent
from trials.plugins.source import lies_under, module_of
from trials.training.device import resolve_memory_format, resolve_precision


def environment_of(config: TrialConfig, device: torch.device, threads: int, commit: str | None) -> dict[str, Any]:
    """The environment of an attempt, as in ``state.json``. ``commit``: the code's, if known; otherwise it is found."""
    layout, cuda = resolve_memory_format(config, device), device.type == "cuda"
    return {
        "threads": threads,
        "device": device_name(device),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if cuda else None,
        "precision": resolve_precision(config, device),
        "memory_format": "channels_last" if layout is torch.channels_last else "contiguous",
        **({"tf32": config.tf32, "deterministic": config.deterministic} if cuda else {}),
        "commit": commit or git_commit(),
        **({"plugin_sources": plugins_used(config)} if code_of(config) else {}),
        "schema": SCHEMA,
    }


def plugins_used(config: TrialConfig) -> str:
    """The plug-ins that a trial may use with the digests of their source: ``mynets=0f3a..., mylab.pruning=...``."""
    return ", ".join(f"{module_of(each['listed'])}={each['digest']}" for each in sent(code_of(config)))


def other_code(config: TrialConfig, then: Iterable[Mapping[str, Any]]) -> list[str]:
    """Which plug-ins that a config names have changed since it was computed, one text for each by module.

    Args:
        then: the environments of then, as in ``state.json``.
    """
    modules = modules_of(config)
    found = []
    for each in sent(code_of(config)):
        listed = module_of(each["listed"])
        if not any(lies_under(listed, module) for module in modules):
            continue
        before = {digests[listed] for one in then if listed in (digests := _digests(one))}
        found += [f"{listed} {digest} -> {each['digest']}" for digest in sorted(before - {each["digest"]})]
    return found


def _digests(environment: Mapping[str, Any]) -> dict[str, str]:
    """By module, the digests that :func:`plugins_used` has written into an environment."""
    pairs = (text.partition("=") for text in str(environment.get("plugin_sources", "")).split(", "))
    return {module: digest for module, equals, digest in pairs if equals}


def device_name(device: torch.device) -> str:
    """The card's name for a CUDA device, otherwise the device's type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@functools.cache
def git_commit() -> str | None:
    """The commit of the running code, with ``-dirty`` appended if files differ from it; None if it is in no checkout.

    Installed code may lie within a checkout of something else, whose commit says nothing of it.
    """
    here = Path(__file__)
    try:
        _git("ls-files", "--error-unmatch", here.name, folder=here.parent)
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*", folder=here.parent)
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
