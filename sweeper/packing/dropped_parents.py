"""Members of a population whose checkpoints were dropped, and which a run needs again."""

from __future__ import annotations

from itertools import chain

from sweeper.folder.forgiving import member
from sweeper.folder.sweep_folder import Record, SweepFolder
from sweeper.space.space import Space
from trials.errors import listed


def dropped_parents(folder: SweepFolder, space: Space) -> list[str]:
    """A line if the next trials of a population would continue checkpoints that ``keep_checkpoints`` has dropped.

    Such a trial trains its whole lineage itself: with the same results, but for longer.
    """
    if space.pbt is None:
        return []
    dropped, needed = set[str](), set[str]()
    last: dict[str, int] = {}
    generations: dict[tuple[str, int], set[str]] = {}
    for name, is_dropped, over, places in chain.from_iterable(folder.each_record(_standing)):
        dropped |= {name} if is_dropped else set()
        for cell, generation, parent in places:
            last[cell] = max(last.get(cell, 0), generation)
            generations.setdefault((cell, generation), set()).add(name)
            needed |= {parent} if parent is not None and not over else set()
    for cell, generation in last.items():
        if (generation + 1) * space.pbt.population < space.samples:
            needed |= generations[cell, generation]
    lost = sorted(dropped & needed)
    if not lost:
        return []
    return [
        f"keep_checkpoints has dropped the checkpoints of {len(lost)} members that others continue ({listed(lost)}): "
        "these train the epochs before anew, with the same results; keep_checkpoints: last_level keeps them"
    ]


def _standing(record: Record) -> list[tuple[str, bool, bool, list[tuple[str, int, str | None]]]]:
    """Of a member its id, whether its checkpoint was dropped, whether it is finished, and its places; else nothing."""
    return [
        (
            one.id,
            one.state is not None and one.state.is_without_checkpoint,
            one.finished,
            [
                (sample.cell, sample.attrs["pbt"]["generation"], sample.attrs["pbt"].get("parent_trial"))
                for sample in one.samples
                if "pbt" in sample.attrs
            ],
        )
        for one in member(record)
    ]
