"""What the driver does when devices die: who is refused, who waits, how a sweep without machines ends. Without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.execution.on_ray import tune_searcher, worker
from sweeper.execution.on_ray.placement import Gate, WhenStuck
from sweeper.search.sick_machines import IN_A_ROW
from tests.sweeper.fake_cluster import FakeCluster, Shown, fake_cluster
from tests.sweeper.sweeps import begun, finish, make_space
from trials.errors import DEAD_DEVICE
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import TrialFolder

pytestmark = pytest.mark.fault("machine-sick")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setattr(tune_searcher, "COUNT_EVERY_S", -1.0)
    return fake_cluster(monkeypatch, a=2, b=1)


@pytest.fixture
def asking(tmp_path: Path, cluster: FakeCluster) -> Any:
    plan = begun(make_space(grid={"density": [0.5], "seed": list(range(8))}, retries=0), tmp_path / "sweep")
    return tune_searcher.PlanSearcher(plan, Shown(), Lease(tmp_path / "lock"))  # type: ignore[arg-type]


def on(node: str, **message: Any) -> dict[str, Any]:
    return {"node": node, "machine": f"host-{node}", "card": "0", **message}


def die(asking: Any, name: str, node: str) -> str:
    """A trial is asked for, begins on a machine, and its device dies; returns its id."""
    told = asking.suggest(name)
    assert node not in told["avoid"]
    asking.on_trial_result(name, on(node, alive=True))
    attempt, _ = TrialFolder(asking.folder.trial_folder(told["trial"])).begin()
    attempt.end("failed", error={"type": DEAD_DEVICE, "message": "CUDA error", "traceback": ""})
    asking.on_trial_result(name, on(node, status="failed"))
    asking.on_trial_complete(name, error=True)
    return str(told["trial"])


def test_trials_that_share_a_card_and_die_at_once_bar_no_machine(asking: Any, cluster: FakeCluster) -> None:
    cluster.machines = {"a": 4}
    told = {f"turn{turn}": asking.suggest(f"turn{turn}") for turn in range(4)}
    for name in told:
        asking.on_trial_result(name, on("a", alive=True))
    for name, message in told.items():
        attempt, _ = TrialFolder(asking.folder.trial_folder(message["trial"])).begin()
        attempt.end("failed", error={"type": DEAD_DEVICE, "message": "CUDA error", "traceback": ""})
        asking.on_trial_result(name, on("a", status="failed"))
        asking.on_trial_complete(name, error=True)
    assert not asking.plan.sick.barred
    assert len({asking.suggest(f"again{turn}")["trial"] for turn in range(4)}) == 4


def bar(asking: Any, node: str) -> None:
    for turn in range(IN_A_ROW):
        asking.plan.sick.died(tune_searcher.Card(node, f"host-{node}", "0"), f"other-{turn}")
    asking.say_barred()


def test_a_machine_is_named_once_and_gets_nothing_more(asking: Any) -> None:
    died, held = [], []
    for turn in range(IN_A_ROW):
        died.append(die(asking, f"turn{turn}", "a"))
        if turn < IN_A_ROW - 1:
            held.append(asking.suggest(f"again{turn}"))  # waits for the other machine
            assert (held[-1]["trial"], held[-1]["avoid"]) == (died[-1], ["a"])
    (barred,) = [note for note in asking.display.notes if "gets no more" in note]
    assert barred.startswith("host-a (card 0) gets no more trials: the device died 3 times in a row there")
    for part in ("lose no retry", "nvidia-smi", "the next run of the command tries it again"):
        assert part in barred
    assert sum("tried again" in note for note in asking.display.notes) == IN_A_ROW
    assert asking.suggest("new") is None  # the other machine holds one trial, and two wait for it
    for turn, told in enumerate(held):
        asking.on_trial_result(f"again{turn}", on("b", alive=True))
        finish(asking.plan, told["trial"], lambda _: 0.5)
        asking.on_trial_complete(f"again{turn}")
    last = asking.suggest("last")
    assert (last["trial"], last["avoid"]) == (died[-1], ["a"])
    for trial in died:
        state = TrialFolder(asking.folder.trial_folder(trial)).state()
        assert state is not None
        assert state.failures == 0


def test_trials_that_wait_for_another_machine_leave_room_for_others(asking: Any) -> None:
    assert asking.suggest("long")
    asking.on_trial_result("long", on("b", alive=True))
    die(asking, "t", "a")
    assert asking.suggest("again")["avoid"] == ["a"]  # waits for the other machine, which is taken
    others = [asking.suggest(f"other{n}") for n in range(3)]
    assert all(isinstance(told, dict) for told in others)  # two run, and one waits its turn
    assert asking.suggest("more") is None


def test_a_trial_that_was_asked_for_before_does_not_begin_on_a_barred_machine(asking: Any) -> None:
    told = asking.suggest("t")
    bar(asking, "a")
    gate = Gate(asking)

    class Trial:
        trial_id = "t"

    assert gate.on_trial_result(None, Trial, on("b", note="begins elsewhere")) == "CONTINUE"
    assert gate.on_trial_result(None, Trial, on("a", alive=True)) == "STOP"
    asking.on_trial_complete("t", on("a", alive=True))  # Tune's
    assert TrialFolder(asking.folder.trial_folder(told["trial"])).state() is None
    assert told["trial"] not in asking.plan.running
    again = asking.suggest("again")
    assert (again["trial"], again["avoid"]) == (told["trial"], ["a"])
    assert gate.on_trial_result(None, Trial, on("b", alive=True)) == "CONTINUE"


def test_a_trial_that_runs_on_a_machine_when_it_is_barred_goes_on(asking: Any) -> None:
    asking.suggest("t")
    asking.on_trial_result("t", on("a", alive=True))
    bar(asking, "a")
    assert not asking.refuses("t", on("a", alive=True))


def test_a_process_whose_device_is_dead_gives_its_trial_back(asking: Any) -> None:
    for turn in range(IN_A_ROW):
        assert not asking.plan.sick.barred
        told = asking.suggest(f"t{turn}")
        asking.on_trial_result(f"t{turn}", on("a", alive=True))
        asking.on_trial_result(f"t{turn}", on("a", dead=True))
        asking.on_trial_complete(f"t{turn}", error=True)
        assert TrialFolder(asking.folder.trial_folder(told["trial"])).state() is None
    assert set(asking.plan.sick.barred) == {"a"}
    assert len(asking.display.notes) == 1


@pytest.mark.parametrize("progress", ["nothing", "an epoch", "a result"])
def test_progress_on_a_machine_ends_its_row_of_deaths(asking: Any, cluster: FakeCluster, progress: str) -> None:
    cluster.machines.update(a=8, b=0)
    for turn in range(IN_A_ROW - 1):
        die(asking, f"before{turn}", "a")
    good = asking.suggest("good")
    asking.on_trial_result("good", on("a", alive=True))
    if progress == "an epoch":
        asking.on_trial_result("good", on("a", epoch=1))
    elif progress == "a result":  # rows are sent once a second: a short trial sends none
        finish(asking.plan, good["trial"], lambda _: 0.5)
        asking.on_trial_complete("good")
    for turn in range(IN_A_ROW - 1):
        assert not asking.plan.sick.barred
        die(asking, f"after{turn}", "a")
        if progress == "nothing":
            break
    assert bool(asking.plan.sick.barred) == (progress == "nothing")


def test_the_first_row_of_a_stage_is_no_progress(asking: Any) -> None:
    """It describes the network before anything is trained."""
    for turn in range(IN_A_ROW):
        told = asking.suggest(f"t{turn}")
        asking.on_trial_result(f"t{turn}", on("a", alive=True))
        asking.on_trial_result(f"t{turn}", on("a", epoch=0))
        attempt, _ = TrialFolder(asking.folder.trial_folder(told["trial"])).begin()
        attempt.end("failed", error={"type": DEAD_DEVICE, "message": "CUDA error", "traceback": ""})
        asking.on_trial_complete(f"t{turn}", error=True)
        asking.suggest(f"waits{turn}")
    assert asking.plan.sick.barred


def test_a_sweep_without_machines_ends_and_says_so(asking: Any) -> None:
    for node in "ab":
        bar(asking, node)
    assert asking.suggest("t") == "FINISHED"
    assert asking.plan.over
    assert not asking.plan.complete
    assert [note for note in asking.display.notes if "no machine is left" in note] == [asking.display.notes[-1]]
    assert "the same command resumes" in asking.display.notes[-1]


def test_a_barred_machine_that_left_is_not_the_last_one(asking: Any, cluster: FakeCluster) -> None:
    """Others may still come, as before."""
    bar(asking, "a")
    cluster.machines.clear()
    asking.suggest("t")
    assert not asking.plan.over


def test_a_trial_that_can_be_placed_nowhere_is_taken_back(asking: Any, cluster: FakeCluster) -> None:
    died = die(asking, "t", "a")
    asking.suggest("waits")
    stopper = WhenStuck(asking)
    assert not stopper.stop_all()
    del cluster.machines["b"]
    asking.suggest("other")
    asking.on_trial_result("other", on("a", alive=True))
    assert not stopper.stop_all()  # the other still runs
    finish(asking.plan, asking._trial_of["other"], lambda _: 0.5)
    asking.on_trial_complete("other")
    assert stopper.stop_all()
    assert asking.again
    asking.again = False
    told = [asking.suggest(f"next{n}") for n in range(3)]
    assert died in {one["trial"] for one in told}
    assert {tuple(one["avoid"]) for one in told} == {()}


def test_when_the_last_machine_is_barred_what_waits_for_it_is_taken_back(asking: Any, cluster: FakeCluster) -> None:
    bar(asking, "a")
    asking.suggest("waits")
    del cluster.machines["b"]
    assert WhenStuck(asking).stop_all()
    assert not asking.again
    assert asking.plan.over
    assert not asking.plan.running
    assert not asking.plan.complete


def test_a_process_ends_when_its_device_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(worker.os, "_exit", ended.append)
    monkeypatch.setattr(worker, "this_machine", dict)
    for usable in (True, False):
        monkeypatch.setattr(worker, "run_assigned", lambda *_, usable=usable: usable)
        worker.run_until_notice({})
    assert ended == [143]


def test_machines_to_avoid_are_part_of_what_a_trial_asks_for() -> None:
    told = {"resources": {"CPU": 1.0}, "pieces": 2, "avoid": []}
    free, apart = (
        worker.TrialWorker.default_resource_request({**told, "avoid": nodes}) for nodes in ([], ["0a", "0b"])
    )
    assert free != apart  # so no process that serves the one is used again for the other
    assert apart._kwargs["bundle_label_selector"] == 2 * [{"ray.io/node-id": "!in(0a,0b)"}]
    assert "bundle_label_selector" not in free._kwargs
