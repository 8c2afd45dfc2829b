"""The page of a field: where fields of that name are, with their defaults, values and meanings."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from sweeper.describe.fields import described_fields
from sweeper.describe.methods import field_row
from sweeper.describe.page import Page, PageTable
from trials.config.trial_config import TrialConfig
from trials.methods.registry import METHODS


def field_pages(name: str, sections: Mapping[str, type[BaseModel]]) -> list[Page]:
    """Return the page of the fields called ``name``, or whose path ends in it; none if no class has one.

    Args:
        sections: classes of a space's sections that hold fields, by section, or by section and the value of its name.
    """
    tables = []
    for section, config in sections.items():
        prefix = f"{section.partition(' ')[0]}."
        rows = [field_row(one) for one in described_fields(config, prefix) if f".{name}." in f".{one.path}."]
        tables += [PageTable(f"in {section}", rows)] if rows else []
    methods: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for method in METHODS:
        own = (one for one in described_fields(METHODS[method].Config) if one.path not in TrialConfig.model_fields)
        rows = [field_row(one) for one in own if f".{one.path}".endswith(f".{name}")]
        if rows:
            methods.setdefault(tuple(rows), []).append(method)
    tables += [PageTable(f"in a trial of {', '.join(names)}", list(found)) for found, names in methods.items()]
    return [Page(f"field {name}", [], tables)] if tables else []
