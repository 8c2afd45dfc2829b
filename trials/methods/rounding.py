"""How a density becomes whole units: by this project's rule or as released, and whether that makes a difference.

A config says ``rounding: nearest`` (the default) or ``released``. Released rounding is what every version before the
field computed, so it keeps the names of before. A config with ``nearest`` has another revision if and only if its
budgets differ from those (docs/decisions/015-budgets-are-exact-in-total.md).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

from torch import nn

from trials.config.source_config import HasSource
from trials.errors import UserError
from trials.methods.budgets import Budget
from trials.models import MODELS, without_values
from trials.sparsity import PATTERNS, Count, keep_count, prunable
from trials.sparsity.counts import Density, exact_share

Rounding = Literal["nearest", "released"]

AS_RELEASED: Mapping[str, Any] = {"rounding": "released"}
"""``as_before`` of every config that has the field."""


@dataclass(frozen=True)
class NamedShape:
    """A layer of which a budget is made, with the groups of a convolution."""

    name: str
    shape: tuple[int, ...]
    groups: int = 1


class HasRounding(HasSource):
    """Config of methods that turn a density into numbers of units.

    Attributes:
        rounding: ``nearest`` keeps density x units of the whole network, rounded to the nearest integer (halves to
            even), and divides them among layers by largest remainders. ``released`` rounds as the released code does,
            in each layer by itself, as versions before this field did; results keep their names of then.
    """

    as_before: ClassVar[Mapping[str, Any]] = AS_RELEASED

    rounding: Rounding = "nearest"

    @property
    def released_count(self) -> Count:
        """How the released code rounds."""
        return keep_count

    @property
    def count(self) -> Count | None:
        """How this config rounds; None is this project's rule."""
        return self.released_count if self.rounding == "released" else None

    def share(self, fraction: float) -> Density:
        """1 - ``fraction`` as this config rounds: exact, or in double arithmetic as released."""
        return 1 - exact_share(fraction) if self.rounding == "nearest" else 1 - fraction

    @property
    @abstractmethod
    def decides_budgets(self) -> tuple[Hashable, ...]:
        """Values of the fields, but model, data and rounding, that decide its budgets."""

    @abstractmethod
    def levels_of(self, layers: Sequence[NamedShape]) -> Iterator[Budget]:
        """Yield what each level keeps of these whole layers, of convolutions and Linear.

        Raises:
            UserError: the distribution cannot divide it.
        """

    @property
    def never_differs(self) -> bool:
        """Whether both roundings keep the same units of any network."""
        return False

    @property
    def counts_differ(self) -> bool:
        """Whether the two roundings keep other numbers of units of its model; True where nobody can know."""
        if self.never_differs:
            return False
        one, other = (self.model_copy(update={"rounding": rounding}) for rounding in ("nearest", "released"))
        return self.holds("differ", lambda layers: one._budgets(layers) != other._budgets(layers))

    def holds(self, question: str, answer: Callable[[Sequence[NamedShape]], bool]) -> bool:
        """The answer to a question of its budgets on the layers of its model, asked once; True where nobody can know.

        Nobody can where a file gives the network, or where the data set, and so the classifier, is the user's own.
        """
        data = self.published
        if self.file_starts or data is None:
            return True
        key = (question, type(self), self.decides_budgets, MODELS[self.model], data.num_classes, data.in_channels)
        if key not in _ANSWERS:
            layers = _layers(MODELS[self.model], self.model, data.num_classes, data.in_channels)
            _ANSWERS[key] = layers is None or answer(layers)
        return _ANSWERS[key]

    def _budgets(self, layers: Sequence[NamedShape]) -> list[object]:
        found: list[object] = []
        try:
            found += [(budget.kept, budget.total) for budget in self.levels_of(layers)]
        except UserError:
            found.append("impossible")
        return found

    @property
    def rounds_anew(self) -> bool:
        return self.rounding == "nearest" and self.counts_differ

    @property
    def indifferent(self) -> frozenset[str]:
        return super().indifferent | (frozenset() if self.counts_differ else {"rounding"})


_ANSWERS: dict[Hashable, bool] = {}
"""Answers by all that decides them: configs are named and compared again and again, by the thousand."""


@lru_cache(maxsize=256)
def _layers(
    builder: Callable[..., nn.Module], model: str, num_classes: int, in_channels: int
) -> tuple[NamedShape, ...] | None:
    """The convolutions and Linear layers of a model; None if it cannot be built for such data."""
    try:
        built = without_values(model, num_classes=num_classes, in_channels=in_channels)
    except Exception:  # noqa: BLE001  whatever the model's own code raises; the checks before a run say it
        return None
    modules = dict(built.named_modules())
    names = [(name.removesuffix(".weight"), weight) for name, weight in prunable(built).items()]
    return tuple(NamedShape(name, tuple(w.shape), int(getattr(modules[name], "groups", 1))) for name, w in names)


def with_pattern(layers: Sequence[NamedShape], pattern: str) -> tuple[NamedShape, ...]:
    """The layers that a pattern prunes."""
    return tuple(layer for layer in layers if PATTERNS[pattern].prunes(layer.shape))


def pruned_once(
    layers: Sequence[NamedShape], pattern: str, distribution: str, share: Density, count: Count | None
) -> Iterator[Budget]:
    """Yield the one budget of a method that prunes once; none if the pattern prunes none of the layers."""
    chosen = with_pattern(layers, pattern)
    if chosen:
        yield Budget.dense(chosen, PATTERNS[pattern]).pruned(chosen, distribution, share, count)
