"""A point of a search and its replicates (``replicates:``)."""

from __future__ import annotations

from dataclasses import dataclass, field

from optuna.trial import TrialState

from sweeper.folder.sweep_folder import Sample
from sweeper.search.outcomes import Outcome


@dataclass
class Point:
    """A point and its replicates, by their place in the space's list.

    Attributes:
        sample: what the study suggested.
        asked: the samples that are scheduled.
        ended: the outcomes of those whose trials have ended.
        dropped: whether the race has dropped it.
        outcome: what the study was told; None as long as it runs.
        epochs: planned epochs of each of its trials, once they have been asked for.
    """

    sample: Sample
    asked: dict[int, Sample] = field(default_factory=dict)
    ended: dict[int, Outcome] = field(default_factory=dict)
    dropped: bool = False
    outcome: Outcome | None = None
    epochs: int | None = None

    @property
    def running(self) -> bool:
        """Whether one of its trials has not ended."""
        return len(self.ended) < len(self.asked)

    @property
    def is_stopped(self) -> bool:
        """Whether the pruner has stopped one of its trials."""
        return any(outcome.state == TrialState.PRUNED for outcome in self.ended.values())

    @property
    def has_failed(self) -> bool:
        """Whether one of its trials has failed."""
        return any(outcome.state == TrialState.FAIL for outcome in self.ended.values())

    @property
    def values(self) -> list[float]:
        """First objective of its complete replicates, in the space's order."""
        return [outcome.values[0] for _, outcome in sorted(self.ended.items()) if outcome.values is not None]

    def forget_curves(self) -> None:
        """Drop what only a pruner looks at, once the point has an outcome and the study was told it."""
        if self.outcome is not None:
            self.outcome = self.outcome.without_curve()
            self.ended = {index: outcome.without_curve() for index, outcome in self.ended.items()}
