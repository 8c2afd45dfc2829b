"""What figures of a report are asked in tests: does Vega compile them, and how large is a picture."""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sweeper.report.figure import Figure
from sweeper.report.packed import rows_for_vega


def compiled(figure: Figure) -> dict[str, Any]:
    """The figure as Vega, drawn once; fails if Vega-Lite has a warning."""
    vl_convert = pytest.importorskip("vl_convert")
    spec = {**figure.spec, "datasets": {"rows": rows_for_vega(figure.rows)}}
    if "vconcat" in spec:
        spec["vconcat"] = [{**view, "width": 300} for view in spec["vconcat"]]
    with warnings_said() as said:
        vega: dict[str, Any] = vl_convert.vegalite_to_vega(spec, "6.4", show_warnings=True)
        assert "<svg" in vl_convert.vegalite_to_svg(spec, "6.4", show_warnings=True)
    assert said == []
    return vega


@contextmanager
def warnings_said() -> Iterator[list[str]]:
    """Collect what is written to the process's standard output and error, also by compiled code."""
    said: list[str] = []
    with tempfile.TemporaryFile("w+") as file:
        before = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield said
        finally:
            for number, own in zip((1, 2), before, strict=True):
                os.dup2(own, number)
                os.close(own)
        file.seek(0)
        said += [line for line in file.read().splitlines() if line]


def shapes_drawn(figure: Figure, kind: str) -> int:
    """How many marks of a kind (symbol, line, rect, text) the picture has."""
    from sweeper.report.saved import picture

    pytest.importorskip("vl_convert")
    return picture(figure, ".svg").decode().count(f'aria-roledescription="{kind}')


def options_of(figure: Figure, parameter: str) -> list[str]:
    """What a menu of the figure offers."""
    found: list[str] = next(p for p in figure.spec["params"] if p["name"] == parameter)["bind"]["options"]
    return found


def marks(found: Any, kind: str) -> Iterator[dict[str, Any]]:
    """All marks of a kind, such as ``symbol``, in Vega's scene graph."""
    for node in found if isinstance(found, list) else found.get("items", []):
        if node.get("marktype") == kind:
            yield from node.get("items", [])
        else:
            yield from marks(node, kind)


def scene(figure: Figure) -> dict[str, Any]:
    """What Vega draws: its scene graph."""
    vl_convert = pytest.importorskip("vl_convert")
    spec = {**figure.spec, "width": 500, "height": 300, "datasets": {"rows": rows_for_vega(figure.rows)}}
    found: dict[str, Any] = vl_convert.vegalite_to_scenegraph(spec, "6.4")["scenegraph"]
    return found


def points_in_scene(found: Any) -> list[dict[str, Any]]:
    """The points that stand for rows, without the legend's."""
    return [item for item in marks(found, "symbol") if item.get("ariaRoleDescription") == "point"]


def texts_in(found: Any) -> list[str]:
    """All texts that are drawn."""
    return [str(item["text"]) for item in marks(found, "text") if "text" in item]


def pixels(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def points_of_pdf(pdf: bytes) -> tuple[float, float]:
    box = re.search(rb"/MediaBox\s*\[\s*0\s+0\s+([\d.]+)\s+([\d.]+)", pdf)
    assert box is not None
    return float(box[1]), float(box[2])


def size_of_svg(svg: bytes) -> tuple[str, str]:
    found = re.search(rb'<svg[^>]*? width="([^"]+)" height="([^"]+)"', svg)
    assert found is not None
    return found[1].decode(), found[2].decode()
