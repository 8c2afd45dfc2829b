"""Fresh values with which the best sample of a cell runs again once its search has ended (``confirm:``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.space.values import mapping, scalars
from trials.errors import UserError, shown, unknown_name
from trials.frozen import Frozen


class Confirm(Frozen):
    """The values of the trials that confirm a cell's best sample; only their results are the cell's figure.

    Attributes:
        seed: seeds of these trials, none of which the search has used.
    """

    seed: tuple[int, ...]

    def points(self) -> list[dict[str, int]]:
        """Return what each confirmation sets in the best sample's config, by dotted path."""
        return [{"seed": seed} for seed in self.seed]

    def document(self) -> dict[str, Any]:
        """Return the section in the form of a space file."""
        return {"seed": list(self.seed)}


def read_confirm(content: object) -> Confirm | None:
    """Parse ``confirm``; null means that nothing is confirmed.

    Raises:
        UserError: it is not a mapping of ``seed`` to a list of distinct seeds.
    """
    if content is None or isinstance(content, Confirm):
        return content
    if not isinstance(content, Mapping):
        raise UserError(f"confirm is {shown(content)}, but must be a mapping such as {{seed: [1, 2, 3]}}")
    return Confirm(seed=_read_seeds(mapping(content, "confirm")))


def _read_seeds(content: Mapping[str, Any]) -> tuple[int, ...]:
    for path in content:
        if path != "seed":
            raise UserError(
                f"{unknown_name('confirm: key', path, ['seed'])}: a confirmation repeats the best sample with another "
                "seed and changes nothing else"
            )
    if "seed" not in content:
        raise UserError("confirm.seed is missing: write confirm: {seed: [1, 2, 3]}, or remove confirm")
    seeds = scalars(content["seed"], "confirm.seed")
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise UserError(f"confirm.seed has {shown(seed)}, but seeds must be whole numbers of at least 0")
    return tuple(seed for seed in seeds if isinstance(seed, int))
