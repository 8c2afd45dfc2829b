"""What a trial takes of a machine: as people write it, as Ray counts it, as it is stored."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.space.load import from_document
from sweeper.space.options.resources import amounts_text
from trials.errors import UserError

TRIAL = {"method": "dense", "dataset": "digits", "model": "tiny"}


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        ("8GB", 8 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("512Mi", 2**29),
        ("64k", 64_000),
        ("8e9", 8_000_000_000),
        (5, 5),
        (8e9, 8 * 10**9),
    ],
)
def test_memory_is_bytes_or_text_with_a_unit(written: Any, size_bytes: int) -> None:
    space = from_document({"name": "s", "trial": TRIAL, "resources": {"memory": written}})
    assert space.resources.memory == size_bytes
    assert space.resources.of_ray() == {"CPU": 1, "memory": size_bytes}


def test_what_is_set_comes_back_and_the_rest_is_written_as_before() -> None:
    plain = from_document({"name": "s", "trial": TRIAL})
    assert plain.document()["resources"] == {"cpu": 1, "gpu": 0}
    content = {"cpu": 2, "gpu": 1, "memory": "8GB", "accelerator_type": "H100", "custom": {"license": 0.5}}
    full = from_document({"name": "s", "trial": TRIAL, "resources": content})
    again = from_document({**full.document(), "name": "s"})
    assert again.resources == full.resources
    wanted = full.resources.of_ray()
    assert wanted == {"CPU": 2, "GPU": 1, "memory": 8e9, "license": 0.5, "accelerator_type:H100": 0.001}
    assert amounts_text(wanted) == "CPU 2, GPU 1, memory 8 GB, license 0.5, accelerator_type H100"
    ids = {space.config(space.cells()[0]).id for space in (plain, full)}
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"cpu": 1e-9}, "resources.cpu is 1e-09, but must be greater than or equal to 0.0001"),
        ({"gpu": 1e-9}, "resources.gpu is 1e-09, but must be 0, or at least 0.0001"),
        ({"gpu": 1.0000001}, "resources.gpu is 1.0000001, but must be a whole number"),
        ({"custom": {"TPU": 1.0000001}}, "resources.custom.TPU is 1.0000001, but must be a whole number"),
        ({"memory": "1e400GB"}, "resources.memory is '1e400GB', but must be at most 9223372036854775807 bytes"),
        ({"memory": "9300000TB"}, "resources.memory is '9300000TB', but must be at most 9223372036854775807 bytes"),
        ({"memory": 2**63}, "resources.memory is 9223372036854775808, but must fit in 64 bits"),
        ({"memory": 1e300}, "resources.memory is 1e+300, but must be at most 9223372036854775807 bytes"),
        ({"cpu": float("inf")}, "resources.cpu is inf, but must be finite"),
    ],
)
def test_amounts_that_ray_cannot_count_are_refused_with_the_value_that_was_written(
    resources: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError) as found:
        from_document({"name": "s", "trial": TRIAL, "resources": resources})
    assert str(found.value).startswith(says)


def test_the_smallest_and_the_largest_amounts_are_taken() -> None:
    content = {"cpu": 0.0001, "gpu": 0.33333, "memory": 2**63 - 1}
    resources = from_document({"name": "s", "trial": TRIAL, "resources": content}).resources
    assert (resources.cpu, resources.gpu, resources.memory) == (0.0001, 0.33333, 2**63 - 1)
