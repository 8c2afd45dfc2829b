"""What Ray itself says of a small cluster: what is free, what is ours, and that sweeps beside other jobs end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machines import several_machines

TRIAL = {"method": "dense", "dataset": "digits", "model": "tiny", "train": {"epochs": 1}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from sweeper.execution.on_ray import cluster as module

    machines = several_machines({"num_cpus": 2, "include_dashboard": False})
    machines.add_node(num_cpus=2, resources={"license": 3, "accelerator_type:A100": 1}, memory=4e9)
    module.ray.init(address=machines.address, log_to_driver=False, logging_level="ERROR")
    yield module.ray
    module.ray.shutdown()
    machines.shutdown()


def test_our_groups_count_as_ours_and_the_rest_as_other_jobs(cluster: Any) -> None:
    from ray.util import placement_group, remove_placement_group

    from sweeper.execution.on_ray.capacity import Demand, count_capacity

    theirs = placement_group([{"CPU": 1, "license": 2}])
    cluster.get(theirs.ready(), timeout=60)  # before the other, which could take the only machine that has licenses
    mine = placement_group([{"CPU": 1}] * 3)
    cluster.get(mine.ready(), timeout=60)
    one = Demand({"CPU": 1.0}, 3)
    for _ in range(50):  # what is free reaches the head a moment later
        found = count_capacity([{"CPU": 1.0}])
        if not sum(amounts["CPU"] for amounts in found.free.values()):
            break
    assert found.leaves(one)
    assert not found.leaves(Demand({"CPU": 1.0}, 4))
    assert not found.leaves(Demand({"CPU": 1.0, "license": 2.0}))
    assert found.has(Demand({"CPU": 1.0, "license": 1.0, "memory": 4e9, "accelerator_type:A100": 0.001}))
    assert not count_capacity([{"CPU": 1.0}], foreign={mine.id.hex()}).leaves(Demand({"CPU": 1.0}))
    for group in (mine, theirs):
        remove_placement_group(group)


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"accelerator_type": "a100"}, "has such a card (there are A100; Ray knows no a100 (did you mean 'A100'"),
        ({"accelerator_type": "H100"}, "no machine has such a card (there are A100)"),
        ({"custom": {"license": 4}}, "resources are CPU 1, license 4, but no machine has more than CPU 2, license 3"),
        ({"memory": "1TB"}, "but no machine has more than CPU 2, memory "),
    ],
)
def test_what_no_machine_has_is_said_in_one_line(cluster: Any, resources: dict[str, Any], says: str) -> None:
    from sweeper.execution.on_ray.requirements import require_room
    from sweeper.space.load import from_document
    from trials.errors import UserError

    space = from_document({"name": "s", "trial": TRIAL, "grid": {"seed": [0]}, "resources": resources})
    with pytest.raises(UserError) as refused:
        require_room(space, None)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_sweep_with_custom_resources_ends_beside_another_job(
    cluster: Any, tmp_path: Path, few_digits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sweeper

    monkeypatch.chdir(tmp_path)

    @cluster.remote(num_cpus=1, resources={"license": 1})
    class Other:
        def there(self) -> bool:
            return True

    other = Other.remote()
    assert cluster.get(other.there.remote())
    resources = {"memory": "100MB", "accelerator_type": "A100", "custom": {"license": 1}}
    space = {"trial": TRIAL, "grid": {"seed": [0, 1, 2]}, "resources": resources}
    swept = sweeper.run(space, name="small", quiet=True)
    assert swept.trials["status"].tolist() == ["complete"] * 3
    cluster.kill(other)
