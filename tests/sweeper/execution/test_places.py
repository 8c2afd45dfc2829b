"""Who has a place on the cluster and who waits: whole trials, other jobs, retries after out of memory. Without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.execution.on_ray import tune_searcher
from sweeper.execution.on_ray.capacity import Capacity, Demand
from sweeper.execution.on_ray.placement import WhenStuck
from sweeper.space.load import from_document
from tests.sweeper.fake_cluster import FakeCluster, Shown, fake_cluster, later
from tests.sweeper.sweeps import begun
from trials.errors import OUT_OF_MEMORY
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import TrialFolder

TRIAL = {"method": "regrow", "dataset": "digits", "model": "tiny", "pretrain": {"epochs": 1}, "finetune": None}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setattr(tune_searcher, "COUNT_EVERY_S", -1.0)
    return fake_cluster(monkeypatch, a=8)


def asking(tmp_path: Path, pieces: int | list[int] = 4, **resources: Any) -> Any:
    """A sweep of 8 trials, each of which runs so many pieces at once."""
    each = [pieces] if isinstance(pieces, int) else pieces
    grid = {"controller.episodes_in_flight": each, "seed": list(range(8 // len(each)))}
    space = from_document({"name": "sweep", "trial": TRIAL, "grid": grid, "resources": resources})
    plan = begun(space, tmp_path / "sweep")
    return tune_searcher.PlanSearcher(plan, Shown(), Lease(tmp_path / "lock"))  # type: ignore[arg-type]


def asked(searcher: Any, most: int = 20) -> list[dict[str, Any]]:
    told = (searcher.suggest(f"t{number}") for number in range(most))
    found = []
    for message in told:
        if not isinstance(message, dict):
            break
        found.append(message)
    return found


def begin(searcher: Any, name: str, node: str) -> None:
    searcher.on_trial_result(name, {"node": node, "machine": f"host-{node}", "card": "", "alive": True})


def test_a_trial_of_four_pieces_counts_as_four(tmp_path: Path, cluster: FakeCluster) -> None:
    assert len(asked(asking(tmp_path))) == 2 + 1


def test_pieces_of_a_trial_may_lie_on_several_machines(tmp_path: Path, cluster: FakeCluster) -> None:
    cluster.machines = {"a": 3, "b": 3, "c": 2}
    assert len(asked(asking(tmp_path))) == 2 + 1


def test_trials_of_different_numbers_of_pieces_count_as_what_they_ask(tmp_path: Path, cluster: FakeCluster) -> None:
    told = asked(asking(tmp_path, [1, 4]))
    pieces = [message["pieces"] for message in told]
    assert sum(pieces[:-1]) <= 8 < sum(pieces)


def test_what_other_jobs_hold_is_not_ours(tmp_path: Path, cluster: FakeCluster) -> None:
    cluster.others = {"a": {"CPU": 4}}
    searcher = asking(tmp_path)
    assert len(asked(searcher)) == 1 + 1
    cluster.others = {}
    assert len([m for m in (searcher.suggest(f"later{n}") for n in range(4)) if isinstance(m, dict)]) == 1


def run_out_of_memory(searcher: Any, name: str, told: dict[str, Any]) -> None:
    attempt, _ = TrialFolder(searcher.folder.trial_folder(told["trial"])).begin()
    attempt.end("failed", error={"type": OUT_OF_MEMORY, "message": "", "traceback": ""})
    searcher.on_trial_complete(name)


@pytest.mark.parametrize(
    ("machines", "others", "gpu", "pieces", "each"),
    [
        ({"a": {"CPU": 8, "GPU": 4}}, {}, 0.25, 4, {"CPU": 1, "GPU": 1}),  # a card for each piece
        ({"a": {"CPU": 8, "GPU": 1}, "b": {"CPU": 8, "GPU": 1}}, {}, 0.25, 2, {"CPU": 1, "GPU": 1}),
        ({"a": {"CPU": 8, "GPU": 1}}, {}, 0.25, 1, {"CPU": 1, "GPU": 1}),  # one piece after another
        ({"a": {"CPU": 8, "GPU": 4}}, {"a": {"GPU": 2}}, 0.25, 2, {"CPU": 1, "GPU": 1}),
        ({"a": 8}, {}, 0, 1, {"CPU": 8}),
        ({"a": 8, "b": 8, "c": 4}, {}, 0, 2, {"CPU": 8}),
        ({"a": 8, "b": 4}, {"a": {"CPU": 2}}, 0, 1, {"CPU": 4}),  # the machine that others leave alone
        ({"a": 8}, {"a": {"CPU": 2}}, 0, 1, {"CPU": 6}),
    ],
)
def test_a_retry_asks_for_as_much_as_can_exist(
    tmp_path: Path,
    cluster: FakeCluster,
    machines: dict[str, Any],
    others: dict[str, Any],
    gpu: float,
    pieces: int,
    each: dict[str, float],
) -> None:
    cluster.machines, cluster.others = machines, others
    searcher = asking(tmp_path, gpu=gpu)
    told = searcher.suggest("t")
    assert told["pieces"] == 4
    begin(searcher, "t", "a")
    run_out_of_memory(searcher, "t", told)
    again = searcher.suggest("again")
    assert (again["trial"], again["alone"]) == (told["trial"], True)
    assert (again["pieces"], again["resources"]) == (pieces, each)
    whole = cluster.count()
    assert whole.leaves(Demand.of(again))


def notes_of_waiting(searcher: Any) -> list[str]:
    searcher.suggest("another")
    return [note for note in searcher.display.notes if "has waited" in note]


WAITS = {
    "no machine has that": ({"a": {"CPU": 8}}, {}, ()),
    "the machines together have less": ({"a": {"CPU": 8, "GPU": 2}}, {}, ()),
    "the machines that have it may not run this trial (host-a)": ({"a": {"CPU": 8, "GPU": 4}, "b": 8}, {}, ("a",)),
    "other jobs of the cluster hold the rest": ({"a": {"CPU": 8, "GPU": 4}}, {"a": {"GPU": 3}}, ()),
    "there is room, but Ray has not started": ({"a": {"CPU": 8, "GPU": 4}}, {}, ()),
}


@pytest.mark.parametrize("why", WAITS)
def test_no_trial_waits_without_a_word(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    machines, others, off = WAITS[why]
    cluster.machines = {"a": {"CPU": 8, "GPU": 4}}
    searcher = asking(tmp_path, gpu=1)
    told = searcher.suggest("t")
    cluster.machines, cluster.others = machines, others
    for node in off:
        searcher.plan.sick.take_off(tune_searcher.Card(node, f"host-{node}"), "does not see the storage")
        monkeypatch.setattr(searcher.places, "only_barred", lambda: False)
    assert notes_of_waiting(searcher) == []
    later(monkeypatch, 61)
    (note,) = notes_of_waiting(searcher)
    assert note.startswith(
        f"{told['trial']} has waited 60 s for a place: it asks for 4 times CPU 1, GPU 1 (one for each"
    )
    assert why in note
    assert "free" in note
    later(monkeypatch, 61)
    assert notes_of_waiting(searcher) == [note]  # once
    cluster.machines = {"z": {"CPU": 1}}
    first, second = notes_of_waiting(searcher)  # and again when it changes
    assert first == note
    assert "1 machine has CPU 1, GPU 0" in second


def test_the_trial_that_waits_its_turn_is_not_spoken_of(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = asking(tmp_path)
    for number, _ in enumerate(asked(searcher)[:2]):
        begin(searcher, f"t{number}", "a")
    later(monkeypatch, 61)
    assert notes_of_waiting(searcher) == []


def end_at_once(searcher: Any, name: str) -> None:
    """Complete a trial as its worker would."""
    folder = TrialFolder(searcher.folder.trial_folder(searcher._trial_of[name]))
    folder.begin()[0].end("complete", result={"val_accuracy": 0.5})
    searcher.on_trial_complete(name)


def test_the_next_trial_of_long_ones_is_not_spoken_of_when_its_turn_comes(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has waited for long, but there has been room for it only just now."""
    searcher = asking(tmp_path)
    assert len(asked(searcher)) == 3
    for number in range(2):
        begin(searcher, f"t{number}", "a")
    later(monkeypatch, 300)
    assert notes_of_waiting(searcher) == []
    end_at_once(searcher, "t0")
    assert notes_of_waiting(searcher) == []
    begin(searcher, "t2", "a")
    later(monkeypatch, 300)
    assert notes_of_waiting(searcher) == []
    end_at_once(searcher, "t1")
    assert notes_of_waiting(searcher) == []
    later(monkeypatch, 61)
    (note,) = notes_of_waiting(searcher)
    assert "there is room, but Ray has not started its process yet" in note


def test_other_jobs_that_come_and_go_are_said_once(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = asking(tmp_path)
    searcher.suggest("t")
    later(monkeypatch, 61)
    for cores in (7, 0, 7, 0, 7):
        cluster.others = {"a": {"CPU": cores}}
        notes = notes_of_waiting(searcher)
    assert len(notes) == 1
    assert "other jobs of the cluster hold the rest" in notes[0]


FRACTIONS = [
    *((8.0, 0.6, 8), (8.0, 0.51, 8), (4.0, 0.4, 8), (8.0, 0.3, 24), (8.0, 0.25, 32), (1.0, 0.1, 10), (0.7, 0.6, 1)),
    *((2.5, 0.5, 5), (7.4, 0.6, 7), (3.0, 1.0, 3), (3.0, 2.0, 1), (0.0, 0.5, 0), (1.0, 1 / 3, 3)),
]


@pytest.mark.parametrize(("cards", "amount", "holds"), FRACTIONS)
@pytest.mark.parametrize("name", ["GPU", "TPU"])
def test_a_share_of_a_card_lies_on_one_card(name: str, cards: float, amount: float, holds: int) -> None:
    machines = {"a": {"CPU": 1000.0, name: cards}}
    capacity = Capacity(machines, machines, machines)
    one, several = Demand({"CPU": 1.0, name: amount}), Demand({"CPU": 2.0, name: amount})
    assert sum(capacity.machines_for(one.each).values()) == holds
    for requests in ([(one, None)] * 40, [((one, several)[i % 2], None) for i in range(40)]):
        assert len(requests) - len(capacity.without_place(requests)) == holds
    assert capacity.has(Demand(one.each, holds)) or not holds
    assert not capacity.has(Demand(one.each, holds + 1))


def test_as_many_trials_are_asked_for_as_cards_hold_shares(tmp_path: Path, cluster: FakeCluster) -> None:
    cluster.machines = {"a": {"CPU": 64, "GPU": 4}}
    assert len(asked(asking(tmp_path, 1, gpu=0.6))) == 4 + 1


def test_a_retry_that_cards_cannot_hold_lets_others_run(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other jobs hold half of each card, so no card is whole, although together they leave one."""
    cluster.machines, cluster.others = {"a": {"CPU": 64, "GPU": 2}}, {"a": {"GPU": 1.0}}
    searcher = asking(tmp_path, 1, gpu=0.25)
    told = searcher.suggest("t")
    begin(searcher, "t", "a")
    run_out_of_memory(searcher, "t", told)
    assert searcher.suggest("again")["resources"]["GPU"] == 1.0
    later(monkeypatch, 61)
    assert isinstance(searcher.suggest("more"), dict)


def test_a_process_that_gave_its_trial_back_and_hangs_is_killed_without_a_failure(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = asking(tmp_path, 1)
    told = searcher.suggest("t")
    begin(searcher, "t", "a")
    searcher.on_trial_result("t", {"node": "a", "machine": "host-a", "card": "", "dead": True})
    later(monkeypatch, 4000)
    assert searcher.silent() == ["t"]
    assert TrialFolder(searcher.folder.trial_folder(told["trial"])).state() is None


def test_a_retry_gets_its_machine_although_others_could_run(tmp_path: Path, cluster: FakeCluster) -> None:
    searcher = asking(tmp_path, 1)
    told = asked(searcher)
    for number in range(8):
        begin(searcher, f"t{number}", "a")
    run_out_of_memory(searcher, "t0", told[0])
    assert len(told) == 8
    again = searcher.suggest("again")
    assert again["resources"] == {"CPU": 8}
    assert searcher.suggest("more") in (None, "FINISHED")


def test_a_retry_that_asks_for_a_machine_that_left_is_asked_for_anew(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = asking(tmp_path)
    told = searcher.suggest("t")
    begin(searcher, "t", "a")
    run_out_of_memory(searcher, "t", told)
    assert searcher.suggest("again")["resources"] == {"CPU": 8}
    cluster.machines = {"b": 4}
    stopper = WhenStuck(searcher)
    assert not stopper.stop_all()
    later(monkeypatch, 61)
    assert stopper.stop_all()
    assert searcher.again
    again = [searcher.suggest(f"new{n}") for n in range(2)]
    assert {"CPU": 4} in [message["resources"] for message in again if isinstance(message, dict)]


def test_bundles_are_packed_as_ray_packs_them() -> None:
    machines = {"a": {"CPU": 4.0, "GPU": 1.0}, "b": {"CPU": 2.0}}
    capacity = Capacity(machines, machines, machines)
    small, large, card = Demand({"CPU": 1.0}, 2), Demand({"CPU": 1.0}, 4), Demand({"CPU": 1.0, "GPU": 1.0})
    assert capacity.without_place([(small, None), (large, None)]) == []
    assert capacity.without_place([(large, "b"), (small, None), (card, None)]) == [2]
    assert capacity.without_place([(card, None), (small, None), (small, None), (small, None)]) == [3]
    assert not capacity.has(Demand({"CPU": 1.0}, 4, avoid=("a",)))


@pytest.mark.parametrize("message", [{"blind": "host-a"}, {"unfit": "cannot run the sweep's plug-ins (no module x)"}])
def test_a_machine_that_can_run_no_trial_is_taken_off_at_once(
    tmp_path: Path, cluster: FakeCluster, message: dict[str, str]
) -> None:
    cluster.machines = {"a": 1, "b": 1}
    searcher = asking(tmp_path, 1)
    told = searcher.suggest("t")
    searcher.on_trial_result("t", {"node": "a", "machine": "host-a", "card": "", **message})
    searcher.on_trial_complete("t")
    (note,) = searcher.display.notes
    assert note.startswith("host-a gets no more trials: it ")
    assert "no trial loses a retry" in note
    assert "the next run of the command tries it again" in note
    assert TrialFolder(searcher.folder.trial_folder(told["trial"])).state() is None
    assert all(again["avoid"] == ["a"] for again in asked(searcher))
    searcher.on_trial_result("t0", {"node": "b", "machine": "host-b", "card": "", **message})
    searcher.on_trial_complete("t0")
    assert searcher.suggest("last") is None
    assert "no machine is left" in searcher.display.notes[-1]
    assert WhenStuck(searcher).stop_all()  # takes back the one that waited its turn
    assert searcher.plan.over
    assert len(searcher.display.notes) == 3


def test_a_trial_that_cannot_begin_somewhere_goes_elsewhere_and_fails_where_it_is_the_last(
    tmp_path: Path, cluster: FakeCluster
) -> None:
    cluster.machines = {"a": 4, "b": 4}
    searcher = asking(tmp_path, 1)
    told = searcher.suggest("t")
    wrong = {"cannot": ["ModuleNotFoundError", "No module named 'x'", "Traceback"], "card": ""}
    folder = TrialFolder(searcher.folder.trial_folder(told["trial"]))
    searcher.on_trial_result("t", {"node": "a", "machine": "host-a", **wrong})
    searcher.on_trial_complete("t")
    assert folder.state() is None
    again = next(message for message in asked(searcher) if message["trial"] == told["trial"])
    assert again["avoid"] == ["a"]
    name = next(name for name, mine in searcher._trial_of.items() if mine == told["trial"])
    searcher.on_trial_result(name, {"node": "b", "machine": "host-b", **wrong})
    searcher.on_trial_complete(name)
    state = folder.state()
    assert state is not None
    assert (state.status, state.failures, (state.error or {})["type"]) == ("failed", 1, "ModuleNotFoundError")
    assert not searcher.plan.sick.barred
