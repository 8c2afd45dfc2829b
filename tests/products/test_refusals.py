"""The models that refusals.json lists for a method are those that the method's checks refuse."""

from __future__ import annotations

import pytest

from sweeper.describe.refusals import checked, refused_by
from trials.methods.registry import METHODS
from trials.models import MODELS

pytestmark = pytest.mark.products


@pytest.mark.parametrize("method", METHODS)
def test_refusals_are_those_of_the_checks(method: str) -> None:
    assert checked(method, MODELS) == refused_by(method)
