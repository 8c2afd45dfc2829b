"""What is said of a sweep's size before it runs: epochs, hours where rates are known, and how to make it smaller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweeper.estimate.stored import device_label, stored_rates
from sweeper.estimate.work import SweepWork, work_of
from sweeper.space.load import from_document
from sweeper.space.space import Space
from trials.data import DataKey
from trials.data_header import DataHeader
from trials.errors import UserError, listed
from trials.running.rates import STEPS, StageKind, measured_on, measured_rates
from trials.storage.place import Place

WORTH = 0.6
"""A smaller sweep is suggested if it takes at most this share of the whole."""


SMALL_EPOCHS, SMALL_HOURS = 100, 0.5
"""Sweeps of less need not be smaller; the hours count where they are known."""


@dataclass(frozen=True)
class Rates:
    """Seconds of an epoch by kind of stage.

    Attributes:
        device: on which; empty without rates.
        origin: where they come from.
        seconds: by kind.
        problems: why some are missing.
    """

    device: str = ""
    origin: str = ""
    seconds: Mapping[StageKind, float] | None = None
    problems: tuple[str, ...] = ()

    def of(self, kind: StageKind) -> float | None:
        """The seconds of an epoch of a kind of stage; episodes of a search take as long as other training there."""
        known = self.seconds or {}
        if kind in known or kind.stage != "regrow":
            return known.get(kind)
        like = (one for one in known if replace(one, method="", stage="") == replace(kind, method="", stage=""))
        return next((known[one] for one in like if one.method in (kind.method, "prune_iterative")), None)


@dataclass(frozen=True)
class Estimate:
    """A sweep's epochs, and its hours as far as rates are known.

    Attributes:
        epochs: all that it trains at most.
        hours: of the epochs with a rate; None if there are none.
        unknown: epochs without a rate.
    """

    epochs: float
    hours: float | None
    unknown: float

    @classmethod
    def of(cls, work: SweepWork, rates: Rates, max_epochs: int | None) -> Estimate:
        """Estimate work; ``max_epochs`` limits what trials train themselves, not the shared trials."""
        shared = sum(work.of_shared.values())
        own = work.total - shared
        share = 1.0 if max_epochs is None or own <= max_epochs else max_epochs / own
        seconds = unknown = 0.0
        for kind, epochs in work.epochs.items():
            counted = work.of_shared[kind] + (epochs - work.of_shared[kind]) * share
            rate = rates.of(kind)
            seconds, unknown = (seconds, unknown + counted) if rate is None else (seconds + rate * counted, unknown)
        known = shared + own * share
        return cls(known, seconds / 3600 if unknown < known else None, unknown)


def estimate_lines(
    space: Space,
    headers: Mapping[DataKey, DataHeader],
    storage: Place,
    *,
    measure: bool = False,
    settable: bool = True,
) -> Iterator[str]:
    """Yield what a checked space trains: one line, then, if need be, lines that say what is not in it.

    Args:
        headers: of the data, by what reads them.
        storage: in which finished trials may say how long epochs take.
        measure: run steps of every kind of stage here instead.
        settable: whether the command takes ``--set``.
    """
    work = work_of(space, headers)
    rates = _measured(work, space, headers) if measure else _stored(work, space, storage)
    whole = Estimate.of(work, rates, space.max_epochs)
    smaller = _smaller(space, headers, rates, whole, settable=settable)
    way = "; --estimate measures the hours" if whole.hours is None and not measure and whole.epochs else ""
    yield f"estimate: {_epochs_text(work, whole, space)}{_hours_text(whole, rates)}{smaller}{way}"
    if work.uncounted:
        yield f"not counted: {listed(work.uncounted)} (nothing says before how long that takes)"
    for problem in rates.problems:
        yield f"not measured: {problem}"


def _epochs_text(work: SweepWork, whole: Estimate, space: Space) -> str:
    reasons = list(work.at_most)
    if space.max_epochs is not None and whole.epochs < work.total:
        reasons.append(f"max_epochs {space.max_epochs:,} ends it")
    shared = f" and {work.shared} shared" if work.shared else ""
    most = f"at most {whole.epochs:,.0f} epochs" if reasons else f"{whole.epochs:,.0f} epochs"
    return f"{most} in {work.trials:,} trials{shared}{f' ({listed(reasons)})' if reasons else ''}"


def _hours_text(whole: Estimate, rates: Rates) -> str:
    if whole.hours is None:
        return ""
    left = f", and {whole.unknown:,.0f} epochs of unknown length" if whole.unknown else ""
    return f"; about {hours_text(whole.hours, rates.device)} on {rates.device} ({rates.origin}){left}"


def hours_text(hours: float, device: str) -> str:
    """Return a time of a device as text, rounded to what an estimate is good for.

    >>> hours_text(412.3, "NVIDIA H100"), hours_text(0.2, "cpu (1 thread)"), hours_text(0.01, "cpu")
    ('410 GPU-hours', '12 CPU-minutes', '36 CPU-seconds')
    """
    unit = "CPU" if device.startswith("cpu") else "GPU"
    if hours < 1 / 30:
        return f"{max(round(hours * 3600), 1)} {unit}-seconds"
    if hours < 1:
        return f"{max(round(hours * 60), 1)} {unit}-minutes"
    digits = f"{hours:.1f}" if hours < 10 else f"{float(f'{hours:.2g}'):,.0f}"
    return f"{digits} {unit}-hours"


def _stored(work: SweepWork, space: Space, storage: Place) -> Rates:
    kinds = [kind for kind, epochs in work.epochs.items() if epochs]
    if not kinds:
        return Rates()
    threads = max(1, int(space.resources.cpu))
    try:
        here = device_label(measured_on(work.examples[kinds[0]]), threads)
    except UserError:
        here = ""
    found = stored_rates(storage, kinds, here)
    if found is None:
        return Rates()
    return Rates(found.device, f"from {found.trials} finished trials of this storage", found.seconds)


def _measured(work: SweepWork, space: Space, headers: Mapping[DataKey, DataHeader]) -> Rates:
    """Measure every kind of stage on the configs that have it; downloads no data."""
    threads = max(1, int(space.resources.cpu))
    seconds: dict[StageKind, float] = {}
    problems: dict[StageKind, str] = {}
    device = ""
    for kind, epochs in work.epochs.items():
        if not epochs or kind in seconds or kind in problems:
            continue
        config = work.examples[kind]
        header = headers.get(config.data_key)
        if header is None or header.fingerprint is None:
            problems[kind] = f"{config.dataset} is not on this machine"
            continue
        try:
            device = device_label(measured_on(config), threads)
            for rate in measured_rates(config, threads):
                if rate.seconds is None:
                    problems.setdefault(rate.kind, rate.problem)
                else:
                    seconds.setdefault(rate.kind, rate.seconds)
        except UserError as error:
            problems[kind] = str(error)
    rates = Rates(device, f"measured here, {STEPS} steps", seconds)
    missing = [
        f"{kind.stage} of {kind.method}: {problem}"
        for kind, problem in problems.items()
        if work.epochs[kind] and rates.of(kind) is None
    ]
    return Rates(device, rates.origin, seconds, tuple(dict.fromkeys(missing)))


def _smaller(
    space: Space, headers: Mapping[DataKey, DataHeader], rates: Rates, whole: Estimate, *, settable: bool
) -> str:
    """Return options that make the sweep smaller, and how small; empty if none does, or it is small already."""
    if whole.epochs < SMALL_EPOCHS if whole.hours is None else whole.hours < SMALL_HOURS:
        return ""
    document, options = space.document(), []
    if space.search and space.pbt is None and space.samples > 1:
        document["samples"] = max(1, space.samples // 4)
        options.append(f"--samples {document['samples']}")
    if settable:
        options += _fewer_seeds(document)
    if not options:
        return ""
    try:
        work = work_of(from_document(document), headers)
    except UserError:
        return ""
    less = Estimate.of(work, rates, space.max_epochs)
    if less.epochs > WORTH * whole.epochs:
        return ""
    size = f"{less.epochs:,.0f} epochs" if less.hours is None else hours_text(less.hours, rates.device)
    return f"; {' '.join(options)}: {size}"


def _fewer_seeds(document: dict[str, Any]) -> Iterator[str]:
    """Yield the options that leave one seed of each list of them, and change the document so."""
    seeds = document["grid"].get("seed")
    if isinstance(seeds, list) and len(seeds) > 1:
        document["grid"]["seed"] = seeds[:1]
        yield f"--set grid.seed=[{seeds[0]}]"
    replicates = (document.get("replicates") or {}).get("values", {})
    for path, values in list(replicates.items()):
        if len(values) > 1:
            replicates[path] = values[:1]
            yield f"--set replicates.values.{path}=[{values[0]}]"
    confirmed = (document.get("confirm") or {}).get("seed", [])
    if len(confirmed) > 1:
        document["confirm"] = {"seed": confirmed[:1]}
        yield f"--set confirm.seed=[{confirmed[0]}]"
