"""Which machines have a sick card, and which trials kill cards: told apart by where the device of a process died.

After a sticky CUDA error (an illegal address, a device-side assert, a lost card) a process is of no more use. Its trial
may be guilty (a label out of range) or merely have met a sick card. So it is tried on another machine, if there is one;
otherwise, after all other trials. A card on which IN_A_ROW different trials died, while none made progress there, is
sick, and its machine gets no more trials. A trial whose device died IN_A_ROW times, not counting sick machines, has
failed. Only the driver that saw it knows this: the next one tries every machine again.

Deaths are in a row only where one trial began after the other's death. Processes that share a card by CUDA's
Multi-Process Service all die of a fault of one of them; together they count as one death of the card.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from trials.errors import DamagedFile
from trials.storage.place import Place
from trials.storage.trial_folder import TrialFolder

IN_A_ROW = 3


@dataclass(frozen=True)
class Card:
    """A card of a machine; without GPUs, the machine.

    Attributes:
        node: Ray's id of the machine.
        machine: its name.
        card: as in CUDA_VISIBLE_DEVICES.
    """

    node: str
    machine: str
    card: str = ""

    @classmethod
    def said_by(cls, message: Mapping[str, str]) -> Card | None:
        """The card that a message or a committed error names."""
        return cls(message["node"], message["machine"], message["card"]) if "node" in message else None


class SickMachines:
    """Counts deaths of devices.

    Attributes:
        barred: the machines that get no more trials: by Ray's id, the card that was found sick.
        reasons: why those are barred that have no sick card: by Ray's id, what they cannot do.
        with_room: returns Ray's ids of the machines that have room for a trial.

    Args:
        stages: where the shared trials are.
    """

    def __init__(self, stages: Place | None = None) -> None:
        self.barred: dict[str, Card] = {}
        self.reasons: dict[str, str] = {}
        self.with_room: Callable[[], Collection[str]] = tuple
        self._in_a_row: dict[Card, list[str]] = {}
        self._died_on: dict[Card, int] = {}
        self._begun: dict[str, tuple[Card, int]] = {}
        """Where a trial runs, and how many deaths had been counted there when it began."""
        self._deaths: dict[str, list[Card | None]] = {}
        self._stages, self._shared = stages, set[str]()
        """Folder names of the shared trials in which a device died."""

    @property
    def known(self) -> bool:
        """Whether any device has died."""
        return bool(self._deaths or self._in_a_row or self.barred)

    def began(self, name: str, card: Card) -> None:
        """A trial began on a card."""
        self._begun[name] = card, self._died_on.get(card, 0)

    def ended(self, name: str, card: Card | None) -> None:
        """An attempt at a trial ended, and no device died in it. ``card``: where the trial finished, if it did."""
        self._begun.pop(name, None)
        if card is not None:
            self.worked(card)

    def worked(self, card: Card) -> None:
        """A trial made progress on a card."""
        self._in_a_row.pop(card, None)

    def take_off(self, card: Card, reason: str) -> None:
        """A machine cannot run any trial, such as one that does not see the storage: it gets no more."""
        if card.node not in self.barred:
            self.barred[card.node] = card
            self.reasons[card.node] = reason

    def died(self, card: Card | None, culprit: str | None, trial: str | None = None, reason: str = "") -> None:
        """A device died: in the trial ``culprit``, or before the process began one. ``trial``: the one that ran, which
        may have computed the shared trial ``culprit``. ``reason``: what happened, if it was no device that died."""
        began = self._begun.pop(trial or culprit or "", None)
        if culprit is not None:
            self._deaths.setdefault(_id(culprit), []).append(card)
            if _id(culprit) != culprit:
                self._shared.add(culprit)
        if card is None:
            return
        before = self._died_on.get(card, 0)
        if began is not None and began[0] == card and began[1] < before:
            return  # it was running when the death before this one happened
        self._died_on[card] = before + 1
        found = self._in_a_row.setdefault(card, [])
        name = f"none {len(found)}" if culprit is None else _id(culprit)
        if name not in found:
            found.append(name)
        if len(found) >= IN_A_ROW and card.node not in self.barred:
            self.barred[card.node] = card
            if reason:
                self.reasons[card.node] = f"could begin none of {IN_A_ROW} trials in a row (last: {reason})"

    def is_guilty(self, culprit: str) -> bool:
        """Whether a trial killed IN_A_ROW devices of machines that are not barred. Then they accuse nothing else."""
        name = _id(culprit)
        cards = [card for card in self._deaths.get(name, ()) if card is None or card.node not in self.barred]
        machines = {card.node for card in cards if card is not None}
        if len(cards) < IN_A_ROW or (len(machines) == 1 and self._others(machines)):
            return False
        for found in self._in_a_row.values():
            if name in found:
                found.remove(name)
        return True

    def hosts(self, culprit: str) -> list[str]:
        """Names of the machines where the device of a trial died."""
        return sorted({card.machine for card in self._deaths.get(_id(culprit), ()) if card is not None})

    def name_of(self, node: str) -> str:
        """The name of a machine that a process has named here; otherwise Ray's id."""
        cards = [
            *self.barred.values(),
            *(card for cards in self._deaths.values() for card in cards if card is not None),
        ]
        return next((card.machine for card in cards if card.node == node), node)

    def why(self, node: str) -> str:
        """One line that says of a barred machine that it gets no more trials, and why."""
        card = self.barred[node]
        again = "the next run of the command tries it again"
        if node in self.reasons:
            lost = "no trial loses a retry by it"
            return f"{card.machine} gets no more trials: it {self.reasons[node]}; {lost}; repair it; {again}"
        which = f" (card {card.card})" if card.card else ""
        return (
            f"{card.machine}{which} gets no more trials: the device died {IN_A_ROW} times in a row there, in different "
            "trials or before they began, which lose no retry by it; repair it (nvidia-smi, dmesg), or start Ray there "
            f"without that card; {again}"
        )

    def is_last(self, node: str) -> bool:
        """Whether no other machine has room that may run trials."""
        return not self._others({node})

    def may_go_elsewhere(self, *names: str) -> bool:
        """Whether a machine with room is left on which no device died of these trials: a trial and those it needs."""
        self._acquit()
        return bool(self._others(self._died_in(names)))

    def avoided_by(self, *names: str) -> tuple[str, ...]:
        """The machines that may not run a trial; ``names``: its own, and those of the shared trials that it needs."""
        self._acquit()
        died_in = self._died_in(names)
        avoided = died_in if died_in and self._others(died_in) else set[str]()
        return tuple(sorted(avoided | set(self.barred)))

    def excuse(self, *names: str) -> None:
        """Let a trial run again where its device died, since no other machine has room for it."""
        for name in {_id(name) for name in names} & set(self._deaths):
            self._deaths[name] = [None for _ in self._deaths[name]]

    def _acquit(self) -> None:
        """Forget the deaths in shared trials that are complete by now: who needs them need avoid no machine."""
        stages = self._stages
        if stages is None:
            return
        for name in sorted(self._shared):
            with suppress(DamagedFile):
                state = TrialFolder(stages / name).state()
                if state is not None and state.finished:
                    self._shared.remove(name)
                    self._deaths.pop(_id(name), None)

    def _died_in(self, names: Collection[str]) -> set[str]:
        return {card.node for name in names for card in self._deaths.get(_id(name), ()) if card is not None}

    def _others(self, machines: Collection[str]) -> set[str]:
        """Machines with room, without these and the barred ones."""
        return set(self.with_room()) - set(machines) - set(self.barred)


def _id(name: str) -> str:
    """The id of a trial, also from the name of a shared trial's folder, which adds digits of its data's fingerprint."""
    return "-".join(name.split("-")[:2])
