"""Revisions: what an equal config computes is counted, so that results of before and after a change stay apart.

A revision is 1 until a change of the code alters what an equal config computes. Such a change must raise the revision
of exactly the configs that now compute something else: in ``REVISED`` below, or by the properties ``revision`` and
``revised_because`` of a method's config if only that method computes something else. Revisions other
than 1 are part of a trial's name; a sweep that holds trials of another revision is shown, but nothing more is run in it
(docs/decisions/014-revisions-count-what-a-config-computes.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trials.config.named_objects import outside_revisions


@dataclass(frozen=True)
class Revised:
    """A change of what some configs compute.

    Attributes:
        part: what computes, in one word or two: ``data``, ``sparsity``, ``optimizers``. ``method`` is the method's own.
        number: the revision that the change made, 2 or higher.
        applies: whether a trial's config (a :class:`~trials.config.trial_config.TrialConfig`) computes something else
            since. It is called with configs of every method, so it must also cover what starts from such a trial.
        because: why, as a clause for the message: "its scores were moved by other scores' gradients".
    """

    part: str
    number: int
    applies: Callable[[Any], bool]
    because: str


REVISED: tuple[Revised, ...] = (
    Revised(
        "data",
        2,
        lambda config: config.dataset == "imagenet",
        "its images are turned as their EXIF data say, which its fingerprint, of names and sizes, does not show",
    ),
    Revised(
        "scores",
        2,
        lambda config: config.ranks_units_anew,
        "units of several weights were ranked by norms of their weights' random or LAMP scores, and removed ones could "
        "return",
    ),
    Revised(
        "rounding",
        2,
        lambda config: config.rounds_anew,
        "its budgets are rounded to the nearest unit of the whole network now; with rounding: released (of methods "
        "that regrow: prune.rounding) it goes on as it began",
    ),
)
"""Every change so far of what several methods compute with, oldest first; a config has the highest that applies."""


_RAISED = "the plug-in's own revision was raised"


def revised_parts(config: Any) -> dict[str, Revised]:
    """By part, the last change that applies to a config; parts of revision 1 are left out.

    The method's own revision is the part ``method``; those of plug-ins are named after the fields that name them.
    """
    own = Revised("method", config.revision, lambda _: True, config.revised_because)
    outside = {part: Revised(part, n, lambda _: True, _RAISED) for part, n in outside_revisions(config).items()}
    if own.number != 1 and own.part in outside:  # both count: the class of a plug-in may inherit its config
        outside["plug-in"] = outside.pop(own.part)
    found: dict[str, Revised] = outside if own.number == 1 else {**outside, own.part: own}
    for change in REVISED:
        if change.applies(config) and change.number > (found[change.part].number if change.part in found else 1):
            found[change.part] = change
    return found
