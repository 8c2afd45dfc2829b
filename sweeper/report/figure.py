"""What a figure of a report is: its marks, its rows and its words, without any drawing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Figure:
    """A figure in Vega-Lite's grammar. The page draws it in the browser; ``--figure`` writes it as PNG, SVG or PDF.

    Attributes:
        name: as ``--figure`` takes it, such as ``accuracy_density``.
        title: the section's heading.
        text: what the figure shows, in words and numbers: the alternative text for readers who do not see it.
        spec: the Vega-Lite specification without data, sizes of text and colours of a theme. It reads the rows from
            the data source ``rows``: ``{"data": {"name": "rows"}}``.
        rows: what is drawn, and what the figure offers as CSV. A column per field, with its unit in the name.
        notes: lines below the figure: what was left out, what was thinned and to how many points.
        digits: significant digits of the numbers in the page; None keeps all of them.
        canvas: draw pixels instead of SVG, for figures of more than a few thousand marks.
    """

    name: str
    title: str
    text: str
    spec: Mapping[str, Any]
    rows: pd.DataFrame
    notes: tuple[str, ...] = field(default=())
    digits: int | None = None
    canvas: bool = False
