"""Fixtures of the trials' tests that the products share."""

from __future__ import annotations

from tests.trials.conftest import few_digits

__all__ = ["few_digits"]
