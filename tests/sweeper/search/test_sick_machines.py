"""Deaths of devices: which machines get no more trials, which trials have failed, and who loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.search.plan import Assignment, Ending, Plan
from sweeper.search.sick_machines import IN_A_ROW, Card, SickMachines
from tests.sweeper.sweeps import begun, finish, make_space
from trials.errors import DEAD_DEVICE
from trials.running.shared_trials import MOST_FAILURES, shared_by
from trials.storage.trial_folder import State, TrialFolder

pytestmark = pytest.mark.fault("machine-sick")

A, B, C = (Card(node, f"host-{node}", "0") for node in "abc")


def plan_of(path: Path, trials: int, machines: str = "", retries: int = 0) -> Plan:
    plan = begun(make_space(grid={"density": [0.5], "seed": list(range(trials))}, retries=retries), path)
    plan.sick.with_room = lambda: set(machines)
    return plan


def die(plan: Plan, assignment: Assignment, on: Card | None, **error: str) -> Ending:
    """The device dies in a trial, which its worker has committed."""
    attempt, _ = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin()
    told = {"type": DEAD_DEVICE, "message": "CUDA error", "traceback": "in step", **error}
    attempt.end("failed", error=told, failures=attempt.state.failures)
    (ending,) = plan.ended(assignment.trial_id, on)
    return ending


def complete(plan: Plan, assignment: Assignment, card: Card) -> None:
    finish(plan, assignment.trial_id, lambda _: 0.5)
    plan.ended(assignment.trial_id, card)


def taken(plan: Plan) -> Assignment:
    assignment = plan.next()
    assert assignment is not None
    return assignment


def state_of(plan: Plan, assignment: Assignment) -> State:
    state = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).state()
    assert state is not None
    return state


def test_a_sick_machine_is_barred_and_its_trials_lose_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, trials=5, machines="ab")
    for turn in range(IN_A_ROW):
        assert not plan.sick.barred
        assignment = taken(plan) if turn == 0 else next_new(plan)
        ending = die(plan, assignment, A)
        assert (ending.status, ending.again) == ("failed", True)
    assert plan.sick.barred == {"a": A}
    ran = []
    while (assignment := plan.next()) is not None:
        assert assignment.avoid == ("a",)
        complete(plan, assignment, B)
        ran.append(assignment)
    assert plan.complete
    assert (len(ran), plan.failed) == (5, 0)
    assert {state_of(plan, assignment).failures for assignment in ran} == {0}


def next_new(plan: Plan) -> Assignment:
    """The next trial that avoids no machine; those that do wait for another machine."""
    waiting = []
    while (assignment := taken(plan)).avoid:
        waiting.append(assignment.trial_id)
    for trial_id in waiting:
        plan.take_back(trial_id)
    return assignment


def test_the_next_driver_begins_with_trials_that_have_killed_no_device(tmp_path: Path) -> None:
    """Else three bad trials would bar the only machine again before a good one ran."""
    plan = plan_of(tmp_path, trials=6, machines="a")
    bad = [taken(plan) for _ in range(IN_A_ROW)]
    for assignment in bad:
        die(plan, assignment, A)
    assert plan.sick.barred
    again = plan_of(tmp_path, trials=6, machines="a")
    names = [taken(again).trial_id for _ in range(6)]
    assert sorted(names[IN_A_ROW:]) == sorted(assignment.trial_id for assignment in bad)


def test_a_trial_is_tried_again_elsewhere(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, trials=2, machines="ab")
    first = taken(plan)
    assert first.avoid == ()
    die(plan, first, A)
    again = taken(plan)
    assert (again.trial_id, again.avoid) == (first.trial_id, ("a",))
    assert taken(plan).avoid == ()  # others may still run on the machine


def test_without_another_machine_a_trial_is_tried_again_after_the_others(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, trials=3, machines="a")
    first = taken(plan)
    die(plan, first, A)
    others = [taken(plan), taken(plan)]
    assert first.trial_id not in {other.trial_id for other in others}
    assert not plan.complete
    again = taken(plan)
    assert (again.trial_id, again.avoid) == (first.trial_id, ())
    for assignment in (*others, again):
        complete(plan, assignment, A)
    assert plan.complete
    assert plan.failed == 0


@pytest.mark.parametrize("machines", ["a", "ab", "abc"])
def test_a_guilty_trial_fails_after_three_deaths_and_bars_nothing(tmp_path: Path, machines: str) -> None:
    plan = plan_of(tmp_path, trials=4, machines=machines, retries=5)
    guilty = taken(plan).trial_id
    plan.take_back(guilty)
    cards = [card for card in (A, B, C) if card.node in machines]
    died: list[str] = []
    while (assignment := plan.next()) is not None:
        card = next(card for card in cards if card.node not in assignment.avoid)
        if assignment.trial_id == guilty:
            ending = die(plan, assignment, card)
            died.append(card.node)
        else:
            complete(plan, assignment, card)
    assert plan.complete
    assert (len(died), plan.failed) == (IN_A_ROW, 1)
    assert set(died) == set(machines)
    assert not plan.sick.barred
    assert ending.error is not None
    assert ending.error.startswith(f"{DEAD_DEVICE}: CUDA error; ")
    assert all(f"host-{node}" in ending.error for node in machines)
    assert begun(plan.space, tmp_path).complete  # also for the next driver


def test_several_guilty_trials_bar_no_machine_on_which_others_run(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, trials=8, machines="a")
    for number in range(8):
        assignment = taken(plan)
        (complete if number % 2 else die)(plan, assignment, A)  # type: ignore[operator]
    assert not plan.sick.barred


def test_what_a_guilty_trial_did_accuses_no_machine(tmp_path: Path) -> None:
    sick = SickMachines()
    for name in ("guilty", "guilty", "guilty"):
        sick.died(A, name)
    assert sick.is_guilty("guilty")
    for name in ("one", "two"):
        sick.died(A, name)
    assert not sick.barred
    sick.died(A, "three")
    assert sick.barred == {"a": A}


def test_a_card_that_is_dead_before_a_trial_begins_is_counted_without_a_culprit(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, trials=1, machines="a")
    for _ in range(IN_A_ROW):
        assert not plan.sick.barred
        assignment = taken(plan)
        plan.take_back(assignment.trial_id)
        plan.sick.died(A, None)
    assert plan.sick.barred == {"a": A}
    assert TrialFolder(plan.folder.trial_folder(assignment.trial_id)).state() is None


def test_trials_that_die_at_once_are_one_death_of_their_card() -> None:
    """Processes that share a card by CUDA's Multi-Process Service all die of a fault of one of them."""
    sick = SickMachines()
    for name in ("one", "two", "three", "four"):
        sick.began(name, A)
    for name in ("one", "two", "three", "four"):
        sick.died(A, name)
    assert not sick.barred
    for name in ("five", "six"):
        assert not sick.barred
        sick.began(name, A)
        sick.died(A, name, name)
    assert sick.barred == {"a": A}


@pytest.mark.parametrize("at_once", [1, 2, 3, 8])
def test_a_sick_card_that_holds_several_trials_is_barred(at_once: int) -> None:
    """A trial begins whenever another one dies, so that the deaths of those that run always overlap."""
    sick, deaths = SickMachines(), 0
    names = [f"trial{number}" for number in range(99)]
    for name in names[:at_once]:
        sick.began(name, A)
    while not sick.barred:
        sick.died(A, names[deaths])
        sick.began(names[deaths + at_once], A)
        deaths += 1
    assert deaths == (IN_A_ROW - 1) * at_once + 1


def test_cards_of_a_machine_are_counted_apart() -> None:
    """Else the progress on its healthy cards would hide a sick one."""
    sick, other = SickMachines(), Card("a", "host-a", "1")
    for name in ("one", "two", "three"):
        sick.worked(other)
        sick.died(A, name)
    assert sick.barred == {"a": A}
    sick = SickMachines()
    for name in ("one", "two", "three"):
        sick.worked(A)
        sick.died(A, name)
    assert not sick.barred


def test_deaths_on_barred_machines_do_not_count_against_a_trial() -> None:
    sick = SickMachines()
    sick.with_room = lambda: {"a"}
    for name in ("it", "it", "one", "two"):
        sick.died(A, name)
    assert sick.barred
    sick.died(A, "it")
    assert not sick.is_guilty("it")


def test_a_shared_trial_that_kills_devices_fails_once_for_all(tmp_path: Path) -> None:
    space = make_space(grid={"density": [0.5, 0.4, 0.3, 0.2]}, retries=0)  # one dense network for all
    plan = begun(space, tmp_path / "sweep")
    plan.sick.with_room = lambda: {"a"}
    (name,) = (f"{shared}-012345" for shared in shared_by(space.config(plan.cells[0])))
    shared = TrialFolder(plan.folder.stages / name)
    for turn in range(IN_A_ROW):
        attempt, _ = shared.begin()
        attempt.end("failed", error={"type": DEAD_DEVICE, "message": "CUDA error", "traceback": ""})
        assignment = taken(plan)
        assert die(plan, assignment, A, culprit=name).again
        state = shared.state()
        assert state is not None
        assert (state.failures == MOST_FAILURES) == (turn == IN_A_ROW - 1)
    assert not plan.sick.barred
    assert plan.failed == 0


def test_trials_that_need_the_same_shared_trial_avoid_the_machine_where_it_died(tmp_path: Path) -> None:
    space = make_space(grid={"density": [0.5, 0.4]})
    plan = begun(space, tmp_path)
    plan.sick.with_room = lambda: {"a", "b"}
    (shared,) = shared_by(space.config(plan.cells[0]))
    die(plan, taken(plan), A, culprit=f"{shared}-012345")
    assert [taken(plan).avoid, taken(plan).avoid] == [("a",), ("a",)]


def test_once_a_shared_trial_is_complete_nobody_avoids_the_machine_where_it_died(tmp_path: Path) -> None:
    space = make_space(grid={"density": [0.5, 0.4, 0.3]})
    plan = begun(space, tmp_path / "sweep")
    plan.sick.with_room = lambda: {"a", "b"}
    (name,) = (f"{shared}-012345-bf16" for shared in shared_by(space.config(plan.cells[0])))
    die(plan, taken(plan), A, culprit=name)
    assert taken(plan).avoid == ("a",)
    attempt, _ = TrialFolder(plan.folder.stages / name).begin()
    attempt.end("complete")
    assert taken(plan).avoid == ()
    assert not plan.sick.barred


def test_a_piece_that_dies_on_another_machine_accuses_that_machine(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, trials=3, machines="ab")
    for _ in range(IN_A_ROW):
        die(plan, next_new(plan), B, node="a", machine="host-a", card="0")
    assert plan.sick.barred == {"a": A}


def test_an_earlier_death_is_not_counted_again(tmp_path: Path) -> None:
    """An attempt whose process dies before it begins leaves the state of the one before."""
    plan = plan_of(tmp_path, trials=1, machines="a")
    die(plan, taken(plan), A)
    plan.ended(taken(plan).trial_id, A)
    assert not plan.sick.is_guilty(plan.folder.records()[0].id)
    again = plan_of(tmp_path, trials=1, machines="a")  # a new driver knows no sick machine
    assert not again.sick.known
    assert taken(again).avoid == ()
